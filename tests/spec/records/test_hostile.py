"""Run folders that somebody made to do harm: no code of theirs runs, nothing outside is touched or told, no command waits."""

from __future__ import annotations

import os
import re
import sys

import pytest
import yaml
from worlds import hostile, hostile_trial

from fedsim.cli.app import call
from fedsim.errors import ExperimentError, RunFolderError
from fedsim.records.folder import check_free
from fedsim.records.integrity.seals import written
from fedsim.records.run import load
from fedsim.runs.audit import audit
from fedsim.runs.stored import stored_experiment

COUNT = 60
WITH_A_PAGE = range(0, COUNT, 6)
"""A page takes a second, so not every folder is asked for one here; all are in tests/slow."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished and a killed run."""
    return hostile.made(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound, tmp_path):
    """A copy of the finished run."""
    import shutil

    return shutil.copytree(sound / "done", tmp_path / "run")


def test_sixty_hostile_folders_are_refused_in_a_sentence_or_right(sound, tmp_path):
    asked = {
        number: ("verify", "timeline", "report")[: 3 if number in WITH_A_PAGE else 1]
        for number in range(COUNT)
    }
    for names in set(asked.values()):
        place = tmp_path / str(len(names))
        place.mkdir()
        numbers = [number for number, wanted in asked.items() if wanted == names]
        tried = list(hostile_trial.trials(sound, place, numbers, names))

        assert [(trial.what, trial.problems) for trial in tried if trial.problems] == []
        assert len(tried) == len(numbers)


def renamed(folder, block, kind):
    """Have the settings of a folder name a component."""
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    settings[block] = settings[block] | {"kind": kind}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))


RULE = '''
import pathlib
from fedsim.aggregators.fedit import FedIT

pathlib.Path({trace!r}).write_text("imported")


class Rule(FedIT):
    """FedIT under another name."""

    kind: str = "{module}:Rule"
'''


@pytest.mark.parametrize("place", ["in the folder", "where the command is typed"])
def test_a_module_that_a_folder_names_is_imported_with_trust_only(
    folder, tmp_path, monkeypatch, capsys, place
):
    module = f"rule_{'a' if place == 'in the folder' else 'b'}_{os.getpid()}"
    trace = tmp_path / "trace"
    renamed(folder, "aggregator", f"{module}:Rule")
    monkeypatch.chdir(folder if place == "in the folder" else tmp_path)
    (folder if place == "in the folder" else tmp_path).joinpath(f"{module}.py").write_text(
        RULE.format(trace=str(trace), module=module)
    )
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert call(["verify", str(folder)]) == 1
    assert f"is not imported from a run folder: {module}" in capsys.readouterr().out
    client = str(load(folder).visits["client"].iloc[0])
    assert call(["replay", str(folder), "--client", client]) == 2
    assert "give --trust" in capsys.readouterr().err
    with pytest.raises(ExperimentError, match="is not imported"):
        stored_experiment(load(folder))
    assert not trace.exists()
    assert module not in sys.modules

    call(["verify", str(folder), "--trust"])
    said = capsys.readouterr().out
    assert "not replayed" not in said
    assert trace.read_text() == "imported"
    assert not audit(load(folder)).no_replay  # it is imported now: nothing of a file runs any more
    del sys.modules[module]


def test_a_cluster_that_a_folder_names_is_not_joined(folder):
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    settings["runtime"] = settings["runtime"] | {"executor": "ray", "address": "203.0.113.1:6379"}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))

    assert stored_experiment(load(folder)).runtime.address is None
    assert stored_experiment(load(folder), trust=True).runtime.address == "203.0.113.1:6379"


def test_the_hub_is_not_asked_for_what_a_folder_names(folder, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    call(["verify", str(folder)])
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_folder_with_links_is_not_written_into(tmp_path):
    """A link that leads nowhere is a file elsewhere as soon as somebody writes to it."""
    for name in ("visits.jsonl", "adapter", "kept"):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        (out / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RunFolderError, match=r"holds a (run already|link)"):
            check_free(out)


def test_seals_are_of_files_of_the_folder_and_not_behind_links(folder, tmp_path):
    before = list(written(folder))
    (folder / "adapter" / "linked").symlink_to("/etc/passwd")
    (folder / "kept2").symlink_to("/")

    assert list(written(folder)) == before
    (folder / "adapter").rename(tmp_path / "adapter")
    (folder / "adapter").symlink_to("/")
    assert not any(name.startswith("adapter") for name in written(folder))


def test_names_on_the_terminal_are_seen_and_do_nothing(folder, capsys):
    text = (folder / "experiment.yaml").read_text()
    (folder / "experiment.yaml").write_text(
        re.sub(r"(?m)^name: .*$", r'name: "\\e[31mred\\e]0;title\\a"', text)
    )

    assert call(["verify", str(folder)]) == 1
    said = capsys.readouterr().out
    assert r"\x1b[31mred" in said
    assert said.replace("\n", "").isprintable()
