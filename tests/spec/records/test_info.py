"""`run.json` is read into typed facts: what is new to this version is left out, what is missing is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from worlds.small_runs import INFO

from fedsim.errors import RunFolderError
from fedsim.records.info import Batteries, Refusal, RunInfo, SavedAdapter, Totals, read_info, saved_share
from fedsim.records.rows import OUTCOMES, ROWS
from fedsim.records.tables import TABLES

FULL = replace(
    INFO,
    refused=(Refusal(1, 2, "not finite"),),
    saved_adapter=SavedAdapter(rank=8, base_version=3, holds="both"),
    totals=Totals(clients=4, visits=7, outcomes={"landed": 4}, joules=0.1, gross_joules=0.3, refused=1),
    away_share={"battery": 0.25},
    batteries=Batteries(2, 1.0, 2.0, 0.5, 2.5, 0.75),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.json"


@pytest.mark.parametrize("info", [INFO, FULL, RunInfo(name="a", status="running", seed=1, digest="d")])
def test_what_was_written_is_read(path, info):
    path.write_text(info.text())
    back = read_info(path)

    # of a NaN nothing is equal, itself included
    assert back.plain() == info.plain()
    assert replace(back, charged=None, totals=Totals()) == replace(info, charged=None, totals=Totals())


def test_a_key_that_this_version_does_not_know_is_left_out(path):
    path.write_text(
        json.dumps({**FULL.plain(), "colour": "blue", "totals": {**FULL.plain()["totals"], "w": 1}})
    )

    assert read_info(path).plain() == FULL.plain()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda info: info.pop("seed"), "run.json: is damaged: it has no seed"),
        (lambda info: info["charged"].pop("params"), "run.json: is damaged: it has no charged.params"),
        (lambda info: info.update(status="asleep"), "run.json: is damaged: status "),
    ],
)
def test_what_is_missing_or_of_another_kind_is_said_in_a_sentence(path, change, says):
    plain = INFO.plain()
    change(plain)
    path.write_text(json.dumps(plain))

    with pytest.raises(RunFolderError, match=says):
        read_info(path)


def test_numbers_that_json_does_not_have_become_null(path):
    path.write_text(replace(INFO, task={"loss": math.nan, "rates": [np.float32(math.inf), 1]}).text())
    plain = json.loads(path.read_text(), parse_constant=pytest.fail)

    assert plain["task"] == {"loss": None, "rates": [None, 1]}
    assert plain["totals"]["gross_joules"] is None
    assert math.isnan(read_info(path).totals.gross_joules)


def test_the_columns_of_a_table_are_the_fields_of_its_rows():
    assert list(TABLES) == list(ROWS)
    assert TABLES["scores"] == {
        "version": "int64",
        "time_s": "float64",
        "split": "str",
        "metric": "str",
        "value": "float64",
    }
    assert {TABLES["visits"][name] for name in ("outcome", "away", "memory_plan")} == {"str"}
    assert TABLES["visits"]["computed"] == TABLES["personal"]["unseen"] == "bool"


def visits(*rows: tuple[str, bool]):
    outcomes, computed = zip(*rows, strict=True) if rows else ((), ())
    return {
        "visits": {"outcome": np.array(outcomes, dtype=object), "computed": np.array(computed, dtype=bool)}
    }


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        ((), 0.0),
        ((("polled", False),), 0.0),
        ((("landed", True), ("offline", False), ("late", True), ("memory", False)), 0.5),
        ((("landed", True), ("polled", False), ("polled", False)), 0.0),
        (tuple((outcome, False) for outcome in OUTCOMES), 1.0),
    ],
)
def test_saved_is_the_share_of_visits_asked_to_train_whose_training_was_never_computed(rows, share):
    assert saved_share(visits(*rows)) == share
