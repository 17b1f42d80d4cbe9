"""Whole runs of LoRA as it is practised: a GPT-2 of two blocks, with what travels, is charged, kept and begun from."""

from __future__ import annotations

import numpy as np
import pytest
from worlds.resumed_runs import contents, resumed, started
from worlds.whole_runs import finished

from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate
from fedsim.training.backbone import Stack
from fedsim.training.beside import saved_adapter

C_ATTN = 2 * (32 + 96)
"""Floats of a block's adapter of rank 2 on c_attn, A (2, 32) and B (96, 2)."""
DORA = {"r": 2, "alpha": 4.0, "targets": ["c_attn"], "dora": True, "bias": "lora_only", "lr_ratio": 4.0}
SYNC = {"protocol": {"kind": "synchronous", "cohort": 2}}
ASYNC = {"protocol": {"kind": "buffered", "buffer": 2, "concurrency": 3}}


@pytest.fixture(scope="module")
def language(gpt2, text_folder):
    def build(**blocks):
        base = {
            "task": {"kind": "language", "model": gpt2, "data": str(text_folder), "sequence": 16},
            "lora": DORA,
            "population": {"preset": "homogeneous", "clients": 4},
            "local": {"optimizer": "adamw", "lr": 0.02, "steps": 2, "batch": 4},
            "budget": {"commits": 2},
            "evaluate": {"every_commits": 2, "windows": 2},
            "runtime": {"executor": "inline"},
        }
        return Experiment.model_validate({**base, **SYNC, **blocks})

    return build


@pytest.mark.parametrize("protocol", [SYNC, ASYNC], ids=["synchronous", "buffered"])
def test_magnitudes_and_biases_travel_are_averaged_and_change_no_instant(language, protocol):
    asked = language(**protocol)
    run, model = finished(asked)
    layout = model.adapter.layout
    beside = [layout.slices[t.name][0] for t in layout.beside]

    assert len(beside) == 4
    assert set(run.visits.up_bytes) == set(run.visits.down_bytes) == {4 * 2 * (C_ATTN + 96 + 96)}
    first = prepare(asked).task.initial()
    assert all((model.adapter.vector[place] != first[place]).any() for place in beside)
    alone = simulate(asked, timeline_only=True)
    times = ["client", "dispatched_s", "ended_s", "up_bytes", "flops"]
    assert run.visits[times].equals(alone.visits[times])


@pytest.mark.parametrize(
    ("rule", "sent"),
    [("ffa", 96), ("rolora", 96), ("fedsa", 32)],
)
def test_what_is_beside_a_factor_goes_with_it(language, rule, sent):
    asked = language(aggregator={"kind": rule}, budget={"commits": 1})
    run, _ = finished(asked)
    assert set(run.visits.up_bytes) == {4 * 2 * (2 * sent + 96 + 96)}


def test_a_run_goes_on_from_the_adapter_that_another_has_saved(language, tmp_path):
    before = simulate(language(), out=tmp_path / "run", report=False)
    folder = str(tmp_path / "run" / "adapter")
    asked = language(lora={**DORA, "start_from": folder}, budget={"commits": 1})
    plan = prepare(asked)

    assert np.array_equal(plan.task.initial(), saved_adapter.read_saved(folder, plan.task.layout))
    run, _ = finished(asked)
    last, first = (scores[scores.metric == "loss"].value for scores in (before.scores, run.scores))
    assert first.iloc[0] == pytest.approx(last.iloc[-1], rel=1e-6)
    assert first.iloc[0] != last.iloc[0]
    assert plan.task.describe()["start_from_sha256"] == saved_adapter.digest(folder)


def test_patterns_of_rank_are_sent_module_by_module_and_saved_so(language, tmp_path):
    lora = {"r": 2, "alpha": 4.0, "targets": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 5}, "rslora": True}
    asked = language(lora=lora)
    run, model = finished(asked)
    prepare(asked).task.save_adapter(model.adapter.vector, tmp_path / "adapter")
    assert [m.rank for m in model.adapter.layout.modules] == [2, 5, 2, 5]
    assert {m.scale for m in model.adapter.layout.modules} == {4 / 2**0.5, 4 / 5**0.5}
    assert set(run.visits.up_bytes) == {4 * 2 * (C_ATTN + 5 * (32 + 128))}
    again = prepare(language(lora={**lora, "start_from": str(tmp_path / "adapter")}))
    assert np.array_equal(again.task.initial(), model.adapter.vector)


def test_dora_is_charged_for_its_lengths_in_every_pass(language):
    plain, dora = (
        prepare(language(lora={"r": 2, "alpha": 4.0, "targets": ["c_attn"], "dora": on}))
        for on in (False, True)
    )
    visits = [plan.work(0, plan.sizing.first_offer(0, 2)) for plan in (plain, dora)]
    maps, passes = 2, 2
    assert visits[1].flops - visits[0].flops == passes * maps * 2 * 2 * 32 * (32 + 96)
    assert visits[1].memory_bytes > visits[0].memory_bytes
    assert visits[1].up_bytes - visits[0].up_bytes == 4 * maps * 96


def test_a_run_that_was_cut_goes_on_to_the_same_bytes_and_passes_the_audit(language, tmp_path):
    asked = language(**ASYNC, budget={"commits": 3}, runtime={"executor": "inline", "checkpoint_commits": 1})
    started(asked, tmp_path / "whole")
    assert started(asked, tmp_path / "cut", stop=3) is None
    run = resumed(tmp_path / "cut")
    assert run.info.resumed[0].version == 2
    assert verify(run) == []
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("quantise", ["none", "nf4"])
def test_at_version_0_dora_is_the_frozen_model_also_a_quantised_one(language, quantise):
    task = {**language().task.model_dump(mode="json"), "quantise": quantise}
    plain, dora = (
        finished(language(task=task, lora={"r": 2, "alpha": 4.0, "dora": on}, budget={"commits": 1}))[
            0
        ].scores
        for on in (False, True)
    )
    assert dora.value.iloc[0] == pytest.approx(plain.value.iloc[0], rel=1e-5)


def test_a_denoiser_trains_with_dora_biases_and_patterns_and_stock_peft_loads_it(tmp_path):
    import torch
    from peft import PeftModel

    from fedsim.training.diffusion import models as denoisers
    from fedsim.training.diffusion import process as diffusion

    lora = {"r": 2, "alpha": 2, "targets": ["attention", "conv1"], "dora": True, "bias": "lora_only",
            "rank_pattern": {"to_q": 1}, "lr_ratio": 2.0}  # fmt: skip
    asked = Experiment.model_validate({
        "population": {"preset": "homogeneous", "clients": 3},
        "task": {"kind": "images", "partition": {"kind": "iid"}, "samples": 0, "grid": 2},
        "lora": lora,
        "local": {"lr": 3e-3, "steps": 2, "batch": 8},
        **SYNC,
        "budget": {"commits": 1},
        "evaluate": {"every_commits": 1, "splits": ["test"], "windows": 32},
        "runtime": {"executor": "inline"},
    })  # fmt: skip
    run = simulate(asked, out=tmp_path / "run", report=False)
    assert verify(run) == []
    task = prepare(asked).task
    assert task.suggested_training() == "swapped"
    assert set(run.visits.up_bytes) == {4 * task.layout.size}
    vector = saved_adapter.read_saved(str(tmp_path / "run" / "adapter"), task.layout)
    assert not np.array_equal(vector, task.initial())
    how, backbone = denoisers.signature(task.model), task.image_model._backbone()
    x, t = torch.randn(2, *how.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 40])
    told = torch.tensor([1, 2]) if how.takes_classes else None
    loaded = PeftModel.from_pretrained(
        denoisers.weights(task.model), str(tmp_path / "run" / "adapter")
    ).eval()
    with torch.no_grad():
        theirs = diffusion.predicted(loaded, how, x, t, told)
    scales = torch.tensor([[m.scale for m in task.layout.modules]])
    ours = backbone.predictor(Stack(torch.from_numpy(vector)[None], scales), told)(x, t)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
