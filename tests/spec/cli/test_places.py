"""Where commands write: nothing that lies there is overwritten, nobody's folder is taken, and every refusal is a sentence."""

from __future__ import annotations

import pytest

import fedsim
from fedsim.cli import running
from fedsim.cli.app import call
from fedsim.config.loading import LONGEST_LABEL, label
from fedsim.errors import ExperimentError, TakenError, message
from fedsim.records.integrity.seals import FILES, FOLDERS
from fedsim.runs.sweep import points

YAML = """\
name: mine
population: {preset: homogeneous, clients: 4}
task: {kind: quadratic, spread: 0.3}
local: {optimizer: sgd, lr: 0.1, epochs: 1}
protocol: {kind: synchronous, cohort: 2}
budget: {commits: 2}
"""
QUICK = ["--timeline-only"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an experiment, `mine.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    return tmp_path


def told(capsys):
    first, *rest = capsys.readouterr().err.splitlines()
    return first, rest


@pytest.mark.parametrize("name", ["report.html", "checkpoints", *FILES, *FOLDERS])
def test_a_run_overwrites_nothing_that_lies_in_its_folder(here, capsys, name):
    (here / "own").mkdir()
    (here / "own" / name).write_text("mine")

    assert call(["run", "mine.yaml", "--out", "own", *QUICK]) == 2
    said, _ = told(capsys)
    assert f"has {name} already" in said or "holds a run already" in said
    with pytest.raises(TakenError):
        fedsim.simulate(fedsim.read("mine.yaml"), out="own", timeline_only=True)
    assert [(path.name, path.read_text()) for path in (here / "own").iterdir()] == [(name, "mine")]


def test_a_run_goes_beside_files_that_it_does_not_write(here):
    (here / "own").mkdir()
    (here / "own" / "notes.txt").write_text("mine")

    assert call(["run", "mine.yaml", "--out", "own", *QUICK]) == 0
    assert (here / "own" / "notes.txt").read_text() == "mine"
    assert (here / "own" / "run.json").exists()


@pytest.mark.parametrize(
    "line", ["run mine.yaml --out=", "sweep mine.yaml --out=", "demo --out=", "report . --out="]
)
def test_an_option_that_ends_before_its_value_is_none(here, capsys, line):
    """As `--out="$OUT"` is, where OUT is not set."""
    assert call(line.split()) == 2
    assert told(capsys)[0] == "error: --out: the value is empty (got '')"
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    "line", ["run mine.yaml --out", "sweep mine.yaml --out", "run", "status", "demo --out"]
)
def test_an_empty_name_is_no_name_of_the_folder_one_is_in(here, capsys, line):
    assert call([*line.split(), ""]) == 2
    said, _ = told(capsys)
    assert said == f"error: after {line.split()[-1]}: the value is empty (got '')"
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_two_runs_of_one_name_at_once_get_a_folder_each(here, monkeypatch):
    """The other one takes the folder after this one has looked, and before it is claimed."""
    simulated, others = running._simulated, []

    def overtaken(plan, folder, **settings):
        if not others:
            others.append(fedsim.simulate(plan.experiment, out=folder, timeline_only=True))
        return simulated(plan, folder, **settings)

    monkeypatch.setattr(running, "_simulated", overtaken)
    assert call(["run", "mine.yaml", *QUICK]) == 0
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["mine", "mine-2"]
    first, second = (fedsim.load(here / "runs" / name) for name in ("mine", "mine-2"))
    assert first.visits.equals(second.visits)


def test_a_folder_that_a_callback_finds_taken_is_its_own_affair(here, capsys):
    """Its error is no sign that this run's folder was taken: another try would end the same way, for ever."""
    (here / "mine.py").write_text(
        "import fedsim\n"
        "class Again(fedsim.callbacks.Callback):\n"
        "    def on_commit(self, event):\n"
        "        fedsim.simulate(fedsim.read('mine.yaml'), out='taken', timeline_only=True)\n"
    )
    fedsim.simulate(fedsim.read("mine.yaml"), out="taken", timeline_only=True)

    assert call(["run", "mine.yaml", "--callback", "mine:Again", *QUICK]) != 0
    assert "taken: holds a run already" in capsys.readouterr().err
    assert [path.name for path in (here / "runs").iterdir()] == ["mine"]


def test_where_others_are_always_quicker_the_last_try_says_so(here, monkeypatch, capsys):
    def overtaken(plan, folder, **_settings):
        fedsim.simulate(plan.experiment, out=folder, timeline_only=True)
        raise TakenError(message(str(folder), "holds a run already"))

    monkeypatch.setattr(running, "_simulated", overtaken)
    monkeypatch.setattr(running, "TRIES", 3)
    assert call(["run", "mine.yaml", *QUICK]) == 2
    assert "runs/mine-3: holds a run already" in capsys.readouterr().err


def test_a_folder_that_was_named_is_not_exchanged_for_another(here, monkeypatch, capsys):
    simulated = running._simulated

    def overtaken(plan, folder, **settings):
        fedsim.simulate(plan.experiment, out=folder, timeline_only=True)
        return simulated(plan, folder, **settings)

    monkeypatch.setattr(running, "_simulated", overtaken)
    assert call(["run", "mine.yaml", "--out", "own", *QUICK]) == 2
    assert "own: holds a run already" in capsys.readouterr().err


def test_a_name_that_leads_nowhere_is_passed_over(here):
    (here / "runs").mkdir()
    (here / "runs" / "mine").symlink_to(here / "nowhere")

    assert call(["run", "mine.yaml", *QUICK]) == 0
    assert (here / "runs" / "mine-2" / "run.json").exists()


def test_a_sweep_overwrites_its_own_page_alone(here, capsys):
    (here / "own").mkdir()
    (here / "own" / "report.html").write_text("mine")
    line = ["sweep", "mine.yaml", "-s", "sweep={seed: [0, 1]}", *QUICK, "--out"]

    assert call([*line, "own"]) == 2
    assert told(capsys)[0] == "error: own: has report.html already, which the sweep would overwrite"
    assert [path.name for path in (here / "own").iterdir()] == ["report.html"]
    assert call([*line, "other"]) == call([*line, "other"]) == 0


def test_a_sweep_goes_beside_the_file_of_its_grid(here):
    (here / "mine.yaml").rename(here / "experiment.yaml")
    assert call(["sweep", "experiment.yaml", "-s", "sweep={seed: [0, 1]}", *QUICK, "--out", "."]) == 0


def test_the_points_of_a_sweep_are_not_put_into_a_run(here, capsys):
    assert call(["run", "mine.yaml", *QUICK]) == 0
    before = {path.name: path.read_bytes() for path in (here / "runs" / "mine").iterdir() if path.is_file()}
    capsys.readouterr()

    assert call(["sweep", "mine.yaml", "-s", "sweep={seed: [0, 1]}", *QUICK]) == 2
    said, rest = told(capsys)
    assert said == "error: runs/mine: holds a run, and a sweep's folder holds folders of runs"
    assert rest == ["  fix: choose another --out"]
    after = {path.name: path.read_bytes() for path in (here / "runs" / "mine").iterdir()}
    assert after == before


def test_the_folder_of_a_point_has_a_name_that_a_disk_takes(here):
    targets, others = ([f"layers.{n}.{part}" for n in range(40)] for part in ("attention", "mlp"))
    long, other = {"lora.targets": targets, "seed": 1}, {"lora.targets": targets, "seed": 2}

    assert len(label(long)) == len(label(other)) == LONGEST_LABEL
    assert label(long) != label(other)
    assert label({"seed": 1}) == "seed-1"
    grid = points(here / "mine.yaml", [f"name={'n' * 200}", f"sweep={{lora.targets: [{targets}, {others}]}}"])
    assert [len(point.experiment.name) for point in grid] == [240, 240]
    assert [len(point.folder.name) for point in grid] == [LONGEST_LABEL, LONGEST_LABEL]
    assert len({point.folder for point in grid}) == 2


def test_a_name_that_no_disk_takes_is_refused_as_a_setting(here, capsys):
    assert call(["run", "mine.yaml", "-s", f"name={'n' * 300}", *QUICK]) == 2
    said, _ = told(capsys)
    assert "name" in said
    assert "240" in said
    assert not (here / "runs").exists()


@pytest.mark.parametrize("axis", ["[8, '8']", "[0.1, 1.0e-1]"])
def test_points_that_are_one_experiment_are_refused(here, axis):
    key = "local.batch" if "8" in axis else "local.lr"
    with pytest.raises(ExperimentError, match=r"the same experiment|has a value twice"):
        points(here / "mine.yaml", [f"sweep={{{key}: {axis}}}"])


def test_points_that_differ_in_name_are_two(here):
    assert [p.experiment.name for p in points(here / "mine.yaml", ["sweep={name: [a, b]}"])] == ["a", "b"]


def test_points_that_differ_in_how_they_run_are_two(here):
    grid = points(here / "mine.yaml", ["sweep={runtime.workers: [1, 2]}"])
    assert len({point.folder for point in grid}) == 2


def test_a_folder_where_a_file_belongs_is_named(here, capsys):
    assert call(["run", "mine.yaml", "--out", "own", *QUICK]) == 0
    (here / "place").mkdir()
    capsys.readouterr()

    assert call(["timeline", "own", "--out", "place"]) == 2
    said, rest = told(capsys)
    assert said.startswith("error: place")
    assert "unexpected" not in said
    assert rest == ["  fix: give the name of a file"]
