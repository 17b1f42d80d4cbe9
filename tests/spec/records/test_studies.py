"""What studies keep of their runs, how a mark without control or effect is judged, and what is written into pages: by hand."""

from __future__ import annotations

import math

import pytest
from worlds.studies import mark

import fedsim
from fedsim.records.statistics import mean_interval
from fedsim.records.studies.kept import Key, rows_of, runs_of, text_of
from fedsim.records.studies.marks import OUTCOMES, judged, numbers
from fedsim.records.studies.pages import between, spread, table, with_interval


def test_what_is_kept_comes_back_to_six_digits():
    rows = {
        Key("s", "a, b", 1): {"last": 1.23456789, "hours": math.nan},
        Key("s", "a, b", 0): {"last": 2.0, "bytes": 3e12},
    }
    text = text_of(rows, [Key("s", "a, b", seed) for seed in (0, 1, 2)], "two runs")

    assert text.splitlines()[0] == "# two runs"
    assert rows_of(text) == {
        ("s", "a, b", 0): {"last": 2.0, "bytes": 3e12},
        ("s", "a, b", 1): {"last": 1.23457},
    }
    assert "hours" not in text
    assert text_of(rows_of(text), rows_of(text), "two runs") == text


def test_finished_runs_come_by_way_and_seed(tmp_path):
    plain = {
        "population": {"preset": "homogeneous", "clients": 4},
        "task": {"kind": "quadratic"},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
        "protocol": {"kind": "synchronous", "cohort": 2},
        "budget": {"commits": 1},
    }
    for seed, name in ((1, "a"), (0, "b")):
        fedsim.simulate(plain | {"seed": seed}, out=tmp_path / "way" / name, timeline_only=True, report=False)

    found = runs_of(tmp_path, ["way", "other"])
    assert [run.info.seed for run in found["way"]] == [0, 1]
    assert [*found] == ["way"]


def rows(**values):
    return {Key("s", way, seed): {"m": m} for way, ms in values.items() for seed, m in enumerate(ms)}


@pytest.mark.parametrize(
    ("a", "verdict"),
    [
        ([1.0, 1.001, 1.002], "yes"),
        ([1.2, 1.201, 1.202], "did not come out"),
        ([0.99, 1.03, 1.0], "not decided"),
        ([1.0, 1.0, 1.0], "yes"),
        ([1.0, 1.0], "not decided"),
        ([1.0, 1.0, math.nan], "not decided"),
        ([], "not run"),
    ],
)
def test_two_ways_are_equal_where_the_whole_interval_is_within_the_mark(a, verdict):
    assert judged(rows(a=a, b=[1.0, 1.0, 1.0]), mark()).verdict == verdict


@pytest.mark.parametrize(
    ("a", "changed", "verdict"),
    [
        ([2.0, 2.1, 2.2], {"low": "1.5", "high": "3", "null": "1"}, "yes"),
        ([2.0, 2.1], {"low": "1.5", "high": "3", "null": "1"}, "not decided"),
        ([0.5, 0.6, 0.7], {"low": "1.5", "high": "3", "null": "1"}, "no: the other way"),
        ([0.5, 0.6, 0.7], {"low": "0.3", "high": "0.9", "null": "1"}, "yes"),
        ([0.5], {"form": "value", "ways": "a", "low": "0.9", "high": "1", "null": "0"}, "not decided"),
    ],
)
def test_a_mark_needs_no_control_but_three_seeds(a, changed, verdict):
    found = judged(rows(a=a, b=[1.0, 1.0, 1.0]), mark(**changed))

    assert found.verdict == verdict
    assert found.verdict in OUTCOMES
    assert math.isnan(found.control.mean)


def test_a_ratio_of_ratios_is_of_the_seeds_that_all_have():
    known = rows(a=[6.0, 1.0], b=[3.0, 1.0], c=[4.0, 1.0], d=[8.0])

    assert numbers(known, "s", "m", "double", "a | b | c | d") == [4.0]
    assert math.isnan(numbers(rows(a=[1.0], b=[0.0]), "s", "m", "ratio", "a | b")[0])


def test_tables_and_what_stands_in_their_cells():
    assert table(["", "h"], [["x", "1"], ["y", "2"]]) == [
        "|  | h |",
        "| --- | --- |",
        "| x | 1 |",
        "| y | 2 |",
    ]
    assert [spread([1.0, 2.0, 3.0]), spread([2.5], 2), spread([]), spread([1.0, math.nan])] == [
        "2.0 ± 1.0",
        "2.50",
        "–",
        "–",
    ]
    assert with_interval(mean_interval([1.0, 2.0, 3.0])) == "2 (-0.484 to 4.48)"
    assert with_interval(mean_interval([2.5])) == "2.50"
    assert with_interval(mean_interval([])) == "–"


def test_lines_are_written_between_two_lines_of_a_page():
    page = "before\n<!-- t -->\nold\nolder\n<!-- e -->\nafter\n"

    assert (
        between(page, "<!-- t -->", "<!-- e -->", ["new"]) == "before\n<!-- t -->\nnew\n<!-- e -->\nafter\n"
    )
    assert between(page, "<!-- t -->", "<!-- e -->", []) == "before\n<!-- t -->\n<!-- e -->\nafter\n"
    for begin, end in (("<!-- x -->", "<!-- e -->"), ("<!-- t -->", "<!-- x -->")):
        with pytest.raises(ValueError, match="x"):
            between(page, begin, end, [])
