"""The fast engine against the slow one, over pairs of all that decides when things happen: every row is the same to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from digests import columns, differences, digest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.slow_engine import slow_engine
from worlds import plan, ungated
from worlds.cases import tried
from worlds.covering import cover

from fedsim.clock.visit import Visit
from fedsim.config.experiment import Experiment
from fedsim.runs.simulation import simulate

ROUND = {"kind": "synchronous", "cohort": 8, "over_select": 1.5}
FACTORS = {
    "protocol": {
        "buffered": {"kind": "buffered", "concurrency": 24, "buffer": 6},
        "fresh": {
            "kind": "buffered",
            "concurrency": 16,
            "buffer": 4,
            "once_per_buffer": True,
            "max_staleness": 2,
        },
        "rounds": {**ROUND, "deadline_s": 900.0},
        "late": {**ROUND, "late": "finish", "min_reports": 3, "deadline_s": 500.0},
        "beats": {"kind": "semi-synchronous", "concurrency": 12, "beat_s": 300.0},
        "timely": {"kind": "timely", "cohort": 8, "k": 4, "grace": 0.1},
        "tiers": {"kind": "tiers", "tiers": 3, "cohort": 4, "across": "asynchronous"},
    },
    "availability": {"always": "always", "charging": "charging"},
    "outages": {"none": None, "regions": {"by": "region", "regions": 4, "per_day": 24.0, "mean_s": 900.0}},
    "on_close": {"lost": "lost", "pause": "pause", "partial": "partial"},
    "network": {
        "private": {"sharing": "private"},
        "wide": {"sharing": "max-min"},
        "shared": {"sharing": "max-min", "server_up_mbps": 20.0, "server_down_mbps": 15.0},
        "naive": {"model": "size-over-rate"},
        "kept": {"sharing": "private", "connection": "persistent"},
    },
    "compute": {
        "plain": {},
        "hot": {"step_sigma": 0.2, "thermal": {"cap_c": 46}},
        "gated": {"thermal": {"start_below_c": 38, "stop_above_c": 44, "cap_c": 46}},
    },
    "sampler": {"uniform": {"kind": "uniform"}, "leaving": {"kind": "least-available"}},
    "server": {"instant": {}, "slow": {"compute": {"flops_per_s": 1e9, "memory_bytes_per_s": 1e8}}},
    "tokens": {"few": 4_000, "many": 60_000},
}
NAMES = {factor: tuple(values) for factor, values in FACTORS.items()}
PLAIN = {factor: names[0] for factor, names in NAMES.items()}


def allowed(row):
    """TimelyFL asks for less than a whole visit, and partial work is of whole ones."""
    return not (row["protocol"] == "timely" and row["on_close"] == "partial")


def named(row):
    return "-".join(row.values())


def experiment(names, clients=60, **changes):
    row = {factor: FACTORS[factor][name] for factor, name in names.items()}
    return Experiment.model_validate(
        {
            "seed": 5,
            "population": {
                "preset": "mixed_edge_2025",
                "clients": clients,
                "availability": row["availability"],
                "outages": row["outages"],
                "on_close": row["on_close"],
            },
            "task": {
                "kind": "quadratic",
                "charge_as": {"preset": "gemma-3-270m", "r": 8, "tokens_per_visit": row["tokens"]},
            },
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 8},
            "network": row["network"],
            "compute": row["compute"],
            "server": row["server"],
            "sampler": row["sampler"],
            "protocol": row["protocol"],
            "budget": {"time_s": 12_000.0},
            "energy": {"tail": True},
            "evaluate": {"every_commits": 1000},
            "runtime": {"executor": "inline"},
            **changes,
        }
    )


def digests(run):
    return {name: digest(values) for name, values in columns(run).items()}


def assert_same(made):
    """Both engines give the same tables; returns the run of the fast one."""
    run = simulate(made, timeline_only=True)
    with slow_engine():
        slow = simulate(made, timeline_only=True)
    assert differences(digests(slow), digests(run)) == []
    return run


ROWS = cover(NAMES, allowed)
"""Every pair of values; the default suite runs every seventh row, `make slow` all of them."""


@pytest.mark.parametrize("row", ROWS[::7], ids=named)
def test_all_rows_are_the_same(row):
    assert len(assert_same(experiment(row)).visits) > 5


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=named)
def test_all_rows_are_the_same_for_every_pair(row):
    assert len(assert_same(experiment(row)).visits) > 5


def test_visits_that_are_known_have_no_process_and_others_have_one(monkeypatch):
    begun = []
    made = Visit.__init__

    def watch(self, *args, **rest):
        made(self, *args, **rest)
        begun.append(self)

    monkeypatch.setattr(Visit, "__init__", watch)
    simulate(experiment(PLAIN), timeline_only=True)
    assert {visit._known is not None for visit in begun} == {True}
    begun.clear()
    simulate(experiment({**PLAIN, "network": "shared"}), timeline_only=True)
    assert {visit._known is not None for visit in begun} == {False}


TIES = st.sampled_from((1.0, 2.0, 3.0, 4.0))


@settings(max_examples=tried(25), deadline=None)
@given(
    train_s=st.lists(TIES, min_size=4, max_size=7),
    closes=st.lists(st.sampled_from((3.0, 4.0, 6.0, 50.0)), min_size=7, max_size=7),
    protocol=st.sampled_from(
        (
            {"kind": "buffered", "concurrency": 3, "buffer": 2},
            {"kind": "synchronous", "cohort": 2, "over_select": 1.5, "deadline_s": 3.0},
            {"kind": "synchronous", "cohort": 3, "late": "finish", "deadline_s": 4.0},
        )
    ),
    on_close=st.sampled_from(("lost", "pause", "partial")),
    memory=st.booleans(),
)
def test_what_happens_in_one_instant_happens_in_the_same_order(train_s, closes, protocol, on_close, memory):
    """Trainings of whole seconds and windows that end at whole seconds: most instants hold several events."""
    n = len(train_s)
    online = [[(0.0, close), (close + 2.0, close + 12.0), (70.0, 400.0)] for close in closes[:n]]
    made = plan(
        protocol,
        train_s,
        online=online,
        memory=[1e3 if memory and not client else 1e12 for client in range(n)],
        radio_w=0.1,
        population={"preset": "homogeneous", "clients": n, "on_close": on_close},
        budget={"time_s": 60.0},
    )
    fast = ungated(made)
    with slow_engine():
        slow = ungated(made)
    assert differences(digests(slow), digests(fast)) == []
    assert fast.commits.total_joules.tolist() == slow.commits.total_joules.tolist()
    assert np.isfinite(fast.visits.ended_s).all()
