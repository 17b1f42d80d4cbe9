"""A run in which nothing can come to pass is refused, and says what is missing."""

import sys

import pytest

from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, RunError
from fedsim.protocols.synchronous import Synchronous
from fedsim.runs.simulation import simulate
from fedsim.server import stall
from fedsim.server.open_visits import OpenVisits


def test_a_cohort_that_is_never_there_at_once_is_told_how_many_there_were():
    """Clients that charge at their own hours: all twenty are never online together."""
    experiment = Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": 20, "availability": "charging"},
            "task": {"kind": "quadratic"},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
            "protocol": {"kind": "synchronous", "cohort": 20},
            "budget": {"commits": 1},
            "runtime": {"executor": "inline"},
        }
    )
    with pytest.raises(
        ExperimentError, match=r"asks for 20 clients at once, and at most \d+ are ever online"
    ):
        simulate(experiment, timeline_only=True)


WAITING = {
    "a buffer that is never full": {"kind": "buffered", "concurrency": 4, "buffer": 10**7},
    "a beat that never comes": {
        "kind": "semi-synchronous",
        "concurrency": 4,
        "beat_s": 1e9,
        "refill": "landing",
    },
}


def waits(protocol, **blocks):
    """A run of quick visits without a horizon."""
    settings = {
        "population": {"preset": "homogeneous", "clients": 8},
        "task": {"kind": "quadratic", "layout": "lora", "dimension": 6},
        "lora": {"r": 4},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
        "protocol": protocol,
        "budget": {"commits": 2},
        "runtime": {"executor": "inline"},
    }
    return simulate(Experiment.model_validate(settings | blocks), timeline_only=True)


@pytest.fixture
def few(monkeypatch):
    """Fewer visits, and events between two looks at them, so that a test takes a second."""
    monkeypatch.setattr(stall, "VISITS", 500)
    monkeypatch.setattr(stall, "VISITS_PER_CLIENT", 10)
    monkeypatch.setattr(stall, "EVENTS", 2000)


@pytest.mark.parametrize("protocol", WAITING.values(), ids=WAITING)
def test_updates_that_have_landed_and_are_never_committed_end_the_run(protocol, few):
    with pytest.raises(RunError, match=r"no commit in .*\d+ that wait for a commit") as caught:
        waits(protocol)
    assert ("beat_s" if "beat_s" in protocol else "protocol.buffer") in str(caught.value)


def test_a_protocol_that_commits_nothing_of_what_has_landed_ends_the_run(few, monkeypatch):
    class Forgets(Synchronous):
        kind: str = "test_stall:Forgets"

        def run(self, server):
            while True:
                clients = yield from server.sample(2)
                visits = [server.dispatch(client) for client in clients]
                yield from server.wait(visits, want=2)
                server.commit([])

    monkeypatch.setattr(sys.modules[__name__], "Forgets", Forgets, raising=False)
    with pytest.raises(RunError, match="no commit in"):
        waits({"kind": f"{__name__}:Forgets", "cohort": 2})


def test_a_beat_that_will_come_is_waited_for(few):
    """Far more visits than are let without a commit, but no more by the beat than can be."""
    beat_s = 0.5 * 8 * (500 + 80) * visit_s() / 4
    run = waits({"kind": "semi-synchronous", "concurrency": 4, "beat_s": beat_s, "refill": "landing"})

    assert len(run.commits) == 2
    assert run.commits.updates.min() > 2 * (500 + 80)


def visit_s():
    run = waits({"kind": "buffered", "concurrency": 4, "buffer": 8})
    return float((run.visits.ended_s - run.visits.dispatched_s).median())


def test_who_is_at_work_is_known_without_looking_at_all_that_wait():
    """What lands waits for a commit: neither who is at work nor the next landing depends on how many do."""
    begun, looked = [], []

    class Counted(dict):
        def values(self):
            looked.append(len(self))
            return super().values()

    init = OpenVisits.__init__

    def counting(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self._open = Counted()
        begun.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVisits, "__init__", counting)
        run = waits({"kind": "semi-synchronous", "concurrency": 4, "beat_s": 50.0, "refill": "landing"})

    assert run.commits.updates.min() > 100
    assert sum(looked) < len(run.visits)
    assert max(len(visits.at_work()) for visits in begun) == 0
