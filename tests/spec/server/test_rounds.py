"""Waiting for a round: for some visits, for all, again, for visits that have ended, and for none."""

from __future__ import annotations

from typing import ClassVar

import pytest
from worlds import plan

from fedsim.protocols import ServerProtocol, Steps, Verbs
from fedsim.runs.simulation import simulate

TRAIN_S = [1.0, 2.0, 4.0]


class Waits(ServerProtocol):
    """Asks everybody once and waits as it is told; notes when each wait was over, and commits what has landed."""

    kind: str = "waits"
    waits: tuple[tuple[int, float | None], ...]
    over_s: ClassVar[list[float]] = []

    def run(self, server: Verbs) -> Steps:
        clients = yield from server.sample(3)
        visits = [server.dispatch(client) for client in clients]
        for want, deadline_s in self.waits:
            yield from server.wait(visits, want=want, deadline_s=deadline_s)
            self.over_s.append(server.now_s)
        server.commit(server.collect(visits, want=3))


def waited(*waits):
    Waits.over_s.clear()
    run = simulate(plan(Waits(waits=waits), TRAIN_S, budget={"commits": 1}), timeline_only=True)
    return [pytest.approx(t, abs=1e-2) for t in Waits.over_s], run


def test_a_second_and_longer_wait_for_the_same_visits_goes_on_where_the_first_gave_up():
    over_s, run = waited((3, 1.5), (3, 10.0))

    assert [1.5, 4.0] == over_s
    assert run.commits.updates.tolist() == [3]


def test_visits_that_have_ended_count_at_once():
    over_s, run = waited((3, None), (3, None), (2, None))

    assert [4.0, 4.0, 4.0] == over_s
    assert run.visits.outcome.tolist() == ["landed"] * 3


def test_fewer_are_waited_for_after_more_were():
    over_s, _ = waited((3, 2.5), (1, None), (2, None), (3, None))

    assert [2.5, 2.5, 2.5, 4.0] == over_s


class Idle(ServerProtocol):
    """Waits for nobody, twice, then makes its round."""

    kind: str = "idle"
    at_s: ClassVar[list[float]] = []

    def run(self, server: Verbs) -> Steps:
        yield from server.wait([], want=0)
        self.at_s.append(server.now_s)
        yield from server.wait([], want=2)
        self.at_s.append(server.now_s)
        (client,) = yield from server.sample(1)
        visits = [server.dispatch(client)]
        yield from server.wait(visits, want=1)
        server.commit(server.collect(visits, want=1))


def test_to_wait_for_no_visits_takes_no_time():
    Idle.at_s.clear()
    run = simulate(plan(Idle(), TRAIN_S, budget={"commits": 1}), timeline_only=True)

    assert Idle.at_s == [0.0, 0.0]
    assert len(run.commits) == 1


def test_a_wait_whose_visits_are_lost_is_over_when_the_server_knows_it():
    online = [[(0.0, 0.5)], [(0.0, 0.5)], [(0.0, 0.5)]]
    Waits.over_s.clear()
    made = plan(Waits(waits=((3, None), (3, None))), TRAIN_S, online=online, budget={"time_s": 100.0})
    run = simulate(made, timeline_only=True)

    assert run.visits.outcome.tolist() == ["offline"] * 3
    assert Waits.over_s == [pytest.approx(30.5, abs=1e-2)] * 2  # detect_after_s is 30
