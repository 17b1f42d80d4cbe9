"""What commands hand on: every option reaches its field, and what they compute is a function of the library."""

import errno
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer

from fedsim.cli.app import app, call
from fedsim.cli.demos.demo import Demo, uploads
from fedsim.cli.demos.images import IMAGES
from fedsim.cli.demos.text import TEXT
from fedsim.cli.importing import import_profiles
from fedsim.cli.shell import beside, script
from fedsim.errors import RunFolderError
from fedsim.importers.options import Options
from fedsim.runs.calibrate import Measured

VALUES = {
    "licence": "CC0",
    "source": "a paper",
    "direction": "down",
    "up": (Path("a"), Path("b")),
    "bin_s": 0.5,
    "last_s": 2.5,
    "table": "devices",
    "gflop_per_sample": 3.5,
    "when": "charging,wifi",
    "period_s": 4.5,
    "gap_s": 5.5,
    "shortest_s": 6.5,
    "longest_s": 7.5,
}


class Stop(Exception):  # noqa: N818
    """Ends the command where the library begins."""


def test_every_option_of_an_import_reaches_the_field_of_its_name(monkeypatch):
    assert set(VALUES) == {field.name for field in fields(Options)}
    seen = []

    def takes(form, files, options):
        seen.append((form, files, options))
        raise Stop

    monkeypatch.setattr("fedsim.importers.import_table", takes)
    line = ["profiles", "import", "sabre", "one", "two", "--out", "out.csv"]
    for name, value in VALUES.items():
        for text in value if isinstance(value, tuple) else (value,):
            line += [f"--{name.replace('_', '-')}", str(text)]
    assert call(line) == 1
    assert seen == [("sabre", [Path("one"), Path("two")], Options(**VALUES))]


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "[::1]:6379"])
def test_an_address_is_the_setting_of_its_name(address, tmp_path, monkeypatch):
    experiments = []

    def takes(experiment):
        experiments.append(experiment)
        raise Stop

    monkeypatch.setattr("fedsim.checks.gate.prepared", takes)
    file = tmp_path / "my.yaml"
    file.write_text(
        "population: {preset: homogeneous, clients: 20}\ntask: {kind: quadratic}\nbudget: {commits: 1}\n"
        "runtime: {executor: inline}\n"
    )
    assert call(["run", str(file), "--address", address, "--out", str(tmp_path / "run")]) == 1
    assert [(e.runtime.executor, e.runtime.address) for e in experiments] == [("ray", address)]


def test_an_import_has_an_option_for_every_field_and_no_other():
    names = set(import_profiles.__annotations__) - {"return", "form", "files", "out", "as_json"}
    assert names == {field.name for field in fields(Options)}


def test_every_command_has_an_example_that_calls_it():
    commands = typer.main.get_command(app).commands
    for name, command in {**commands, **commands["profiles"].commands}.items():
        assert f" {name} " in f"{command.epilog} " or name == "profiles", name
    assert len(commands) == 16


@pytest.mark.parametrize(
    ("folders", "place"),
    [
        (["/r/a"], "/r/a"),
        (["/r/a", "/r/b"], "/r"),
        (["/r/x/a", "/r/y/b"], "/r"),
        (["/r/a", "/r/a/b"], "/r"),
    ],
)
def test_a_page_lies_in_its_only_run_or_beside_all_of_them(folders, place):
    assert beside([Path(folder) for folder in folders]) == Path(place)


def test_the_gain_without_the_fixed_time_of_a_step():
    measured = Measured("m", 8, 2, 1e9, (2.0, 4.0, 3.0), 1.0, 1, 1.0)
    assert measured.gain_without_overhead == 1.5
    assert replace(measured, overhead_s=0.0).gain_without_overhead == 1.0


@pytest.mark.parametrize("demo", [TEXT, IMAGES])
def test_the_experiments_of_a_demo_differ_in_their_protocol_alone(demo: Demo):
    first, second = demo.experiments(seed=7)
    assert first.seed == second.seed == 7
    alike = {"name", "protocol", "aggregator"}
    assert {name for name, value in first if value != getattr(second, name)} == alike


def test_uploads_are_set_against_the_same_uploads_of_the_full_model():
    from types import SimpleNamespace

    charged = SimpleNamespace(
        full_model_bytes=4e9, adapter_bytes=2e7, adapter_params=5_000_000, params=10**9, model="m"
    )
    runs = [
        SimpleNamespace(name=n, info=SimpleNamespace(charged=charged, totals=SimpleNamespace(up_bytes=b)))
        for n, b in (("a", 1e9), ("long", 2e9))
    ]
    assert uploads(runs)[1:] == [
        "  a     1.00 GB against 200 GB (99.50% less; 5,000,000 of 1,000,000,000 parameters, charged as m)",
        "  long  2.00 GB against 400 GB (99.50% less; 5,000,000 of 1,000,000,000 parameters, charged as m)",
    ]


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (RunFolderError("runs/a: fedsim-edge is 2 here, and the run was made with 1"), 2, "error: runs/a: "),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOENT, "No such file or directory", "texts"), 2, "error: texts: cannot be read"),
    ],
)
def test_the_program_of_a_study_ends_as_a_command_does(problem, code, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare.py", "run", "here"])

    def main(arguments):
        assert list(arguments) == ["run", "here"]
        raise problem

    assert script(main) == code
    assert capsys.readouterr().err.startswith(said)
    assert script(lambda arguments: len(arguments)) == 2
    assert script(lambda _arguments: None) == 0


def test_every_program_of_a_study_is_run_so():
    """But for one that takes no more than a word."""
    programs = {path.parent.name: path.read_text() for path in Path("experiments").glob("*/compare.py")}
    others = [name for name, text in programs.items() if "sys.exit(script(main))" not in text]
    assert others == ["devices"]
