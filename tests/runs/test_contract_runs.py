"""Whole runs on the quadratic task, in rows that hold every pair of kinds that the table of combinations allows.

Rules, protocols, samplers, wire formats, server optimisers and ways to personalise are discovered; a user's own
rule, protocol and sampler, those of docs/extending.md by import path, are among them.
"""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from worlds import World, plan
from worlds.contracts import (
    OWN_PROTOCOL,
    OWN_SAMPLER,
    RULES,
    rule_of,
)
from worlds.covering import cover, pairs_of
from worlds.extensions import installed

from fedsim.checks.blocks import misfits
from fedsim.checks.limits import Choice, facts, refusals
from fedsim.checks.page import protocols
from fedsim.component import build, kinds
from fedsim.testing.rules import WIRES
from fedsim.testing.runs import check_run

WORK_S = [0.7, 1.3, 2.1, 2.9, 3.7, 5.3]
SMALL = {"cohort": 3, "concurrency": 4, "buffer": 2, "beat_s": 3.0, "tiers": 2, "k": 2, "deadline_s": 6.0}
"""Settings for six clients, by the names that protocols give them."""
NEEDS_A_BACKBONE = {"fedper", "feddpa"}
"""Ways to personalise that the quadratic task has no layers for; their own tests run them."""


pytestmark = pytest.mark.usefixtures("extensions")


def protocol_blocks():
    """Every protocol that ships in every variant that the table tells apart, and the user's own."""
    found = {}
    for protocol in protocols():
        sizes = {name: value for name, value in SMALL.items() if name in type(protocol).model_fields}
        block = {"kind": protocol.kind, **sizes, **protocol.model_dump(exclude_defaults=True)}
        found[" ".join(map(str, (protocol.kind, *protocol.model_dump(exclude_defaults=True).values())))] = (
            block
        )
    return {**found, OWN_PROTOCOL: {"kind": OWN_PROTOCOL}}


PROTOCOLS = protocol_blocks()
FACTORS = {
    "rule": ["fedit", *(k for k in RULES if k != "fedit")],
    "protocol": ["synchronous", *(p for p in PROTOCOLS if p != "synchronous")],
    "wire": list(WIRES),
    "ranks": ["fixed", "tier"],
    "optimizer": ["none", *(k for k in kinds("optimizers") if k != "none")],
    "sampler": ["uniform", *(k for k in kinds("samplers") if k != "uniform"), OWN_SAMPLER],
    "personal": ["none", *(k for k in kinds("personal") if k not in {"none", *NEEDS_A_BACKBONE})],
    "layout": ["lora", "whole"],
}


def choice_of(row):
    """The row as the table of combinations sees it."""
    how = WIRES[row["wire"]]
    return Choice(
        row["rule"],
        CACHE["rule"][row["rule"]],
        **CACHE["protocol"][row["protocol"]],
        ranks=row["ranks"],
        optimizer=row["optimizer"],
        top_k=how.top_k < 1,
        feedback=how.error_feedback,
        personal=build("personal", {"kind": row["personal"]}),
        whole=row["layout"] == "whole",
    )


def allowed(row):
    if row["ranks"] != "fixed" and row["layout"] == "whole":
        return False  # a whole model has no ranks: `lora.rank_by` has no meaning with it
    return not refusals(choice_of(row))


def rows():
    """The covering rows; traits and facts are read once, the user's own from the page's files."""
    with tempfile.TemporaryDirectory() as folder, installed(Path(folder)):
        CACHE["rule"] = {kind: rule_of(kind).traits for kind in RULES}
        CACHE["protocol"] = {name: facts(build("protocols", b)) for name, b in PROTOCOLS.items()}
        return cover(FACTORS, allowed)


CACHE = {}
ROWS = rows()


def planned(row):
    made = plan(
        PROTOCOLS[row["protocol"]],
        WORK_S,
        rate=2e4,
        rtt_s=0.01,
        seed=5,
        task={"kind": "quadratic", "layout": row["layout"], "dimension": 5, "examples": "unequal"},
        lora={"r": 4, "alpha": 8.0, **({"rank_by": "tier", "ranks": {"phone-low": 2, "laptop": 4}} if
              row["ranks"] == "tier" else {})},
        local={"optimizer": "sgd", "lr": 0.1, "steps": 4, "batch": 4},
        wire=WIRES[row["wire"]].model_dump(),
        aggregator={"kind": row["rule"]},
        server_optimizer={"kind": row["optimizer"]},
        sampler={"kind": row["sampler"]},
        personal={"kind": row["personal"]},
        evaluate={"every_commits": 2},
        budget={"commits": 5},
    )  # fmt: skip
    tiers = [
        dataclasses.replace(p, tier=("phone-low", "laptop")[p.client % 2]) for p in made.population.profiles
    ]
    return dataclasses.replace(made, population=World(tiers, made.population.availability))


def test_the_rows_hold_every_allowed_pair():
    held = set().union(*map(pairs_of, ROWS))

    for rule in RULES:
        for name, values in FACTORS.items():
            for value in values:
                pair = frozenset({("rule", rule), (name, value)})
                alone = {k: v[0] for k, v in FACTORS.items()} | {"rule": rule, name: value}
                assert name == "rule" or pair in held or not allowed(alone), (rule, value)
    assert all(map(allowed, ROWS))


def label(row):
    plain = {name: values[0] for name, values in FACTORS.items()}
    return " | ".join(v for k, v in row.items() if k in ("rule", "protocol", "wire") or v != plain[k])


def test_the_rows_of_every_day_hold_every_value():
    held = {pair for row in ROWS[::2] for pair in row.items()}

    assert held == {pair for row in ROWS for pair in row.items()}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=label(row), marks=[pytest.mark.slow] * (k % 2)) for k, row in enumerate(ROWS)],
)
def test_a_run_of_any_allowed_combination_has_every_property(row):
    """See `fedsim.testing.runs`: it ends, scores, passes its audit, books every visit, byte and version, and repeats."""
    assert misfits(planned(row).experiment) == []

    check_run(lambda: planned(row))
