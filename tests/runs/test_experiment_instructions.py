"""The experiment on chats of natural users: its files run at a tiny size, and its table is filled."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds.loaded_scripts import fixture_of

FOLDER = Path(__file__).parents[2] / "experiments" / "instructions"
TINY = {
    "task.model": "builtin",
    "task.data": "builtin",
    "task.client_column": "null",
    "task.time_column": "null",
    "task.partition": "{kind: iid}",
    "task.holdout": "0.1",
    "task.sequence": "48",
    "task.generate": "{examples: 2, tokens: 4, shown: 0}",
    "population.clients": "20",
    "population.availability": "always",
    "local": "{steps: 1, batch: 2, lr: 1.0e-3}",
    "budget": "{commits: 1}",
    "evaluate": "{every_commits: 1, windows: 4, splits: [test, answers]}",
    "runtime": "{executor: inline}",
}


compare = fixture_of(FOLDER / "compare.py", "compare_instructions")


def test_every_way_runs_and_has_a_row(compare, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(compare, "WAYS", {way: compare.WAYS[way] for way in ("sync", "fedbuff-nf4")})
    settings = [word for key, value in TINY.items() for word in ("-s", f"{key}={value}")]

    assert compare.main(["run", str(tmp_path), *settings]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert compare.main(["table", str(tmp_path), str(tmp_path / "answers.png")]) == 0

    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == list(compare.WAYS.values())
    assert "–" not in "".join(rows[2:])
    assert (tmp_path / "answers.png").stat().st_size > 5_000


def test_the_page_has_the_schedules_that_were_played(compare):
    rows = compare.rows_in(compare.ROWS)
    assert {(key.way, key.seed) for key in rows} == {(w, s) for w in compare.SCHEDULED for s in compare.SEEDS}
    assert "\n".join(compare.sooner()) in compare.PAGE.read_text("utf-8")


def test_schedules_are_kept_and_put_into_the_page(compare, tmp_path, monkeypatch):
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(compare, "SEEDS", range(1))
    monkeypatch.setattr(compare, "ROWS", tmp_path / "schedules.csv")
    monkeypatch.setattr(compare, "PAGE", tmp_path / "page.md")
    compare.PAGE.write_text(f"{compare.BEGIN}\n{compare.END}\n", "utf-8")
    settings = [word for key, value in TINY.items() for word in ("-s", f"{key}={value}")]

    assert compare.main(["schedules", *settings]) == 0
    assert len(compare.rows_in(compare.ROWS)) == 2
    assert "| seeds 0 to 0 |" in compare.PAGE.read_text("utf-8")
