"""What people type in their first hour, and the way out that they are told: one line that names what to write."""

from __future__ import annotations

import pytest

from fedsim.cli.app import call

YAML = """\
name: mine
population: {preset: homogeneous, clients: 4}
task: {kind: language, partition: {kind: iid}}
protocol: {kind: synchronous, cohort: 2}
budget: {time_s: 14400}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an experiment, `mine.yaml`, and a folder of runs with a `run.json` of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(YAML)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("run mine", "did you mean 'mine.yaml'?"),
        ("run mine.yml", "did you mean 'mine.yaml'?"),
        ("status mine", "did you mean 'runs/mine'?"),
        ("resume mine.yaml", "did you mean 'runs/mine'?"),
        ("report mine", "did you mean 'runs/mine'?"),
        ("verify nowhere", "give the folder that `fedsim run` named at its end"),
        ("timeline runs", "give a run in it: runs/mine"),
        ("run mine.yaml --dryrun", "did you mean --dry-run?"),
        ("rnu mine.yaml", "did you mean 'run'?"),
        ("sweep mine.yaml -s seed=[0,1]", "write -s 'sweep={seed: [0,1]}', or use `fedsim run mine.yaml`"),
        ("sweep mine.yaml", "write sweep: {key.path: [value, value], ...}, or use `fedsim run mine.yaml`"),
        ("explain FedBuff", "write protocol.kind: buffered, with aggregator: {kind: fedit, normalize: K}"),
        ("explain protocol.bufer", "did you mean 'protocol.buffer'?"),
        ("run mine.yaml -s budget.time_s=4h", "-s budget.time_s=4h: write 14400: seconds"),
        ("run mine.yaml -s budget.time_s=1.5min", "-s budget.time_s=1.5min: write 90: seconds"),
        ("run mine.yaml -s lora=full", "-s lora=full: write lora: {full: true}"),
        ("run mine.yaml -s wire=int8", "-s wire=int8: write wire: {dtype: int8}"),
        ("run mine.yaml -s memory=rank", "-s memory=rank: write memory: {when_short: [rank]}"),
        ("run mine.yaml -s population=charging", "-s population=charging: write population: {availability: charging}"),
        ("run mine.yaml -s energy=battery", "-s energy=battery: write energy: {battery: ...}"),
        ("run mine.yaml -s task.charge_as=gemma-3-270m", "-s task.charge_as=gemma-3-270m: write charge_as: {preset: gemma-3-270m}"),
        ("run mine.yaml -s population.outages=daily", "-s population.outages=daily: give a block of its keys: by, mean_s, per_day, regions, or leave it out (default: null)"),
        ("run mine.yaml -s task.partition=dirichlet", "-s task.partition=dirichlet: write partition: {kind: dirichlet}"),
    ],
)  # fmt: skip
def test_a_slip_is_answered_with_what_to_write(here, capsys, typed, told):
    assert call(typed.split()) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == f"  fix: {told}"
    assert len(said.err.splitlines()) == 2


def test_what_has_no_name_alike_is_answered_with_few_names(here, capsys):
    call(["explain", "xyzzy"])

    assert len(capsys.readouterr().err) < 1200


def test_an_option_that_lacks_its_value_says_which_there_are(here, capsys):
    call(["export", "runs/mine"])

    assert (
        capsys.readouterr().err.splitlines()[0]
        == "error: Missing option '--to' (one of: tensorboard, wandb, mlflow)"
    )


def test_a_run_that_was_killed_is_told_how_it_goes_on(here, capsys):
    assert call(["status", "runs/mine"]) == 0

    assert capsys.readouterr().out.splitlines()[-1].startswith("next: fedsim resume runs/mine")


@pytest.mark.parametrize(
    ("key", "head"),
    [("extends", "extends"), ("sweep", "sweep"), ("protocol.kind", "protocol"), ("lora", "lora")],
)
def test_what_a_file_may_say_is_explained_whole(capsys, key, head):
    assert call(["explain", key]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == head
    assert len(said) > 3


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        ("run mine.yaml -s population.availability=runs", "is a folder, where a file belongs"),
        ("run mine.yaml -s compute.calibration=runs", "is a folder, where a file belongs"),
        ("run mine.yaml -s energy.battery.plugged=runs", "is a folder, where a file belongs"),
        ("profiles check runs", "is a folder, where a file belongs"),
        ("status mine.yaml", "is a file, not the folder of a run"),
        ("verify mine.yaml", "is a file, not the folder of a run"),
    ],
)
def test_what_is_there_and_is_of_another_kind_is_not_said_to_be_missing(here, capsys, typed, what):
    assert call(typed.split()) == 2
    assert what in capsys.readouterr().err.splitlines()[0]
