"""The replay of schedules: where values decide, of runs that were killed or stopped anywhere, and what an audit says."""

from __future__ import annotations

import dataclasses
import math
import os
import time

import numpy as np
import pytest
from worlds.audited import BUFFERED, DEADLINE, audited, with_info, with_rows, with_settings

from fedsim.config.experiment import Experiment
from fedsim.records.run import load
from fedsim.records.tables import TABLES
from fedsim.runs.audit import audit, why_no_replay
from fedsim.runs.simulation import simulate
from fedsim.tasks.quadratic import QuadraticTask

POLLED = DEADLINE | {"sampler": {"kind": "power-of-choice", "candidates": 14}, "budget": {"commits": 12}}
WITH_OORT = BUFFERED | {"sampler": {"kind": "oort", "pacer_rounds": 2}}
TIERS = BUFFERED | {
    "population": {"preset": "phones_2020", "clients": 20},
    "protocol": {"kind": "tiers", "tiers": 3, "cohort": 3, "probabilities": "adaptive", "interval": 2},
}
FEW_REPORTS = DEADLINE | {
    "protocol": {
        "kind": "synchronous",
        "cohort": 5,
        "over_select": 1.2,
        "deadline_s": 2500,
        "min_reports": 2,
    },
    "budget": {"time_s": 60000},
}
BY_TIME = BUFFERED | {"budget": {"time_s": 30000}}
WORLDS = {
    "deadline": DEADLINE | {"budget": {"commits": 12}},
    "buffered": BUFFERED,
    "polled": POLLED,
    "oort": WITH_OORT,
    "tiers": TIERS,
    "few reports": FEW_REPORTS,
    "by time": BY_TIME,
}


def experiment(world):
    return Experiment.model_validate(WORLDS[world])


@pytest.fixture
def sometimes_infinite(monkeypatch):
    """Every third client's training ends in numbers that are not finite."""
    train = QuadraticTask.train

    def some(self, jobs):
        return [
            dataclasses.replace(update, end=update.end * np.float32(math.inf))
            if job.client % 3 == 0
            else update
            for job, update in zip(jobs, train(self, jobs), strict=True)
        ]

    monkeypatch.setattr(QuadraticTask, "train", some)


# where values decide --------------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_a_run_is_replayed_from_its_settings_and_what_it_has_stored(world):
    run = simulate(experiment(world), report=False)
    found = audit(run)

    assert (found.problems, found.no_replay) == ((), "")
    assert found.replayed > 70
    assert found.summary.startswith(f"ok: {len(run.visits):,} visits and {len(run.commits):,} commits, ")


@pytest.mark.parametrize(
    "world",
    [
        world if world in ("deadline", "polled", "tiers") else pytest.param(world, marks=pytest.mark.slow)
        for world in WORLDS
    ],
)
def test_refused_updates_are_refused_in_the_replay_too(world, sometimes_infinite):
    run = simulate(experiment(world), report=False)

    assert (run.visits["outcome"] == "rejected").any()
    assert run.info.totals.refused > 0
    assert audit(run).problems == ()


def test_what_polled_clients_answer_is_stored_and_decides_in_the_replay():
    run = simulate(experiment("polled"), report=False)
    answered = run.visits["outcome"] == "polled"

    assert np.isfinite(run.visits.loc[answered, "loss"]).any()
    chosen = set(run.visits.loc[~answered, "client"])
    passed_over = run.visits.index[answered & ~run.visits["client"].isin(chosen)][0]
    problems = audit(with_rows(run, "visits", [passed_over], loss=1e9)).problems
    assert any("visits: visit" in problem or "replay" in problem for problem in problems)


def test_what_oort_reads_is_stored_and_decides_in_the_replay():
    run = simulate(experiment("oort"), report=False)
    used = (run.visits["committed_version"] > 0).to_numpy()

    assert np.isfinite(run.visits.loc[used, "loss_square"]).all()
    problems = audit(
        with_info(with_rows(run, "visits", used, loss_square=lambda r: 1e6 / (1 + r["order"])), numbers={})
    ).problems
    assert any("replay" in problem for problem in problems)


# runs that did not come to their end ----------------------------------------------------------------


def killed(world, folder, events):
    """A run whose process is gone after so many events."""
    pid = os.fork()
    if not pid:
        left = iter(range(events))

        def end(_kind, _facts):
            if next(left, None) is None:
                os._exit(9)

        simulate(experiment(world), out=folder, on_event=end, report=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    return load(folder)


@pytest.mark.parametrize("events", [23, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 10))])
@pytest.mark.parametrize("world", ["deadline", "buffered", "polled", "few reports"])
def test_a_killed_run_is_replayed_up_to_where_it_got(world, events, tmp_path):
    run = killed(world, tmp_path / "run", events)
    found = audit(run)

    assert run.info.status == "killed"
    assert found.problems == ()
    if len(run.visits):
        assert audit(with_rows(run, "visits", [0], tokens=1)).problems


def test_a_row_that_a_killed_run_lost_is_noticed(tmp_path):
    run = killed("buffered", tmp_path / "run", 23)
    first_committed = run.visits.index[run.visits["committed_version"] == 1][0]
    without = dataclasses.replace(run, visits=run.visits.drop(index=first_committed).reset_index(drop=True))

    assert any("is missing" in problem for problem in audit(without).problems)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("events", "error"),
    [
        (3, RuntimeError("enough")),
        (11, KeyboardInterrupt()),
        pytest.param(11, RuntimeError("enough"), marks=SLOW),
        pytest.param(3, KeyboardInterrupt(), marks=SLOW),
    ],
)
@pytest.mark.parametrize("world", ["deadline", "buffered", "polled", "few reports"])
def test_a_run_that_was_stopped_is_replayed_up_to_where_it_got(world, events, error, tmp_path):
    left = iter(range(events))

    def stop(_kind, _facts):
        if next(left, None) is None:
            raise error

    with pytest.raises(type(error)):
        simulate(experiment(world), out=tmp_path / "run", on_event=stop, report=False)
    run = load(tmp_path / "run")

    assert run.info.status in ("failed", "interrupted")
    assert audit(run).problems == ()


@pytest.mark.parametrize("world", ["deadline", "buffered"])
def test_a_run_that_failed_in_a_training_is_replayed_up_to_there(world, tmp_path, monkeypatch):
    train, calls = QuadraticTask.train, iter(range(7))

    def fails(self, jobs):
        if next(calls, None) is None:
            raise ZeroDivisionError("no")
        return train(self, jobs)

    monkeypatch.setattr(QuadraticTask, "train", fails)
    with pytest.raises(Exception, match="no"):
        simulate(experiment(world), out=tmp_path / "run", report=False)
    run = load(tmp_path / "run")

    assert run.info.status == "failed"
    assert audit(run).problems == ()


def test_a_schedule_without_training_is_replayed_as_well():
    run = simulate(experiment("buffered"), timeline_only=True)

    assert audit(run).problems == ()


# without a replay ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tampered", "why"),
    [
        (
            lambda run: with_info(run, versions=run.info.versions | {"fedsim-edge": "0.0.1"}),
            "fedsim 0.0.1 made it",
        ),
        (lambda run: with_settings(run, aggregator={"kind": "nowhere:Rule"}), "experiment.yaml: "),
        (lambda run: with_settings(run, population="x"), "experiment.yaml: "),
        (lambda run: with_rows(run, "visits", [0], ended_s=math.nan), "the tables are damaged"),
    ],
)
def test_without_what_made_the_run_there_is_no_replay_and_it_is_said(tampered, why):
    run = tampered(audited())

    assert why in why_no_replay(run)
    assert f"not replayed ({why_no_replay(run)})" in audit(run).summary


@pytest.mark.parametrize(
    ("tampered", "why"),
    [
        (lambda run: with_settings(run, population__availability="gone.csv"), "population.availability"),
        (lambda run: with_settings(run, population__preset="gone"), "gone"),
    ],
)
def test_without_the_tables_that_made_the_run_there_is_no_replay_and_it_is_said(tampered, why):
    found = audit(tampered(audited()))

    assert why in found.no_replay
    assert found.replayed == 0


def test_the_accounts_alone_are_audited_when_that_is_asked_for():
    found = audit(audited(), accounts_only=True)

    assert (found.problems, found.replayed) == ((), 0)
    assert "not replayed (accounts only, as asked)" in found.summary


def test_a_run_of_older_tables_is_audited_as_far_as_they_go():
    run = audited()
    older = {
        table: run.tables[table].assign(**{c: "" if TABLES[table][c] == "str" else math.nan for c in columns})
        for table, columns in {
            "clients": ["visit_flops", "train_w", "windows", "window_period_s", "framing"]
        }.items()
    }

    assert audit(dataclasses.replace(run, **older), accounts_only=True).problems == ()


def test_three_thousand_visits_take_seconds():
    run = simulate(
        Experiment.model_validate(BUFFERED | {"budget": {"commits": 1000}, "personal": {"kind": "none"}}),
        timeline_only=True,
    )
    assert len(run.visits) > 3000
    began_s = time.process_time()
    assert audit(run).problems == ()
    assert time.process_time() - began_s < 15
