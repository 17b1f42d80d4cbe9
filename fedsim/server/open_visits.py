"""Visits from their dispatch until their fate is final: begun, ended, settled, each of them once."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import simpy

from fedsim.clock.online.roster import Roster
from fedsim.clock.plan import Plan
from fedsim.clock.reach import never_through
from fedsim.clock.visit import Visit
from fedsim.clock.visit_order import DeviceWorld, OnClose, VisitOrder
from fedsim.cost.work import Work
from fedsim.devices.people.profile import Profile
from fedsim.instants import At, Instant
from fedsim.samplers.seen import Records
from fedsim.server.alarm import DeskAlarm
from fedsim.server.clients import ClientBook
from fedsim.server.ledger import Ledger
from fedsim.server.requests import Desk
from fedsim.server.values.dispatched import Dispatched, PolledModel
from fedsim.server.values.trainer import Trainer


class OpenVisits:
    """The visits that are not in the tables yet, and what happens when one ends.

    Attributes:
        dispatched: what each of them left with, by its order.
        polled: of those that are polls, what they ask about, by their order.
        begun: how many visits were begun, those in the tables too.
    """

    def __init__(
        self,
        world: DeviceWorld,
        plan: Plan,
        *,
        book: ClientBook,
        ledger: Ledger,
        trainer: Trainer,
        seen: Records,
        roster: Roster,
        desk: Desk,
        alarm: DeskAlarm,
        one_at_a_time: bool,
        on_exhausted: Callable[[], None],
    ) -> None:
        """Start with none.

        Args:
            world: where visits happen.
            plan: of the experiment.
            book: told what clients have downloaded.
            ledger: told what visits have used, and their fate.
            trainer: told which trainings nobody needs.
            seen: told what samplers may know.
            roster: told who is idle again.
            desk: told whom to hold.
            alarm: rung when somebody may be asked again.
            one_at_a_time: whether a client is not asked again before its landed visit is committed or refused.
            on_exhausted: called when `budget.up_bytes` is used up.
        """
        self._world, self._plan, self._budget = world, plan, plan.experiment.budget
        self._book, self._ledger, self._trainer, self._seen = book, ledger, trainer, seen
        self._roster, self._desk, self._alarm = roster, desk, alarm
        self._one_at_a_time, self._on_exhausted = one_at_a_time, on_exhausted
        self._clients = len(plan.population)
        self._equips = plan.experiment.network.backbone == "first_visit"
        self.dispatched: dict[int, Dispatched] = {}
        self.polled: dict[int, PolledModel] = {}
        self._open: dict[int, Visit] = {}
        self._under_way: dict[int, Visit] = {}
        self._uncommitted: set[int] = set()
        self._at_work: set[int] = set()
        self._profiles: dict[int, Profile] = {}
        self.begun = 0

    def expect(self, clients: list[int]) -> list[int]:
        """Look up the devices of clients that will be dispatched to next, all at once; returns the clients."""
        if len(clients) > 1:
            profiles = self._plan.population.profiles_of(np.array(clients, dtype=np.int64))
            self._profiles = dict(zip(clients, profiles, strict=True))
        return clients

    @property
    def ended(self) -> int:
        """How many devices have finished with their visit, those in the tables too."""
        return self.begun - len(self.at_work())

    def check_free(self, client: int) -> None:
        """Refuse to dispatch to nobody, or to a client whose visit has not come to its end, as far as the server knows.

        Raises:
            ValueError: as said.
        """
        if not 0 <= client < self._clients:
            raise ValueError(f"there is no client {client} to dispatch to, only 0 to {self._clients - 1}")
        if client in self._at_work:
            what = f"client {client} is at work on another visit"
            raise ValueError(f"{what}: dispatch to those that `sample` returns")

    def check_landed(self, visits: Sequence[Visit]) -> None:
        """Raise if a protocol commits what cannot be committed.

        Raises:
            ValueError: a visit that has not landed, that was committed or refused already, or that comes twice.
        """
        for visit in visits:
            if visit.outcome != "landed" or visit.order not in self._open:
                what = "has been committed or refused already" if visit.ended else "has not landed yet"
                raise ValueError(f"visit {visit.visit} of client {visit.client} {what} ({visit.outcome})")
        if len({visit.order for visit in visits}) < len(visits):
            raise ValueError("a visit is committed twice in one commit")

    @property
    def computed(self) -> int:
        """How many of those that are not in the tables yet have been computed."""
        return sum(visit.computed for visit in self._open.values())

    def begin(
        self, dispatched: Dispatched, work: Work, version: int, round_: int = -1, on_close: OnClose = "lost"
    ) -> Visit:
        """Send what was offered on its way; `on_close` says what happens if the device goes offline."""
        client, job = dispatched.invitation.client, dispatched.job
        whole = job.local.steps_over(self._plan.task.examples(client)) if on_close == "partial" else 0
        order = VisitOrder(
            profile=self._profile(client),
            order=self.begun,
            visit=dispatched.invitation.visit,
            version=version,
            round=round_,
            start=job.start,
            work=work,
            steps=whole,
        )
        visit = Visit(self._world, order, on_end=self._on_end, on_close=on_close, on_cut=self._on_cut)
        self.begun += 1
        self._at_work.add(client)
        self._book.begin_visit(client)
        self._open[visit.order] = self._under_way[visit.order] = visit
        self.dispatched[visit.order] = dispatched
        visit.process.callbacks.append(partial(self._on_process_end, visit))
        return visit

    def _profile(self, client: int) -> Profile:
        known = self._profiles.pop(client, None)
        return self._plan.population.profile(client) if known is None else known

    def _on_cut(self, visit: Visit, steps: int) -> None:
        """The device went offline after `steps` steps: they are all that is trained."""
        dispatched = self.dispatched[visit.order]
        self.dispatched[visit.order] = replace(dispatched, job=replace(dispatched.job, upto=steps))
        self._trainer.shorten(visit, steps)

    def _on_end(self, visit: Visit) -> None:
        """The device has finished with a visit: what it used is in the books from now on."""
        self._under_way.pop(visit.order, None)
        if not math.isnan(visit.downloaded_s):
            rank = self.dispatched[visit.order].invitation.rank
            self._book.note_download(visit.client, visit.version, rank)
        else:
            payload, moved_bytes = self.dispatched[visit.order].offer.down, visit.usage.down_bytes
            self._book.note_broken_off(visit.client, visit.version, payload, moved_bytes)
            if self._equips and visit.outcome in ("late", "offline"):
                never_through = self._never_through(visit.client)
                self._book.note_failed_download(visit.client, moved_bytes, never_through)
        self._ledger.count(visit)
        if visit.outcome == "landed":
            self._seen.land(visit.client, visit.landed_s - visit.dispatched_s)
        elif visit.outcome == "polled":  # it is written when its answer is read
            self._book.polled[visit.client] = visit.version
        else:
            self._trainer.forget(visit)
            self.settle(visit)
        limit = self._budget.up_bytes
        if limit is not None and self._ledger.up_bytes >= limit:
            # what lands or is committed in this same instant still counts; then it is over
            At(self._world.env, 0.0, Instant.EVALUATE).callbacks.append(lambda _event: self._on_exhausted())

    def _never_through(self, client: int) -> Callable[[int], bool]:
        """Return what tells whether so many bytes can ever get through to a client in one visit."""
        plan = self._plan
        return partial(never_through, plan.experiment, plan.parts, plan.population, client)

    def _on_process_end(self, visit: Visit, _event: simpy.Event) -> None:
        """The server knows how a visit ended: the client may be asked again, unless it is too small or never equipped.

        One whose private part is in a visit that has landed waits until that is committed or refused, and one
        that has answered a poll until the choice.
        """
        self._at_work.discard(visit.client)
        self._roster.release(visit.client)
        if self._one_at_a_time and visit.order in self._open and visit.outcome == "landed":
            self._uncommitted.add(visit.client)
            self._desk.hold(visit.client)
        if visit.outcome == "polled":
            self._desk.keep_busy(visit.client)
        if visit.outcome == "memory" or visit.client in self._book.never_equipped:
            self._roster.exclude(visit.client)
        self._alarm.ring()

    def refuse(self, visit: Visit, outcome: Literal["surplus", "rejected", "stale"]) -> None:
        """Drop a landed visit: its update is in no version."""
        visit.refuse(outcome)
        self._trainer.forget(visit)
        self.settle(visit)

    def settle(self, visit: Visit) -> None:
        """Write a visit whose fate is final."""
        del self._open[visit.order]
        self._under_way.pop(visit.order, None)
        self.polled.pop(visit.order, None)
        self._ledger.settle(visit, self.dispatched.pop(visit.order).invitation.rank)
        if visit.client in self._uncommitted:
            self._uncommitted.remove(visit.client)
            self._desk.free([visit.client])
            self._alarm.ring()

    def go_on_from(self, dispatched: Mapping[int, Dispatched], polled: Mapping[int, PolledModel]) -> None:
        """Let these be what the visits have left with: the same as before, with other values."""
        self.dispatched, self.polled = dict(dispatched), dict(polled)
        for order, visit in self._open.items():
            visit.start = dispatched[order].job.start

    def at_work(self) -> Collection[Visit]:
        """Return the visits whose device has not finished."""
        return [visit for visit in self._under_way.values() if not visit.ended]

    def close(self, now_s: float) -> None:
        """Write those that are left as they stand at the end of the run [virtual s]."""
        for visit in self._in_order():
            if not visit.is_accounted:
                visit.close(now_s)
                self._ledger.count(visit)
            self.settle(visit)

    def _in_order(self) -> Sequence[Visit]:
        return sorted(self._open.values(), key=lambda visit: visit.order)
