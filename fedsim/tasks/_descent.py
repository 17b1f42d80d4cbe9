"""Gradient descent on half the squared distance to an optimum, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsim.config.learning import LocalConfig


def descend(
    start: NDArray[np.float64],
    optimum: NDArray[np.float64],
    local: LocalConfig,
    steps: int,
    *,
    centre: NDArray[np.float64] | None = None,
    still: float = 0.0,
) -> tuple[NDArray[np.float64], float, float]:
    """Return where gradient descent ends, and the mean objective before each step, and that of its square.

    With a proximal term mu/2 |x - z|^2 (FedProx, arXiv 1812.06127; z is the start, or another `centre` as in
    Ditto) and weight decay w/2 |x|^2 the point it is drawn to is x* = (c + mu z) / (1 + mu + w), and
    x_s = x* + (1 - eta (1 + mu + w))^s (start - x*); the product of the steps' factors stands for the power. `still` is what frozen numbers add to the objective.
    """
    curvature = 1.0 + local.prox_mu + local.weight_decay
    target = (optimum + local.prox_mu * (start if centre is None else centre)) / curvature
    with np.errstate(over="ignore", invalid="ignore"):  # a learning rate above 2 diverges: to inf, as SGD
        shares = np.array([local.lr_share(t, steps) for t in range(steps)])
        factors = np.cumprod(
            [1.0, *(1.0 - local.lr * curvature * shares)]
        )  # a power's last bit hangs on AVX-512
        power, powers = factors[-1], factors[:-1]
        end = target + power * (start - target)
        bias, swing = target - optimum, start - target
        # np.sum, not BLAS: a dot product's last bit depends on the number of threads
        cross, square = np.sum(bias * swing), np.sum(swing * swing)
        losses = still + 0.5 * (np.sum(bias * bias) + 2.0 * powers * cross + powers**2 * square)
        return end, float(np.mean(losses)), float(np.mean(losses**2))
