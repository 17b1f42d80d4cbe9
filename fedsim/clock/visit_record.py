"""What is known of a visit: what was asked of whom, how far it came, and what became of its update."""

from __future__ import annotations

import math
from typing import Literal

from fedsim.clock.usage import Usage
from fedsim.clock.visit_order import Phase, VisitOrder
from fedsim.errors import RunError, message
from fedsim.records.rows import Cause, Outcome

MOST_PAUSES = 20_000
"""Waits of one visit for its device that end a run: no real one has so many."""


class VisitRecord:
    """What is known of a visit. Others read its attributes; for what they may change there are methods.

    Attributes:
        client, profile: whose visit, and their device.
        order, visit, version, round, start, work, steps: as in `VisitOrder`.
        dispatched_s, downloaded_s, trained_s, landed_s, ended_s: virtual instants; NaN: not reached.
        steps_made: local steps in the update.
        away: why its device went offline last; empty if it never did.
        battery: share of the battery that is there at its end; NaN without one.
        pauses: how often it has waited for its device.
    """

    def __init__(self, order: VisitOrder, now_s: float) -> None:
        """Take what is asked of whom, now."""
        self.profile, self.work, self.start = order.profile, order.work, order.start
        self.client, self.order, self.visit = order.profile.client, order.order, order.visit
        self.version, self.round = order.version, order.round
        self.steps = self.steps_made = order.steps
        self.dispatched_s = now_s
        self.downloaded_s = self.trained_s = self.landed_s = self.ended_s = math.nan
        self.away: Cause | Literal[""] = ""
        self.battery = self._loss = self._loss_square = math.nan
        self.pauses = 0
        self._outcome: Outcome = "in_flight"
        self._committed_version = -1
        self._handed_over = self._computed = False
        self._paused_s: dict[Phase, float] = {"down": 0.0, "train": 0.0, "up": 0.0}
        self._usage: Usage | None = None

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
