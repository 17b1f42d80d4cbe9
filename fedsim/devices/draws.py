"""The draws of a population: addressed by blocks of clients, chosen by share, all at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.devices.availability import BLOCK
from fedsim.devices.groups.shared_links import Groups, shared_links
from fedsim.devices.presets import Recipe
from fedsim.elementary import exp
from fedsim.errors import ProfileError, message
from fedsim.network.base import Direction
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.config.network import SharedLinks


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


def device_rows(recipe: Recipe, chance: Floats, *, exact: bool) -> Ints:
    """Return the row of each client's device, (n,): by chance, or with exact shares, of a region down its groups."""
    if not exact:
        return choose(recipe.device_weight, chance)
    if recipe.device_groups:
        return allot_down(recipe.device_weight, chance, recipe.device_groups)
    return allot(recipe.device_weight, chance, recipe.devices.tier)


def choose(weight: Floats, chance: Floats) -> Ints:
    """Return a row for each chance in [0, 1); rows of weight 0 never come up."""
    cumulated = np.cumsum(weight)
    return np.searchsorted(cumulated / cumulated[-1], chance, side="right")


def allot(weight: Floats, chance: Floats, groups: Names | None = None) -> Ints:
    """Return a row for each chance so that rows have their exact shares; the chances only say who gets which.

    Args:
        weight: one a row; only ratios matter.
        chance: (n,) in [0, 1).
        groups: the group of each row: groups get their shares first, then the rows within each.

    Returns:
        (n,) rows; no group's number differs by one from n times its share, nor a row's from its share of the group.
    """
    of = (
        np.zeros(len(weight), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    counts = np.zeros(len(weight), dtype=np.int64)
    for group, size in enumerate(remainders(np.bincount(of, weights=weight).astype(np.float64), len(chance))):
        counts[of == group] = remainders(weight[of == group], int(size))
    return _handed_out(counts, chance)


def allot_down(weight: Floats, chance: Floats, levels: Sequence[Names]) -> Ints:
    """Return a row for each chance as `allot` does, down a tree: phones, then iPhones among them, then each of those.

    Args:
        weight: one a row; only ratios matter.
        chance: (n,) in [0, 1).
        levels: the group of each row, one array a level, from the widest groups to the narrowest.

    Returns:
        (n,) rows; no number of a group, at any level, nor of a row differs by one from n times its share of the whole.
    """
    exact = [Fraction(w) for w in weight.tolist()]
    whole = sum(exact)
    quotas = [len(chance) * w / whole for w in exact]
    counts = np.zeros(len(weight), dtype=np.int64)
    for row, count in _divided(quotas, list(range(len(quotas))), len(chance), list(levels)):
        counts[row] = count
    return _handed_out(counts, chance)


def _divided(
    quotas: list[Fraction], rows: list[int], n: int, levels: list[Names]
) -> Iterator[tuple[int, int]]:
    """Yield how many of n each row gets: parts have the whole numbers below their quotas, and the largest remainders one more.

    The quotas are of the whole and exact, and n is the whole number below or above their sum: so there are always as many
    remainders as are left to be given.
    """
    parts = [[row] for row in rows]
    if levels:
        names: dict[str, list[int]] = {}
        for row in rows:
            names.setdefault(str(levels[0][row]), []).append(row)
        parts = list(names.values())
    sums = [sum((quotas[row] for row in part), Fraction(0)) for part in parts]
    counts = [math.floor(quota) for quota in sums]
    order = sorted(range(len(parts)), key=lambda at: counts[at] - sums[at])
    for at in order[: n - sum(counts)]:
        counts[at] += 1
    for part, count in zip(parts, counts, strict=True):
        if levels:
            yield from _divided(quotas, part, count, levels[1:])
        else:
            yield part[0], count


def _handed_out(counts: Ints, chance: Floats) -> Ints:
    """Return a row for each chance, (n,), each as often as it counts: who has the lowest chances has the first rows."""
    rows = np.empty(len(chance), dtype=np.int64)
    rows[np.argsort(chance, kind="stable")] = np.repeat(np.arange(len(counts)), counts)
    return rows


def remainders(weight: Floats, n: int) -> Ints:
    """Return n divided in proportion to the weights, whole numbers: the largest remainders are rounded up (Hamilton).

    >>> remainders(np.array([6.0, 4.0]), 80), remainders(np.array([1.0, 1.0, 1.0, 0.0]), 2)
    (array([48, 32]), array([1, 1, 0, 0]))
    """
    quota = n * weight / weight.sum() if n else np.zeros(len(weight))
    counts = np.floor(quota).astype(np.int64)
    rest = np.where(weight > 0, quota - counts, -1.0)
    counts[np.argsort(-rest, kind="stable")[: n - int(counts.sum())]] += 1
    return counts


def links(
    cellular: Bools,
    mobile: Floats,
    fixed: Floats,
    chance: Floats,
    *,
    exact: bool,
    accesses: Bools | None = None,
) -> Ints:
    """Return the row of each client's network, (n,): by chance, or so that each kind of device has its exact shares.

    Args:
        cellular: (n,) who may be on a cellular network.
        mobile: weights of the networks for those who may.
        fixed: those for the others.
        chance: (n,) in [0, 1).
        exact: as `allot` has it.
        accesses: which networks are cellular, where those and the others get their shares first; None: nowhere.
    """
    if not exact:
        return np.where(cellular, choose(mobile, chance), choose(fixed, chance))
    link = np.empty(len(chance), dtype=np.int64)
    for members, weight in ((cellular, mobile), (~cellular, fixed)):
        mine = chance[members]
        link[members] = (
            allot(weight, mine) if accesses is None else allot_down(weight, mine, [accesses.astype(object)])
        )
    return link


class OwnLinks(NamedTuple):
    """The clients' own links, (n,) each.

    Attributes:
        down_bytes_per_s, up_bytes_per_s, rtt_s: rates and round trip.
        groups: who shares which links beyond them; None: nobody.
    """

    down_bytes_per_s: Floats
    up_bytes_per_s: Floats
    rtt_s: Floats
    groups: Groups | None


def own_links(recipe: Recipe, link: Ints, z: Floats, shared: SharedLinks | None, seed: int) -> OwnLinks:
    """Return the links of clients on these rows of the table of networks.

    Args:
        recipe: the tables.
        link: (n,) rows.
        z: (4, n) normals for speed, down, up, round trip.
        shared: which links they share.
        seed: address of the randomness of groups and of the Wi-Fi.

    Raises:
        ProfileError: cells of which nothing says what they carry.
    """
    nets, spread = recipe.networks, recipe.spread
    rho = nets.correlation[link]
    z_up = rho * z[1] + np.sqrt(1 - rho**2) * z[2]
    lines: dict[Direction, Floats] = {
        "down": nets.down_bytes_per_s[link] * exp(spread * nets.down_sigma_ln[link] * z[1]),
        "up": nets.up_bytes_per_s[link] * exp(spread * nets.up_sigma_ln[link] * z_up),
    }
    own, groups = shared_links(link, lines, nets, shared, seed, spread)
    rtt_s = nets.rtt_s[link] * exp(spread * nets.rtt_sigma_ln[link] * z[3])
    return OwnLinks(own["down"], own["up"], np.asarray(rtt_s), groups)


def nearest_row(speed: Floats, allowed: Ints, wanted: Floats) -> Ints:
    """Return, for each wanted speed, the allowed row whose own speed is nearest in ratio."""
    order = allowed[np.argsort(speed[allowed], kind="stable")]
    between = np.sqrt(speed[order[1:]] * speed[order[:-1]])
    return order[np.searchsorted(between, wanted)]


def network_weights(
    recipe: Recipe, *, wifi_only: bool, at_home: float | None = None
) -> tuple[Floats, Floats]:
    """Return the weights of the networks for devices that may be on a cellular one, and for the others.

    The shares of the table are those of the whole population. Devices without a modem take none of
    the cellular share, so those with one take more of it: over all clients the table's shares come out
    (as far as there are enough of them).

    Args:
        recipe: tables and shares.
        wifi_only: nobody is on a cellular network.
        at_home: share of time that devices with a modem are at home. The weights are then those of the networks at home: a share h of the
            homes has Wi-Fi, so that over time the table's shares come out, h x at_home (as far as there are enough homes).
    """
    nets, weight = recipe.networks, recipe.network_weight / recipe.network_weight.sum()
    fixed = np.where(nets.cellular, 0.0, weight)
    mobile_devices = recipe.device_weight[recipe.devices.cellular].sum() / recipe.device_weight.sum()
    if fixed.sum() == 0:
        if wifi_only or mobile_devices < 1:
            where = f"{nets.shares.where}: access"
            what = "every network is cellular, but some clients must be on Wi-Fi"
            fix = "add a row with access wifi"
            if wifi_only and mobile_devices == 1:
                fix += ", or wifi_only: false"
            raise ProfileError(message(where, what, fix=fix))
        return weight, weight
    if wifi_only or mobile_devices == 0 or fixed.sum() == 1:
        return fixed, fixed
    cellular = min(1.0, (1 - fixed.sum()) / mobile_devices)
    if at_home is not None:
        cellular = max(0.0, 1 - (1 - cellular) / at_home)
    share = np.where(
        nets.cellular, weight / (1 - fixed.sum()) * cellular, fixed / fixed.sum() * (1 - cellular)
    )
    return share, fixed
