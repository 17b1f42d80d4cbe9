"""The server's model from version to version: what is shared, checked and blamed."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest
from worlds import plan
from worlds.same_runs import BUFFERED, DEADLINE, ruled, with_vector

from fedsim.adapters.moved_base import Base
from fedsim.adapters.payload import WHOLE
from fedsim.aggregators._base import Offer, Traits
from fedsim.aggregators.fedit import FedIT
from fedsim.component import Component
from fedsim.errors import RunError
from fedsim.executors.inline import Inline
from fedsim.runs.replay import job_of
from fedsim.runs.simulation import simulate

ROUND = {"kind": "synchronous", "cohort": 3}
LORA = {"task": {"kind": "quadratic", "layout": "lora", "dimension": 4}, "lora": {"r": 2, "alpha": 2.0}}


class Watched(Inline):
    def __init__(self):
        super().__init__()
        self.shared, self.jobs = [], []

    def share(self, vector):
        self.shared.append(vector)
        return super().share(vector)

    def train(self, batch):
        self.jobs += batch
        return super().train(batch)


class Moving(FedIT):
    """FedIT with a rank-1 step of the base at every commit, or every other one."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, moves_base=True)
    kind: Literal["test_versions:Moving"] = "test_versions:Moving"
    every: int = 1

    def apply(self, state, model, contributions):
        """Move both."""
        after, state = super().apply(state, model, contributions)
        base = model.base or Base.pretrained(model.adapter.layout)
        if (base.version + 1) % self.every == 0:
            base = base.moved([(np.ones((4, 1)), np.ones((1, 4)))])
        return replace(after, base=base), state

    def offer(self, state, model, ask):
        """The adapter, and the steps of the base that the client has missed."""
        missed = 0 if model.base is None else model.base.catch_up_floats(ask.last_seen)
        return Offer(model.adapter.vector, replace(WHOLE, extra_floats=missed), WHOLE)


class Silent(Moving):
    """Moves the base although its traits say that it does not."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False)
    kind: Literal["test_versions:Silent"] = "test_versions:Silent"


class Broken(FedIT):
    """Fails when it is asked what to send."""

    kind: Literal["test_versions:Broken"] = "test_versions:Broken"

    def offer(self, state, model, ask):
        """Divide by zero."""
        return 1 / 0


def planned(rule, protocol=ROUND, **settings):
    return plan(protocol, [1.0, 2.0, 3.0], aggregator={"kind": rule, **settings}, **LORA)


def test_adapter_and_base_of_a_version_are_shared_with_the_workers_once():
    executor = Watched()

    simulate(planned("test_versions:Moving"), executor=executor)

    versions = [job for job in executor.jobs if job.client == 0]
    assert [job.base is None for job in versions] == [True, False, False, False, False]
    assert (
        len(executor.shared) == 6 + 5
    )  # adapters of versions 0 to 5, bases of 1 to 5; the last two for scores
    for job in executor.jobs:
        assert any(job.start is shared or np.shares_memory(job.start, shared) for shared in executor.shared)


def test_a_client_downloads_the_steps_of_the_base_that_it_missed():
    run = simulate(planned("test_versions:Moving"))
    whole, step = 4 * 2 * (4 + 4), 4 * (4 + 4)  # bytes of the adapter, of one rank-1 step of a 4 x 4 matrix

    visits = run.visits[run.visits["client"] == 0].sort_values("visit")
    assert visits["serialized_down_bytes"].tolist() == [whole] + [whole + step] * 4
    alone = simulate(planned("test_versions:Moving"), timeline_only=True)
    assert alone.visits["down_bytes"].tolist() == run.visits["down_bytes"].tolist()


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"rule": "test_versions:Silent"}, "with a base of version 1, its traits say 0"),
        ({"rule": "test_versions:Moving", "every": 2}, "with a base of version 0, its traits say 1"),
    ],
)
def test_a_base_that_moves_otherwise_than_the_traits_say_ends_the_run_by_the_rule_s_name(rule, says):
    with pytest.raises(RunError, match=f"aggregator {rule['rule']}.*{says}"):
        simulate(planned(**rule))


def test_a_rule_that_fails_to_offer_is_named():
    with pytest.raises(
        RunError,
        match=r"aggregator test_versions:Broken \(.*test_versions.py, line \d+\): offers: ZeroDivisionError",
    ):
        simulate(planned("test_versions:Broken"))


@pytest.mark.parametrize("protocol", [DEADLINE, BUFFERED])
@pytest.mark.parametrize("rule", ["flora", "flexlora", "rolora"])
def test_replay_finds_the_job_of_a_visit_again_base_rank_and_all(protocol, rule):
    made = ruled(protocol, rule, personal={"kind": "none"})
    executor = Watched()
    simulate(made, executor=executor)
    job = executor.jobs[-1]

    again = job_of(made, job.client, job.visit)

    assert isinstance(made.experiment.aggregator, Component)
    for field in ("client", "visit", "rank", "scale", "trains", "local"):
        assert getattr(again, field) == getattr(job, field)
    assert np.array_equal(again.start, job.start)
    assert (again.base is None) == (job.base is None) == (rule != "flora")
    if job.base is not None:
        assert np.array_equal(again.base, job.base)
    assert made.task.train([again])[0].end.tobytes() == made.task.train([job])[0].end.tobytes()


def test_a_server_step_of_an_optimiser_that_leaves_the_rule_alone_changes_nothing():
    plain, a = with_vector(ruled(BUFFERED, "fedit"))
    momentum, b = with_vector(ruled(BUFFERED, "fedit", server_optimizer={"kind": "momentum", "beta": 0.0}))

    assert plain.visits.equals(momentum.visits)
    np.testing.assert_allclose(a, b, rtol=1e-6)
