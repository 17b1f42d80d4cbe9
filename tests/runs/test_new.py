"""What `fedsim new` writes runs as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsim.cli.app import call
from fedsim.records.run import load

SHORTER = {
    "language": ["-s", "budget={commits: 1}", "-s", "evaluate.windows=8", "-s", "local.steps=1"],
    "images": ["-s", "budget.commits=1", "-s", "evaluate.windows=4", "-s", "local.steps=1"],
    "torch": ["-s", "budget.commits=2"],
}


@pytest.mark.parametrize("task", SHORTER)
def test_what_is_new_runs_and_comes_with_a_schema_for_editors(task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert call(["new", f"my_{task}", "--task", task]) == 0
    assert capsys.readouterr().out == f"next: fedsim run my_{task}.yaml --dry-run\n"
    first = Path(f"my_{task}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=fedsim.json"
    assert Path("fedsim.json").stat().st_size > 10_000

    assert call(["run", f"my_{task}.yaml", *SHORTER[task]]) == 0, capsys.readouterr().err
    assert load(tmp_path / "runs" / f"my_{task}").info.status == "done"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a/b"], "NAME: cannot name a file here (got 'a/b')"),
        (["a-b", "--task", "torch"], "NAME: cannot name a file here (got 'a-b')"),
        (["there"], "there.yaml: exists already"),
    ],
)
def test_nothing_is_written_over_or_elsewhere(args, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").write_text("mine", encoding="utf-8")

    assert call(["new", *args]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert Path("there.yaml").read_text(encoding="utf-8") == "mine"
