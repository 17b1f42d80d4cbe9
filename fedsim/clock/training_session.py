"""One training on a device, as far as its seconds and joules go: begun, paused, cut to whole steps."""

from __future__ import annotations

import simpy

from fedsim.cost.work import Work
from fedsim.devices.compute import Machines, Training
from fedsim.devices.population import Profile


class Session:
    """A training under way on a device: stints between pauses, in which it cools.

    Attributes:
        begun_s, course: when the stint under way, or the last one, began, and how it goes.
        done: the end of that stint if nothing stops it.
    """

    def __init__(
        self, env: simpy.Environment, machines: Machines, profile: Profile, work: Work, visit: int
    ) -> None:
        """Begin now."""
        self._env, self._machines, self._profile = env, machines, profile
        self._work, self._visit = work, visit
        self._share = self._joules = 0.0  # of earlier stints
        self._going = False
        self.resume()

    def resume(self) -> None:
        """Go on with what is left, on the device as warm as it is now."""
        self.begun_s = float(self._env.now)
        left = 1.0 - self._share
        self.course: Training = self._machines.start(
            self._profile, self._work, self._visit, self.begun_s, part=left
        )
        self.done: simpy.Event = self._env.timeout(self.course.duration_s)
        self._going = True

    def pause(self) -> None:
        """Stop for now, or for good: from now on the device cools."""
        if not self._going:
            return
        now_s = float(self._env.now)
        self._share, self._joules = self.share(now_s), self.joules(now_s)
        self._going = False
        self._machines.stop(self._profile, self.course, now_s - self.begun_s, now_s)

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
