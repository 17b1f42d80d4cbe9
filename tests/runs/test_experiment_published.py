"""Others' results in shape: marks that stand as they were stated, how one is judged, a run that comes out again, and the pages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from worlds import studies
from worlds.loaded_scripts import fixture_of
from worlds.studies import stated

import fedsim
from fedsim.records.statistics import mean_interval
from fedsim.records.studies.marks import numbers

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "published"
CLAIMS = ROOT / "docs" / "claims.md"
STATED = {
    28: "a1de03425dd27c688d1be2e8ea695df0c7ce999c3bef4a97d57608b60c434fcd",
    32: "e14e6d0f36c3f7a7822cd6161f82da2eee76b037770d9acae22c28a397de1f76",
}
"""SHA-256 of what the first so many marks ask for, as they were committed before what they are about was run."""


compare = fixture_of(FOLDER / "compare.py", "compare_published")
tables = fixture_of(FOLDER / "tables.py", "tables_published")


def mark(**changed):
    control = {"control_form": "ratio", "control_ways": "c | d", "control_low": "0.9", "control_high": "1.1"}
    return studies.mark(**({"low": "1.5", "high": "4", "null": "1"} | control | changed))


def rows(**values):
    """Runs of study s: way -> values of the measure m, one a seed."""
    return {("s", way, seed): {"m": m} for way, ms in values.items() for seed, m in enumerate(ms)}


STILL = {"c": [1.0, 1.0, 1.0], "d": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("a", "changed", "verdict"),
    [
        ([2.0, 2.1, 2.2], {}, "yes"),
        ([1.2, 1.25, 1.3], {}, "direction, another size"),
        ([1.35, 1.42, 1.49], {}, "direction, the size is open"),  # the interval reaches the mark
        ([6.0, 6.1, 6.2], {}, "direction, another size"),
        ([0.5, 3.0, 1.5], {}, "not decided"),
        ([0.5, 0.55, 0.6], {}, "no: the other way"),
        ([0.5, 0.55, 0.6], {"low": "0", "high": "0.8"}, "yes"),
        ([2.0, 2.1, 2.2], {"control_low": "1.2"}, "direction, but the control is not still"),
        ([2.0, 2.0, 2.0], {}, "yes"),
        ([1.0, 1.0, 1.0], {}, "not decided"),
        ([2.0, 2.1, 2.2], {"control_ways": "c | e"}, "not decided"),
        ([1.04, 1.05, 1.06], {}, "direction, but no more than the control may have"),
        ([1.04, 1.05, 1.06], {"low": "1.01", "high": "1.1"}, "yes"),  # as small as that was stated
        ([0.94, 0.95, 0.96], {}, "not decided"),
    ],
)
def test_a_mark_is_met_where_interval_size_and_control_agree(tables, a, changed, verdict):
    found = tables.judged(rows(a=a, b=[1.0, 1.0, 1.0], **STILL), mark(**changed))
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        ([0.99, 1.0, 1.05], "yes"),
        ([0.7, 1.2, 2.0], "direction, but the control is open"),
        ([1.5, 1.51, 1.52], "direction, but the control is not still"),
        ([0.5, 0.51, 0.52], "direction, but the control is not still"),
        ([1.0], "not decided"),
        ([1.5, 1.0], "not decided"),
    ],
)
def test_a_control_of_three_seeds_tells_still_from_open(tables, control, verdict):
    known = rows(a=[2.0, 2.1, 2.2], b=[1.0, 1.0, 1.0], c=control, d=[1.0] * len(control))
    assert tables.judged(known, mark()).verdict == verdict


@pytest.mark.parametrize(
    ("a", "verdict"),
    [
        ([2.0, 2.1, 2.2], "yes"),
        ([1.2, 1.21, 1.22], "did not come out"),
        ([1.2, 1.3, 1.4], "not decided"),  # the interval reaches the mark
        ([], "not run"),
    ],
)
def test_a_share_below_its_figure_is_no_confirmation(tables, a, verdict):
    assert tables.judged(rows(a=a, **STILL), mark(form="value", ways="a")).verdict == verdict


def test_a_seed_that_did_not_get_there_leaves_a_mark_open(tables):
    found = tables.judged(rows(a=[2.0, float("nan"), 2.2], b=[1.0, 1.0, 1.0], **STILL), mark())
    assert (found.verdict, found.missing) == ("not decided", 1)


def test_a_ratio_over_nothing_or_over_infinity_is_missing(tables):
    for b in (0.0, float("inf")):
        found = tables.judged(rows(a=[2.0, 2.1, 2.2], b=[1.0, b, 1.0], **STILL), mark())
        assert (found.verdict, found.missing) == ("not decided", 1)


def test_forms_of_a_mark_by_hand(tables):
    known = rows(a=[6.0], b=[3.0], c=[4.0], d=[8.0])
    by_form = {
        form: numbers(known, "s", "m", form, ways)
        for form, ways in [
            ("value", "a"),
            ("ratio", "a | b"),
            ("difference", "a | b"),
            ("double", "a | b | c | d"),
        ]
    }
    assert by_form == {"value": [6.0], "ratio": [2.0], "difference": [3.0], "double": [4.0]}


@pytest.mark.parametrize("first", STATED)
def test_marks_stand_as_they_were_stated(tables, first):
    assert len(tables.marks()) == max(STATED)
    assert stated(tables.marks()[:first]) == STATED[first]


def test_every_mark_names_ways_with_three_seeds_or_more(tables, compare):
    studies, known = compare.studies(), tables.read()
    for row in tables.marks():
        for way in f"{row['ways']} | {row['control_ways']}".split(" | "):
            assert way in studies[row["study"]].ways
            seeds = {seed for study, of, seed in known if (study, of) == (row["study"], way)}
            assert not seeds or len(seeds) >= 3
            assert len(seeds) <= studies[row["study"]].seeds


def test_the_page_says_what_the_runs_say(tables):
    assert "\n".join(tables.table()) in (FOLDER / "README.md").read_text("utf-8")


def test_a_run_comes_out_as_it_stands_in_the_table(compare, tables):
    study = compare.studies()["fedscale"]
    run = fedsim.simulate(compare.experiment(study, "async", 1), timeline_only=True)
    found = {name: float(f"{value:.6g}") for name, value in compare.figures(run, study).items()}
    stored = tables.read()["fedscale", "async", 1]
    assert {name: found[name] for name in stored} == stored


def test_claims_about_steps_and_overshoot_are_of_the_stored_runs(tables):
    known, claims = tables.read(), CLAIMS.read_text("utf-8")
    led = numbers(known, "asynchrony", "target_updates", "ratio", "sync 300, lr 1 | fedbuff 300, lr 1")
    runs = [row for (study, way, _), row in known.items() if (study, way) == ("overshoot", "fedbuff 1000")]
    later = [row["settled_s"] / row["target_s"] for row in runs]
    for values in (led, later):
        assert f"| {tables.said(mean_interval(values))}; n = 3 |" in claims


def test_tiers_of_five_speeds_take_the_time_that_they_take_by_hand(tables):
    """A round of FedAvg waits for the slowest of five of fifty, ten a speed; one of TiFL for its tier, each as often."""
    times = [0.25, 0.5, 1.0, 2.0, 10.0]
    among = [math.comb(10 * (k + 1), 5) / math.comb(50, 5) for k in range(5)]  # none is slower than the k-th
    slowest = sum(t * (p - q) for t, p, q in zip(times, among, [0.0, *among], strict=False))
    known = tables.read()
    ratio = numbers(known, "tifl-schedule", "hours_per_commit", "ratio", "fedavg | tifl")
    found = mean_interval(ratio)
    assert found.low < slowest / (sum(times) / 5) < found.high
    assert f"| {tables.said(found)}; n = 5 |" in CLAIMS.read_text("utf-8")
