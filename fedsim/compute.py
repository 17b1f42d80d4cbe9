"""How long a visit's training takes on its device, and what the device is like afterwards; pure.

    full speed: max(FLOPs / speed, bytes moved / memory bandwidth) + passes x overhead,
    times the noise of this visit's passes, stretched by a CPU quota, then by heat.

With nothing switched on it is FLOPs / speed. Heat goes in and comes out as a number; `Machines` keeps
that number for every client between its visits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedsim.cost import Work
from fedsim.elementary import exp
from fedsim.energy import training_j
from fedsim.experiment import ComputeConfig
from fedsim.profiles import Profile
from fedsim.rng import stream
from fedsim.thermal import PRESETS, Thermal


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
        return self.thermal.heated_k(self.heat_k, self.train_w, elapsed_s)

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
        return self.thermal.reaches_s(self.heat_k, self.train_w, self.thermal.stop_k)

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
    seconds = work.flops / profile.flops_per_s
    if compute is not None:
        if compute.bandwidth_floor:
            seconds = max(seconds, work.moved_bytes / profile.memory_bytes_per_s)
        seconds = (seconds + work.steps * compute.step_overhead_s) * noise
    seconds *= part
    if profile.cpu_quota < 1:
        seconds = under_quota_s(seconds, profile.cpu_quota, profile.cpu_period_s)
    thermal = thermal_of(compute, profile.tier) if compute is not None else None
    if thermal is None:
        return Training(seconds, profile.train_w)
    heat_k = thermal.settled_k(profile.idle_w) if heat_k is None else heat_k
    onset_s = thermal.onset_s(heat_k, profile.train_w)
    hot_s = max(0.0, seconds - onset_s) / thermal.throttled_speed
    return Training(
        duration_s=min(seconds, onset_s) + hot_s,
        train_w=profile.train_w,
        onset_s=onset_s,
        speed=thermal.throttled_speed,
        throttled_w=thermal.sustained_w,
        heat_k=heat_k,
        thermal=thermal,
    )


def thermal_of(compute: ComputeConfig, tier: str) -> Thermal | None:
    """Return the heat model of a class of devices, None if it has none."""
    chosen = compute.thermal if isinstance(compute.thermal, Thermal) else PRESETS.get(compute.thermal)
    return chosen if chosen is not None and tier in chosen.tiers else None


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


class Machines:
    """The clients' devices between visits: how warm each is, and the noise of its visits."""

    def __init__(self, compute: ComputeConfig, seed: int) -> None:
        self._compute, self._seed = compute, seed
        self._heat: dict[int, tuple[float, float]] = {}

    def start(self, profile: Profile, work: Work, visit: int, now_s: float, *, part: float = 1.0) -> Training:
        """Return the course of a training, or of the `part` that is left of one, from now on the device as it is."""
        sigma = self._compute.sigma("step_sigma", profile.tier)
        noise = step_noise(sigma, work.steps, self._seed, profile.client, visit)
        heat_k = self.heat_k(profile, now_s)
        return training(profile, work, self._compute, noise=noise, heat_k=heat_k, part=part)

    def stop(self, profile: Profile, training: Training, elapsed_s: float, now_s: float) -> None:
        """Note how warm the device is `elapsed_s` into a training that ends now, done or not."""
        if training.thermal is not None:
            self._heat[profile.client] = (training.heat_after_k(elapsed_s), now_s)

    def heat_k(self, profile: Profile, now_s: float) -> float | None:
        """Return the temperature of an idle device [K above the surroundings]; None if it is not modelled."""
        thermal = thermal_of(self._compute, profile.tier)
        if thermal is None:
            return None
        heat_k, since_s = self._heat.get(profile.client, (thermal.settled_k(profile.idle_w), now_s))
        return thermal.cooled_k(heat_k, profile.idle_w, now_s - since_s)

    def cool_s(self, profile: Profile, now_s: float) -> float:
        """Return how long an idle device needs to be cool enough for new work; 0 where heat keeps nobody away."""
        thermal, heat_k = thermal_of(self._compute, profile.tier), self.heat_k(profile, now_s)
        if thermal is None or heat_k is None or not thermal.gates:
            return 0.0
        return thermal.cools_s(heat_k, profile.idle_w, thermal.start_k)
