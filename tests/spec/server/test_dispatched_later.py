"""A protocol of a user's own that asks a client some time after it was chosen: where it has left, it is offline."""

from __future__ import annotations

import pytest
from worlds import plan

from fedsim.protocols import ServerProtocol, Steps, Verbs
from fedsim.runs.simulation import simulate


class Hesitant(ServerProtocol):
    """Chooses one client, waits ten seconds, and asks it."""

    kind: str = "hesitant"

    def run(self, server: Verbs) -> Steps:
        while True:
            (client,) = yield from server.sample(1)
            yield server.timeout(10.0)
            visit = server.dispatch(client)
            yield visit.process
            if visit.outcome == "landed":
                server.commit([visit])


ONLINE = [[(0.0, 5.0), (100.0, 200.0)]]


@pytest.mark.parametrize("sharing", ["private", "max-min"])
def test_a_client_that_has_left_meanwhile_loses_its_visit_at_once(sharing):
    made = plan(Hesitant(), [3.0], online=ONLINE, network={"sharing": sharing}, budget={"commits": 1})
    run = simulate(made, timeline_only=True)
    first, second = run.visits.iloc[0], run.visits.iloc[1]

    assert (first.outcome, first.dispatched_s, first.ended_s, first.away) == ("offline", 10.0, 10.0, "window")
    assert (second.outcome, second.dispatched_s) == ("landed", 110.0)
    assert second.landed_s == pytest.approx(113.0, abs=1e-3)


@pytest.mark.parametrize("sharing", ["private", "max-min"])
def test_where_visits_pause_it_goes_on_when_the_client_is_back(sharing):
    blocks = {"population": {"preset": "homogeneous", "clients": 1, "on_close": "pause"}}
    made = plan(
        Hesitant(), [3.0], online=ONLINE, network={"sharing": sharing}, budget={"commits": 1}, **blocks
    )
    run = simulate(made, timeline_only=True)
    visit = run.visits.iloc[0]

    assert (visit.outcome, visit.dispatched_s) == ("landed", 10.0)
    assert visit.landed_s == pytest.approx(103.0, abs=1e-3)
    assert visit.paused_s == pytest.approx(90.0, abs=1e-3)
