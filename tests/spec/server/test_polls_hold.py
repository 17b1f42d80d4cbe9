"""Who has answered a poll is nobody else's until the choice, whatever the order in which its visit's end is told."""

from __future__ import annotations

from typing import ClassVar

from worlds import plan

from fedsim.protocols import ServerProtocol, Steps, Verbs
from fedsim.runs.simulation import simulate

POLL = {"kind": "power-of-choice", "candidates": 3}


class TwoSlots(ServerProtocol):
    """Two slots that ask for one client each: the second asks while the first one's polls are under way."""

    kind: str = "two-slots"
    asked: ClassVar[list[tuple[int, int]]] = []

    def run(self, server: Verbs) -> Steps:
        def slot(number: int) -> Steps:
            while True:
                (client,) = yield from server.sample(1)
                self.asked.append((number, client))
                visit = server.dispatch(client)
                yield visit.process
                if visit.outcome == "landed":
                    server.commit([visit])

        yield server.all_of([server.process(slot(number)) for number in range(2)])


def test_a_client_is_in_one_visit_at_a_time_also_between_its_answer_and_the_choice():
    TwoSlots.asked.clear()
    made = plan(
        TwoSlots(), [1.0, 2.0, 3.0, 5.0, 1.5, 2.5, 3.5, 4.5, 5.5], sampler=POLL, budget={"commits": 12}
    )
    visits = simulate(made).visits.sort_values(["client", "dispatched_s", "order"])

    assert {number for number, _ in TwoSlots.asked} == {0, 1}
    assert (visits.outcome == "polled").sum() >= 12
    for _, rows in visits.groupby("client"):
        ended_s = rows.ended_s.to_numpy()[:-1]
        assert (rows.dispatched_s.to_numpy()[1:] >= ended_s).all()
    chosen = visits[visits.outcome != "polled"]
    polled = visits[visits.outcome == "polled"]
    for row in chosen.itertuples():  # whoever trains has answered last before, and nothing came between
        before = polled[(polled.client == row.client) & (polled.ended_s <= row.dispatched_s)]
        assert len(before) > 0
        assert (
            before.order.max()
            == visits[(visits.client == row.client) & (visits.order < row.order)].order.max()
        )
