"""Runs on a quantised frozen base: its bytes, times and refusals, who can take part, going on after an end, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from worlds.resumed_runs import contents, resumed, started
from worlds.text_files import written

import fedsim
from fedsim.checks.gate import prepared
from fedsim.cli.app import call
from fedsim.cost.quantised import Quantise
from fedsim.cost.shape import backbone_bytes
from fedsim.devices.stacks.law import StepLaw
from fedsim.runs.preflight.holding import holding

BASE = {
    "name": "coded",
    "population": {"preset": "mixed_edge_2025", "clients": 4},
    "task": {"kind": "language", "sequence": 16},
    "lora": {"r": 2, "alpha": 4.0},
    "local": {"lr": 0.02, "steps": 2, "batch": 4},
    "protocol": {"kind": "buffered", "concurrency": 3, "buffer": 2},
    "budget": {"commits": 3},
    "evaluate": {"every_commits": 3, "windows": 2},
    "numerics": {"client_batch": 3},
    "runtime": {"executor": "inline", "checkpoint_commits": 1},
}
GEMMA = {"preset": "gemma-3-270m", "tokens_per_visit": 2000, "sequence": 128}


def merged(base, changes):
    """`base` with the keys of `changes` laid over it, block by block."""
    whole = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = merged(whole[key], value) if both else value
    return whole


@pytest.fixture(scope="module")
def asked(llama, text_folder):
    def build(**changes):
        named = {"task": {"model": llama, "data": str(text_folder)}}
        return fedsim.Experiment.model_validate(merged(merged(BASE, named), changes))

    return build


@pytest.fixture(scope="module")
def runs(asked):
    """One experiment with its base as it is, and in 4 bits."""
    return {how: fedsim.simulate(asked(task={"quantise": how}), report=False) for how in ("none", "nf4")}


def test_what_is_learned_follows_from_the_quantised_weights(runs):
    plain, coded = (run.scores[run.scores["metric"] == "loss"]["value"].tolist() for run in runs.values())

    assert plain != coded
    assert coded == pytest.approx(plain, rel=0.02)
    assert [a == b for a, b in zip(plain, coded, strict=True)] == [False] * len(plain)


def test_the_schedule_is_that_of_the_timeline_alone(asked, runs):
    timeline = fedsim.simulate(asked(task={"quantise": "nf4"}), timeline_only=True, report=False)

    for column in (
        "client",
        "dispatched_s",
        "landed_s",
        "outcome",
        "down_bytes",
        "up_bytes",
        "flops",
        "joules",
    ):
        np.testing.assert_array_equal(runs["nf4"].visits[column], timeline.visits[column])


def test_it_is_said_how_many_weights_are_quantised(runs):
    (said,) = runs["nf4"].info.resolved.notices
    per_layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48

    assert said.startswith(f"{2 * per_layer:,} of ")
    assert "nf4 in blocks of 64: 0.5625 bytes each" in said
    assert runs["none"].info.resolved.notices == ()


def test_a_run_goes_on_after_an_end_with_equal_bytes(asked, tmp_path):
    experiment = asked(task={"quantise": {"kind": "int8", "double": True}})
    started(experiment, tmp_path / "whole")
    assert started(experiment, tmp_path / "cut", stop=3) is None
    resumed(tmp_path / "cut")

    whole, again = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert {name: data == whole[name] for name, data in again.items()} == dict.fromkeys(whole, True)
    assert call(["verify", str(tmp_path / "cut")]) == 0


# what is charged ---------------------------------------------------------------------------------


def shape_of(asked, how, **changes):
    return prepared(asked(**merged({"task": {"quantise": how}}, changes))).shape


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_the_model_that_trains_is_charged_for_its_codes(asked, how):
    sizes = [32 * 32, 32 * 16, 32 * 16, 32 * 32, 32 * 48, 32 * 48, 48 * 32] * 2
    plain, coded = shape_of(asked, "none"), shape_of(asked, how)

    assert coded.quantised_params == sum(sizes)
    assert backbone_bytes(coded) == 4 * (plain.params - sum(sizes)) + sum(
        map(Quantise(kind=how).bytes_of, sizes)
    )
    assert (
        shape_of(asked, how, numerics={"training": "swapped"}) == coded
    )  # known with transformers or without


def test_a_first_visit_downloads_the_codes(asked):
    charge, first = {"task": {"charge_as": GEMMA}}, {"network": {"backbone": "first_visit"}}
    more = {
        how: fedsim.simulate(
            asked(**merged(merged(charge, first), {"task": {"quantise": how}})),
            timeline_only=True,
            report=False,
        ).visits.iloc[0]["down_bytes"]
        for how in ("none", "int8", "nf4")
    }
    arch = fedsim.Experiment.model_validate(merged(BASE, charge)).task.charge_as.architecture
    layers = [i * o for i, o in arch.projections.values()] * arch.layers

    assert more["none"] - more["nf4"] == 2 * sum(layers) - sum(map(Quantise(kind="nf4").bytes_of, layers))
    assert more["none"] > more["int8"] > more["nf4"]


def test_unpacking_takes_time_where_a_stack_does_it_in_memory(asked):
    plan = prepared(asked(task={"charge_as": GEMMA, "quantise": "nf4"}))
    work, layers = plan.work(0), plan.shape.matmul_params - plan.shape.head_params
    on_the_way, in_memory = StepLaw("x"), StepLaw("x", expanded_bytes_per_s=1e9)

    assert work.expanded_bytes == pytest.approx(work.steps * 2 * (plan.shape.quantised_bytes + 2 * layers))
    taken_s = in_memory.seconds(work, 1e12) - on_the_way.seconds(work, 1e12)
    assert taken_s == pytest.approx(work.expanded_bytes / 1e9)


@pytest.mark.slow
def test_the_floor_of_the_bandwidth_is_lower_and_copies_are_charged(asked):
    def moved(how, dequantisation):
        compute = {"bandwidth_floor": True, "dequantisation": dequantisation}
        plan = prepared(asked(task={"charge_as": GEMMA, "quantise": how}, compute=compute))
        return plan.work(0).moved_bytes

    assert moved("nf4", "fused") < moved("int8", "fused") < moved("none", "fused")
    assert moved("nf4", "copy") - moved("nf4", "fused") == moved("int8", "copy") - moved("int8", "fused") > 0
    assert moved("none", "copy") == moved("none", "fused")


# who can take part -------------------------------------------------------------------------------

LARGE = {"preset": "qwen-0.5b", "tokens_per_visit": 2000, "sequence": 128, "checkpoint": True}


@pytest.fixture(scope="module")
def crowd(asked):
    def plan(how="none", **charge):
        return prepared(
            asked(
                task={"charge_as": {**LARGE, **charge}, "quantise": how},
                population={"preset": "mixed_edge_2025", "clients": 40},
            )
        )

    return plan


def test_more_can_hold_narrower_weights(crowd):
    rows = holding(crowd())
    everybody = rows[-1]

    assert everybody.tier == "all"
    assert everybody.clients == sum(row.clients for row in rows[:-1]) == 40
    for name in everybody.able:
        assert everybody.able[name] == sum(row.able[name] for row in rows[:-1])
    assert everybody.able["16 bits"] < everybody.able["nf4"]
    assert everybody.able["16 bits"] <= everybody.able["int8"] <= everybody.able["nf4"]
    assert everybody.needed_bytes["16 bits"] > everybody.needed_bytes["int8"] > everybody.needed_bytes["nf4"]


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_what_is_said_of_a_precision_is_what_the_gate_does_at_it(crowd, how):
    plan = crowd(how)
    refused = sum(not plan.training_plan(client).memory.fits for client in range(40))

    assert holding(plan)[-1].able["as set"] == 40 - refused == holding(crowd())[-1].able[how]


def test_a_dry_run_shows_who_can_hold_it(asked, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = asked(
        task={"charge_as": LARGE, "quantise": "nf4"}, population={"preset": "mixed_edge_2025", "clients": 40}
    ).plain()
    path = written(tmp_path / "exp.yaml", plain)

    assert call(["run", str(path), "--dry-run", "--timeline-only"]) == 0
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if line.startswith("can hold it"))
    assert head.split("  ")[0] == "can hold it"
    for name in ("as set", "16 bits", "int8", "nf4", "needs at most"):
        assert name in head
    assert any(line.startswith("all ") for line in out.splitlines())


# what is refused ---------------------------------------------------------------------------------

BROKEN = {
    "a kind that there is not": ({"task": {"quantise": "nf5"}}, ["task.quantise", "'nf4'", "nf5"]),
    "a number of bits": ({"task": {"quantise": 4}}, ["task.quantise"]),
    "a block of too few weights": (
        {"task": {"quantise": {"kind": "nf4", "block": 8}}},
        ["task.quantise.block", "at least 16", "8"],
    ),
    "a block with none": ({"task": {"quantise": {"kind": "none", "double": True}}}, ["task.quantise.kind"]),
    "no modules": (
        {"task": {"quantise": {"kind": "nf4", "modules": []}}},
        ["task.quantise.modules", "is empty"],
    ),
    "modules of another model": (
        {"task": {"quantise": {"kind": "nf4", "modules": ["c_attn"]}}},
        ["task.quantise.modules", "no layer has this name", "c_attn", "q_proj"],
    ),
    "modules that the charged model has not": (
        {"task": {"quantise": {"kind": "nf4", "modules": ["q_proj"]}, "charge_as": {"preset": "gpt2"}}},
        ["task.quantise.modules", "no 'q_proj'", "charge_as.quantise"],
    ),
    "the head": (
        {"task": {"quantise": {"kind": "int8", "modules": "lm_head"}}},
        ["task.quantise.modules", "lm_head"],
    ),
    "bytes of a weight twice": (
        {"task": {"quantise": "nf4", "charge_as": {"preset": "gpt2", "weight_bytes": 0.5}}},
        ["task.charge_as.weight_bytes", "nf4", "0.5"],
    ),
    "bytes of a denoiser's weight twice": (
        {
            "task": {
                "kind": "images",
                "sequence": None,
                "quantise": "int8",
                "charge_as": {"preset": "ddpm-cifar10-32", "weight_bytes": 1},
            }
        },
        ["task.charge_as.weight_bytes", "int8"],
    ),
    "a whole model": (
        {"task": {"quantise": "nf4"}, "lora": {"full": True}},
        ["task.quantise", "trains all of its weights", "nf4"],
    ),
    "a rule that moves the base": (
        {"task": {"quantise": "nf4"}, "aggregator": {"kind": "fedex"}, "protocol": {"kind": "synchronous"}},
        ["task.quantise", "fedex", "frozen weights"],
    ),
    "another rule that does": (
        {"task": {"quantise": "int8"}, "aggregator": {"kind": "flora"}, "protocol": {"kind": "synchronous"}},
        ["task.quantise", "flora"],
    ),
    "the name that others have": (
        {"task": {"load_in_4bit": True}},
        ["task.load_in_4bit", "task.quantise: nf4"],
    ),
    "in the wrong place": ({"quantise": "nf4"}, ["quantise", "task.quantise"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_is_one_sentence_with_a_fix(case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes, words = BROKEN[case]
    plain = {key: BASE[key] for key in ("population", "task", "budget", "runtime")}
    whole = merged(merged(plain, {"population": {"clients": 12}}), changes)
    whole["task"] = {key: value for key, value in whole["task"].items() if value is not None}
    path = written(tmp_path / "exp.yaml", whole)

    assert call(["run", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[:7] for line in err.splitlines()] == ["error: ", "  fix: "], err
    for word in words:
        assert word in err
    assert not (tmp_path / "runs").exists()


def test_a_task_without_a_model_has_no_such_key(tmp_path, capsys):
    whole = {**BASE, "task": {"kind": "quadratic", "quantise": "nf4"}, "local": {"optimizer": "sgd"}}
    path = written(tmp_path / "exp.yaml", whole)

    assert call(["run", str(path)]) == 2
    err = capsys.readouterr().err
    assert "task.quantise: no such key" in err
    assert "language" in err
