"""What a visit would take if nothing happened on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedsim.config.devices import ComputeConfig
from fedsim.cost.energy import gross_j, radio_j, tail_j
from fedsim.cost.work import Work
from fedsim.devices.compute import training
from fedsim.devices.population import Profile
from fedsim.network.tcp import transfer_s


@dataclass(frozen=True)
class Estimate:
    """How long a visit would take by itself, and what it would cost.

    Attributes:
        download_s, train_s, upload_s, total_s: durations [s].
        joules, gross_joules: energy above idle, and all that the device draws meanwhile [J].
        fits: whether the device's memory holds the training.
        lands: whether it fits and the client's window (ending at `until_s`) is long enough.
    """

    download_s: float
    train_s: float
    upload_s: float
    total_s: float
    joules: float
    gross_joules: float
    fits: bool
    lands: bool


def estimate(
    profile: Profile,
    work: Work,
    now_s: float,
    until_s: float = math.inf,
    *,
    compute: ComputeConfig | None = None,
    tail: bool = False,
) -> Estimate:
    """Return the course of a visit that starts at `now_s`, alone on its own link, on a cool device; pure.

    `compute` says what is modelled of the training (noise is left out), `tail` whether the radio stays up.
    """
    down = transfer_s(work.down_bytes, profile.down_bytes_per_s, profile.rtt_s, profile.framing)
    course = training(profile, work, compute)
    train = course.duration_s
    up = transfer_s(work.up_bytes, profile.up_bytes_per_s, profile.rtt_s, profile.framing)
    total = down + train + up
    train_j = course.joules(train, profile.idle_w)
    joules = _joules(profile, down, work.down_bytes, train_j, up, work.up_bytes)
    if tail:
        joules += tail_j(profile.tail_w, profile.tail_s, train) + tail_j(profile.tail_w, profile.tail_s)
    gross = gross_j(joules, profile.idle_w, total)
    fits = work.memory_bytes <= profile.usable_memory_bytes
    return Estimate(down, train, up, total, joules, gross, fits, fits and now_s + total <= until_s)


def _joules(p: Profile, down_s: float, down_bytes: int, train_j: float, up_s: float, up_bytes: int) -> float:
    """Return the energy above idle [J] of a download, a training and an upload."""
    return (
        radio_j(p.down_radio_w, p.down_radio_j_per_byte, down_s, down_bytes)
        + train_j
        + radio_j(p.up_radio_w, p.up_radio_j_per_byte, up_s, up_bytes)
    )
