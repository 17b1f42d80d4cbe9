"""Seals: what is changed, added or taken away afterwards is noticed, seals themselves and facts of `run.json`, too."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
from worlds.audited import BUFFERED

import fedsim
from fedsim.checks.gate import prepared
from fedsim.config.experiment import Experiment
from fedsim.errors import RunFolderError
from fedsim.records.verify import compared, verify
from fedsim.runs.audit import audit, why_no_replay
from fedsim.runs.retraced import retrace
from fedsim.runs.simulation import simulate
from fedsim.runs.stored import stored_experiment

SETTINGS = BUFFERED | {
    "personal": {"kind": "ditto"},
    "budget": {"commits": 3},
    "runtime": {"executor": "inline"},
}
KEPT = Path("kept") / "personal.f32"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run whose clients keep models of their own."""
    folder = tmp_path_factory.mktemp("sealed") / "run"
    simulate(Experiment.model_validate(SETTINGS), out=folder, report=False)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def facts(folder):
    return json.loads((folder / "run.json").read_text())


def told(folder, info):
    """What the audit says once this is the run's `run.json`."""
    (folder / "run.json").write_text(json.dumps(info))
    return audit(fedsim.load(folder))


def leaves(value, path=()):
    """Every (path, value) of facts that stands for something by itself."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts:
        yield path, value
    for key, part in parts:
        yield from leaves(part, (*path, key))


def another(value):
    if isinstance(value, bool | str):
        return not value if isinstance(value, bool) else f"{value}x"
    return value * 1.01 + 1 if isinstance(value, float) else value + 1 if isinstance(value, int) else ["x"]


def changed(info, path, value):
    info = json.loads(json.dumps(info))
    place = info
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return info


HERE = (
    "processors",
    "mixed",
    *("started", "ended", "wall_s", "host", "pid", "process", "versions", "cpu"),
    *("resumed", "no_checkpoints"),
)
"""Facts of `run.json` about where and when, and how often a run went on: nothing holds them."""


def test_a_run_as_it_was_left_has_no_problem_and_is_sealed(folder):
    found = audit(fedsim.load(folder))

    assert (found.problems, found.no_replay) == ((), "")
    assert "not sealed" not in found.summary


def test_every_fact_of_run_json_is_held_but_where_and_when(folder):
    info, run, missed = facts(folder), fedsim.load(folder), []
    right = retrace(prepared(stored_experiment(run)), run)
    tried = [leaf for leaf in leaves(info) if leaf[0][0] not in HERE]
    heads = {path[0]: (path, value) for path, value in tried}
    for path, value in [*heads.values(), *tried[:: max(1, len(tried) // 6)]]:
        (folder / "run.json").write_text(json.dumps(changed(info, path, another(value))))
        try:
            run = fedsim.load(folder)
        except RunFolderError:
            continue  # refused: no run that can be read
        if not verify(run) and not list(compared(run, right, unfinished=False)):
            missed.append(".".join(map(str, path)))

    assert len(heads) > 12
    assert missed == []


def test_a_setting_that_is_said_to_follow_from_others_is_held_by_the_replay(folder):
    info = facts(folder)
    at = next(
        i for i, key in enumerate(info["resolved"]["followed"]) if key["key"] == "numerics.client_batch"
    )
    changed_info = changed(info, ("resolved", "followed", at, "value"), "7")
    problems = told(folder, changed_info).problems

    assert any(f"resolved.followed.{at}.value: is '7', the replay gives" in problem for problem in problems)


@pytest.mark.parametrize("gone", [("files", "numbers"), ("files",), ("numbers",)])
def test_a_run_whose_seals_are_taken_away_is_told(folder, gone):
    info = {key: value for key, value in facts(folder).items() if key not in gone}
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"another")

    assert any("has no SHA-256" in problem for problem in told(folder, info).problems)


@pytest.mark.parametrize("version", ["0.2.0", "0.1.0"])
def test_an_older_run_without_seals_is_said_to_have_none(folder, version):
    info = {key: value for key, value in facts(folder).items() if key not in ("files", "numbers")}
    found = told(folder, info | {"versions": {"fedsim-edge": version}})

    assert found.problems == ()
    assert "not sealed" in found.summary
    assert f"fedsim {version} made it" in found.summary


@pytest.mark.parametrize(
    "tamper",
    [
        lambda kept: kept.write_bytes(kept.read_bytes() + b"\0"),
        lambda kept: kept.write_bytes(kept.read_bytes()[:-1] + b"\1"),
        lambda kept: shutil.rmtree(kept.parent),
        lambda kept: kept.with_name("another.f32").write_bytes(b""),
    ],
)
def test_what_clients_keep_is_sealed(folder, tamper):
    tamper(folder / KEPT)

    assert any("kept/" in problem for problem in audit(fedsim.load(folder)).problems)


def test_the_version_of_a_run_is_that_of_the_code_that_ran(monkeypatch):
    """An installed source tree that was moved on still has the metadata of the day it was installed."""
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.0.1" if name == "fedsim-edge" else installed(name)
    )
    run = simulate(Experiment.model_validate(SETTINGS), timeline_only=True)

    assert run.info.versions["fedsim-edge"] == fedsim.__version__
    assert why_no_replay(run) == ""
