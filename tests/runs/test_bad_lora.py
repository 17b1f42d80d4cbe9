"""Settings of LoRA that cannot be: each is one sentence, a way out and exit code 2, and nothing starts."""

from __future__ import annotations

import pytest

from fedsim.cli.app import call

BASE = """
population: {preset: homogeneous, clients: 4}
task: {kind: language}
local: {steps: 1, batch: 4}
protocol: {kind: synchronous, cohort: 2}
budget: {commits: 1}
runtime: {executor: inline}
"""

BROKEN = {
    "DoRA and dropout": (["lora.dora=true", "lora.dropout=0.1"], "lora: has `dora: true` with a `dropout`"),
    "patterns and ranks by device": (
        ["lora.rank_by=memory", "lora.rank_pattern={q_proj: 4}"],
        "lora.rank_by: gives ranks by device, and rank_pattern",
    ),
    "a pattern that is none": (["lora.rank_pattern={'q_proj(': 4}"], "lora: has a pattern that is no regular expression"),
    "a rank of 0": (["lora.rank_pattern={q_proj: 0}"], "lora.rank_pattern.q_proj: must be at least 1"),
    "an alpha that is no number": (["lora.alpha_pattern={q_proj: big}"], "lora.alpha_pattern.q_proj"),
    "a pattern for nobody": (["lora.rank_pattern={c_attn: 4}"], "lora.rank_pattern: no adapted layer has this name"),
    "a pattern behind another": (
        ["lora.rank_pattern={'.*proj': 4, q_proj: 2}"], "lora.rank_pattern: no adapted layer has this name",
    ),
    "a layer that is not there": (["lora.layers_to_transform=[9]"], "lora.layers_to_transform: no layer of this number"),
    "no layer at all": (["lora.layers_to_transform=[]"], "lora: has `layers_to_transform` without a layer"),
    "a layer twice": (["lora.layers_to_transform=[1, 1]"], "lora: has an entry of `layers_to_transform` twice"),
    "a rank wider than a layer": (["lora.rank_pattern={q_proj: 97}"], "is more than model.layers.0.self_attn.q_proj has"),
    "a module that is not there": (["lora.modules_to_save=[score]"], "lora.modules_to_save: no module has this name"),
    "a module with an adapter": (["lora.modules_to_save=[q_proj]"], "cannot be trained whole"),
    "a module without weights": (["lora.modules_to_save=[rotary_emb]"], "lora.modules_to_save: this module has no weights"),
    "biases that are not there": (["lora.bias=all"], "lora.bias: this model has no biases"),
    "a bias of another word": (["lora.bias=some"], "lora.bias"),
    "a rate of 0 for B": (["lora.lr_ratio=0"], "lora.lr_ratio: must be greater than 0"),
    "DoRA where products are stacked": (
        ["lora.dora=true", "aggregator.kind=flora"], "lora.dora: the rule flora works with products B A alone",
    ),
    "biases where products are decomposed": (
        ["lora.bias=all", "aggregator.kind=flexlora"], "lora.bias: the rule flexlora works with the factors A and B alone",
    ),
    "whole modules where residuals are folded": (
        ["lora.modules_to_save=[lm_head]", "aggregator.kind=fedex"],
        "lora.modules_to_save: the rule fedex works with the factors A and B alone",
    ),
    "patterns where clients prune": (
        ["lora.rank_pattern={q_proj: 4}", "aggregator.kind=hetlora"],
        "lora: the rule hetlora needs modules of one rank and one alpha",
    ),
    "patterns and two adapters added": (
        ["lora.alpha_pattern={q_proj: 4}", "personal.kind=feddpa"], "personal.kind: adds two products B A of one scale",
    ),
    "DoRA without factors": (["lora.dora=true", "lora.full=true"], "lora.dora: has no meaning with full: true"),
    "DoRA of a parabola": (
        ["lora.dora=true", "task={kind: quadratic, layout: lora}", "local.optimizer=sgd"],
        "lora.dora: has no meaning for the task quadratic",
    ),
    "DoRA in 16 bit": (["lora.dora=true", "numerics.dtype=bfloat16"], "numerics.dtype: is too coarse"),
    "DoRA written out": (["lora.dora=true", "numerics.training=fused"], "numerics.training: the written-out decoders"),
    "whole modules in a batch": (
        ["lora.modules_to_save=[lm_head]", "numerics.training=swapped"], "numerics.training: modules that are trained whole",
    ),
    "fewer slots by memory": (
        ["lora.rank_pattern={q_proj: 4}", "memory.when_short=[rank]"], "memory.when_short: rank asks for fewer slots",
    ),
    "biases of a declared model": (
        ["lora.bias=all", "task.charge_as={preset: gpt2}"], "lora.bias: has no size in the model",
    ),
    "an adapter that is not there": (["lora.start_from=nowhere"], "lora.start_from: is no folder of a saved adapter"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "run.yaml").write_text(BASE)
    monkeypatch.setattr(
        "fedsim.runs.simulation.executor_for", lambda _: pytest.fail("a worker was asked for")
    )


def said(capsys, settings):
    assert call(["run", "run.yaml", *(word for setting in settings for word in ("-s", setting))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert [line[:7] for line in lines] == ["error: ", "  fix: "], err
    return lines


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_refused_with_one_sentence_and_a_way_out(case, capsys):
    settings, words = BROKEN[case]
    error, fix = said(capsys, settings)
    assert words in error
    assert len(fix) > len("  fix: ")


@pytest.mark.parametrize(
    ("theirs", "ours"), [("use_dora", "dora"), ("use_rslora", "rslora"), ("loraplus_lr_ratio", "lr_ratio")]
)
def test_peft_s_own_words_lead_to_ours(theirs, ours, capsys):
    error, fix = said(capsys, [f"lora.{theirs}=1"])
    assert f"lora.{theirs}: no such key" in error
    assert f"write lora.{ours}" in fix


def test_a_saved_adapter_of_another_rank_or_a_rule_that_draws_a_is_refused(capsys, tmp_path):
    from fedsim.builtin import model_folder
    from fedsim.config.learning import LoraConfig
    from fedsim.training import hub, lora

    name, config = str(model_folder()), LoraConfig(r=4)
    vector = lora.initial(lora.layout(hub.skeleton(name), config), 0)
    lora.save(vector, name, config, tmp_path / "saved")
    error, fix = said(capsys, ["lora.start_from=saved", "lora.r=8"])
    assert "lora.start_from: the saved adapter has rank 4 at " in error
    assert "set lora.r: 4" in fix
    error, _ = said(capsys, ["lora.start_from=saved", "lora.r=4", "aggregator.kind=ffa"])
    assert "lora.start_from: clients of the rule ffa draw the first A from a seed" in error
