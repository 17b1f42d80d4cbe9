"""Pieces of an evaluation go through the model together, in what fits, and no more of them than is worth their time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedsim.adapters.moved_base import dense_size
from fedsim.checks.gate import prepared
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.jobs import Probe, ScoreJob, TaskContext
from fedsim.tasks._dealt import QUICK_FLOPS
from fedsim.tasks._splits import PIECE
from fedsim.tasks.language import Language
from fedsim.training.text_model import LOGITS, STATES


def task(model, data, training="auto", **fields):
    numerics = NumericsConfig(training=training)
    context = TaskContext(4, 0, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4), numerics)
    return Language(model=model, data=str(data), sequence=16, **fields).build(context)


@pytest.fixture(params=["fused", "swapped", "sequential"])
def ready(request, llama, text_folder):
    return task(llama, text_folder, request.param)


def test_pieces_of_many_vectors_and_bases_have_the_sums_that_each_has_alone(ready):
    rng = np.random.default_rng(0)

    def drawn(size):
        return (0.05 * rng.standard_normal(size)).astype(np.float32)

    base = drawn(dense_size(ready.layout))
    probes = [
        Probe("client", 0, 2, 1),
        Probe("test", 0, 5),
        Probe("client", 0, 1, 3),
        Probe("shard", 0, 7, 0),
    ]
    jobs = [ScoreJob(drawn(ready.layout.size), probe, under) for under in (None, base) for probe in probes]
    jobs = [jobs[i] for i in (0, 4, 1, 5, 2, 6, 3, 7)]  # bases in turn
    together, alone = ready.score_together(jobs), [ready.score(j.vector, j.probe, j.base) for j in jobs]

    for ours, single in zip(together, alone, strict=True):
        assert ours["nll"] == pytest.approx(single["nll"], rel=1e-5)
        assert {k: v for k, v in ours.items() if k != "nll"} == {
            k: v for k, v in single.items() if k != "nll"
        }
    assert len({round(sums["nll"], 6) for sums in together}) == len(jobs)


def test_as_many_windows_go_through_a_model_at_once_as_their_logits_and_states_allow(llama, text_folder):
    model = task(llama, text_folder).text_model
    smollm = replace(model, vocabulary=49_152, width=576)

    assert model.rows_at_once(16, PIECE) == PIECE
    assert smollm.rows_at_once(64, PIECE) == LOGITS // (64 * 49_152) == 5
    assert smollm.rows_at_once(2048, PIECE) == 1
    assert replace(model, vocabulary=32, width=4096).rows_at_once(128, PIECE) == STATES // (128 * 4096) == 8


def test_a_split_is_cut_where_scoring_it_took_longer_than_the_training_between(llama, text_folder):
    small, local = task(llama, text_folder), LocalConfig(steps=1, batch=1)
    windows = len(small.test)  # a visit is one window; a training token costs as much as two that are scored
    assert small.suggested_windows(0.0, local, ["test"]) is None  # a small model: scored in no time

    heavy = replace(small, shape=replace(small.shape, matmul_params=10**12))
    assert heavy.suggested_windows((windows - 1) / 2, local, ["test"]) == windows - 1
    assert heavy.suggested_windows(windows / 2, local, ["test"]) is None
    assert heavy.suggested_windows(0.0, local, ["test"]) == PIECE < windows
    assert heavy.suggested_windows(0.0, local, ["samples"]) is None
    quick = replace(small, shape=replace(small.shape, matmul_params=int(QUICK_FLOPS / (2 * 16 * 40))))
    assert quick.suggested_windows(0.0, local, ["test"]) == 40


@pytest.mark.parametrize(
    ("evaluate", "bound"),
    [({}, PIECE), ({"windows": "all"}, "all"), ({"windows": 50}, 50), ({"every_s": 60.0}, None)],
)
def test_the_bound_is_written_down_with_the_run_unless_it_is_given(
    llama, text_folder, monkeypatch, evaluate, bound
):
    monkeypatch.setattr("fedsim.tasks._language.causal.QUICK_FLOPS", 0.0)
    blocks = {
        "population": {"preset": "homogeneous", "clients": 4},
        "task": {"kind": "language", "model": llama, "data": str(text_folder), "sequence": 16},
        "local": {"steps": 1, "batch": 1},
        "protocol": {"kind": "synchronous", "cohort": 1},
        "evaluate": {"every_commits": 1} | evaluate if "every_s" not in evaluate else evaluate,
        "budget": {"commits": 1},
    }
    plan = prepared(Experiment.model_validate(blocks))

    assert plan.experiment.evaluate.windows == bound
    assert ("evaluate.windows" in plan.filled) == (bound == PIECE and not evaluate)
    assert prepared(plan.experiment).experiment == plan.experiment
