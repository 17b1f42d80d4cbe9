"""The one table of what goes together: kept equal to its page, and said before a run starts."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from worlds import experiment

from fedsim.aggregators._base import Traits
from fedsim.aggregators.fedit import FedIT
from fedsim.checks.blocks import check
from fedsim.checks.choice import Choice
from fedsim.checks.combinations import choice_of
from fedsim.checks.limits import EVER, LIMITS, facts, refusals
from fedsim.checks.page import markdown, other_features, protocol_features, protocols, rules
from fedsim.clock.protocol import ServerProtocol
from fedsim.component import build, kinds
from fedsim.errors import ExperimentError
from fedsim.personal import Personal

PAGE = Path(__file__).parents[3] / "docs" / "combinations.md"
ABLE = Traits(
    exact=False, unequal_ranks=True, unequal_depths=True, full_model=True, beside=True, unequal_modules=True
)
"""A rule that can do everything."""
LORA = {"task": {"kind": "quadratic", "layout": "lora"}}


def test_the_page_is_what_the_limits_say():
    """If not: python -m fedsim.checks > docs/combinations.md."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_rule_and_every_protocol_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")

    for kind in kinds("aggregators"):
        assert text.count(f"| `{kind}` |") == 3
    for kind in (*kinds("protocols"), *kinds("personal")):
        assert f"| {kind} |" in text


def test_protocols_are_told_apart_by_what_limits_look_at():
    told = {(p["protocol"], p["stale"], p["blends"], p["cuts_ranks"]) for p in map(facts, protocols())}

    assert told == {
        ("the protocol synchronous", False, False, False),
        ("the protocol buffered", True, False, False),
        ("the protocol semi-synchronous", True, False, False),
        ("the protocol tiers", False, False, False),
        ("the protocol tiers", True, True, False),
        ("the protocol timely", False, False, False),
        ("the protocol timely", False, False, True),
    }


class Waiting(Personal):
    kind: str = "waiting"
    waits: ClassVar[bool] = True
    adds_products: ClassVar[bool] = True


def test_a_rule_that_can_do_everything_is_refused_nothing_but_what_no_rule_can():
    for feature in (*protocol_features(), *other_features()):
        assert refusals(replace(Choice("able", ABLE), **feature.changes)) == []
    asked = {
        "cuts_ranks": True,
        "depths": True,
        "whole": True,
        "optimizer": "adam",
        "average": True,
        "best": True,
        "patterned": True,
        "dora": True,
        "ranks": "memory",
        "quantised": True,
    }
    everything = Choice("able", ABLE, blends=True, personal=Waiting(), **asked)
    assert len(refusals(everything)) == len(EVER)


ASKS = {
    "full_model": {"whole": True},
    "stale": {"stale": True},
    "optimizer": {"optimizer": "adam"},
    "unequal_ranks": {"ranks": "memory"},
    "compressible": {"top_k": True},
    "unequal_depths": {"depths": True},
    "beside": {"dora": True},
    "unequal_modules": {"patterned": True},
}


@pytest.mark.parametrize("trait", ASKS)
def test_each_trait_is_asked_for_by_its_feature(trait):
    without = Choice("lame", replace(ABLE, **{trait: False}), **ASKS[trait])

    (((_, (what, fix))),) = refusals(without)
    assert "lame" in what
    assert fix
    assert refusals(replace(without, traits=ABLE)) == []
    assert refusals(Choice("lame", replace(ABLE, **{trait: False}))) == []


@pytest.mark.parametrize(
    ("asked", "key"),
    [({"dora": True}, "dora"), ({"bias": "all"}, "bias"), ({"saved": ("lm_head",)}, "modules_to_save")],
)
def test_each_thing_beside_the_factors_is_refused_by_its_own_key(asked, key):
    assert [path for path, _ in refusals(Choice("lame", replace(ABLE, beside=False), **asked))] == [
        ("lora", key)
    ]


def test_a_rule_that_draws_its_first_a_takes_no_saved_one():
    drawing = replace(ABLE, draws_a=True)
    assert [path for path, _ in refusals(Choice("lame", drawing, started=True))] == [("lora", "start_from")]
    assert refusals(Choice("lame", ABLE, started=True)) == []


def test_every_limit_has_a_sentence_without_an_end_and_a_fix_that_names_a_key():
    for limit in (*LIMITS, *EVER):
        text = limit.what.format(**vars(Choice("r", ABLE)))
        assert not text.endswith(".")
        assert "{" not in text
        assert "." in limit.fix  # a key path


@pytest.mark.parametrize(
    ("blocks", "path"),
    [
        ({"aggregator": {"kind": "ffa"}}, "lora.full"),
        ({**LORA, "aggregator": {"kind": "flora"}, "server_optimizer": {"kind": "adam"}}, "server_optimizer.kind"),
        ({**LORA, "aggregator": {"kind": "fedsvd"}, "wire": {"top_k": 0.1}}, "wire.top_k"),
        ({**LORA, "aggregator": {"kind": "flora"}, "evaluate": {"ema": 0.5}}, "evaluate.ema"),
        ({**LORA, "aggregator": {"kind": "fedsa"}, "evaluate": {"ema": 0.5}}, "evaluate.ema"),
        ({**LORA, "personal": {"kind": "fedper"}, "evaluate": {"ema": 0.5}}, "evaluate.ema"),
        ({"task": {"kind": "language"}, "personal": {"kind": "feddpa"}, "evaluate": {"ema": 0.5}}, "evaluate.ema"),
        (
            {**LORA, "aggregator": {"kind": "fedex"}, "protocol": {"kind": "timely", "cohort": 3, "k": 2, "partial": "rank"}},
            "protocol",
        ),
        (
            {"protocol": {"kind": "tiers", "tiers": 2, "cohort": 2, "across": "asynchronous"},
             "server_optimizer": {"kind": "momentum"}},
            "server_optimizer.kind",
        ),
    ],
)  # fmt: skip
def test_an_experiment_that_cannot_work_is_refused_with_a_fix_before_anything_starts(blocks, path):
    asked = experiment(**{"protocol": {"kind": "synchronous", "cohort": 3}, "clients": 6, **blocks})

    with pytest.raises(ExperimentError, match=rf"{path}: (?s:.*)fix: "):
        check(asked)


def test_the_choice_is_read_off_the_experiment():
    asked = experiment(
        {"kind": "timely", "cohort": 3, "k": 2, "partial": "rank"}, 6, **LORA,
        aggregator={"kind": "flexlora"},
        lora={"r": 8, "rank_by": "memory"},
        wire={"dtype": "int8", "top_k": 0.5, "error_feedback": True},
        server_optimizer={"kind": "yogi"},
    )  # fmt: skip

    assert choice_of(asked) == Choice(
        "flexlora", asked.aggregator.traits, "the protocol timely", cuts_ranks=True, ranks="memory",
        optimizer="yogi", top_k=True, feedback=True, personal=asked.personal,
    )  # fmt: skip


def test_a_protocol_that_says_nothing_of_itself_may_let_updates_get_stale():
    class Silent(ServerProtocol):
        kind: str = "silent"

        def run(self, server):
            yield server.timeout(1.0)

    lame = replace(ABLE, stale=False)

    assert [path for path, _ in refusals(Choice("lame", lame, **facts(Silent())))] == [("protocol",)]


def test_a_rule_without_traits_is_told_to_have_some():
    class Bare(FedIT):
        kind: str = "bare"
        traits: ClassVar[None] = None

    with pytest.raises(ExperimentError, match=r"Bare has no `traits`(?s:.*)traits: ClassVar\[Traits\]"):
        experiment({"kind": "synchronous", "cohort": 3}, 6, aggregator=Bare())


def test_exactness_on_the_page_is_that_of_the_rules():
    exact = {kind for kind, traits in rules() if traits.exact}

    assert exact == {"fedex", "fedsvd", "ffa", "flora", "rolora"}
    assert build("aggregators", {"kind": "ffa"}).traits.exact
