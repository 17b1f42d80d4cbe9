"""The auditor: right books pass, every wrong value gives its own sentence, and what may differ may."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.cases import tried
from worlds.handmade_run import IDLE_W, by_hand, made, played

from fedsim.records.info import Batteries, Totals
from fedsim.records.tables import TABLES
from fedsim.records.verify import verify
from fedsim.records.verify.books import Books
from fedsim.records.verify.visits import INVARIANTS


def test_a_run_whose_books_are_right_has_no_problem():
    assert verify(by_hand()) == []


def test_a_run_in_which_nothing_happened_has_no_problem():
    assert verify(made({})) == []


# Whole numbers of seconds make landings, commits and dispatches fall on the same instants.
SECONDS = st.integers(1, 3).map(float) | st.floats(0.01, 100)


@settings(deadline=None, max_examples=tried(40))
@given(
    phases=st.lists(st.tuples(SECONDS, SECONDS, SECONDS, st.booleans()), min_size=1, max_size=30),
    clients=st.integers(1, 6),
    buffer=st.integers(1, 4),
)
def test_any_asynchronous_run_played_by_a_plain_loop_passes(phases, clients, buffer):
    assert verify(played(phases, clients, buffer)) == []


def broken(table, row, **values):
    """The run by hand with one row changed."""
    run = by_hand()
    frame = getattr(run, table).copy()
    for column, value in values.items():
        frame.loc[row, column] = value
    return dataclasses.replace(run, **{table: frame})


def with_totals(run, **values):
    """A run whose run.json tells of other totals."""
    totals = dataclasses.replace(run.info.totals, **values)
    return dataclasses.replace(run, info=dataclasses.replace(run.info, totals=totals))


# visits are sorted by (dispatched_s, order), which here is the order itself
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("visits", 3, {"order": 0}), "visit 1 of client 0 has the place 0 of another dispatch"),
        (("visits", 3, {"visit": 0}), "visit 0 of client 0 has more than one ending"),
        (("visits", 5, {"visit": 3}), "visit 3 of client 0 follows a visit that has no row"),
        (("visits", 4, {"client": 9}), "visit 1 of client 9 is of a client that is not in clients"),
        (("visits", 4, {"outcome": "gone"}), "visit 1 of client 1 ends as 'gone', which is no outcome"),
        (("visits", 5, {"outcome": "landed"}), "visit 2 of client 0 is 'landed' without an instant of landing"),
        (("visits", 0, {"outcome": "late"}), "visit 0 of client 0 ended as 'late' and is in commit 1 all the same"),
        (("visits", 1, {"downloaded_s": float("nan")}), "visit 0 of client 1 lacks an instant that comes before one it has"),
        (("visits", 6, {"ended_s": float("nan")}), "visit 2 of client 1 lacks an instant that comes before one it has"),
        (("visits", 1, {"trained_s": 1.0}), "visit 0 of client 1 goes backwards in time: dispatched_s 0, downloaded_s 2,"),
        (("visits", 5, {"ended_s": 16.0}), "visit 2 of client 0 goes backwards in time"),
        (("visits", 0, {"ended_s": 6.5}), "visit 1 of client 0 was dispatched at 6 s while the client's previous visit"),
        (("visits", 4, {"down_bytes": -1}), "visit 1 of client 1 has down_bytes -1, which is no amount"),
        (("visits", 4, {"joules": -0.5}), "visit 1 of client 1 has joules -0.5, which is no amount"),
        (("visits", 4, {"flops": float("inf")}), "visit 1 of client 1 has flops inf, which is no amount"),
        (("visits", 4, {"gross_joules": 2.0}), "visit 1 of client 1 has gross_joules 2, joules and idle power give 3.25"),
        (("visits", 4, {"gross_joules": -3.0}), "visit 1 of client 1 has gross_joules -3.0, which is no amount"),
        (("visits", 4, {"away": "rain"}), "visit 1 of client 1 was away for 'rain', which is no cause"),
        (("visits", 4, {"away": ""}), "visit 1 of client 1 is 'offline' without a cause"),
        (("visits", 4, {"paused_s": 6.0}), "visit 1 of client 1 paused for 6 s of 5 s"),
        (("visits", 4, {"paused_s": float("nan")}), "visit 1 of client 1 paused for nan s of 5 s"),
        (("visits", 4, {"paused_s": 2.0}), "visit 1 of client 1 paused for 2 s, and nothing says that it may"),
        (("visits", 4, {"work_share": 0.0}), "visit 1 of client 1 made a share of 0.0 of its steps"),
        (("visits", 5, {"work_share": 0.5}), "visit 2 of client 0 made 0.5 of its steps, and nothing says why"),
        (("visits", 5, {"battery": 1.5}), "visit 2 of client 0 leaves a battery at a level of 1.5"),
        (("visits", 4, {"up_bytes": 7}), "visit 1 of client 1 uploaded 7 bytes before its training was done"),
        (("visits", 6, {"flops": 1.0}), "visit 2 of client 1 computed before its download was done"),
        (("visits", 3, {"up_bytes": 0}), "visit 1 of client 0 landed without a byte uploaded"),
        (("visits", 3, {"up_bytes": 999}), "visit 1 of client 0 counts 999 bytes up, but serialised 1000"),
        (("clients", 2, {"needed_memory_bytes": 1e9}), "visit 0 of client 2 ran out of memory on a device that has enough"),
        (("clients", 0, {"usable_memory_bytes": 5e8}), "visit 0 of client 0 trained on a device whose memory is too small"),
        (("visits", 3, {"rank": 16}), "visit 1 of client 0 trained rank 16, its client has 8"),
        (("visits", 3, {"memory_plan": "checkpoint"}), "visit 1 of client 0 has the memory plan 'checkpoint', its client 'fits'"),
        (("visits", 3, {"version": 0}), "visit 1 of client 0 carries version 0, but 1 versions were committed at its dispatch"),
        (("visits", 1, {"staleness": 0}), "visit 0 of client 1 has staleness 0, the commits give 1"),
        (("visits", 4, {"staleness": 0}), "visit 1 of client 1 has staleness 0, the commits give -1"),
        (("visits", 1, {"committed_version": 3}), "visit 0 of client 1 is in commit 3, which does not exist"),
        (("visits", 1, {"committed_version": 1}), "visit 0 of client 1 landed after commit 1, which took it"),
        (("commits", 1, {"version": 3}), "commit 3 stands where version 2 belongs"),
        (("commits", 1, {"time_s": 5.0}), "commit 2 at 5 s comes before the one ahead of it"),
        (("commits", 1, {"updates": 3}), "commit 2 has updates 3, its visits give 2"),
        (("commits", 1, {"mean_staleness": 0.4}), "commit 2 has mean_staleness 0.4, its visits give 0.5"),
        (("commits", 1, {"max_staleness": 2}), "commit 2 has max_staleness 2, its visits give 1"),
        (("commits", 1, {"up_bytes": 2001}), "commit 2 has up_bytes 2001, its visits give 2000"),
        (("commits", 1, {"total_up_bytes": 2999}), "commit 2 has total_up_bytes 2999, its visits give 3000"),
        (("commits", 0, {"total_down_bytes": 3000}), "commit 1 has total_down_bytes 3000, its visits give 2000"),
        (("commits", 0, {"total_joules": 3.6}), "commit 1 has total_joules 3.6, its visits give 3.5"),
        (("scores", 1, {"version": 7}), "a score is of version 7, which was never committed"),
        (("scores", 1, {"time_s": 11.0}), "version 2 was scored at 11 s, before its commit"),
        (("scores", 1, {"version": 1}), "version 2 has no score, and the first and the last must have one"),
    ],
)  # fmt: skip
def test_one_wrong_value_gives_its_own_sentence(change, sentence):
    table, row, values = change
    problems = verify(broken(table, row, **values))
    assert any(problem.startswith(sentence) for problem in problems), problems


def test_pauses_and_cut_work_are_right_where_the_experiment_allows_them():
    changes = {"away": "battery", "paused_s": 2.0, "gross_joules": 2.5 + IDLE_W * 3.5}
    for policy, share, good in (("pause", 1.0, True), ("pause", 0.5, False), ("partial", 0.5, True)):
        run = broken("visits", 5, **changes, work_share=share)
        run.experiment["population"] = {"on_close": policy}
        run = with_totals(run, gross_joules=run.info.totals.gross_joules - IDLE_W * 2.0)
        assert (verify(run) == []) == good


def test_batteries_that_do_not_balance_are_told():
    told = Batteries(devices=3, start_j=100.0, received_j=40.0, supplied_j=60.0, end_j=81.0, mean_level=0.5)
    run = by_hand()
    run = dataclasses.replace(run, info=dataclasses.replace(run.info, batteries=told))
    assert verify(run) == ["run.json tells of 81 J in batteries at the end, what came and went gives 80"]
    balanced = dataclasses.replace(told, end_j=80.0)
    run = dataclasses.replace(run, info=dataclasses.replace(run.info, batteries=balanced))
    assert verify(run) == []


def test_a_lost_row_shows_in_the_sums_of_the_run():
    run = by_hand()
    problems = verify(dataclasses.replace(run, visits=run.visits.drop(index=6)))
    assert "run.json tells of 7 visits in total, the tables of 6" in problems
    assert "run.json tells of 6250 down_bytes in total, the tables of 6000" in problems


def test_many_rows_that_break_one_rule_make_one_sentence():
    run = by_hand()
    problems = verify(dataclasses.replace(run, visits=run.visits.assign(joules=-1.0)))
    [sentence] = [p for p in problems if "which is no amount" in p]
    assert sentence == "visit 0 of client 0 has joules -1.0, which is no amount (and 6 more)"


def test_a_visit_that_ends_at_the_instant_of_a_commit_may_be_counted_before_or_after_it():
    tied = {"ended_s": 12.0, "downloaded_s": 11.0, "gross_joules": 2.0 + IDLE_W * 2.0}
    later = broken("visits", 4, **tied)
    later = with_totals(later, gross_joules=later.info.totals.gross_joules - IDLE_W * 3.0)
    assert verify(later) == []
    counted = later.commits.assign(total_down_bytes=[2000, 5000], total_joules=[3.5, 13.5])
    assert verify(dataclasses.replace(later, commits=counted)) == []
    too_many = later.commits.assign(total_down_bytes=[2000, 5001])
    [problem] = verify(dataclasses.replace(later, commits=too_many))
    assert problem == "commit 2 has total_down_bytes 5001, its visits give 5000"


def test_charged_bytes_may_differ_from_serialised_ones_only_under_charge_as():
    run = by_hand()
    visits = run.visits.assign(serialized_up_bytes=run.visits["serialized_up_bytes"] // 2)
    declared = {"task": {"kind": "language", "charge_as": {"preset": "gpt2"}}}
    assert verify(dataclasses.replace(run, visits=visits, experiment=declared)) == []
    assert len(verify(dataclasses.replace(run, visits=visits))) == 1


def test_a_killed_run_may_lack_its_open_visits_and_its_last_commit():
    run = by_hand()
    killed = dataclasses.replace(run.info, status="killed", totals=Totals())
    left = dataclasses.replace(
        run, info=killed, visits=run.visits.drop(index=[2, 4]), commits=run.commits[:1]
    )
    left = dataclasses.replace(left, visits=left.visits[:3], scores=run.scores[:1])
    assert verify(left) == []


@pytest.mark.parametrize("table", ["visits", "commits", "scores", "clients"])
def test_a_missing_column_is_named(table):
    run = by_hand()
    column = list(TABLES[table])[-1]
    frame: pd.DataFrame = getattr(run, table).drop(columns=column)
    assert verify(dataclasses.replace(run, **{table: frame})) == [f"{table} has no column {column!r}"]


def test_every_invariant_has_a_name_of_its_own_and_holds_for_a_run_whose_books_are_right():
    books = Books(by_hand())
    broken = {invariant.name: invariant.broken(books).any() for invariant in INVARIANTS}

    assert len(broken) == len(INVARIANTS)
    assert not any(broken.values()), broken
