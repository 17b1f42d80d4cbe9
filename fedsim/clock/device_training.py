"""Trainings on devices: one under way, begun, paused, cut to whole steps; and how warm it leaves its device."""

from __future__ import annotations

import math

import simpy

from fedsim.config.devices import ComputeConfig
from fedsim.cost.work import Work
from fedsim.devices.compute import Training, step_noise, training
from fedsim.devices.population import Profile
from fedsim.devices.thermal import cooled_k, cools_s, settled_k, thermal_of


class Machines:
    """The clients' devices between visits: how warm each is, and the noise of its visits."""

    def __init__(self, compute: ComputeConfig, seed: int) -> None:
        """Take what is modelled of a training, and the address of the noise; every device is at rest."""
        self._compute, self._seed = compute, seed
        self._heat: dict[int, tuple[float, float]] = {}
        self._by_tier: dict[str, tuple[float, bool]] = {}

    def begin_training(
        self, profile: Profile, work: Work, visit: int, now_s: float, *, part: float = 1.0
    ) -> Training:
        """Return the course of a training, or of the `part` that is left of one, from now on the device as it is."""
        known = self._by_tier.get(profile.tier)
        if known is None:
            sigma, heats = self._compute.step_sigma_of(profile.tier), thermal_of(self._compute, profile.tier)
            known = self._by_tier[profile.tier] = sigma, heats is not None
        sigma, has_heat = known
        noise = step_noise(sigma, work.steps, self._seed, profile.client, visit) if sigma else 1.0
        heat_k = self.heat_k(profile, now_s) if has_heat else None
        return training(profile, work, self._compute, noise=noise, heat_k=heat_k, part=part)

    def end_training(self, profile: Profile, course: Training, elapsed_s: float, now_s: float) -> None:
        """Note how warm the device is `elapsed_s` into a training that ends now, done or not."""
        if course.thermal is not None:
            self._heat[profile.client] = (course.heat_after_k(elapsed_s), now_s)

    def heat_k(self, profile: Profile, now_s: float) -> float | None:
        """Return the temperature of an idle device [K above the surroundings]; None if it is not modelled."""
        thermal = thermal_of(self._compute, profile.tier)
        if thermal is None:
            return None
        heat_k, since_s = self._heat.get(profile.client, (settled_k(thermal, profile.idle_w), now_s))
        return cooled_k(thermal, heat_k, profile.idle_w, now_s - since_s)

    def cool_s(self, profile: Profile, now_s: float) -> float:
        """Return how long an idle device needs to be cool enough for new work; 0 where heat keeps nobody offline."""
        thermal, heat_k = thermal_of(self._compute, profile.tier), self.heat_k(profile, now_s)
        if thermal is None or heat_k is None or not thermal.gates:
            return 0.0
        return cools_s(thermal, heat_k, profile.idle_w, thermal.start_k)


class Stints:
    """A training on a device: stints, and pauses in which it cools; all times are told.

    Attributes:
        begun_s, course: when the stint under way, or the last one, began, and how it goes.
    """

    def __init__(self, machines: Machines, profile: Profile) -> None:
        """Begin with nothing done."""
        self._machines, self._profile = machines, profile
        self._share = self._joules = 0.0  # of earlier stints
        self._going = False

    def begin(self, course: Training, now_s: float) -> None:
        """A stint begins."""
        self.begun_s, self.course, self._going = now_s, course, True

    def end(self, now_s: float) -> None:
        """A stint ends, done or not: from now on the device cools. Without one nothing happens."""
        if not self._going:
            return
        self._share, self._joules = self.share(now_s), self.joules(now_s)
        self._going = False
        self._machines.end_training(self._profile, self.course, now_s - self.begun_s, now_s)

    def share(self, now_s: float) -> float:
        """Return the share of the work that is done."""
        if not self._going:
            return self._share
        return self._share + (1.0 - self._share) * self.course.share(now_s - self.begun_s)

    def joules(self, now_s: float) -> float:
        """Return what it has drawn above idle [J]."""
        if not self._going:
            return self._joules
        return self._joules + self.course.joules(now_s - self.begun_s, self._profile.idle_w)


class DeviceTraining(Stints):
    """A training under way on the clock.

    Attributes:
        done: the end of the stint under way if nothing stops it.
    """

    def __init__(
        self, env: simpy.Environment, machines: Machines, profile: Profile, work: Work, visit: int
    ) -> None:
        """Begin now."""
        super().__init__(machines, profile)
        self._env, self._work, self._visit = env, work, visit
        self.resume()

    def resume(self) -> None:
        """Go on with what is left, on the device as warm as it is now."""
        now_s = float(self._env.now)
        part_left = 1.0 - self._share
        course = self._machines.begin_training(self._profile, self._work, self._visit, now_s, part=part_left)
        self.begin(course, now_s)
        self.done: simpy.Event = self._env.timeout(self.course.duration_s)

    @property
    def due_s(self) -> float:
        """When it ends if nothing stops it [virtual s]; inf: it stands still."""
        return self.begun_s + self.course.duration_s if self._going else math.inf

    def pause(self) -> None:
        """Stop for now, or for good: from now on the device cools."""
        self.end(float(self._env.now))
