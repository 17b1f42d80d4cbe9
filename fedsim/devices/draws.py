"""The draws of a population: addressed by blocks of clients, chosen by share, all at once."""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.devices.availability import BLOCK
from fedsim.devices.presets import Recipe
from fedsim.errors import ProfileError, message
from fedsim.rng import stream


def draws(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return uniforms (2, n) for device and network, and normals (4, n) for speed, down, up, round trip.

    One generator a block of clients, always drawn in full: client i does not depend on n, and a
    change of one law leaves the draws of the others as they were.
    """
    chance, z = np.empty((2, n)), np.empty((4, n))
    for block, first in enumerate(range(0, n, BLOCK)):
        rng = stream(seed, "population", block)
        size = min(BLOCK, n - first)
        chance[:, first : first + size] = rng.random((2, BLOCK))[:, :size]
        z[:, first : first + size] = rng.standard_normal((4, BLOCK))[:, :size]
    return chance, z


def choose(weight: Floats, chance: Floats) -> Ints:
    """Return a row for each chance in [0, 1); rows of weight 0 never come up."""
    cumulated = np.cumsum(weight)
    return np.searchsorted(cumulated / cumulated[-1], chance, side="right")


def nearest_row(speed: Floats, allowed: Ints, wanted: Floats) -> Ints:
    """Return, for each wanted speed, the allowed row whose own speed is nearest in ratio."""
    order = allowed[np.argsort(speed[allowed], kind="stable")]
    between = np.sqrt(speed[order[1:]] * speed[order[:-1]])
    return order[np.searchsorted(between, wanted)]


def network_weights(recipe: Recipe, *, wifi_only: bool) -> tuple[Floats, Floats]:
    """Return the weights of the networks for devices that may be on a cellular one, and for the others.

    The shares of the table are those of the whole population. Devices without a modem take none of
    the cellular share, so those with one take more of it: over all clients the table's shares come out
    (as far as there are enough of them).
    """
    nets, weight = recipe.networks, recipe.network_weight / recipe.network_weight.sum()
    fixed = np.where(nets.cellular, 0.0, weight)
    mobile_devices = recipe.device_weight[recipe.devices.cellular].sum() / recipe.device_weight.sum()
    if fixed.sum() == 0:
        if wifi_only or mobile_devices < 1:
            where = f"{nets.shares.where}: access"
            what = "every network is cellular, but some clients must be on Wi-Fi"
            raise ProfileError(message(where, what, fix="add a row with access wifi, or wifi_only: false"))
        return weight, weight
    if wifi_only or mobile_devices == 0 or fixed.sum() == 1:
        return fixed, fixed
    cellular = min(1.0, (1 - fixed.sum()) / mobile_devices)
    share = np.where(
        nets.cellular, weight / (1 - fixed.sum()) * cellular, fixed / fixed.sum() * (1 - cellular)
    )
    return share, fixed
