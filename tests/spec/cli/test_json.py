"""`--json`: every command that prints a result has it, its page names it, and its standard output is one JSON object."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from worlds.no_pages import leave_out_pages
from worlds.resumed_runs import BASE, FEDBUFF

import fedsim
from fedsim.cli.app import app, call

PAGE = Path(__file__).parents[3] / "docs" / "json.md"
OWN_FORMAT = {"schema", "profiles new", "profiles calibrate", "profiles contribute"}
"""Commands whose output is a format of its own: a JSON schema, tables in CSV."""
SETTINGS = {**BASE, **FEDBUFF, "name": "small", "budget": {"commits": 4}}
SETTINGS["runtime"] = {"executor": "inline", "checkpoint_commits": 2}


def commands():
    """Name as it is typed -> the command."""
    found = dict(typer.main.get_command(app).commands)
    inner = {f"profiles {name}": command for name, command in found.pop("profiles").commands.items()}
    return found | inner


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with an experiment, its run in `run`, a sweep's file, a table and a log."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "my.yaml").write_text(yaml.safe_dump(SETTINGS))
    (folder / "grid.yaml").write_text(yaml.safe_dump({**SETTINGS, "sweep": {"seed": [0, 1]}}))
    fedsim.simulate(str(folder / "my.yaml"), out=folder / "run", report=False)
    (folder / "log.csv").write_text("time_s,kbps\n0,1000\n10,2000\n")
    return folder


@pytest.fixture(autouse=True)
def _no_pages(monkeypatch):
    leave_out_pages(monkeypatch)


@pytest.fixture
def answer(here, monkeypatch, capsys):
    """Runs a command line in the folder; its exit code and its object."""
    monkeypatch.chdir(here)

    def run(*line):
        code = call([*line, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_every_command_that_prints_a_result_has_it_and_stands_on_the_page():
    with_it = {name for name, c in commands().items() if any("--json" in p.opts for p in c.params)}
    assert with_it == set(commands()) - OWN_FORMAT
    told = set(re.findall(r"^\| `fedsim ([a-z ]+?)(?: --[a-z-]+)?` \|", PAGE.read_text(), re.MULTILINE))
    assert told == with_it | {"schema"}


def test_a_run_tells_what_its_tables_hold(answer, here):
    code, facts = answer("run", "my.yaml", "--out", "again")
    run = fedsim.load(here / "again")
    test = next(s for s in facts["scores"] if s["split"] == "test")
    values = run.scores[(run.scores.split == "test") & (run.scores.metric == test["metric"])].value

    assert code == 0
    assert (facts["status"], facts["run"]) == ("done", "again")
    assert facts["totals"]["up_bytes"] == run.info.totals.up_bytes
    assert (test["first"]["value"], test["last"]["value"]) == (values.iloc[0], values.iloc[-1])
    assert facts["report"] is None  # no page was written


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (["run", "my.yaml", "--dry-run", "--timeline-only"], "estimates"),
        (["resume", "run"], "totals"),
        (["status", "run"], "budget"),
        (["report", "run", "--out", "page.html"], "report"),
        (["compare", "run"], "configurations"),
        (["timeline", "run"], "trace"),
        (["verify", "run"], "ok"),
        (["replay", "run", "--client", "CLIENT"], "recorded_loss"),
        (["doctor"], "findings"),
        (["explain"], "keys"),
        (["explain", "protocol.buffer"], "keys"),
        (["explain", "fedit"], "kinds"),
        (["new", "mine2"], "files"),
        (["profiles", "list"], "presets"),
        (["profiles", "show", "mixed_edge_2026"], "classes"),
        (["profiles", "show", "my.yaml"], "drawn"),
        (["profiles", "import", "kbps", "log.csv", "--out", "rates.csv", "--direction", "down", "--last-s", "10"], "figures"),
    ],
    ids=lambda v: " ".join(v[:2]) if isinstance(v, list) else "",
)  # fmt: skip
def test_the_answer_is_one_object(answer, here, line, key):
    visits = fedsim.load(here / "run").visits
    client = str(visits[visits.computed].client.iloc[0])
    code, facts = answer(*(client if word == "CLIENT" else word for word in line))

    assert code == 0
    assert key in facts


def test_a_sweep_tells_every_point(answer):
    code, facts = answer("sweep", "grid.yaml", "--out", "grid")

    assert code == 0
    assert [(p["status"], p["changed"], p["run"]["status"]) for p in facts["points"]] == [
        ("done", {"seed": "0"}, "done"),
        ("done", {"seed": "1"}, "done"),
    ]


def test_a_demo_tells_its_runs(answer, here, monkeypatch):
    monkeypatch.setattr("fedsim.runs.together.run_together", lambda *_: [fedsim.load(here / "run")])
    code, facts = answer("demo", "--out", "demo", "-s", "runtime.executor=inline")

    assert code == 0
    assert [run["name"] for run in facts["runs"]] == ["small"]


def test_what_is_wrong_is_in_the_object_and_in_the_exit_code(answer, here):
    (here / "broken.csv").write_text("device,tier\nphone,phone-mid\n")
    code, facts = answer("profiles", "check", "broken.csv")
    assert (code, facts["ok"], bool(facts["problems"])) == (2, False, True)

    shutil.copytree(here / "run", here / "forged", dirs_exist_ok=True)
    info = json.loads((here / "forged" / "run.json").read_text())
    info["totals"]["up_bytes"] += 1
    (here / "forged" / "run.json").write_text(json.dumps(info))
    code, facts = answer("verify", "forged")
    assert (code, facts["ok"]) == (1, False)
    assert facts["problems"]


def test_an_error_is_on_stderr_and_nothing_on_stdout(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert call(["status", "nowhere", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no such folder" in err
