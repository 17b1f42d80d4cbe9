"""The command line as other programs call it: exit codes, what goes where, how fast help is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

import fedsim
from fedsim.callbacks.telling import Telling
from fedsim.checks.resolved import of_population
from fedsim.cli.app import call
from fedsim.cli.printing import estimates, listing, table
from fedsim.cli.progress import Progress
from fedsim.cli.verdict import verdict
from fedsim.devices.population import draw
from fedsim.errors import HostError, RunError
from fedsim.records.info import Totals
from fedsim.records.quantities import duration
from fedsim.records.resolved import Drawn, Resolved
from fedsim.runs.dry_run import Estimates

EXPERIMENT = {
    "name": "tiny",
    "population": {"preset": "mixed_edge_2025", "clients": 20},
    "task": {"kind": "quadratic", "tokens_per_example": 2000},
    "local": {"optimizer": "sgd", "lr": 0.1},
    "protocol": {"kind": "synchronous", "cohort": 5},
    "budget": {"commits": 4},
    "evaluate": {"every_commits": 2},
    "runtime": {"executor": "inline"},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    return tmp_path


@pytest.fixture
def without_report(monkeypatch):
    """Drawing a page takes most of the time of a tiny run."""
    monkeypatch.setattr("fedsim.report.write", lambda _, path: path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One finished run, trained inline."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    assert call(["run", str(folder / "tiny.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def said(capsys, *args):
    code = call([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )


# start-up --------------------------------------------------------------------------------------

HEAVY = "{'torch', 'ray', 'pandas', 'transformers', 'peft', 'sklearn', 'plotly', 'simpy', 'numpy', 'rich'}"


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args):
    code = f"import sys; from fedsim.cli.app import call; rc = call({args}); print(sorted({HEAVY} & set(sys.modules)), rc)"
    assert python(code).stdout.splitlines()[-1] == "[] 0"


def test_help_is_there_in_under_half_a_second_of_work():
    # CPU time of the child, best of three: a busy machine makes wall time meaningless
    used = []
    for _ in range(3):
        before = os.times()
        done = python("from fedsim.cli.app import call; call(['--help'])")
        after = os.times()
        assert done.returncode == 0
        used.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(used) < 0.5


def test_a_wrong_experiment_is_refused_without_torch_or_ray(here):
    code = "import sys; from fedsim.cli.app import call; rc = call(['run', 'tiny.yaml', '-s', 'seed=x']);"
    code += "print(rc, sorted({'torch', 'ray', 'transformers', 'pandas', 'plotly'} & set(sys.modules)))"
    assert python(code, cwd=here).stdout == "2 []\n"


def test_telemetry_of_others_is_off():
    code = "import fedsim, os; print(os.environ['RAY_USAGE_STATS_ENABLED'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "HF_"))}
    assert python(code, env=clean).stdout == "0 1\n"


COMMANDS = ("demo", "run", "sweep", "report", "timeline", "verify", "replay", "doctor", "schema", "profiles")


def test_help_lists_every_command(capsys):
    code, out, _ = said(capsys, "--help")
    assert code == 0
    assert set(COMMANDS) <= set(out.split())


@pytest.mark.parametrize("command", [*COMMANDS, "profiles list", "profiles show", "profiles check"])
def test_every_command_has_help_with_an_example(command, capsys):
    code, out, _ = said(capsys, *command.split(), "-h")
    assert code == 0
    assert f"Example: fedsim {command}" in out


def test_version_prints_the_version_and_exits_with_0(capsys):
    assert said(capsys, "--version")[:2] == (0, f"fedsim {fedsim.__version__}\n")


# run -------------------------------------------------------------------------------------------


def test_results_go_to_stdout_and_progress_to_stderr(here, capsys):
    code, out, err = said(capsys, "run", "tiny.yaml", "--out", "r")
    assert code == 0
    assert out.splitlines()[0].startswith("done: 4 commits from 20 visits in ")
    assert "run folder: r" in out
    assert "report: r/report.html" in out
    assert "next: fedsim " in out
    lines = [line for line in err.splitlines() if line.startswith("v")]
    assert [line.split(" | ")[0] for line in lines] == ["v1", "v2", "v3", "v4"]
    assert re.fullmatch(
        r"v2 \| t=[0-9dhms.]+ \| 5 updates, stale 0\.0 \| \w+ [0-9.e+-]+( \(v\d\))?", lines[1]
    )


def test_the_run_folder_holds_the_tables_the_report_and_the_configuration(done):
    names = {path.name for path in done.iterdir()}
    tables = {f"{name}.parquet" for name in ("clients", "visits", "commits", "scores", "personal")}
    assert tables | {"experiment.yaml", "run.json", "report.html"} <= names
    assert json.loads((done / "run.json").read_text())["status"] == "done"


def test_the_stored_configuration_repeats_the_run(done, here, capsys, without_report):
    assert said(capsys, "run", done / "experiment.yaml", "--out", "again")[0] == 0
    for name in ("visits", "commits", "scores"):
        assert (here / "again" / f"{name}.parquet").read_bytes() == (done / f"{name}.parquet").read_bytes()


def test_runs_are_numbered_and_never_overwritten(here, capsys, without_report):
    for _ in range(3):
        assert said(capsys, "run", "tiny.yaml", "--timeline-only")[0] == 0
    assert sorted(p.name for p in (here / "runs").iterdir()) == ["tiny", "tiny-2", "tiny-3"]


def test_an_override_reaches_the_run(here, capsys, without_report):
    assert (
        said(capsys, "run", "tiny.yaml", "-s", "budget.commits=2", "-s", "seed=3", "--timeline-only")[0] == 0
    )
    info = json.loads((here / "runs" / "tiny" / "run.json").read_text())
    assert (info["seed"], info["totals"]["commits"]) == (3, 2)


def test_a_dry_run_prints_estimates_and_leaves_nothing(here, capsys):
    code, out, _ = said(capsys, "run", "tiny.yaml", "--dry-run")
    assert code == 0
    for word in ("visits: 20", "commits: 4", "bytes: ", "hours", "joules", "this machine"):
        assert word in out
    assert not (here / "runs").exists()


def test_a_component_beside_the_yaml_file_is_found(here, capsys, without_report):
    (here / "lib").mkdir()
    (here / "lib" / "my_rules_of_test_cli.py").write_text(
        textwrap.dedent("""\
            from typing import Literal
            from fedsim.aggregators.fedit import FedIT

            class Half(FedIT):
                kind: str = "half"
                server_lr: float = 0.5
        """)
    )
    (here / "lib" / "e.yaml").write_text(
        yaml.safe_dump(EXPERIMENT | {"aggregator": {"kind": "my_rules_of_test_cli:Half"}})
    )
    code, _, err = said(capsys, "run", "lib/e.yaml", "--timeline-only", "--out", "r")
    assert (code, "error" in err) == (0, False)
    stored = yaml.safe_load((here / "r" / "experiment.yaml").read_text())
    assert stored["aggregator"]["kind"] == "my_rules_of_test_cli:Half"


# how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "ends"),
    [
        (RunError("nobody came online\n  fix: wait"), (1, "error: nobody came online\n  fix: wait\n")),
        (
            HostError("Ray does not start\n  fix: go inline"),
            (3, "error: Ray does not start\n  fix: go inline\n"),
        ),
        (
            ZeroDivisionError("by zero"),
            (1, f"error: {__file__}, line "),
        ),
        (MemoryError(), (3, "error: out of memory\n  fix: ")),
        (
            ModuleNotFoundError("No module named 'peft'", name="peft"),
            (3, "error: the package peft is not installed\n"),
        ),
        (KeyboardInterrupt(), (130, "interrupted\n")),
    ],
)
def test_every_end_has_its_exit_code_and_one_sentence(here, capsys, monkeypatch, problem, ends):
    def broken(*_, **__):
        raise problem

    monkeypatch.setattr("fedsim.runs.simulation.simulate", broken)
    got, out, err = said(capsys, "run", "tiny.yaml")
    code, expected = ends
    assert (got, out) == (code, "")
    assert err.startswith(expected)
    assert "Traceback" not in err


def test_a_mistake_of_our_own_says_so(here, capsys, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("fedsim.runs.simulation.simulate", broken)
    monkeypatch.setattr("fedsim.cli.shell.place_in", lambda _: None)

    code, _, err = said(capsys, "run", "tiny.yaml")
    assert code == 1
    assert err.startswith("error: unexpected ZeroDivisionError: by zero\n  fix: run again with --debug")


@pytest.mark.parametrize("way", ["flag first", "flag last", "variable"])
def test_tracebacks_come_with_debug_only(here, capsys, monkeypatch, way):
    args = {"flag first": ["--debug", "run", "no.yaml"], "flag last": ["run", "no.yaml", "--debug"]}
    if way == "variable":
        monkeypatch.setenv("FEDSIM_DEBUG", "1")
    code, _, err = said(capsys, *args.get(way, ["run", "no.yaml"]))
    assert code == 2
    assert "Traceback (most recent call last)" in err
    assert "error: no.yaml: no such file" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_and_keeps_its_tables(here, capsys, number, code):
    slow = ["-s", "task.delay_s=0.05", "-s", "budget.commits=100000", "--out", "r"]
    args = [sys.executable, "-m", "fedsim", "run", "tiny.yaml", *slow]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here)
    commits = here / "r" / "commits.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (commits.exists() and commits.read_text().count("\n") >= 2):
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "tables so far: r " in err
    assert "Traceback" not in err
    run = fedsim.load(here / "r")
    assert run.info.status == "interrupted"
    assert len(run.commits) >= 2
    assert said(capsys, "report", "r")[0] == 0


def test_a_reader_that_stops_reading_is_no_error_of_ours(here):
    command = f"{sys.executable} -m fedsim schema | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


# looking at runs -------------------------------------------------------------------------------


def test_verify_says_ok_or_what_is_wrong(done, tmp_path, capsys):
    code, out, _ = said(capsys, "verify", done)
    assert (code, out.startswith("ok: "), "columns replayed" in out) == (0, True, True)
    code, out, _ = said(capsys, "verify", done, "--accounts-only")
    assert (code, out.startswith("ok: "), "not replayed (accounts only, as asked)" in out) == (0, True, True)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in done.iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    visits = fedsim.load(broken).visits
    visits.loc[0, "up_bytes"] += 1
    visits.to_parquet(broken / "visits.parquet")
    code, out, _ = said(capsys, "verify", broken)
    assert code == 1
    assert not out.splitlines()[-1].startswith("ok")
    assert "column up_bytes" in out


def test_the_timeline_is_written_where_asked(done, here, capsys):
    assert said(capsys, "timeline", done, "--out", "t.json")[:2] == (0, "t.json\n")
    assert json.loads((here / "t.json").read_text())["traceEvents"]


def test_reports_of_one_run_several_runs_and_a_folder_of_runs(done, here, capsys):
    for name in ("a", "b"):
        assert said(capsys, "run", "tiny.yaml", "--timeline-only", "--out", f"all/{name}")[0] == 0
    assert said(capsys, "report", "all/a")[1] == f"{here}/all/a/report.html\n"
    assert said(capsys, "report", "all/a", "all/b")[1] == f"{here}/all/report.html\n"
    assert said(capsys, "report", "all", "--out", "page.html")[1] == "page.html\n"
    again = shutil.copytree(done, here / "again")
    said(capsys, "report", done, again, "--out", "page.html", "--target", "3.5", "--target", "2")
    targets = re.findall(
        r"Declared target: test \w+ of ([\d.]+)", (here / "page.html").read_text(encoding="utf-8")
    )
    assert targets == ["3.50", "2"]
    assert (here / "page.html").stat().st_size > 1000


def test_replay_trains_a_recorded_visit_again(done, capsys):
    visits = fedsim.load(done).visits
    row = visits[visits.computed & (visits.version > 0)].iloc[0]
    code, out, _ = said(capsys, "replay", done, "--client", row.client, "--visit", row.visit)
    assert code == 0
    assert f"training loss {float(row.loss)!r}, recorded {float(row.loss)!r}" in out


def test_profiles_are_listed_shown_and_checked(capsys, tmp_path):
    import hetero_profiles

    code, out, _ = said(capsys, "profiles", "list")
    assert code == 0
    assert {"mixed_edge_2025", "phones_2020", "homogeneous"} <= set(out.split())
    code, out, _ = said(capsys, "profiles", "show", "mixed_edge_2025")
    assert code == 0
    assert "phone-mid" in out
    assert said(capsys, "profiles", "check", hetero_profiles.locate("devices.csv"))[:2] == (0, "ok\n")


def test_the_population_of_an_experiment_of_one_s_own_is_shown(here, capsys):
    file = here / "mine.yaml"
    file.write_text(
        "population: {preset: mixed_edge_2025, clients: 40, availability: charging}\n"
        "task: {kind: quadratic}\nlocal: {optimizer: sgd}\nbudget: {commits: 1}\n"
    )
    drawn = draw(fedsim.read(file).population, 0)

    assert call(["profiles", "show", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = of_population(drawn)
    assert lines[-5].split()[:2] == ["all", "40"]
    assert lines[-4] == f"online: {facts.online}"
    assert lines[-3].startswith("online by hour of the day")
    assert lines[-2].startswith("tables: devices devices.csv (2025, sha256 ")
    assert lines[-1].startswith("caution: ")
    assert sum(g.clients for g in facts.drawn) == 40


def test_the_doctor_names_what_is_there_and_what_is_missing(capsys, monkeypatch):
    code, out, _ = said(capsys, "doctor")
    assert code == 0
    for word in ("python 3.", "torch ", "cores", "workers fit", "Hugging Face", "ray"):
        assert word in out
    monkeypatch.setattr("fedsim.cli.doctor.PACKAGES", ("no-such-package",))
    code, out, _ = said(capsys, "doctor")
    assert code == 3
    assert "not installed: no-such-package" in out
    assert "fix: pip install no-such-package" in out


def test_the_schema_is_json(capsys):
    code, out, _ = said(capsys, "schema")
    assert code == 0
    assert json.loads(out)["properties"]["seed"]["minimum"] == 0


# words -----------------------------------------------------------------------------------------


def test_a_late_score_is_shown_with_its_version_and_the_last_one_is_never_lost(capsys):
    score = {"split": "test", "metrics": {"perplexity": 40.0}}
    with Progress(bar=False) as progress:
        tell = Telling([progress])
        tell("start", {"workers": 2, "clients": 9, "budget": {"time_s": 86400}})
        tell("commit", {"version": 1, "time_s": 75.0, "updates": 3, "mean_staleness": 0.0})
        tell("score", score | {"version": 0, "time_s": 0.0})
        tell("commit", {"version": 2, "time_s": 13260.0, "updates": 3, "mean_staleness": 1.5})
        tell("score", {"split": "test", "metrics": {"perplexity": 31.25}, "version": 2, "time_s": 13260.0})
        tell("time", {"time_s": 14000.0})
        tell("commit", {"version": 3, "time_s": 20000.0, "updates": 1, "mean_staleness": 0.0})
        tell("done", {})
        tell("score", {"split": "test", "metrics": {"perplexity": 22.5}, "version": 3, "time_s": 20000.0})
    assert capsys.readouterr().err.splitlines() == [
        "9 clients, 2 workers, budget 1d",
        "v1 | t=1m15s | 3 updates, stale 0.0 | perplexity 40 (v0)",
        "v2 | t=3h41m | 3 updates, stale 1.5 | perplexity 31.25",
        "v3 | t=5h33m | 1 update, stale 0.0 | perplexity 31.25 (v2)",
        "v3 | t=5h33m | perplexity 22.5",
    ]


@pytest.mark.parametrize(("start_s", "run_s", "hinted"), [(9.0, 1.0, True), (9.0, 60.0, False)])
def test_a_start_that_takes_most_of_the_time_names_the_executor_without_one(
    capsys, monkeypatch, start_s, run_s, hinted
):
    now_s = [100.0]
    monkeypatch.setattr("fedsim.cli.progress.time.monotonic", lambda: now_s[0])
    with Progress(bar=False) as progress:
        tell = Telling([progress])
        tell("starting", {"executor": "ray"})
        first = capsys.readouterr().err
        now_s[0] += start_s
        tell("start", {"workers": 2, "clients": 9, "budget": {"commits": 1}})
        now_s[0] += run_s
        tell("done", {})

    last = capsys.readouterr().err.splitlines()[-1]
    assert first == "starting Ray and its workers, some seconds (-s runtime.executor=inline needs none)\n"
    assert (
        last == "starting took 9s of 10s: a run as small as this is quicker with -s runtime.executor=inline"
    ) is hinted


def test_nothing_is_said_of_ray_where_there_is_none(capsys):
    with Progress(bar=False) as progress:
        tell = Telling([progress])
        tell("starting", {"executor": "inline"})
        tell("start", {"workers": 1, "clients": 9, "budget": {"commits": 1}})
        tell("done", {})

    assert "Ray" not in capsys.readouterr().err


def test_waiting_for_samples_shows_how_many_are_there(capsys, monkeypatch):
    import io

    scoring = {"version": 8, "split": "samples", "done": 200, "of": 480}
    with Progress(bar=False) as progress:
        tell = Telling([progress])
        tell("scoring", scoring)  # only just started: not a word
        monkeypatch.setattr("fedsim.cli.progress.QUIET_S", 0.0)
        tell("scoring", scoring)
        tell("score", {"split": "samples", "metrics": {"FD(x)": 362.0}, "version": 8, "time_s": 75.0})
    assert capsys.readouterr().err.splitlines() == [
        "scoring v8: 200 of 480 of samples",
        "v8 | t=1m15s | samples: FD(x) 362",
    ]
    with Progress(io.StringIO(), bar=True) as progress:
        tell = Telling([progress])
        tell("scoring", scoring)
        assert progress._bar._rich.tasks[0].description == "scoring v8: 200 of 480 of samples"
        tell("time", {"time_s": 75.0})
        assert progress._bar._rich.tasks[0].description == "virtual time"


def test_a_bar_moves_in_virtual_time_and_leaves_a_clean_terminal():
    import io

    stream = io.StringIO()
    with Progress(stream, bar=True) as progress:
        tell = Telling([progress])
        tell("start", {"workers": 1, "clients": 9, "budget": {"time_s": 100.0}})
        tell("commit", {"version": 1, "time_s": 50.0, "updates": 3, "mean_staleness": 0.0})
        assert progress._bar._rich.tasks[0].percentage == 50.0
        tell("time", {"time_s": 75.0})
        assert progress._bar._rich.tasks[0].percentage == 75.0
    assert progress._bar._rich.finished or not progress._bar._rich.live.is_started


def test_the_verdict_tells_what_was_learnt_lost_and_sent(done):
    run = fedsim.load(done)
    text = verdict(run)
    test = run.scores[run.scores["split"] == "test"]
    metric = test["metric"].iloc[0]
    values = test[test["metric"] == metric]["value"]
    assert (
        f"{metric}: {values.iloc[0]:.4g} -> {values.iloc[-1]:.4g} on the test split (version 0 -> 4)" in text
    )
    assert "sent: " in text
    lost = int((run.visits["outcome"] != "landed").sum())
    assert ("did not land: " in text) == (lost > 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0s"), (59.94, "59.9s"), (60.0, "1m"), (3599.9, "59m59s"), (86400.0, "1d"), (90061.0, "1d1h")],
)
def test_a_duration_is_written_in_the_units_that_people_use(value, words):
    assert duration(value) == words


def test_a_table_aligns_its_columns():
    assert table([{"a": 1.23456, "bb": "x"}, {"a": 2, "c": "y"}]) == "a      bb  c\n1.235  x\n2          y"


def test_blocks_and_rows_are_listed():
    assert listing({"a": 1, "b": {"c": 2.5}, "d": [{"x": 1}]}) == "a: 1\nb:\n  c: 2.5\nd:\n  x\n  1"


def test_estimates_without_a_measurement_say_nothing_of_this_machine():
    totals = Totals(
        visits=3,
        outcomes={"landed": 2, "in_flight": 1},
        commits=1,
        up_bytes=1000,
        down_bytes=2000,
        joules=5.0,
        gross_joules=7.0,
    )
    who = Resolved((Drawn("laptop", "wifi", 3),), 1.0, 1.0)
    text = estimates(Estimates(totals, virtual_s=7200.0, trained_visits=2, evaluations=2, resolved=who))
    assert "visits: 3 (in flight 1, landed 2)" in text
    assert "machine" not in text


def test_python_m_fedsim_is_fedsim():
    done = subprocess.run(
        [sys.executable, "-m", "fedsim", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path.cwd(),
    )
    assert done.stdout == f"fedsim {fedsim.__version__}\n"
