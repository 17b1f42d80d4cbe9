"""Whole runs on the quadratic task, in rows that hold every pair of kinds that the table of combinations allows.

Rules, protocols, samplers, wire formats, server optimisers and ways to personalise are discovered; a user's own
rule, protocol and sampler, those of docs/extending.md by import path, are among them.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from worlds import World, plan
from worlds.contracts import (
    OWN_PROTOCOL,
    OWN_SAMPLER,
    RULES,
    WIRES,
    rule_of,
)
from worlds.covering import cover, pairs_of
from worlds.extensions import installed

from fedsim.checks.blocks import misfits
from fedsim.checks.limits import Choice, facts, refusals
from fedsim.checks.page import protocols
from fedsim.component import build, kinds
from fedsim.network.messages import encode
from fedsim.records.rows import OUTCOMES
from fedsim.records.verify import verify
from fedsim.rng import stream
from fedsim.runs.simulation import simulate
from fedsim.server.values.versions import Dispatched

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


def schedule(run):
    """What may not depend on whether anything was trained."""
    values = ["computed", "loss", "tokens", "examples"]
    return run.visits.drop(columns=values), run.commits.drop(columns=["update_norm", "mean_cosine"])


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


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_run_of_any_allowed_combination(row, monkeypatch):
    made = planned(row)
    assert misfits(made.experiment) == []
    offered = {}

    def sent(self, invitation, offer, *rest):
        offered[invitation.client, invitation.visit] = offer
        return kept_sent(self, invitation, offer, *rest)

    kept_sent = Dispatched.__init__
    monkeypatch.setattr(Dispatched, "__init__", sent)
    run = simulate(made)
    visits = run.visits

    # it learns something finite, and passes its audit
    assert run.info.status == "done"
    assert len(run.commits) == 5
    assert np.isfinite(run.scores.value).all()
    assert verify(run) == []
    # every dispatched visit ends once, and every commit is made of landed ones
    assert not visits.duplicated(["client", "visit"]).any()
    assert sorted(visits.order) == list(range(len(visits)))
    assert set(visits.outcome) <= set(OUTCOMES)
    taken = visits[visits.committed_version > 0]
    assert set(taken.outcome) == {"landed"}
    assert taken.groupby("committed_version").size().tolist() == run.commits.updates.tolist()
    assert (taken.staleness == taken.committed_version - 1 - taken.version).all()
    if not CACHE["protocol"][row["protocol"]]["stale"]:
        assert (taken.staleness == 0).all()
    # bytes are those of the messages
    layout, how = made.task.layout, made.experiment.wire
    asked = visits[visits.outcome == "polled"]
    polled = set(zip(asked.client, asked.visit, asked.version, strict=True))  # it has come with the poll
    for visit in taken.itertuples():
        offer = offered[visit.client, visit.visit]
        for direction, payload in (("down", offer.down), ("up", offer.up)):
            message = encode(how, layout, payload, direction, offer.start, stream(0, "any"))
            has_it = direction == "down" and (visit.client, visit.visit - 1, visit.version) in polled
            counted = getattr(visit, f"serialized_{direction}_bytes")
            assert counted == (0 if has_it else len(message) + 4 * payload.extra_floats)
    # the same again; and the same schedule without training
    again = simulate(planned(row))
    assert again.scores.equals(run.scores)
    assert again.visits.equals(run.visits)
    if not any(getattr(getattr(made.experiment, b), "reads_values", False) for b in ("sampler", "protocol")):
        timeline = simulate(planned(row), timeline_only=True)
        for trained, untrained in zip(schedule(run), schedule(timeline), strict=True):
            assert untrained.equals(trained)
