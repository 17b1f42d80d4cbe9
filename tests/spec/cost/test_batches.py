"""A training's tokens are cut into the optimiser steps that are made, and no step shares a pass with another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import experiment

from fedsim.clock.plan import prepare
from fedsim.config.learning import LocalConfig
from fedsim.cost.batches import Batches
from fedsim.jobs import Job
from fedsim.records.verify import verify
from fedsim.records.verify.laws import whole_visit_s
from fedsim.runs.simulation import simulate
from fedsim.training.local import batches as batches_made

SYNC = {"kind": "synchronous", "cohort": 6}


def rows_of_steps(n, local):
    """The second implementation: the rows of the steps that a training really makes."""
    job = Job(client=0, visit=0, seed=0, purpose="train", start=None, local=local)
    return [len(rows) for rows in batches_made(n, job)]


@given(
    n=st.integers(1, 40),
    batch=st.integers(1, 9),
    at_once=st.integers(1, 9),
    length=st.one_of(
        st.fixed_dictionaries({"epochs": st.integers(1, 5)}),
        st.fixed_dictionaries({"steps": st.integers(1, 20)}),
    ),
    sequence=st.integers(1, 7),
)
def test_a_training_is_charged_the_passes_and_steps_of_its_rows(n, batch, at_once, length, sequence):
    local = LocalConfig(batch=batch, **length)
    rows = rows_of_steps(n, local)
    charged = Batches(sum(rows) * sequence, local.batches_over(n))

    assert sum(k * size for k, size in charged.steps) == sum(rows) == local.examples_over(n)
    assert charged.updates(sequence, batch) == len(rows) == local.steps_over(n)
    assert charged.cut(sequence, at_once) == sum(-(-size // at_once) for size in rows)


@pytest.mark.parametrize(
    ("steps", "sequence", "batch", "passes"),
    [
        (((10, 1),), 512, 8, 10),  # ten epochs over one example: no two of them at once
        (((6, 8), (3, 4)), 4, 8, 9),  # three epochs over twenty
        (((6, 8), (3, 4)), 4, 3, 24),  # three at once: 3 passes of each eight, 2 of each four
        ((), 4, 8, 8),  # declared: 240 tokens in a row, 32 a pass
    ],
)
def test_passes_by_hand(steps, sequence, batch, passes):
    assert Batches(240, steps).cut(sequence, batch) == passes


def test_another_model_reads_the_tokens_of_a_step_in_sequences_of_its_own():
    # twelve examples of 20 tokens in steps of four: 80 tokens a step, in passes of at most 64 or 100
    assert Batches(240, ((3, 4),), by_tokens=True).cut(32, 2) == 3 * 2
    assert Batches(240, ((3, 4),), by_tokens=True).cut(50, 2) == 3


def unequal(**local):
    task = {"kind": "quadratic", "examples": "unequal"}
    return experiment(SYNC, 60, task=task, local={"optimizer": "sgd", "batch": 8, "lr": 0.05} | local)


@pytest.mark.parametrize("local", [{"epochs": 1}, {"epochs": 10}, {"steps": 7}])
def test_every_shard_is_charged_the_steps_that_its_visit_makes(local):
    made = prepare(unequal(**local))
    shards = {made.task.examples(client) for client in range(60)}
    assert len(shards) > 20
    for client in range(60):
        assert made.work(client).steps == made.steps(client)


def test_declared_tokens_are_cut_as_one_stream_whatever_trains():
    charge = {"preset": "smollm2-135m", "sequence": 64, "batch": 2, "tokens_per_visit": 10_000}
    made = prepare(
        experiment(SYNC, 60, task={"kind": "quadratic", "examples": "unequal", "charge_as": charge})
    )
    assert {made.work(client).steps for client in range(60)} == {79}  # 10,000 / 128


@pytest.mark.parametrize(
    "charge",
    [None, {"preset": "smollm2-135m", "sequence": 64, "batch": 1, "checkpoint": True, "weight_bytes": 0.5}],
)
def test_books_hold_seconds_of_unequal_shards_against_the_same_steps(charge):
    settings = experiment(
        SYNC,
        60,
        population={"preset": "mixed_edge_2026", "clients": 60, "availability": "always"},
        compute={},
        local={"optimizer": "sgd", "batch": 8, "epochs": 5, "lr": 0.05},
        task={"kind": "quadratic", "examples": "unequal"} | ({} if charge is None else {"charge_as": charge}),
        budget={"commits": 4},
    )
    run = simulate(settings, timeline_only=True, report=False)
    landed = run.visits[run.visits["trained_s"].notna() & (run.visits["paused_s"] == 0)]
    law_s = dict(zip(run.clients["client"], whole_visit_s(run), strict=True))
    took_s = landed["trained_s"] - landed["downloaded_s"]

    assert verify(run) == []
    assert len(landed) > 10
    assert took_s.tolist() == pytest.approx([law_s[client] for client in landed["client"]], rel=1e-9)
