"""What is known of a visit: what was asked of whom, how far it came, and what became of its update."""

from __future__ import annotations

import math
from typing import Literal

from fedsim.clock.device_training import Stints
from fedsim.clock.foreseen import Course
from fedsim.clock.usage import Usage, active_j, tails_j
from fedsim.clock.visit_order import DeviceWorld, Phase, VisitOrder
from fedsim.cost.energy import gross_j
from fedsim.devices.compute import Training
from fedsim.errors import RunError, message
from fedsim.network.base import Direction, Transfer
from fedsim.records.rows import Cause, Outcome

MOST_PAUSES = 20_000
"""Waits of one visit for its device that end a run: no real one has so many."""


class VisitRecord:
    """What is known of a visit. Others read its attributes; for what they may change there are methods.

    Attributes:
        client, profile: whose visit, and their device.
        order, visit, version, round, start, work, steps: as in `VisitOrder`.
        dispatched_s, landed_s, ended_s: virtual instants; NaN: not reached.
        steps_made: local steps in the update.
        away: why its device went offline last; empty if it never did.
        battery: share of the battery that is there at its end; NaN without one.
        pauses: how often it has waited for its device.
    """

    __slots__ = (
        *(
            "_committed_version",
            "_computed",
            "_downloaded_s",
            "_handed_over",
            "_loss",
            "_loss_square",
            "_outcome",
        ),
        *(
            "_paused_s",
            "_trained_s",
            "_usage",
            "away",
            "battery",
            "client",
            "dispatched_s",
            "ended_s",
            "landed_s",
        ),
        *("order", "pauses", "profile", "round", "start", "steps", "steps_made", "version", "visit", "work"),
    )

    def __init__(self, order: VisitOrder, now_s: float) -> None:
        """Take what is asked of whom, now."""
        self.profile, self.work, self.start = order.profile, order.work, order.start
        self.client, self.order, self.visit = order.profile.client, order.order, order.visit
        self.version, self.round = order.version, order.round
        self.steps = self.steps_made = order.steps
        self.dispatched_s = now_s
        self._downloaded_s = self._trained_s = self.landed_s = self.ended_s = math.nan
        self.away: Cause | Literal[""] = ""
        self.battery = self._loss = self._loss_square = math.nan
        self.pauses = 0
        self._outcome: Outcome = "in_flight"
        self._committed_version = -1
        self._handed_over = self._computed = False
        self._paused_s: dict[Phase, float] = {"down": 0.0, "train": 0.0, "up": 0.0}
        self._usage: Usage | None = None

    def _catch_up(self) -> None:
        """Note which instants it has reached by now, if nothing has told it."""

    @property
    def downloaded_s(self) -> float:
        """When it had downloaded its model [virtual s]; NaN: it has not."""
        self._catch_up()
        return self._downloaded_s

    @property
    def trained_s(self) -> float:
        """When its device had trained [virtual s]; NaN: it has not."""
        self._catch_up()
        return self._trained_s

    @property
    def outcome(self) -> Outcome:
        """How it ended; `in_flight` while it is under way."""
        return self._outcome

    @property
    def ended(self) -> bool:
        """Whether the device has finished with it, whatever the server knows."""
        return self._outcome != "in_flight"

    @property
    def is_accounted(self) -> bool:
        """Whether it has ended and what it used is known: a signal may come between the two."""
        return self.ended and self._usage is not None

    @property
    def usage(self) -> Usage:
        """What it had used when it ended, or when the run did; there is none before."""
        assert self._usage is not None, "a visit's usage is known when it has ended"
        return self._usage

    @property
    def work_share(self) -> float:
        """Share of its local steps that are in its update."""
        return self.steps_made / self.steps if self.steps else 1.0

    @property
    def paused_s(self) -> float:
        """How long its device was offline while it waited [s]."""
        return sum(self._paused_s.values())

    @property
    def committed_version(self) -> int:
        """The version that its update is in; -1: in none."""
        return self._committed_version

    @property
    def staleness(self) -> int:
        """Commits between its version and the one that its update is in; -1: it is in none."""
        return self._committed_version - 1 - self.version if self._committed_version >= 0 else -1

    @property
    def loss(self) -> float:
        """Mean loss of its training, or its answer to a poll; NaN: nobody read it."""
        return self._loss

    @property
    def loss_square(self) -> float:
        """Mean square of the losses of its training; NaN: nobody read it."""
        return self._loss_square

    @property
    def handed_over(self) -> bool:
        """Whether its training was needed: it was handed over, in a timeline-only run to nobody."""
        return self._handed_over

    @property
    def computed(self) -> bool:
        """Whether its training was really computed; `trained_s` is when its device had finished."""
        return self._computed

    def count_pause(self) -> None:
        """Count a wait for its device; a visit that never ends ends the run.

        Raises:
            RunError: it was the last of `MOST_PAUSES`.
        """
        self.pauses += 1
        if self.pauses == MOST_PAUSES:
            what = (
                f"its visit has stopped and gone on {MOST_PAUSES:,} times ({self.away}), and would for ever"
            )
            fix = "move the limits at which devices stop and go on apart, or set population.on_close: lost"
            raise RunError(message(f"client {self.client}", what, fix=fix))

    def hand_over(self, *, computed: bool) -> None:
        """Its training is needed now; `computed`: an executor computes it."""
        self._handed_over, self._computed = True, computed

    def report_loss(self, loss: float, square: float = math.nan) -> None:
        """Its training has been computed, with this mean loss and mean square; or it has answered a poll."""
        self._loss, self._loss_square = loss, square

    def commit(self, version: int) -> None:
        """Its update is in this version."""
        self._committed_version = version

    def refuse(self, outcome: Literal["surplus", "rejected", "stale"]) -> None:
        """Its update has arrived and is not taken."""
        self._outcome = outcome

    def fail(self) -> None:
        """Its values could not be computed."""
        self._outcome = "failed"


class VisitAccount(VisitRecord):
    """A visit's record with what it has used, of what has moved and been trained."""

    __slots__ = ("_cut", "_env", "_known", "_left_bytes", "_training", "_transfers", "_world")

    def __init__(self, world: DeviceWorld, order: VisitOrder) -> None:
        """Take what is asked of whom, now."""
        super().__init__(order, float(world.env.now))
        self._world, self._env = world, world.env
        self._known: Course | None = None
        self._training: Stints | None = None
        self._transfers: dict[Direction, Transfer] = {}
        self._left_bytes: dict[Direction, int] = {}
        self._cut = False

    def _catch_up(self) -> None:
        """Note the phases that are over by now."""
        course = self._known
        if course is None or self._outcome != "in_flight":
            return
        now_s = float(self._env.now)
        if not course.downloaded_s <= now_s:
            return
        self._downloaded_s = course.downloaded_s
        if course.training is None:
            return
        if self._training is None:
            self._training = Stints(self._world.machines, self.profile)
            self._training.begin(course.training, course.downloaded_s)
        if course.trained_s <= now_s:
            self._trained_s = course.trained_s
            self._training.end(course.trained_s)

    def _end_whole(self, course: Course, training: Training) -> None:
        """Note what a visit has used that went as foreseen to its end, by the sums of `_usage_until`."""
        profile, work, world = self.profile, self.work, self._world
        downloaded_s, trained_s, landed_s = course.downloaded_s, course.trained_s, course.landed_s
        self._downloaded_s, self._trained_s, self.landed_s = downloaded_s, trained_s, landed_s
        elapsed_s = trained_s - downloaded_s
        world.machines.end_training(profile, training, elapsed_s, trained_s)
        joules = active_j(
            profile,
            down_s=downloaded_s - self.dispatched_s,
            down_bytes=work.down_bytes,
            train_j=0.0 + training.joules(elapsed_s, profile.idle_w),
            up_s=landed_s - trained_s,
            up_bytes=work.up_bytes,
        )
        if world.tail:
            joules += tails_j(profile, elapsed_s if work.up_bytes else None, downloads=work.down_bytes > 0)
        gross = gross_j(joules, profile.idle_w, self.ended_s - self.dispatched_s)
        self._usage = Usage(work.down_bytes, work.up_bytes, work.flops, joules, gross)

    def _left_at(self, now_s: float) -> dict[Direction, int]:
        """Return the payload of transfers that are not over which has left the sender by now, where that is known."""
        if self._known is None or not math.isnan(self.landed_s):
            return {}
        down, up = self._known.left_bytes(now_s)
        return {"down": down, "up": up}

    def _usage_until(self, end_s: float) -> Usage:
        joules = self._joules_until(end_s)
        gross = gross_j(joules, self.profile.idle_w, end_s - self.dispatched_s - self.paused_s)
        return Usage(
            self._moved_bytes("down"), self._moved_bytes("up"), self._flops_until(end_s), joules, gross
        )

    def _flops_until(self, end_s: float) -> float:
        if self._training is None:
            return 0.0
        whole = not math.isnan(self._trained_s) and not self._cut
        return self.work.flops if whole else self.work.flops * self._training.share(end_s)

    def _joules_until(self, end_s: float) -> float:
        """Return what it has used above idle [J]: its phases less its pauses, and the radio's tails."""
        joules = active_j(
            self.profile,
            down_s=_spent_s(self.dispatched_s, self._downloaded_s, end_s) - self._paused_s["down"],
            down_bytes=self._moved_bytes("down"),
            train_j=0.0 if self._training is None else self._training.joules(end_s),
            up_s=_spent_s(self._trained_s, self.landed_s, end_s) - self._paused_s["up"],
            up_bytes=self._moved_bytes("up"),
        )
        if not self._world.tail:
            return joules
        uploads = self.work.up_bytes > 0 and not math.isnan(self._trained_s)
        between_s = self._trained_s - self._downloaded_s if uploads else None
        return joules + tails_j(self.profile, between_s, downloads=self.work.down_bytes > 0)

    def _moved_bytes(self, direction: Direction) -> int:
        """Return the payload that has left the sender by now, or had by its end."""
        down = direction == "down"
        if not math.isnan(self._downloaded_s if down else self.landed_s):
            return self.work.down_bytes if down else self.work.up_bytes
        if direction not in self._left_bytes and direction in self._transfers:
            return self._transfers[direction].sent_bytes()
        return self._left_bytes.get(direction, 0)


def _spent_s(begin_s: float, finish_s: float, end_s: float) -> float:
    if math.isnan(begin_s):
        return 0.0
    return (end_s if math.isnan(finish_s) else finish_s) - begin_s
