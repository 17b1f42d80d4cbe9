"""Books of runs over hardware: training takes the seconds of its law, found by a second arithmetic, and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import experiment

from fedsim.config.loading import changed
from fedsim.records.info import read_info
from fedsim.records.verify import verify
from fedsim.records.verify.books import Books
from fedsim.records.verify.laws import whole_visit_s
from fedsim.records.verify.seconds import full_speed_s
from fedsim.runs.simulation import simulate

SYNC = {"kind": "synchronous", "cohort": 6}
CHARGE = {"preset": "smollm2-135m", "sequence": 64, "batch": 1, "checkpoint": True, "weight_bytes": 0.5}


def played(tmp_path=None, protocol=None, **compute):
    settings = experiment(
        protocol or SYNC,
        60,
        population={"preset": "mixed_edge_2026", "clients": 60, "availability": "charging"},
        compute=compute,
        task={"kind": "quadratic", "charge_as": CHARGE | {"tokens_per_visit": 7000}},
        budget={"commits": 6},
    )
    out = None if tmp_path is None else tmp_path / "run"
    return simulate(settings, out=out, timeline_only=True, report=False)


@pytest.fixture(scope="module")
def run():
    return played()


def with_visit(run, row, **values):
    visits = run.visits.copy()
    for name, value in values.items():
        visits.loc[row, name] = value
    return replace(run, visits=visits)


@pytest.mark.parametrize(
    "compute",
    [{"uncertainty": "units"}, {"uncertainty": "stacks", "uncertainty_draw": 2, "app": "foreground"}],
)
def test_a_run_over_hardware_is_sound(run, compute):
    assert verify(run) == []
    assert verify(played(None, {"kind": "buffered", "concurrency": 8, "buffer": 3}, **compute)) == []


def test_every_whole_visit_is_held_against_the_law(run):
    books = Books(run)
    seconds, exact = full_speed_s(books)
    trained = run.visits["trained_s"].notna().to_numpy()
    assert trained.sum() > 20
    assert exact[trained].all()
    took_s = (run.visits["trained_s"] - run.visits["downloaded_s"]).to_numpy()
    unpaused = trained & (run.visits["paused_s"] == 0).to_numpy()
    assert seconds[unpaused] == pytest.approx(took_s[unpaused], rel=1e-9)
    speed = run.visits["flops"].to_numpy() / books.of_client("flops_per_s")
    assert (seconds[unpaused] > speed[unpaused] * 1.001).any()  # launches, weights that are unpacked


@pytest.mark.parametrize("factor", [0.999, 1.001, 1.5])
def test_other_seconds_are_found_too_long_ones_as_well(run, factor):
    whole = run.visits["trained_s"].notna() & (run.visits["paused_s"] == 0)
    row = int(np.flatnonzero(whole)[0])
    began, ended = run.visits["downloaded_s"].iloc[row], run.visits["trained_s"].iloc[row]
    problems = verify(with_visit(run, run.visits.index[row], trained_s=began + factor * (ended - began)))
    assert any("its device needs another time" in problem for problem in problems)


def test_the_law_of_a_launch_that_was_drawn_unit_by_unit_is_not_known_and_the_rest_is():
    run = played(None, uncertainty="units")
    known = ~np.isnan(whole_visit_s(run))
    launches = {law.device for law in run.info.charged.laws if law.launch_s is None}
    assert launches
    assert not known[run.clients["device"].isin(launches)].any()
    assert known[~run.clients["device"].isin(launches)].all()


@pytest.mark.parametrize("uncertainty", ["none", "units"])
def test_laws_are_in_run_json_and_come_back(tmp_path, uncertainty):
    run = played(tmp_path, uncertainty=uncertainty)
    again = read_info(run.folder / "run.json").charged
    assert again == run.info.charged
    assert sum(law.clients for law in again.laws) == 60
    assert {one.memory_plan for one in again.passes} == set(run.clients["memory_plan"])


def test_a_law_that_was_changed_is_found(run):
    laws = tuple(replace(law, launch_s=2 * law.launch_s + 1e-3) for law in run.info.charged.laws)
    info = replace(run.info, charged=replace(run.info.charged, laws=laws))
    assert any("needs another time" in problem for problem in verify(replace(run, info=info)))


def test_tables_of_speeds_have_no_laws():
    settings = experiment(
        SYNC, 20, population={"preset": "mixed_edge_2025", "clients": 20}, budget={"commits": 1}
    )
    run = simulate(changed(settings, ()), timeline_only=True)
    assert run.info.charged.laws == run.info.charged.passes == ()
    assert np.isnan(whole_visit_s(run)).all()
