"""Federated denoisers under the rest of the engine: moved bases, unequal ranks, coded messages, private parts, polls."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import fedsim
from fedsim.adapters.moved_base import dense_size
from fedsim.checks.blocks import check
from fedsim.clock.plan import prepare
from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.cost.formulas import train_flops
from fedsim.metrics.sums import add_sums
from fedsim.records import views
from fedsim.records.verify import verify
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion.denoising import Denoiser
from fedsim.training.diffusion.image_model import ImageModel

RANKS = {"phone-low": 1, "laptop": 4, "desktop": 4}


def asked(**blocks):
    """Five alike devices with one new digit each, two rounds."""
    experiment = Experiment.model_validate({
        "name": "images",
        "population": {"preset": "homogeneous", "clients": 5},
        "task": {"kind": "images", "partition": {"kind": "pathological", "classes": 1}, "samples": 16, "sampling_steps": 2, "grid": 4},
        "lora": {"r": 4, "alpha": 4, "targets": ["attention", "resnets"]},
        "local": {"lr": 3e-3, "steps": 3, "batch": 16},
        "protocol": {"kind": "synchronous", "cohort": 5},
        "budget": {"commits": 2},
        "evaluate": {"every_commits": 2, "splits": ["test"], "windows": 48},
        "runtime": {"executor": "inline"},
        **blocks,
    })  # fmt: skip
    check(experiment)
    return experiment


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run of these settings, in a folder."""
    return fedsim.simulate(asked(), out=tmp_path_factory.mktemp("plain") / "run", report=False)


def losses(run):
    return views.scored(run, "loss")["value"].to_numpy()


def same_schedule(experiment, run):
    """The run without weights has the same visits, but for what values alone decide."""
    blind = fedsim.simulate(experiment, timeline_only=True)
    columns = ["client", "rank", "landed_s", "down_bytes", "up_bytes", "flops", "committed_version"]
    return blind.visits[columns].equals(run.visits[columns])


def test_flora_moves_the_base_of_a_denoiser_and_stock_peft_loads_what_is_left(tmp_path, monkeypatch):
    """The saved adapter is the whole change: on stock weights it has the loss that the run ended with."""
    from peft import PeftModel

    experiment = asked(aggregator={"kind": "flora"})
    run = fedsim.simulate(experiment, out=tmp_path / "run", report=False)
    assert losses(run)[-1] < losses(run)[0]
    assert run.info.saved_adapter.base_version == 2
    assert same_schedule(experiment, run)
    assert verify(run) == []

    task = prepare(experiment).task
    assert run.info.saved_adapter.rank > task.layout.rank  # stacks of five clients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(
            denoisers.weights(task.source.name), str(run.folder / "adapter")
        ).merge_and_unload()
    merged = Denoiser(model, task.layout, task.how, task.source.process)
    monkeypatch.setattr(ImageModel, "_model", lambda _: merged)
    nothing = np.zeros(task.layout.size, np.float32)
    again = task.metrics(add_sums([task.score(nothing, probe) for probe in task.probes("test", 48)]))
    assert again["loss"] == pytest.approx(losses(run)[-1], rel=1e-4)
    listed = json.loads((run.folder / "samples" / "samples.json").read_text())
    assert [entry["file"] for entry in listed] == ["real.png", "before.png", "after.png"]


def test_a_base_changes_scores_and_samples_and_leaves_no_trace():
    task = prepare(asked()).task
    vector = task.initial()
    base = np.random.default_rng(0).normal(0, 0.02, dense_size(task.layout)).astype(np.float32)
    (probe,) = task.probes("samples")
    first = task.draw(vector, [0, 1])
    scored = task.score(vector, probe)["total"]
    assert (task.draw(vector, [0, 1], base) != first).any()
    assert not np.allclose(task.score(vector, probe, base)["total"], scored)
    np.testing.assert_array_equal(task.draw(vector, [0, 1]), first)


def test_ranks_by_tier_under_flexlora_train_and_are_charged_slot_by_slot(tmp_path):
    experiment = asked(
        population={"preset": "mixed_edge_2025", "clients": 6, "availability": "always"},
        lora={"r": 4, "alpha": 4, "targets": ["attention", "resnets"], "rank_by": "tier",
              "ranks": {tier: RANKS.get(tier, 2) for tier in CLASSES}},
        aggregator={"kind": "flexlora"},
        protocol={"kind": "synchronous", "cohort": 6},
    )  # fmt: skip
    plan = prepare(experiment)
    assert len(set(plan.ranks.tolist())) > 1
    run = fedsim.simulate(experiment, out=tmp_path / "run", report=False)
    landed = run.visits[run.visits["outcome"] == "landed"]
    assert (
        dict(zip(landed["client"], landed["rank"], strict=True)).items()
        <= dict(enumerate(plan.ranks)).items()
    )
    whole = 4 * plan.task.layout.size
    assert (landed["up_bytes"] == whole * landed["rank"] // 4).all()
    full = train_flops(plan.shape, 3 * 16 * 64)
    per_slot = plan.shape.operations.slot
    cheaper = 3 * 16 * (4 - landed["rank"]) * (per_slot.forward + per_slot.backward)
    np.testing.assert_allclose(landed["flops"], full - cheaper, rtol=1e-12)
    assert losses(run)[-1] < losses(run)[0]
    assert same_schedule(experiment, run)
    assert verify(run) == []


def test_eight_bits_on_the_wire_carry_a_quarter_and_still_teach(plain):
    coded = fedsim.simulate(asked(wire={"dtype": "int8"}))
    share = coded.visits["up_bytes"].sum() / plain.visits["up_bytes"].sum()
    assert 0.25 < share < 0.32  # a scale for each block besides
    assert losses(coded)[-1] < losses(coded)[0]
    assert losses(coded)[-1] != losses(plain)[-1]
    assert losses(coded)[-1] == pytest.approx(losses(plain)[-1], rel=0.02)
    assert verify(coded) == []


@pytest.mark.parametrize(
    ("blocks", "shown"),
    [
        pytest.param({"aggregator": {"kind": "local-only"}}, 3, marks=pytest.mark.slow),
        pytest.param({"aggregator": {"kind": "fedsa"}}, 3, marks=pytest.mark.slow),
        ({"personal": {"kind": "ditto", "clients": 2}}, 2),
    ],
)
def test_what_clients_keep_is_scored_and_shown(tmp_path, blocks, shown):
    run = fedsim.simulate(asked(**blocks), out=tmp_path / "run", report=False)
    listed = [e["file"] for e in json.loads((run.folder / "samples" / "samples.json").read_text())]
    common = "aggregator" not in blocks
    assert ("after.png" in listed) == common == (run.folder / "adapter").exists()
    assert sum(name.startswith("client-") for name in listed) == shown
    assert (run.personal["gain"] > 0).any()


def test_partial_visits_of_declared_images_are_charged_in_proportion():
    charge = {"preset": "ddpm-cifar10-32", "images_per_visit": 100}
    task = {"kind": "images", "samples": 0, "charge_as": charge}
    plan = prepare(asked(task=task, compute={"flops": "layers"}))
    whole, third = plan.work(0), plan.work(0, steps=1)
    assert whole.tokens == 100 * 1024
    assert third.tokens == round(100 * 1024 / 3)
    assert whole.flops == pytest.approx(100 * plan.shape.operations.flops(checkpoint=False))


def test_polls_of_images_cost_a_forward_pass_and_are_answered():
    experiment = asked(
        sampler={"kind": "power-of-choice", "candidates": 4},
        protocol={"kind": "synchronous", "cohort": 2},
        budget={"commits": 1},
    )
    run = fedsim.simulate(experiment)
    polls = run.visits[run.visits["outcome"] == "polled"]
    assert len(polls) == 4
    plan = prepare(experiment)
    for client, flops in zip(polls["client"], polls["flops"], strict=True):
        assert flops == pytest.approx(plan.task.examples(client) * plan.shape.operations.forward)


def test_an_average_of_versions_is_what_is_scored_shown_and_saved(plain, tmp_path):
    experiment = asked(evaluate={"every_commits": 2, "splits": ["test"], "windows": 48, "ema": 0.9})
    run = fedsim.simulate(experiment, out=tmp_path / "run", report=False)
    for table in ("visits", "commits"):
        assert getattr(run, table).equals(getattr(plain, table))
    saved = [(r.folder / "adapter" / "adapter_model.safetensors").read_bytes() for r in (plain, run)]
    assert saved[0] != saved[1]
    assert losses(run)[0] == losses(plain)[0]
    assert losses(run)[-1] != losses(plain)[-1]
