"""Broken depths by device: each is answered with one sentence, a fix and exit code 2, before anything starts."""

from __future__ import annotations

import pytest
from worlds.text_files import written

from fedsim.cli.app import call

SOUND = {
    "population": {"preset": "mixed_edge_2025", "clients": 20},
    "task": {"kind": "quadratic", "layout": "lora", "layers": 4},
    "local": {"optimizer": "sgd"},
    "lora": {"r": 4, "depth_by": "memory"},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline"},
}
TIERS = {"depth_by": "tier", "depths": {"phone-low": 1}}
TEXT = {"task": {"kind": "language", "model": "builtin", "data": "builtin"}}

CASES = {
    "an unknown way": ({"lora": {"depth_by": "speed"}}, "lora.depth_by"),
    "no layer at all": ({"lora": {"depth": 0}}, "lora.depth"),
    "half a layer": ({"lora": {"depth": 0.5}}, "lora.depth"),
    "more layers than there are": ({"lora": {"depth": 5}}, "more than the layers of this model that carry adapters (4)"),
    "a choice of more than there are": ({"lora": {"depth_by": "memory", "depths": [2, 40]}}, "lora.depths: is more than"),
    "choices that fall": ({"lora": {"depth_by": "memory", "depths": [4, 2]}}, "`depths` that do not rise"),
    "choices by nobody": ({"lora": {"depths": [1, 2]}}, "`depths` with `depth_by: fixed`"),
    "tiers without depths": ({"lora": {"depth_by": "tier"}}, "without a depth for each tier"),
    "a tier that is missing": ({"lora": TIERS}, "has no depth for"),
    "a tier that there is not": ({"lora": {"depth_by": "tier", "depths": {"phone-lo": 1}}}, "no such class of devices"),
    "a depth beside others": ({"lora": {"depth_by": "memory", "depth": 4, "depths": [1, 2]}}, "depth = 4, and `depths` up to 2"),
    "a deadline that there is not": ({"lora": {"depth_by": "deadline"}}, "needs a deadline of the protocol"),
    "whole models": ({"task": {"kind": "quadratic"}}, "a whole model has none"),
    "a rule that stacks": ({"aggregator": {"kind": "flora"}}, "the rule flora needs everybody's adapters in all layers"),
    "tiers' models mixed": ({"protocol": {"kind": "tiers", "across": "asynchronous"}}, "layers that a tier has never trained"),
    "DoRA beside": ({"lora": {"depth_by": "memory", "dora": True}, **TEXT}, "more than the factors is trained"),
    "nothing to share": ({"personal": {"kind": "fedper", "layers": 2}}, "leaves a client of depth 1 nothing to share"),
    "an unknown first": ({"lora": {"depth_by": "memory", "first": "width"}}, "lora.first"),
    "a typing error": ({"lora": {"dept_by": "memory"}}, "dept_by"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_sentence_with_a_fix(case, tmp_path, monkeypatch, capsys):
    changes, says = CASES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "fedsim.runs.simulation.executor_for", lambda _: pytest.fail("a worker was asked for")
    )
    written(tmp_path / "broken.yaml", {**SOUND, **changes})

    assert call(["run", "broken.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert [line[:7] for line in err.splitlines()] == ["error: ", "  fix: "], err
    assert not (tmp_path / "runs").exists()
