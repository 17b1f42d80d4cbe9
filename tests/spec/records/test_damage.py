"""Damaged run folders: bytes flipped, files cut off or gone, values of every kind; each is a run, or one sentence."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds.audited import DEADLINE
from worlds.cases import tried

from fedsim.cli.app import call
from fedsim.config.experiment import Experiment
from fedsim.errors import RunFolderError
from fedsim.records.run import load
from fedsim.records.tables import TABLES
from fedsim.runs.audit import audit
from fedsim.runs.simulation import simulate

SETTINGS = DEADLINE | {
    "population": DEADLINE["population"] | {"clients": 20},
    "protocol": {"kind": "synchronous", "cohort": 2, "over_select": 1.5, "deadline_s": 2500},
    "personal": {"kind": "fine-tune", "epochs": 1},
    "budget": {"commits": 4},
    "evaluate": {"every_commits": 2},
}
FILES = ("run.json", "experiment.yaml", "wall.jsonl", *(f"{table}.parquet" for table in TABLES))
WORDS = (
    *("-1", "0", "1e308", "99999999999999999999", "null", '"x"', "[]", "{}", "NaN", "true", "1.5", "[[[[1]]]]", ".inf"),
    *("&a", "*a", "!!python/object:os.system", "2024-01-01", '{"a":1}', "1e-300", '""'),
)  # fmt: skip
VALUES = (
    -1,
    0,
    3,
    2**53,
    -(2**62),
    0.5,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "x",
    "landed",
    "0:",
    None,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run folder that is as the run left it."""
    folder = tmp_path_factory.mktemp("damage") / "whole"
    simulate(Experiment.model_validate(SETTINGS), out=folder, report=False)
    return folder


def copied(whole, name):
    folder = whole.parent / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    return folder


def flipped(data, path):
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw))


def cut(data, path):
    raw = path.read_bytes()
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])


def gone(_data, path):
    path.unlink()


def reworded(data, path):
    if path.suffix == ".parquet":
        return recelled(data, path)
    text = path.read_text()
    places = list(re.finditer(r'-?\d+\.?\d*|true|false|null|"[^"\n]*"|\b[a-z_]+\b', text))
    place = data.draw(st.sampled_from(places))
    path.write_text(text[: place.start()] + data.draw(st.sampled_from(WORDS)) + text[place.end() :])
    return None


def recelled(data, path):
    frame = pd.read_parquet(path).astype(object)
    column = data.draw(st.sampled_from(list(frame.columns)))
    frame.loc[data.draw(st.integers(0, len(frame) - 1)), column] = data.draw(st.sampled_from(VALUES))
    kinds = {type(value) for value in frame[column]}
    if len(kinds) == 1 or kinds <= {int, float}:
        frame.infer_objects().to_parquet(path)


def damaged(data, folder):
    path = folder / data.draw(st.sampled_from(FILES))
    data.draw(st.sampled_from([flipped, cut, reworded, reworded, gone]))(data, path)


def sentence_of(folder):
    """What is said of a folder that cannot be read; nothing of one that can, whose accounts are audited."""
    try:
        audit(load(folder), accounts_only=True)
    except RunFolderError as problem:
        return problem.message.headline
    return ""


@settings(deadline=None, max_examples=tried(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_folder_is_a_run_whose_damage_is_found_or_one_sentence(whole, data):
    folder = copied(whole, "damaged")
    damaged(data, folder)
    around = sorted(whole.parent.iterdir())

    assert "\n" not in sentence_of(folder)
    assert sorted(whole.parent.iterdir()) == around


@settings(deadline=None, max_examples=tried(8), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_command_meets_damage_with_a_traceback(whole, data, capsys):
    folder = copied(whole, "commanded")
    damaged(data, folder)
    page = whole.parent / "page.html"
    for command in (["verify"], ["timeline"], ["replay", "--client", "1"], ["report", "--out", str(page)]):
        code = call([command[0], str(folder), *command[1:]])
        said = capsys.readouterr().err
        assert code in (0, 1, 2), said
        assert "unexpected" not in said


def test_a_link_to_elsewhere_is_not_written_through(whole):
    """A killed run is folded by whoever loads it; what lies in the way of a file is replaced, and not followed."""
    folder, elsewhere = copied(whole, "linked"), whole.parent / "elsewhere"
    elsewhere.write_text("mine")
    info = (folder / "run.json").read_text()
    (folder / "run.json").write_text(
        re.sub(r'"pid": \d+', f'"pid": {2**22 + 1}', info.replace('"status": "done"', '"status": "running"'))
    )
    for name in ("visits.parquet", f".visits.parquet.{os.getpid()}"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(elsewhere)
    (folder / "visits.jsonl").write_text("")
    assert load(folder).info.status == "killed"
    assert elsewhere.read_text() == "mine"
    assert not (folder / "visits.parquet").is_symlink()


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_is_one_sentence(whole, name):
    folder = copied(whole, "nested")
    (folder / name).unlink()
    (folder / name).mkdir()
    if name == "wall.jsonl":
        assert any("wall.jsonl" in problem for problem in audit(load(folder), accounts_only=True).problems)
        return
    with pytest.raises(RunFolderError, match=re.escape(name)):
        load(folder)


def test_a_changed_byte_of_the_adapter_is_noticed(whole):
    folder = copied(whole, "adapter")
    path = next((folder / "adapter").glob("*.safetensors"))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    [problem] = audit(load(folder), accounts_only=True).problems
    assert problem.startswith(f"adapter/{path.name}: is not the file that the run wrote")


@pytest.mark.parametrize("table", TABLES)
def test_a_changed_column_of_a_file_is_noticed_with_its_table(whole, table):
    folder = copied(whole, "table")
    path = folder / f"{table}.parquet"
    frame = pd.read_parquet(path)
    column = next(
        c for c in reversed(frame.columns) if frame[c].dtype == np.float64 and frame[c].notna().any()
    )
    frame[column] = frame[column] * 1.5 + 1
    frame.to_parquet(path)
    problems = audit(load(folder), accounts_only=True).problems
    assert any(problem.startswith(f"{table}.parquet: is not the file") for problem in problems)
