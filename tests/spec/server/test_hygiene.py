"""Updates that are not what they should be: refused, counted, named, and nowhere in the model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import plan

from fedsim.executors.inline import Inline
from fedsim.jobs import Update
from fedsim.runs.simulation import simulate

ROUND = {"kind": "synchronous", "cohort": 3}
SIZE = 8


def update(end, examples=4):
    return Update(end, examples, 64, 2, 1.0)


def good():
    return np.zeros(SIZE, np.float32)


def with_one(value):
    end = good()
    end[3] = value
    return end


FAULTS = {
    "nan": (lambda u: replace(u, end=with_one(np.nan)), "1 of its 8 numbers are not finite"),
    "inf": (lambda u: replace(u, end=with_one(np.inf)), "1 of its 8 numbers are not finite"),
    "short": (lambda u: replace(u, end=good()[:5]), r"it has shape (5,), the layout needs (8,)"),
    "matrix": (lambda u: replace(u, end=good().reshape(2, 4)), r"it has shape (2, 4), the layout needs (8,)"),
    "float64": (lambda u: replace(u, end=good().astype(np.float64)), "its numbers are float64, not float32"),
    "whole": (lambda u: replace(u, end=good().astype(np.int32)), "its numbers are int32, not float32"),
    "examples": (lambda u: replace(u, examples=-3), "it counts -3 examples"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_said_in_words(name):
    broken, says = FAULTS[name]

    assert broken(update(good())).fault(SIZE) == says


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20), st.integers(0, 99))
def test_finite_float32_of_the_layout_s_length_is_taken(values, examples):
    assert update(np.array(values, np.float32), examples).fault(len(values)) is None


class Corrupting(Inline):
    """Spoils what some clients send back, from their second visit on."""

    def __init__(self, clients, broken):
        super().__init__()
        self._clients, self._broken = clients, broken

    def train(self, batch):
        ticket, spoil = super().train(batch), self._spoilt
        result = ticket.result
        ticket.result = lambda: [spoil(job, u) for job, u in zip(batch, result(), strict=True)]
        return ticket

    def _spoilt(self, job, own):
        return self._broken(own) if job.client in self._clients and job.visit >= 1 else own


def run_with(clients, broken, out=None, **blocks):
    events = []
    run = simulate(
        plan(ROUND, [1.0, 2.0, 3.0], **blocks),
        executor=Corrupting(clients, broken),
        out=out,
        report=False,
        on_event=lambda kind, facts: events.append((kind, facts)),
    )
    return run, [facts for kind, facts in events if kind == "refused"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_update_is_refused_counted_and_named_and_the_run_goes_on(name, tmp_path):
    broken, says = FAULTS[name]

    run, told = run_with({1}, broken, tmp_path / "run")

    rejected = run.visits[run.visits["outcome"] == "rejected"]
    assert set(zip(rejected["client"], rejected["visit"], strict=True)) == {(1, v) for v in range(1, 5)}
    assert (rejected["committed_version"] == -1).all()
    assert (rejected["up_bytes"] > 0).all()  # it had arrived
    assert run.commits["updates"].tolist() == [3, 2, 2, 2, 2]
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["totals"]["refused"] == 4
    assert info["totals"]["outcomes"]["rejected"] == 4
    assert info["refused"] == told == [{"client": 1, "visit": v, "reason": says} for v in range(1, 5)]
    assert np.isfinite(run.scores["value"]).all()


@pytest.mark.parametrize("name", ["nan", "short", "float64"])
def test_the_model_is_what_it_would_be_had_the_faulty_client_never_reported(name):
    spoilt, _ = run_with({1}, FAULTS[name][0], aggregator={"kind": "fedit", "normalize": "weights"})
    other, _ = run_with({1}, FAULTS["inf"][0], aggregator={"kind": "fedit", "normalize": "weights"})

    assert spoilt.scores["value"].tolist() == other.scores["value"].tolist()


def test_a_round_of_nothing_but_faults_makes_no_version():
    run, told = run_with({0, 1, 2}, FAULTS["nan"][0], budget={"commits": 5, "time_s": 20.0})

    assert run.commits["version"].tolist() == [1]
    assert len(told) == run.info.totals.refused > 3
