"""The ledger: one row a visit whose fate is final, and totals that its rows add up to."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from worlds import plan, simulated

from fedsim.adapters.adapter import Adapter
from fedsim.clock.usage import Usage
from fedsim.records.writer import Writer
from fedsim.server.ledger import NAMED, Ledger, quiet


def visit(order=0, **changes):
    """A visit that landed, with usage that can be added in the head."""
    instants = {"dispatched_s": 0.0, "downloaded_s": 1.0, "trained_s": 3.0, "landed_s": 4.0, "ended_s": 4.0}
    facts = {
        "order": order,
        "client": 2,
        "visit": order,
        "version": 0,
        "round": -1,
        **instants,
        "outcome": "landed",
        "away": "",
        "paused_s": 0.0,
        "work_share": 1.0,
        "battery": math.nan,
        "staleness": 0,
        "computed": True,
        "loss_square": math.nan,
        "loss": 0.5,
        "committed_version": 1,
        "usage": Usage(down_bytes=100, up_bytes=40, flops=8.0, joules=2.0, gross_joules=3.0),
        "work": SimpleNamespace(
            serialized_down_bytes=10, serialized_up_bytes=4, memory_plan="fits", tokens=64
        ),
    }
    return SimpleNamespace(**facts | changes)


@pytest.fixture
def books():
    made = plan({"kind": "synchronous", "cohort": 1}, [1.0, 1.0, 1.0])
    writer = Writer(None, made.experiment)
    return Ledger(writer, made.task, quiet), writer


def closed(writer):
    return writer.close(status="done")


def test_totals_are_what_the_rows_add_up_to(books):
    ledger, writer = books
    for row in (visit(0), visit(1), visit(2, trained_s=math.nan, landed_s=math.nan, outcome="offline")):
        ledger.count(row)
        ledger.settle(row, rank=8)
    totals, visits = ledger.totals(clients=3, commits=1, handed_over=2), closed(writer).visits

    assert (totals.visits, totals.outcomes) == (3, {"landed": 2, "offline": 1})
    for name in (
        "up_bytes",
        "down_bytes",
        "serialized_up_bytes",
        "serialized_down_bytes",
        "joules",
        "gross_joules",
    ):
        assert getattr(totals, name) == visits[name].sum(), name


def test_nothing_is_serialised_upward_before_training_is_done(books):
    ledger, writer = books
    ledger.settle(visit(0, trained_s=math.nan), rank=8)
    ledger.settle(visit(1), rank=8)

    assert closed(writer).visits["serialized_up_bytes"].tolist() == [0, 4]


def test_of_a_visit_that_was_cut_short_the_tokens_are_those_it_trained_on(books):
    ledger, writer = books
    ledger.settle(visit(0, work_share=0.25), rank=8)

    assert closed(writer).visits["tokens"].tolist() == [16]


def test_all_refused_updates_are_counted_and_the_first_ones_are_named(books):
    ledger, writer = books
    for order in range(NAMED + 5):
        ledger.refuse(visit(order), "its numbers are not finite")

    assert ledger.refused == NAMED + 5
    assert [refusal.visit for refusal in writer.info.refused] == list(range(NAMED))


def test_a_commit_without_training_has_no_length_and_no_cosine(books):
    ledger, writer = books
    vector = Adapter(plan({"kind": "synchronous", "cohort": 1}, [1.0]).task.layout, np.zeros(8, np.float32))
    ledger.commit(1, 4.0, [visit(0, staleness=2), visit(1, staleness=1)], None, vector, vector)
    row = closed(writer).commits.iloc[0]

    assert (row["updates"], row["mean_staleness"], row["max_staleness"], row["up_bytes"]) == (2, 1.5, 2, 80)
    assert math.isnan(row["update_norm"])
    assert math.isnan(row["mean_cosine"])


def test_the_totals_of_a_run_are_those_of_its_tables():
    run = simulated({"kind": "buffered", "concurrency": 2, "buffer": 1}, [1.0, 2.5, 4.0], rate=1e3)
    totals = run.info.totals

    assert (totals.clients, totals.visits, totals.commits) == (3, len(run.visits), 5)
    assert totals.outcomes == run.visits["outcome"].value_counts().to_dict()
    assert totals.up_bytes == run.visits["up_bytes"].sum() == run.commits["total_up_bytes"].iloc[-1]
