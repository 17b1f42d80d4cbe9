"""A run that would never end: found out and ended with an error that says who keeps it from ending."""

from __future__ import annotations

import math

from fedsim.errors import Message, RunError, message
from fedsim.server.server import Server

STRETCH_S = 1e-6
"""A stretch of virtual time in which no visit ends: the shortest transfer takes as long."""
EVENTS, EVENTS_PER_CLIENT = 100_000, 100
"""Events in one stretch that end a run; a whole visit has about thirteen."""
VISITS, VISITS_PER_CLIENT = 50_000, 100
"""Visits begun without a commit that end a run without horizon."""
BEAT = 10
"""So many times more of them may be begun where the protocol commits at a beat, if they will be fewer by then."""
RESTLESS = 100
"""Pauses of one visit that make it the cause."""


class Standstill:
    """Counts events that take no time: a clock that stands still must not do so for ever."""

    def __init__(self, server: Server) -> None:
        """Begin now."""
        self._server, self._most = server, EVENTS + EVENTS_PER_CLIENT * server.clients
        self._since_s, self._events, self._all_events = -math.inf, 0, 0
        self._version, self._visits = 0, 0

    def count(self, now_s: float) -> None:
        """Count an event.

        Raises:
            RunError: it is one too many for so little time, or for no commit; says who takes none.
        """
        self._events += 1
        self._all_events += 1
        if not self._all_events % EVENTS and self._server.experiment.budget.time_s is None:
            self.refuse_to_spin()
        if now_s - self._since_s > STRETCH_S:
            self._since_s, self._events = now_s, 0
        elif self._events > self._most:
            raise RunError(self._message(now_s))

    def refuse_to_spin(self) -> None:
        """Raise if a run without horizon makes no commits, for `runtime.stall_s` [virtual s] or in very many visits.

        Raises:
            RunError: says who is waited for, or how the visits ended instead.
        """
        server, visits = self._server, self._server.visits.begun
        if server.version != self._version:
            self._version, self._visits = server.version, visits
        stall_s, no_commit_s = server.experiment.runtime.stall_s, server.now_s - server.last_commit_s
        too_many = self._too_many(visits - self._visits, no_commit_s)
        if no_commit_s <= stall_s and not too_many:
            return
        if not server.visits.at_work():
            server.desk.give_up(server.now_s)
        ends = sorted(server.ledger.outcomes.items())
        waiting = server.visits.ended - server.ledger.visits
        ends += [("that wait for a commit", waiting)] if waiting else []
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in ends)
        what = (
            f"no commit in {no_commit_s if too_many else stall_s:.0f} s of virtual time, and no budget.time_s to end "
            f"the run (visits: {outcomes or 'none ended'})"
        )
        fix = "give budget.time_s, a longer protocol.deadline_s, a smaller protocol.buffer or min_reports"
        if server.plan.parts.protocol.commits_every_s is not None:
            fix = "give budget.time_s, or a shorter protocol.beat_s"
        raise RunError(message("run", what, fix=fix))

    def _too_many(self, visits: int, no_commit_s: float) -> bool:
        """Tell whether so many visits were begun since the last commit, so long ago, that there will be none."""
        most = VISITS + VISITS_PER_CLIENT * self._server.clients
        beat_s = self._server.plan.parts.protocol.commits_every_s
        if beat_s is not None and 0 < no_commit_s <= beat_s:
            return visits > most and visits * beat_s / no_commit_s > BEAT * most
        return visits > most

    def _message(self, now_s: float) -> Message:
        head = f"virtual time stands still at {now_s:.6g} s ({self._events:,} events in {STRETCH_S:g} s)"
        restless = max(self._server.visits.at_work(), key=lambda visit: visit.pauses, default=None)
        if restless is not None and restless.pauses >= RESTLESS:
            what = f"{head}: client {restless.client} stops and goes on without end ({restless.away})"
            fix = "move the limits at which devices stop and go on apart, or set population.on_close: lost"
            return message("run", what, fix=fix)
        what = (
            f"{head}: the protocol {self._server.experiment.protocol.kind} goes on without waiting for time"
        )
        return message(
            "run", what, fix="have it wait for visits or a timeout; give longer deadlines and beats"
        )


def nothing_left(server: Server) -> RunError:
    """Return the error that no event is left and the budget is not used up; names a visit that waits for ever."""
    waiting = sorted(server.visits.at_work(), key=lambda visit: visit.order)
    what = "nothing is left to happen, and the budget is not used up"
    if waiting:
        first = waiting[0]
        what += (
            f": {len(waiting)} visits wait for ever, that of client {first.client} at its {first.at_words}"
        )
    fix = "give budget.time_s, or a budget.commits that these clients can reach"
    return RunError(message("run", what, fix=fix))
