"""Half the squared distance to an optimum: the clients' optima, and gradient descent in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsim.config.learning import LocalConfig
from fedsim.errors import ExperimentError, message
from fedsim.rng import stream

KEPT_NUMBERS = 2**22
"""Optima of so many numbers in all (32 MiB) are kept; those of more are drawn again whenever they are needed."""
PIECE_NUMBERS = 2**18
"""So many are drawn in one piece where all are looked at."""


@dataclass(frozen=True)
class Optima:
    """The clients' optima c_k, each drawn by an address of its own.

    Attributes:
        seed: of the draws.
        clients: how many there are.
        middle: around which they lie, shape (size,).
        spread: root mean square distance between two of them.
    """

    seed: int
    clients: int
    middle: NDArray[np.float64]
    spread: float

    @cached_property
    def all(self) -> NDArray[np.float64]:
        """All of them, shape (clients, size)."""
        return self._drawn(0, self.clients)

    def of(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return those of the clients from `start` to before `stop`, shape (stop - start, size)."""
        if self.clients * self.middle.size <= KEPT_NUMBERS:
            return self.all[start:stop]
        return self._drawn(start, stop)

    def _drawn(self, start: int, stop: int) -> NDArray[np.float64]:
        optima = np.empty((stop - start, self.middle.size))
        for k in range(start, stop):
            optima[k - start] = stream(self.seed, "optimum", k).standard_normal(self.middle.size)
        # two draws with deviation s/sqrt(2 size) are s apart in the root mean square
        optima *= self.spread / math.sqrt(2 * self.middle.size)
        optima += self.middle
        return optima

    @cached_property
    def least_loss(self) -> float:
        """The least mean objective that a single vector can reach: half the mean squared distance to the mean."""
        total, square = np.zeros_like(self.middle), 0.0
        rows = max(1, PIECE_NUMBERS // self.middle.size)
        for at in range(0, self.clients, rows):
            noise = self.of(at, min(at + rows, self.clients)) - self.middle
            total += np.sum(noise, axis=0)
            square += float(np.sum(noise * noise))
        mean = total / self.clients
        return max(0.0, 0.5 * (square / self.clients - float(np.sum(mean * mean))))


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


def refuse_other_training(local: LocalConfig) -> None:
    """Refuse what has no closed form.

    Raises:
        ExperimentError: it is more than plain SGD.
    """
    if local.optimizer != "sgd":
        raise ExperimentError(
            message(
                "local.optimizer",
                "the quadratic task has a closed form for sgd only",
                got=local.optimizer,
                fix="local: {optimizer: sgd, lr: 0.1}",
            )
        )
    for name, value, off in (("momentum", local.momentum, 0.0), ("clip_norm", local.clip_norm, None)):
        if value != off:
            raise ExperimentError(
                message(
                    f"local.{name}",
                    "the quadratic task has a closed form for plain sgd only",
                    got=value,
                    fix=f"leave local.{name} out",
                )
            )
