"""Joules: what training, idling and the radio take, and what a battery has left; pure arithmetic.

Marginal energy is what a visit adds to an idle device; gross energy is all the device drew meanwhile:
marginal + idle power x time. Good to 40 % at best: powers are those of a whole device, of one unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

J_PER_WH = 3600.0


def training_j(train_w: float, idle_w: float, seconds: float) -> float:
    """Return the energy of training above an idle device [J]; with `idle_w=0`, the gross energy."""
    return (train_w - idle_w) * seconds


def radio_j(radio_w: float, j_per_byte: float, seconds: float, n_bytes: float) -> float:
    """Return the radio's energy above an idle device [J]: a base power while on, a price a byte.

    The form of Huang et al. (MobiSys 2012) for LTE; radio powers leave the idle draw out already.
    A price a byte is a slope over the rate: 1 mW per Mbit/s is 8e-9 J a byte, at any rate.
    """
    return radio_w * seconds + j_per_byte * n_bytes


def tail_j(tail_w: float, tail_s: float, gap_s: float = math.inf) -> float:
    """Return the energy of a radio that stays up after a transfer [J], above an idle device.

    Args:
        tail_w: its power then.
        tail_s: how long it stays up before it goes to sleep.
        gap_s: time to the next transfer, which ends the tail if it comes first.
    """
    return tail_w * min(tail_s, gap_s)


def gross_j(marginal_j: float, idle_w: float, seconds: float) -> float:
    """Return all that a device drew in `seconds` in which it spent `marginal_j` above idling [J]."""
    return marginal_j + idle_w * seconds


@dataclass(frozen=True)
class BatteryState:
    """What a battery holds, as a value: every change gives a new one.

    Linear: no ageing, no losses in charging, no taper near full (real chargers slow down above about
    80 %), so the last fifth of a charge takes longer than said here.

    Attributes:
        capacity_j: energy of a full battery [J], greater than 0.
        level: share of it that is there, 0..1.
    """

    capacity_j: float
    level: float

    def __post_init__(self) -> None:
        if not 0 < self.capacity_j < math.inf:
            raise ValueError(f"capacity_j must be positive and finite (got {self.capacity_j})")
        if not 0 <= self.level <= 1:
            raise ValueError(f"level must be between 0 and 1 (got {self.level})")

    @classmethod
    def of_wh(cls, capacity_wh: float, level: float) -> BatteryState:
        """Return a battery of so many watt-hours."""
        return cls(capacity_wh * J_PER_WH, level)

    @property
    def stored_j(self) -> float:
        """Energy in it [J]."""
        return self.level * self.capacity_j
