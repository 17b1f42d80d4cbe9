"""Whole runs with adapters in the last layers by device: rounds, FedBuff, FedAsync, personal parts, resumed, on a real model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from worlds.resumed_runs import BASE, FEDBUFF, SYNC, TIERS, contents, resumed, started
from worlds.whole_runs import assert_same, finished

import fedsim
from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.jobs import Job
from fedsim.records.verify import verify
from fedsim.runs.audit import audit

DEEP = {**TIERS, "phone-low": 1, "iot": 1, "mcu": 1, "sbc": 1, "phone-mid": 2, "tablet": 2}
DEPTHS = {tier: min(3, depth) for tier, depth in DEEP.items()}
LORA = {"r": 4, "alpha": 8.0, "depth_by": "tier", "depths": DEPTHS}
COMMON = {**BASE, "task": {**BASE["task"], "layers": 3}, "lora": LORA}
BY_RANK = {"lora": {**LORA, "rank_by": "tier", "ranks": TIERS}}

KINDS = {
    "rounds": {**SYNC},
    "rounds, ranks too": {**SYNC, **BY_RANK, "wire": {"dtype": "int8", "down_dtype": "int8"}},
    "fedbuff": {**FEDBUFF, "aggregator": {"kind": "flexlora"}},
    "fedasync": {
        "protocol": {"kind": "buffered", "concurrency": 5, "buffer": 1},
        "aggregator": {"kind": "mixing"},
    },
    "rolora": {**FEDBUFF, "aggregator": {"kind": "rolora"}, "server": {"compute": {"flops_per_s": 1e6}}},
    "fedper": {**FEDBUFF, "personal": {"kind": "fedper"}, "lora": {**LORA, "depths": {t: max(2, d) for t, d in DEPTHS.items()}}},
    "ditto": {**SYNC, "personal": {"kind": "ditto"}, "wire": {"top_k": 0.3, "error_feedback": True}},
    "fedsa": {**FEDBUFF, "aggregator": {"kind": "fedsa"}},
    "power-of-choice": {**SYNC, "sampler": {"kind": "power-of-choice", "candidates": 8}},
}  # fmt: skip
QUICK = ("rounds", "rounds, ranks too", "fedbuff", "fedasync", "fedper", "ditto")
"""One of each kind; `-m slow` tries the others."""
RESUMED = ("rounds, ranks too", "ditto")


def asked(kind):
    return Experiment.model_validate({**COMMON, **KINDS[kind]})


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_a_run_is_sound_and_has_the_schedule_of_one_without_training(kind, tmp_path):
    run = fedsim.simulate(asked(kind), out=tmp_path / "run", report=False)

    assert not verify(run)
    assert run.info.charged.clients_by_depth
    assert set(run.info.charged.clients_by_depth) > {"2"}
    if kind == "power-of-choice":
        return  # it reads losses: there is no schedule without them
    assert not audit(run).problems
    bare = fedsim.simulate(asked(kind), timeline_only=True)
    values = ["computed", "loss", "loss_square"]
    pd.testing.assert_frame_equal(run.visits.drop(columns=values), bare.visits.drop(columns=values))


@pytest.mark.parametrize("kind", [*RESUMED, pytest.param("fedbuff", marks=pytest.mark.slow)])
def test_what_goes_on_ends_like_what_never_stopped(kind, tmp_path):
    experiment = asked(kind)
    started(experiment, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert started(experiment, tmp_path / "cut", stop=6) is None

    resumed(tmp_path / "cut")

    assert contents(tmp_path / "cut") == whole


def test_only_the_layers_that_somebody_trained_move():
    shallow = {"lora": {"r": 4, "alpha": 8.0, "depth": 2}}
    experiment = Experiment.model_validate({**COMMON, **SYNC, **shallow})
    task = prepare(experiment).task
    run, model = finished(experiment)

    trained = task.layout.slots(depth=2)
    moved = model.adapter.vector != task.initial()
    assert not moved[~trained].any()
    assert moved[trained].all()
    assert set(run.visits["serialized_up_bytes"]) <= {0, 4 * int(trained.sum())}


def test_a_first_round_is_the_mean_of_each_layer_over_those_that_trained_it():
    experiment = Experiment.model_validate({**COMMON, **SYNC, "budget": {"commits": 1}})
    plan = prepare(experiment)
    task, layout = plan.task, plan.task.layout
    run, model = finished(plan)

    start, ends, weights = task.initial(), [], []
    used = run.visits[run.visits["committed_version"] == 1]
    for client in used["client"].tolist():
        depth = plan.depth(client)
        upper = start * layout.slots(depth=depth)
        job = Job(client, 0, upper.astype(np.float32), experiment.local, 0, depth=depth)
        ends.append(task.train([job])[0].end)
        weights.append(layout.slots(depth=depth) * float(task.examples(client)))
    total = np.sum(weights, axis=0)
    moves = sum(w * (end.astype(np.float64) - start) for w, end in zip(weights, ends, strict=True))
    mean = start + np.divide(moves, total, out=np.zeros(layout.size), where=total > 0)
    assert len({plan.depth(c) for c in used["client"]}) > 1
    np.testing.assert_allclose(model.adapter.vector, mean, rtol=1e-5, atol=1e-6)


# a real model -----------------------------------------------------------------------------------

REAL = {
    **COMMON,
    **SYNC,
    "task": {"kind": "language", "model": "builtin", "data": "builtin", "sequence": 16},
    "local": {"optimizer": "sgd", "lr": 0.5, "steps": 2, "batch": 2},
    "budget": {"commits": 2},
    "evaluate": {"every_commits": 2, "windows": 2},
}


@pytest.fixture(scope="module")
def fused():
    return finished(Experiment.model_validate(REAL))


def test_a_run_of_a_real_model_is_that_of_stock_peft_one_by_one(fused):
    run, model = fused
    slow = {"numerics": {"client_batch": 1, "training": "sequential"}}
    other, oracle = finished(Experiment.model_validate({**REAL, **slow}))

    assert_same(run, other, "scores", "visits", "commits")
    timed = ["landed_s", "up_bytes", "flops", "joules", "outcome"]
    pd.testing.assert_frame_equal(run.visits[timed], other.visits[timed])
    start = prepare(Experiment.model_validate(REAL)).task.initial()
    moved = np.abs(oracle.adapter.vector - start).max()
    assert moved > 1e-3
    assert np.abs(model.adapter.vector - oracle.adapter.vector).max() < 1e-4 * moved


def test_a_real_model_s_bytes_and_flops_are_those_of_its_layers(fused):
    run, _ = fused
    plan = prepare(Experiment.model_validate(REAL))
    whole = plan.task.layout.size
    landed = run.visits[run.visits["outcome"] == "landed"]

    for client, sent in zip(landed["client"], landed["up_bytes"], strict=True):
        depth = plan.depth(client)
        assert sent == 4 * (whole if depth is None else plan.task.layout.last(depth).size)
    by_depth = {plan.depth(c): plan.training_plan(c).flops_per_token for c in range(12)}
    assert by_depth[1] < by_depth[2] < by_depth[None]
