"""Outages that many clients share: a region or a kind of network is gone for a while, on top of windows.

Each group is up for an exponential time, then down for an exponential time, and so on from a stationary
start: a Poisson process of failures while up, with repairs. Drawn by address, so that the outages of a
group are the same in a population of any size, and asking changes nothing.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.config.population import Outages
from fedsim.devices.availability import BLOCK, Availability, OnlineTimes
from fedsim.rng import stream

_DRAWN = 64
"""Ups and downs that share one address of randomness; part of every outage, so it must not change."""


class Line:
    """One group: when it goes down and comes up, drawn as far as anybody has asked."""

    def __init__(self, config: Outages, seed: int, name: str | int) -> None:
        """Draw the start: up with the share of time that it is up in the long run."""
        self._config, self._seed, self._name = config, seed, name
        self._starts_up = bool(stream(seed, "outages", name).random() < config.up_share)
        self._turns_s: list[float] = [0.0]
        """Turn 0 is the start; from there on up and down take turns."""

    def _reach(self, now_s: float) -> int:
        """Return the stretch that holds `now_s`, with the end of the next one drawn too."""
        turns_s = self._turns_s
        while turns_s[-1] <= now_s or turns_s[-2] <= now_s:
            block = len(turns_s) // _DRAWN
            lengths = stream(self._seed, "outages", self._name, block).standard_exponential(_DRAWN)
            up = (np.arange(_DRAWN) % 2 == 0) == self._starts_up
            lengths *= np.where(up, self._config.up_s, self._config.mean_s)
            turns_s += (turns_s[-1] + np.cumsum(lengths)).tolist()
        return bisect.bisect_right(turns_s, now_s) - 1

    def up(self, now_s: float) -> bool:
        """Return whether it is up."""
        return (self._reach(now_s) % 2 == 0) == self._starts_up

    def stretch(self, now_s: float) -> tuple[float, float]:
        """Return the time up [from, until) that holds `now_s`, else the next one."""
        at = self._reach(now_s)
        at += (at % 2 == 0) != self._starts_up
        return self._turns_s[at], self._turns_s[at + 1]

    def comes_s(self, now_s: float) -> float:
        """Return when it comes up next, after `now_s`."""
        up_s, until_s = self.stretch(now_s)
        return up_s if up_s > now_s else self.stretch(until_s)[0]


@dataclass(frozen=True, eq=False)
class Interrupted:
    """Windows less outages: a client is online while its window is open and its group is up.

    Attributes:
        windows: when clients would be online.
        lines: the groups.
        group: (n,) each client's group.
        up_share: share of time that a group is up.
    """

    windows: OnlineTimes
    lines: Sequence[Line] = field(repr=False)
    group: Ints
    up_share: float
    constant: bool = False

    @property
    def n(self) -> int:
        """Number of clients."""
        return self.windows.n

    @property
    def plain(self) -> Availability:
        """The windows as they would be without outages."""
        return self.windows.plain

    def window(self, client: int, now_s: float) -> tuple[float, float]:
        """Return the stretch that holds `now_s`, else the next one; (inf, inf) if there is none.

        Its beginning may be cut: what matters of a stretch that has begun is when it ends.
        """
        line, at_s = self.lines[int(self.group[client])], now_s
        while True:
            start_s, stop_s = self.windows.window(client, at_s)
            if start_s == np.inf:
                return start_s, stop_s
            up_s, until_s = line.stretch(max(at_s, start_s))
            if up_s < stop_s:
                return max(start_s, up_s), min(stop_s, until_s)
            at_s = up_s

    def online(self, now_s: float) -> Bools:
        """Return who is online now, (n,)."""
        up = np.array([line.up(now_s) for line in self.lines])
        online: Bools = self.windows.online(now_s) & up[self.group]
        return online

    def next_start_s(self, now_s: float) -> float:
        """Return a time after `now_s` before which nobody comes online."""
        return min(self.windows.next_start_s(now_s), *(line.comes_s(now_s) for line in self.lines))

    def share(self) -> Floats:
        """Return each client's share of time online in the long run, (n,)."""
        return self.windows.share() * self.up_share

    def reason(self, client: int, now_s: float) -> Literal["window", "outage"]:
        """Return why a client is offline."""
        return "window" if self.lines[int(self.group[client])].up(now_s) else "outage"


def interrupted(windows: OnlineTimes, config: Outages, columns: dict[str, Names], seed: int) -> Interrupted:
    """Return windows less outages.

    Args:
        windows: when clients would be online.
        config: the outages.
        columns: `network` and `tier` of every client.
        seed: address of the randomness.
    """
    n = windows.n
    if config.by == "region":
        blocks = range(-(-n // BLOCK))
        drawn = [stream(seed, "region", b).integers(config.regions, size=BLOCK) for b in blocks]
        names: list[str | int] = list(range(config.regions))
        group = np.concatenate(drawn)[:n]
    elif config.by == "everyone":
        names, group = [config.by], np.zeros(n, dtype=np.int64)
    else:
        values, group = np.unique(columns[config.by].astype(str), return_inverse=True)
        names = values.tolist()
    return Interrupted(
        windows, [Line(config, seed, name) for name in names], group.astype(np.int64), config.up_share
    )
