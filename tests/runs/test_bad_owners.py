"""Broken natural users: owners, sizes, times and what is held out; each is one sentence, a fix and exit code 2."""

from __future__ import annotations

import json

import pytest
from worlds.text_files import written

from fedsim.cli.app import call

WRITERS = (30, 40, 50, 1)


def diary(folder, **changes):
    """Rows of four writers, of whom the last has too little for a client; `changes` are values of their first row but one."""
    rows = [
        {"text": f"the ship {k} of {who} sails on and on", "who": f"w{who}", "at": k, "day": "2026-01-01"}
        for who, count in enumerate(WRITERS)
        for k in range(count)
    ]
    rows[1] |= changes
    (folder / "diary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def experiment(clients=3, partition=None, **task):
    natural = {"kind": "natural"} | (partition or {})
    fields = {"kind": "language", "data": "diary.jsonl", "client_column": "who", "sequence": 16}
    return {
        "population": {"preset": "homogeneous", "clients": clients},
        "task": fields | {"partition": natural} | task,
        "protocol": {"kind": "synchronous", "cohort": 2},
        "budget": {"commits": 2},
        "runtime": {"executor": "inline"},
    }


CASES = {
    "a time column that is not there": (
        {},
        experiment(time_column="when"),
        ["task.time_column", "no such column (got 'when')", "at"],
    ),
    "a row without a time": (
        {"at": None},
        experiment(time_column="at"),
        ["task.time_column", "row 2 has no at"],
    ),
    "a time that is none": (
        {"at": "soon"},
        experiment(time_column="at"),
        ["task.time_column", "row 2 says no time (got 'soon')", "2026-11-28T09:30:00"],
    ),
    "numbers and dates in one column": (
        {"at": "2026-01-01"},
        experiment(time_column="at"),
        ["row 1 is a number, row 2 a date"],
    ),
    "times of the shipped text": (
        {},
        experiment(data="builtin", client_column=None, time_column="at"),
        ["the shipped data have no columns (got 'at')"],
    ),
    "times of a text file": (
        {},
        experiment(data="notes.txt", client_column=None, time_column="at"),
        ["task.time_column: a text file has no columns", "notes.txt) (got 'at')"],
    ),
    "a floor above the cap": (
        {},
        experiment(partition={"least": 200, "most": 100}),
        ["task.partition", "`least` is more than `most` (got 200 and 100)"],
    ),
    "a floor of nothing": ({}, experiment(partition={"least": 0}), ["task.partition.least", "(got 0)"]),
    "a floor that nobody reaches": (
        {},
        experiment(partition={"least": 100_000}),
        ["task.partition: none of 4 owners has 100000 tokens", "smaller task.partition.least"],
    ),
    "a cap below what a client needs": (
        {},
        experiment(partition={"most": 31}),
        ["task.partition.most: a client needs 32 tokens (got 31)"],
    ),
    "fewer owners than clients, which are not to be cut": (
        {},
        experiment(clients=4, partition={"fewer_owners": "refuse"}),
        [
            "task.partition.fewer_owners: 3 owners with at least 32 tokens are fewer than the clients (got 4)",
            "cut",
        ],
    ),
    "a word for more owners that is none": (
        {},
        experiment(partition={"more_owners": "sample"}),
        ["task.partition.more_owners", "'sample'", "draw"],
    ),
    "a held-out part that is neither a share nor the last": (
        {},
        experiment(holdout="first"),
        ["task.holdout", "'first'"],
    ),
    "a held-out part that is the last and drawn": (
        {},
        experiment(holdout="last", holdout_from="windows"),
        ["task.holdout_from: `holdout: last` is `holdout_from: last` (got 'windows')"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_broken_owners_are_refused(case, tmp_path, capsys, monkeypatch):
    changes, settings, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    diary(tmp_path, **changes)
    (tmp_path / "notes.txt").write_text("the ship sails on\n" * 50)
    task = {key: value for key, value in settings["task"].items() if value is not None}
    path = written(tmp_path / "exp.yaml", settings | {"task": task})
    assert call(["run", str(path)]) == 2
    out, err = capsys.readouterr()
    assert [line[:7] for line in err.splitlines()] == ["error: ", "  fix: "], err
    assert out == ""
    for words in expected:
        assert words in err
    assert not (tmp_path / "runs").exists()


def test_what_is_broken_above_is_sound(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diary(tmp_path)
    path = written(tmp_path / "exp.yaml", experiment(holdout="last", time_column="at"))
    assert call(["run", str(path), "--timeline-only"]) == 0
    assert call(["verify", str(tmp_path / "runs" / "exp")]) == 0
