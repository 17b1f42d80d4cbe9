"""Smaller clients beside what is their own: what a poll asks about, what trains after the run, what cannot go together."""

from __future__ import annotations

import numpy as np
import pytest
from worlds.factored import one_matrix
from worlds.whole_runs import finished

from fedsim.adapters.adapter import Adapter
from fedsim.adapters.units import in_server_units
from fedsim.aggregators._base import Invitation
from fedsim.checks.blocks import check
from fedsim.clock.plan import prepare
from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError
from fedsim.server.values.dispatched import counted

TIERS = {"rank_by": "tier", "ranks": {tier: (2, 4)[i % 2] for i, tier in enumerate(CLASSES)}}
BASE = {
    "task": {"kind": "quadratic", "layout": "lora", "layers": 3},
    "population": {"preset": "mixed_edge_2025", "clients": 8},
    "protocol": {"kind": "synchronous", "cohort": 6},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 3},
    "budget": {"commits": 8},
    "runtime": {"executor": "inline"},
}


def asked(**blocks):
    return Experiment.model_validate({**BASE, **blocks})


# polls ------------------------------------------------------------------------------------------


def test_a_poll_asks_about_the_model_that_a_client_would_train():
    """A client of its own scale has what it keeps, and the server counts it in its own units."""
    layout = one_matrix(5, 6, 4, 2.0)
    adapter = Adapter(layout, np.arange(1.0, layout.size + 1, dtype=np.float32))
    small = Invitation(0, 1, 2, 4.0, None)
    mine = (adapter.cut(2, 4.0) * np.float32(3.0)).astype(np.float32)

    assert counted(adapter, mine, small, 2.0).tolist() == in_server_units(layout, mine, 4.0).tolist()
    assert counted(adapter, adapter.cut(2, 4.0), small, 2.0) is adapter.cut(
        2
    )  # one array for all who start there
    assert counted(adapter, mine, Invitation(0, 1, 2, 2.0, None), 2.0) is mine


# after the run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("personal", "trains"), [("fedper", "B"), ("ditto", "B"), ("fine-tune", "AB")])
def test_who_joins_after_the_run_trains_what_a_visit_trains(personal, trains, monkeypatch):
    plan = prepare(asked(aggregator={"kind": "ffa"}, personal={"kind": personal, "unseen": 2}))
    jobs, train = [], type(plan.task).train
    monkeypatch.setattr(type(plan.task), "train", lambda self, some: jobs.extend(some) or train(self, some))
    finished(plan)

    assert {job.trains for job in jobs if job.purpose == "train"} == {"B"}
    after = [job for job in jobs if job.purpose != "train" and job.client in plan_unseen(plan)]
    assert after
    assert {job.trains for job in after} == {trains}


def plan_unseen(plan):
    from fedsim.server.values.private_parts import unseen

    return set(unseen(plan.parts.personal, plan.experiment))


# what cannot go together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "small",
    [
        {"lora": TIERS},
        {"memory": {"when_short": ["rank"]}},
        {"protocol": {"kind": "timely", "partial": "rank"}},
    ],
)
def test_a_saved_adapter_is_not_cut_by_a_rule_whose_slots_are_in_order(small, tmp_path):
    blocks = {**small, "lora": {"r": 4, "start_from": str(tmp_path), **small.get("lora", {})}}
    with pytest.raises(ExperimentError, match=r"lora\.start_from: has slots in no order, and flexlora"):
        check(asked(aggregator={"kind": "flexlora"}, **blocks))


def test_what_is_owed_is_not_lost_with_messages_that_a_rule_drops():
    buffered = {"kind": "buffered", "concurrency": 4, "buffer": 2}
    owing = {"wire": {"top_k": 0.5, "error_feedback": True}}
    dropping = {"aggregator": {"kind": "rolora", "other_phase": "drop"}}

    with pytest.raises(ExperimentError, match=r"wire\.error_feedback: keeps what a message left out"):
        check(asked(**dropping, **owing, protocol=buffered))
    check(asked(**dropping, **owing))  # in rounds every update is of the phase of its version
    check(asked(aggregator={"kind": "rolora"}, **owing, protocol=buffered))
