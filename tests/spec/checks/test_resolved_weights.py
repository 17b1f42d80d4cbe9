"""What is said before a run about how its updates count: what `auto` became, and slots whose silence is a vote."""

from __future__ import annotations

import pytest
from worlds import experiment
from worlds.still import still_plan

from fedsim.checks.resolved import resolved
from fedsim.clock.plan import prepare

BUFFERED = {"kind": "buffered", "concurrency": 4, "buffer": 2}
SYNC = {"kind": "synchronous", "cohort": 3}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (BUFFERED, {"normalize": "K", "weight": "uniform"}),
        (SYNC, {"normalize": "weights", "weight": "examples"}),
    ],
    ids=["buffered", "synchronous"],
)
def test_what_auto_became_is_said(protocol, expected):
    plan = prepare(experiment(protocol, 6))
    said = {followed.key: followed.value for followed in resolved(plan).followed}

    assert {name: said[f"aggregator.{name}"] for name in expected} == expected


@pytest.mark.parametrize(
    ("rule", "ranks", "said"),
    [
        ({"kind": "fedit"}, "tier", True),
        ({"kind": "hetlora"}, "memory", True),
        ({"kind": "flexlora"}, "tier", True),
        ({"kind": "fedit"}, "fixed", False),
        ({"kind": "fedit"}, "short", False),
        ({"kind": "fedit", "padding": "rows"}, "tier", False),
        ({"kind": "flexlora", "tail": "kept"}, "tier", False),
        ({"kind": "mixing"}, "tier", False),
    ],
    ids=str,
)
def test_a_vote_by_silence_is_said(rule, ranks, said):
    notices = resolved(still_plan(SYNC, ranks, aggregator=rule)).notices

    assert any("3 clients have fewer than 4 slots and say 0" in notice for notice in notices) == said
