"""`evaluate.keep_best`: the adapter of the best scored version, to the byte, after any end; and what cannot have one."""

from __future__ import annotations

import json

import pytest
from worlds.resumed_runs import BASE, FEDBUFF, KINDS, gone_through

import fedsim
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError
from fedsim.records.watching.score import BestVersion
from fedsim.runs.audit import audit

BLOCKS = {**BASE, **FEDBUFF}
DIVERGES = {"aggregator": {"kind": "fedit", "server_lr": 4.0}, "budget": {"commits": 8}}
"""A server step this large overshoots: version 2 is the best of them."""


def experiment(kind="fedbuff", metric="loss", **blocks):
    evaluate = {**BASE["evaluate"], **KINDS[kind].get("evaluate", {}), "keep_best": metric}
    return Experiment.model_validate({**BASE, **KINDS[kind], "evaluate": evaluate, **blocks})


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def best_by_hand(run, split="test", metric="loss"):
    rows = run.scores[(run.scores.split == split) & (run.scores.metric == metric)]
    row = rows.loc[rows["value"].idxmin()]
    return BestVersion(int(row["version"]), split, metric, float(row["value"]))


MORE = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("ditto", "flora", "fedat")]


@pytest.mark.parametrize("kind", ["fedbuff", "fedex", *MORE])
def test_what_is_kept_is_the_adapter_of_a_run_that_ends_there(kind, tmp_path):
    """The scores of all these fall, so the run is made to forget at the end: its best version is not its last."""
    run = fedsim.simulate(experiment(kind, **_overshooting(kind)), out=tmp_path / "run", report=False)
    best = best_by_hand(run)
    assert run.info.best == best
    assert audit(run).problems == ()
    ends = fedsim.simulate(
        experiment(kind, **{**_overshooting(kind), "budget": {"commits": max(1, best.version)}}),
        out=tmp_path / "ends", report=False,
    )  # fmt: skip
    if best.version:
        assert files(run.folder / "best") == files(ends.folder / "adapter")


def _overshooting(kind):
    return DIVERGES if kind == "fedbuff" else {}


def test_the_best_is_not_the_last_where_the_loss_rises_again(tmp_path):
    run = fedsim.simulate(experiment(**DIVERGES), out=tmp_path / "run", report=False)
    assert run.info.best.version == 2
    assert files(run.folder / "best") != files(run.folder / "adapter")
    stored = json.loads((run.folder / "run.json").read_text())
    assert stored["best"] == {
        "version": run.info.best.version,
        "split": "test",
        "metric": "loss",
        "value": run.info.best.value,
    }
    assert "best/adapter_model.safetensors" in stored["files"]

    (run.folder / "best" / "adapter_model.safetensors").write_bytes(b"another")
    assert any(
        "best/adapter_model.safetensors" in problem for problem in audit(fedsim.load(run.folder)).problems
    )


@pytest.mark.parametrize("at", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_it_is_the_same_after_a_kill_though_it_lies_before_the_checkpoint(at, tmp_path):
    whole = fedsim.simulate(experiment(**DIVERGES), out=tmp_path / "whole", report=False)
    assert whole.info.best.version == 2
    gone_through(
        lambda watch: fedsim.simulate(
            experiment(**DIVERGES), out=tmp_path / "cut", on_event=watch, report=False
        ),
        stop=at,
    )
    run = fedsim.resume(tmp_path / "cut", report=False)
    assert run.info.resumed[0].version in (4, 6)
    assert run.info.best == whole.info.best
    assert files(run.folder / "best") == files(whole.folder / "best")


def test_valid_comes_before_test_and_a_run_without_it_keeps_none(tmp_path):
    assert (
        experiment(evaluate={"keep_best": "loss", "splits": ["test", "valid"]}).evaluate.best_split == "valid"
    )
    assert (
        experiment(evaluate={"keep_best": "loss", "splits": ["clients", "test"]}).evaluate.best_split
        == "test"
    )
    assert experiment(evaluate={"keep_best": "loss", "splits": ["clients"]}).evaluate.best_split == "clients"
    run = fedsim.simulate(Experiment.model_validate(BLOCKS), out=tmp_path / "run", report=False)
    assert run.info.best is None
    assert not (run.folder / "best").exists()


def test_scores_that_are_not_finite_are_never_the_best():
    from fedsim.server.values.goals import Best

    best = Best(experiment().evaluate)
    for version, value in enumerate([float("nan"), 3.0, float("-inf"), 2.0, 2.0, float("nan")]):
        best.note(version, {"loss": value}, f"model {version}")
    assert (best.version, best.model) == (BestVersion(3, "test", "loss", 2.0), "model 3")
    more = Best(experiment(metric="accuracy").evaluate)
    for version, value in enumerate([0.2, 0.7, 0.5]):
        more.note(version, {"accuracy": value}, f"model {version}")
    assert more.model == "model 1"


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"evaluate": {"keep_best": "share of cats"}}, "is a metric without a better and a worse"),
        ({"aggregator": {"kind": "local-only"}, "protocol": {"kind": "buffered", "concurrency": 5, "buffer": 1}}, "evaluate.keep_best"),
        ({"personal": {"kind": "fedper"}}, "evaluate.keep_best"),
    ],
)  # fmt: skip
def test_what_has_no_one_adapter_is_refused_before_anything_starts(blocks, said):
    from fedsim.checks.gate import admit

    with pytest.raises(ExperimentError) as caught:
        admit(experiment(**blocks))
    assert said in str(caught.value)


def test_a_metric_that_nobody_scores_is_named(tmp_path):
    with pytest.raises(ExperimentError, match=r"evaluate.keep_best: no such metric is scored on test"):
        fedsim.simulate(experiment(metric="los"), out=tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_stock_peft_gives_the_best_version_the_score_that_it_was_chosen_by(gpt2, text_folder, tmp_path):
    """A tiny GPT-2, a learning rate that overshoots: the loss of `best/` on valid, by transformers and PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from fedsim.checks.gate import prepared

    settings = {
        "task": {"kind": "language", "model": str(gpt2), "data": str(text_folder), "sequence": 16},
        "population": {"preset": "homogeneous", "clients": 4},
        "protocol": {"kind": "synchronous", "cohort": 2},
        "local": {"steps": 4, "lr": 0.3, "batch": 4},
        "evaluate": {"every_commits": 1, "splits": ["test", "valid"], "windows": 16, "keep_best": "loss"},
        "budget": {"commits": 4},
        "runtime": {"executor": "inline"},
    }
    experiment = Experiment.model_validate(settings)
    run = fedsim.simulate(experiment, out=tmp_path / "run", report=False)
    assert run.info.best == best_by_hand(run, split="valid")
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(gpt2)
        model = PeftModel.from_pretrained(plain, run.folder / "best").eval()
        nll = tokens = 0.0
        task = prepared(experiment).task
        for ids, real in list(zip(task.valid.tokens.astype("int64"), task.valid.counts, strict=True))[:16]:
            labels = torch.from_numpy(ids[None]).clone()
            labels[:, 1 + real :] = -100
            loss = torch.nn.functional.cross_entropy(
                model(torch.from_numpy(ids[None, :-1])).logits[0], labels[0, 1:], reduction="sum"
            )
            nll, tokens = nll + float(loss), tokens + int(real)
    assert nll / tokens == pytest.approx(run.info.best.value, rel=1e-3)
