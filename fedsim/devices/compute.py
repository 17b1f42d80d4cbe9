"""How long a visit's training takes on its device, and what the device is like afterwards; pure.

    full speed: max(FLOPs / speed, bytes moved / memory bandwidth) + passes x overhead, or by the law of the client's
    software where the population says what devices are (`fedsim.devices.stacks.law`),
    times the noise of this visit's passes, + bytes of coded messages / memory bandwidth, stretched by a CPU quota,
    then by heat.

With nothing switched on it is FLOPs / speed. Heat goes in and comes out as a number; the clock keeps
that number for every client between its visits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsim.config.devices import ComputeConfig
from fedsim.cost.energy import training_j
from fedsim.cost.work import Work
from fedsim.devices.population import Profile
from fedsim.devices.thermal import (
    heated_k,
    hot_k,
    onset_s,
    reaches_s,
    settled_k,
    thermal_of,
    throttled,
)
from fedsim.elementary import exp
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.config.thermal import Thermal


@dataclass(frozen=True)
class Training:
    """One visit's training on one device, known from its first instant.

    Attributes:
        duration_s: from the first pass to the last.
        onset_s: how long it runs at full speed; at least `duration_s` if it is never throttled.
        speed: share of full speed after that.
        train_w, throttled_w: power of the whole device before and after.
        heat_k: temperature above the surroundings at the start [K]; 0 without a thermal model.
        thermal: how it heats, if it is modelled.
    """

    duration_s: float
    train_w: float
    onset_s: float = math.inf
    speed: float = 1.0
    throttled_w: float = 0.0
    heat_k: float = 0.0
    thermal: Thermal | None = None

    def share(self, elapsed_s: float) -> float:
        """Return the share of the work that is done after `elapsed_s`, at most 1."""
        if not self.duration_s:
            return 0.0
        if self.onset_s >= self.duration_s:
            return min(1.0, elapsed_s / self.duration_s)
        return min(1.0, self._worked_s(elapsed_s) / self._worked_s(self.duration_s))

    def joules(self, elapsed_s: float, idle_w: float) -> float:
        """Return the energy of the first `elapsed_s` above an idle device [J]; gross with `idle_w=0`."""
        if elapsed_s <= self.onset_s:
            return training_j(self.train_w, idle_w, elapsed_s)
        hot_s = elapsed_s - self.onset_s
        return training_j(self.train_w, idle_w, self.onset_s) + training_j(self.throttled_w, idle_w, hot_s)

    def heat_after_k(self, elapsed_s: float) -> float:
        """Return the temperature after `elapsed_s` of it [K above the surroundings]."""
        if self.thermal is None:
            return 0.0
        if elapsed_s <= self.onset_s:
            return heated_k(self.thermal, self.heat_k, self.train_w, elapsed_s)
        return hot_k(self.thermal, self.heat_k, self.throttled_w, elapsed_s - self.onset_s)

    @property
    def powers(self) -> tuple[tuple[float, float], ...]:
        """(seconds, watts of the whole device), one after the other."""
        if self.onset_s >= self.duration_s:
            return ((self.duration_s, self.train_w),)
        return ((self.onset_s, self.train_w), (self.duration_s - self.onset_s, self.throttled_w))

    @property
    def stops_s(self) -> float:
        """How long until heat stops it (`compute.thermal.stop_above_c`); inf: it does not [s]."""
        if self.thermal is None:
            return math.inf
        return reaches_s(self.thermal, self.heat_k, self.train_w, self.thermal.stop_k)

    def _worked_s(self, elapsed_s: float) -> float:
        """Seconds at full speed that do the work of the first `elapsed_s`."""
        return min(elapsed_s, self.onset_s) + self.speed * max(0.0, elapsed_s - self.onset_s)


def training(
    profile: Profile,
    work: Work,
    compute: ComputeConfig | None = None,
    *,
    noise: float = 1.0,
    heat_k: float | None = None,
    part: float = 1.0,
) -> Training:
    """Return the course of a training.

    Args:
        profile: the device; unit noise and calibration are in its `flops_per_s` already.
        work: what is to be done.
        compute: what is modelled; nothing but FLOPs / speed without it.
        noise: factor on the duration, from `step_noise`.
        heat_k: temperature above the surroundings at the start [K]; that of an idle device without it.
        part: share of the work that is still to be done, where a training goes on after a pause.
    """
    seconds = _at_full_speed_s(profile, work, compute, noise) * part
    if profile.cpu_quota < 1:
        seconds = under_quota_s(seconds, profile.cpu_quota, profile.cpu_period_s)
    thermal = thermal_of(compute, profile.tier) if compute is not None else None
    if thermal is None:
        return Training(seconds, profile.train_w)
    heat_k = settled_k(thermal, profile.idle_w) if heat_k is None else heat_k
    full_speed_s = onset_s(thermal, heat_k, profile.train_w)
    speed, throttled_w = throttled(thermal, profile.train_w)
    hot_s = max(0.0, seconds - full_speed_s) / speed
    return Training(
        duration_s=min(seconds, full_speed_s) + hot_s,
        train_w=profile.train_w,
        onset_s=full_speed_s,
        speed=speed,
        throttled_w=throttled_w,
        heat_k=heat_k,
        thermal=thermal,
    )


def _at_full_speed_s(profile: Profile, work: Work, compute: ComputeConfig | None, noise: float) -> float:
    """Return the seconds of the whole work on a cool device without a quota."""
    seconds = work.flops / profile.flops_per_s
    if profile.law is not None:
        seconds = profile.law.seconds(work, profile.flops_per_s)
    if compute is None:
        return seconds
    if compute.bandwidth_floor:
        seconds = max(seconds, work.moved_bytes / profile.memory_bytes_per_s)
    seconds = (seconds + work.steps * compute.step_overhead_s) * noise
    return seconds + work.coded_bytes / profile.memory_bytes_per_s


def step_noise(sigma: float, steps: int, seed: int, client: int, visit: int) -> float:
    """Return the mean of `steps` lognormal factors of mean 1 and this sigma: the noise of one visit.

    Addressed by client and visit. The mean over visits is 1 and the relative standard deviation
    sqrt((exp(sigma^2) - 1) / steps).
    """
    if sigma == 0:
        return 1.0
    z = stream(seed, "compute", client, visit).standard_normal(steps)
    return float(np.mean(exp(sigma * z - sigma * sigma / 2)))


def under_quota_s(cpu_s: float, quota: float, period_s: float) -> float:
    """Return the seconds that `cpu_s` of CPU take under a quota, from a full budget.

    T = W + (ceil(W / (q P)) - 1) (1 - q) P: the kernel lets q P run in every period P (CFS bandwidth
    control). Measured on a pinned CPU: 1.150 / 1.125 / 1.41 s against 1.148 / 1.126 / 1.44 s.
    """
    pauses = max(math.ceil(cpu_s / (quota * period_s) * (1 - 1e-12)) - 1, 0)
    return cpu_s + pauses * (1 - quota) * period_s
