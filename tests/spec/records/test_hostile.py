"""Run folders that somebody made to do harm: no code of theirs runs, nothing outside is touched or told, no command waits."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest
import yaml
from worlds import hostile, hostile_trial

import fedsim
from fedsim.cli.app import call
from fedsim.errors import ExperimentError, RunFolderError
from fedsim.records.folder import check_free, refuse_misplaced
from fedsim.records.integrity.seals import written
from fedsim.records.run import load
from fedsim.runs.audit import audit
from fedsim.runs.stored import stored_experiment

COUNT = 4


def commands_of(number):
    """The commands that a folder is asked for: going on and pages take a second, so not every one here; see tests/slow."""
    more = [*(["resume"] if number % 4 == 0 else []), *(["timeline", "report"] if number % 10 == 1 else [])]
    return ["status", "verify", *more]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished and a killed run."""
    return hostile.made(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(sound / "done", tmp_path / "run")


@pytest.mark.timeout(900)  # half a minute where nothing else runs
def test_hostile_folders_are_refused_in_a_sentence_or_right(sound, tmp_path):
    tried = list(hostile_trial.trials(sound, tmp_path, range(COUNT), commands_of))

    assert [(trial.what, trial.problems) for trial in tried if trial.problems] == []
    assert len(tried) == COUNT


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
        with pytest.raises(RunFolderError, match=r"holds a run already|is a link"):
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


# going on ---------------------------------------------------------------------------------------


@pytest.fixture
def stopped(sound, tmp_path):
    """A copy of a run that ended between two checkpoints."""
    return shutil.copytree(sound / "stopped", tmp_path / "stopped")


@pytest.mark.parametrize(
    "name",
    [".resume.lock", "checkpoints", "kept", "adapter", "samples", "kept/residuals.f32", "visits.jsonl"],
)
def test_a_run_does_not_go_on_through_a_link(stopped, tmp_path, name):
    """What is written or removed on the way would be written and removed elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for kept in (".bashrc", "00000009.safetensors", "a.f32"):
        (outside / kept).write_text("mine")
    path = stopped / name
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "new" if "." in name else outside)

    with pytest.raises(RunFolderError, match="is a link, through which a run could write elsewhere"):
        fedsim.resume(stopped)
    assert sorted(path.name for path in outside.iterdir()) == [".bashrc", "00000009.safetensors", "a.f32"]
    assert (outside / ".bashrc").read_text() == "mine"


def test_what_clients_keep_is_not_written_where_it_has_another_name(stopped, tmp_path):
    """A copy by hard links, as backups are made, would change with it."""
    file = next((stopped / "kept").glob("*.f32"))
    os.link(file, tmp_path / "backup")
    before = file.read_bytes()

    with pytest.raises(RunFolderError, match=r"no checkpoint can be read.*another name"):
        fedsim.resume(stopped)
    assert (tmp_path / "backup").read_bytes() == before


def test_a_run_goes_on_with_code_of_others_and_on_a_cluster_with_trust_only(
    stopped, tmp_path, monkeypatch, capsys
):
    module, trace = f"rule_c_{os.getpid()}", tmp_path / "trace"
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{module}.py").write_text(RULE.format(trace=str(trace), module=module))
    text = (stopped / "experiment.yaml").read_text()
    renamed(stopped, "aggregator", f"{module}:Rule")
    assert call(["resume", str(stopped)]) == 2
    assert f"is not imported from a run folder: {module}" in capsys.readouterr().err
    assert not trace.exists()

    (stopped / "experiment.yaml").write_text(
        re.sub(r"(?m)^  address: .*$", "  address: 203.0.113.1:6379", text)
    )
    assert call(["resume", str(stopped)]) == 2
    assert "runtime.address: names a cluster, which is joined with trust only" in capsys.readouterr().err


def test_a_checkpoint_whose_arrays_lie_upon_each_other_is_refused(tmp_path):
    """Else a small file would be many large arrays."""
    import hashlib
    import json
    import struct

    from fedsim.files.checkpoint.tensor_file import read_tensors

    entry = {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}
    header = {
        "__metadata__": {"fedsim": "x"},
        **{str(k): entry for k in range(50)},
        "sha256": {"dtype": "U8", "shape": [32], "data_offsets": [1000, 1032]},
    }
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + b"\0" * 1000
    (tmp_path / "a.safetensors").write_bytes(data + hashlib.sha256(data).digest())

    with pytest.raises(RunFolderError, match="is damaged"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["run.json", "wall.jsonl", "visits.jsonl", "scores.parquet", "report.html"])
def test_a_folder_where_a_file_belongs_is_said_before_anything_is_written(tmp_path, name):
    (tmp_path / name).mkdir()

    with pytest.raises(RunFolderError, match=rf"{name}: is a folder, where a file belongs\n  fix: remove it"):
        refuse_misplaced(tmp_path)


@pytest.mark.parametrize("name", ["adapter", "samples", "kept", "checkpoints", "unfolded"])
def test_a_file_where_a_folder_belongs_is_said(tmp_path, name):
    (tmp_path / name).touch()

    with pytest.raises(RunFolderError, match=rf"{name}: is a file, where a folder belongs"):
        refuse_misplaced(tmp_path)
