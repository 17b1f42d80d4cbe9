"""Going on with a run: from where, what is refused and how that is said, and what is left when it ends again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from worlds.resumed_runs import contents, copied, experiment_of, gone_through, resumed, started

import fedsim
from fedsim.cli.app import call
from fedsim.errors import ExperimentError, RunError, RunFolderError
from fedsim.records.run import load
from fedsim.runs.audit import audit
from fedsim.runs.resuming import heads
from fedsim.runs.resuming.settings import refuse_other_files


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A whole run of nine commits, and one that ended at the seventh."""
    folder = tmp_path_factory.mktemp("runs")
    started(experiment_of("fedbuff-adam"), folder / "whole")
    started(experiment_of("fedbuff-adam"), folder / "cut", stop=7)
    return folder


@pytest.fixture
def cut(ran, tmp_path):
    return copied(ran / "cut", tmp_path / "cut")


@pytest.fixture
def whole(ran):
    return contents(ran / "whole")


def edited(folder, **facts):
    """The folder's run.json with other facts."""
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def event(kind):
    return [facts for told, facts in gone_through.events if told == kind]


# from where -------------------------------------------------------------------------------------


def test_two_checkpoints_are_kept_and_the_newest_is_gone_on_from(cut, whole):
    assert [path.stem for path in heads.found(cut)] == ["00000006", "00000004"]

    run = resumed(cut)
    again = run.info.resumed[0]
    assert (again.version, again.commits, again.after) == (6, 6, "failed")
    assert again.visits == len(
        run.visits[(run.visits.committed_version > 0) & (run.visits.committed_version <= 6)]
    )
    assert contents(cut) == whole
    assert event("resumed")[0]["resumption"] == again


def test_the_older_one_serves_if_the_newer_is_torn(cut, whole):
    newest = heads.found(cut)[0]
    newest.write_bytes(newest.read_bytes()[:-7])

    run = resumed(cut)
    assert run.info.resumed[0].version == 4
    assert "00000006.safetensors: is damaged" in event("no_checkpoint")[0]["reason"]
    assert contents(cut) == whole


def test_if_all_are_torn_it_is_said_and_without_them_the_run_begins_again(cut, whole):
    for path in heads.found(cut):
        path.write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"no checkpoint can be read.*\n.*remove"):
        resumed(cut)
    shutil.rmtree(cut / "checkpoints")

    run = resumed(cut)
    assert run.info.resumed[0].version == 0
    assert contents(cut) == whole


def test_what_a_kill_left_half_written_is_swept_away(cut, whole):
    (cut / "checkpoints" / ".00000008.safetensors.123").write_bytes(b"half")
    (cut / "adapter").mkdir()
    (cut / "adapter" / "half").write_bytes(b"half")
    (cut / ".visits.parquet.99").write_bytes(b"half")
    resumed(cut)

    assert contents(cut) == whole
    assert [p.name for p in cut.rglob(".*")] == []


@pytest.mark.parametrize("tail", [b'{"order": 3, "cli', b"\0" * 300, b"\xff\n", b"\0\0\n\0\n{}"])
def test_lines_torn_by_a_power_failure_are_cut(killed, tail, whole):
    with (killed / "visits.jsonl").open("ab") as file:
        file.write(tail)
    resumed(killed)

    assert contents(killed) == whole


@pytest.fixture(scope="module")
def run_of_a_dead_process(tmp_path_factory):
    """The run, by a process that was killed at its seventh commit."""
    folder = tmp_path_factory.mktemp("killed") / "killed"
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from worlds.resumed_runs import experiment_of
import fedsim
fedsim.simulate(experiment_of("fedbuff-adam"), out={str(folder)!r}, report=False,
    on_event=lambda kind, facts: kind == "commit" and facts["version"] == 7 and os.kill(os.getpid(), 9))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=env).returncode == -9
    return folder


@pytest.fixture
def killed(run_of_a_dead_process, tmp_path):
    """Its folder as the kill has left it: lines, and a process that is gone."""
    return copied(run_of_a_dead_process, tmp_path / "killed")


def test_a_killed_run_goes_on_whether_it_was_read_meanwhile_or_not(killed, tmp_path, whole):
    read = copied(killed, tmp_path / "read")
    assert load(read).info.status == "killed"
    for folder in (killed, read):
        run = resumed(folder)
        assert (run.info.status, run.info.resumed[0].after) == ("done", "killed")
        assert contents(folder) == whole


def test_wall_clock_lines_go_on_and_the_audit_finds_nothing(cut):
    run = resumed(cut)

    assert audit(run).problems == ()
    seconds = [line["wall_s"] for line in run.wall]
    assert seconds == sorted(seconds)
    assert [line["version"] for line in run.wall if "version" in line] == list(range(1, 10))
    assert run.info.wall_s >= seconds[-1]


# a run that is over -----------------------------------------------------------------------------


def test_a_run_that_is_over_has_nothing_to_go_on_with(ran, tmp_path):
    folder = copied(ran / "whole", tmp_path / "over")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = resumed(folder)

    assert run.info.resumed == ()
    assert event("nothing_to_do")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_kill_left_after_the_last_word_is_swept_away(ran, killed, tmp_path, whole):
    """Killed once `run.json` said `done`: rows that were not removed yet, and half a page."""
    lines = {path.name: path.read_bytes() for path in killed.glob("*.jsonl") if path.stem != "wall"}
    over = copied(ran / "whole", tmp_path / "over")
    for name, text in lines.items():
        (over / name).write_bytes(text)
    (over / ".report.html.4711").write_text("<html>")
    run = fedsim.resume(over)

    assert lines
    assert len(run.commits) == 9
    assert contents(over) == whole
    assert not [path.name for path in over.iterdir() if path.suffix == ".jsonl" and path.stem != "wall"]
    assert [path.name for path in over.glob(".*.*")] == []
    assert (over / "report.html").stat().st_size > 1e5


def test_a_run_that_is_over_is_continued_with_a_larger_budget(ran, tmp_path):
    folder = copied(ran / "whole", tmp_path / "over")
    longer = experiment_of("fedbuff-adam", budget={"commits": 13})
    started(longer, tmp_path / "longer")
    run = resumed(folder, budget={"commits": 13})

    assert run.info.resumed[0].version == 9
    assert contents(folder) == contents(tmp_path / "longer")
    assert yaml.safe_load((folder / "experiment.yaml").read_text())["budget"]["commits"] == 13
    assert run.info.digest == load(tmp_path / "longer").info.digest


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"commits": 8}, "budget.commits: a budget may grow, not shrink \\(got 8\\)"),
        ({"time_s": 5.0}, "budget.time_s: the run had no such limit"),
    ],
)
def test_a_budget_may_only_grow(cut, budget, said):
    with pytest.raises(RunFolderError, match=said):
        resumed(cut, budget=budget)


# what is refused --------------------------------------------------------------------------------


def test_another_experiment_is_refused_with_each_key_and_nothing_is_written(cut):
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError) as refused:
        resumed(cut, changes=["local.lr=0.5", "seed=3"])

    text = str(refused.value)
    assert "seed: was changed since the run began (got 3)\n  fix: set it back to 0" in text
    assert "local.lr: was changed since the run began (got 0.5)\n  fix: set it back to 0.05" in text
    assert before == {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}


def test_settings_that_were_edited_in_the_folder_are_refused(cut):
    path = cut / "experiment.yaml"
    path.write_text(path.read_text().replace("lr: 0.05\n  momentum", "lr: 0.06\n  momentum"))
    with pytest.raises(RunFolderError, match=r"local.lr: was changed since the run began \(got 0.06\)"):
        resumed(cut)

    shutil.rmtree(cut / "checkpoints")
    with pytest.raises(
        RunFolderError, match=r"experiment.yaml: is not the experiment that the run began with"
    ):
        resumed(cut)


def test_where_the_run_works_may_change(cut, whole):
    resumed(cut, changes=["runtime.checkpoint_commits=1", "runtime.cache_mb=1"])

    assert contents(cut) == whole
    assert [path.stem for path in heads.found(cut)] == ["00000009", "00000008"]


@pytest.mark.parametrize("package", ["numpy", "torch", "fedsim-edge"])
def test_another_version_of_a_package_is_refused(cut, package):
    edited(cut, versions={**json.loads((cut / "run.json").read_text())["versions"], package: "0.1"})
    with pytest.raises(
        RunFolderError, match=f"{package} is .* here, and the run was made with 0.1\n.*{package}==0.1"
    ):
        resumed(cut)


def test_other_data_are_refused(cut):
    task = json.loads((cut / "run.json").read_text())["task"]
    edited(cut, task={**task, "least_loss": 0.0})
    with pytest.raises(RunFolderError, match=r"task: least_loss was 0\.0 when the run began"):
        resumed(cut)


def test_a_model_whose_file_is_another_one_is_refused(tmp_path):
    from fedsim.runs.resuming.files import model_files

    model, data = tmp_path / "model", tmp_path / "corpus"
    for folder in (model / "inner", data):
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"1")
    block = {
        "kind": "language",
        "model": str(model),
        "data": str(data),
        "features": {"file": str(model / "none")},
    }
    before = model_files({"task": block})
    (model / "inner" / "weights.bin").write_bytes(b"2")

    assert [Path(path).relative_to(tmp_path).as_posix() for path in before] == ["model/inner/weights.bin"]
    with pytest.raises(RunFolderError, match=r"files: .*weights\.bin was '6b86.*' when the run began"):
        refuse_other_files(tmp_path, before, model_files({"task": block}), "files")


def test_other_tables_of_devices_are_refused(cut):
    sources = json.loads((cut / "run.json").read_text())["population"]
    edited(cut, population={**sources, "devices.csv": "00"})
    with pytest.raises(RunFolderError, match=r"population: devices\.csv was '00' when the run began"):
        resumed(cut)


def test_a_run_that_still_goes_is_refused(cut):
    edited(cut, status="running", pid=os.getpid())
    with pytest.raises(RunFolderError, match=f"its run still goes: process {os.getpid()} on"):
        resumed(cut)


def test_of_two_that_go_on_one_gets_the_folder(cut, whole):
    refused = []

    def watch(kind, _):
        if kind == "resumed":
            with pytest.raises(
                RunFolderError, match=f"process {os.getpid()} on .* is at work on it"
            ) as error:
                fedsim.resume(cut)
            refused.append(error)

    fedsim.resume(cut, on_event=watch, report=False)
    assert refused
    assert contents(cut) == whole


@pytest.mark.parametrize(
    ("table", "column", "value", "said"),
    [
        (
            "visits",
            "landed_s",
            1.5,
            "visits, visit . of client .*, column landed_s: is 1.5, the schedule gives ",
        ),
        ("visits", "client", 11, "visits: visit . of client . is missing"),
        ("commits", "updates", 77, "commits, version 1, column updates: is 77, the schedule gives 3"),
    ],
)
def test_a_row_that_the_schedule_does_not_give_is_named(cut, table, column, value, said):
    from fedsim.records.tables import read_parquet, write_parquet

    columns = read_parquet(table, cut / f"{table}.parquet")
    columns[column] = columns[column].copy()
    columns[column][0] = value
    write_parquet(table, columns, cut / f"{table}.parquet")
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match=said):
        resumed(cut)
    assert before == {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_run_is_refused(cut, tmp_path):
    started(experiment_of("fedbuff-adam", seed=1), tmp_path / "other", stop=7)
    for path in heads.found(tmp_path / "other"):
        shutil.copy(path, cut / "checkpoints")
    with pytest.raises(RunFolderError, match=r"seed: was changed since the run began \(got 0\)"):
        resumed(cut)


def test_a_checkpoint_of_another_format_is_refused(cut, monkeypatch):
    monkeypatch.setattr(heads, "FORMAT", 2)
    with pytest.raises(RunFolderError, match=r"is a checkpoint of another format \(got 1\)"):
        resumed(cut)


def test_what_followed_from_other_settings_is_still_said(cut, ran):
    assert resumed(cut).info.resolved == load(ran / "whole").info.resolved
    assert load(ran / "whole").info.resolved.followed


def test_a_run_that_was_killed_before_its_first_row_goes_on(ran, tmp_path, whole):
    folder = copied(ran / "whole", tmp_path / "begun")
    for path in folder.iterdir():
        if path.name not in ("run.json", "experiment.yaml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    edited(folder, status="failed", files={}, numbers={})
    (folder / "visits.jsonl").touch()

    assert resumed(folder).info.status == "done"
    assert contents(folder) == whole


def test_a_run_that_was_killed_at_its_first_step_holds_nothing(tmp_path):
    (tmp_path / "run.json").touch()
    with pytest.raises(RunFolderError, match="killed before it had written anything"):
        resumed(tmp_path)


# when there are some ----------------------------------------------------------------------------


def test_short_runs_have_no_checkpoint_unless_they_are_asked_for(tmp_path):
    started(experiment_of("ditto", runtime={"executor": "inline"}), tmp_path / "run")

    assert not (tmp_path / "run" / "checkpoints").exists()
    assert [path.name for path in (tmp_path / "run" / "kept").iterdir()] == ["personal.f32"]
    assert contents(tmp_path / "run")


def test_checkpoints_by_real_time(tmp_path):
    started(experiment_of("sync", runtime={"executor": "inline", "checkpoint_s": 1e-6}), tmp_path / "run")
    assert [facts["version"] for facts in event("checkpoint")] == list(range(1, 10))

    started(experiment_of("sync", runtime={"executor": "inline", "checkpoint_s": "off"}), tmp_path / "off")
    assert event("checkpoint") == []


def test_the_default_takes_a_twentieth_of_the_time(tmp_path, monkeypatch):
    from fedsim.runs.resuming import checkpoints

    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: now[0])
    taken = []

    def take(self):
        taken.append((now[0], self._server.version))
        now[0] += 3.0
        self._last_s, self._cost_s = now[0], 3.0

    monkeypatch.setattr(checkpoints.Checkpoints, "_take", take)

    def watch(kind, _):
        now[0] += 20.0 * (kind == "commit")

    fedsim.simulate(
        experiment_of("sync", runtime={"executor": "inline"}),
        out=tmp_path / "run",
        on_event=watch,
        report=False,
    )
    assert [version for _, version in taken] == [1, 4, 7]
    assert 3.0 * len(taken) <= now[0] / 20 + 3.0


def test_a_full_disk_in_a_checkpoint_leaves_the_last_one_and_the_run_goes_on(tmp_path, monkeypatch):
    from fedsim.runs.resuming import checkpoints

    real, calls = checkpoints.write, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(checkpoints, "write", full)
    run = started(experiment_of("sync"), tmp_path / "run")
    assert run.info.status == "done"
    assert "could not be written (No space left on device)" in run.info.no_checkpoints
    assert len(event("no_checkpoint")) == 1
    assert [path.stem for path in heads.found(tmp_path / "run")] == ["00000002"]


def test_no_result_depends_on_checkpoints(tmp_path):
    for kind in ("ditto", "power-of-choice-fedbuff"):
        started(experiment_of(kind), tmp_path / kind / "with")
        started(experiment_of(kind, runtime={"executor": "inline"}), tmp_path / kind / "without")
        assert contents(tmp_path / kind / "with") == contents(tmp_path / kind / "without")


# components of one's own ------------------------------------------------------------------------

RULE = """
from collections.abc import Iterable
from dataclasses import dataclass
import numpy as np
from fedsim.aggregators.fedit import FedIT

@dataclass(frozen=True)
class State:
    commits: int
    mean: np.ndarray

class Frozen(FedIT):
    kind: str = "my_rules:Frozen"
    def init(self, model):
        return State(0, np.zeros(2))
    def apply(self, state, model, contributions):
        model, _ = super().apply(None, model, contributions)
        state = State(state.commits + 1, state.mean + model.adapter.vector[:2])
        vector = model.adapter.vector * np.float32(1 - 0.01 * state.commits) + np.float32(state.mean[0] * 1e-3)
        from dataclasses import replace
        return replace(model, adapter=model.adapter.replace(vector)), state

class Drawing(FedIT):
    kind: str = "my_rules:Drawing"
    def init(self, model):
        return np.random.default_rng(0)

class Dumping(Drawing):
    kind: str = "my_rules:Dumping"
    def apply(self, state, model, contributions):
        model, _ = super().apply(None, model, contributions)
        drawn = state.normal()
        from dataclasses import replace
        vector = model.adapter.vector + np.float32(drawn * 1e-3)
        return replace(model, adapter=model.adapter.replace(vector)), state
    def dump(self, state):
        return dict(state.bit_generator.state)
    def load(self, data):
        again = np.random.default_rng(0)
        again.bit_generator.state = data
        return again
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(RULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_rules", None)


@pytest.mark.parametrize("name", ["Frozen", "Dumping"])
def test_a_rule_of_ones_own_takes_part(rules, name, tmp_path):
    experiment = experiment_of("fedbuff", aggregator={"kind": f"my_rules:{name}"})
    started(experiment, tmp_path / "whole")
    started(experiment, tmp_path / "cut", stop=7)
    run = resumed(tmp_path / "cut")

    assert run.info.resumed[0].version == 6
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_rule_whose_state_cannot_be_held_is_refused_by_name_before_there_is_a_folder(rules, tmp_path):
    experiment = experiment_of("fedbuff", aggregator={"kind": "my_rules:Drawing"})
    with pytest.raises(ExperimentError, match="the state of the aggregator my_rules:Drawing is a Generator"):
        started(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_checkpoints_were_not_asked_for_such_a_run_goes_without_and_says_so(
    rules, tmp_path, monkeypatch
):
    from fedsim.runs.resuming import checkpoints

    monkeypatch.setattr(checkpoints, "FIRST_S", 0.0)
    experiment = experiment_of(
        "fedbuff", aggregator={"kind": "my_rules:Drawing"}, runtime={"executor": "inline"}
    )
    run = started(experiment, tmp_path / "run")

    assert run.info.status == "done"
    assert (
        "no checkpoints: the state of the aggregator my_rules:Drawing is a Generator"
        in run.info.no_checkpoints
    )
    assert len(event("no_checkpoint")) == 1
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["no_checkpoints"] == run.info.no_checkpoints
    )


PROTOCOL = """
import numpy as np
from fedsim.clock.protocol import Blend, ServerProtocol

class Keeper(ServerProtocol):
    kind: str = "my_protocols:Keeper"
    says: bool = False
    @property
    def blends(self):
        return True
    def run(self, server):
        before, memory = server.vector, Mean()
        while True:
            clients = yield from server.sample(3)
            now = server.vector
            visits = [server.dispatch(client) for client in clients]
            yield from server.wait(visits, want=3)
            landed = server.collect(visits, want=3)
            mix = lambda taken, model, before=before: memory.mixed(before, model)
            if landed:
                server.commit(landed, blend=Blend(now, mix, memory if self.says else None))
            before = now

class Mean:
    def __init__(self):
        self.total = np.zeros(1)
    def mixed(self, before, model):
        self.total = self.total + model[:1]
        return (model + np.float32(0.1) * before + np.float32(self.total[0]) * np.float32(1e-3)).astype(np.float32)
    def dump(self):
        return {"total": self.total}
    def load(self, data):
        self.total = data["total"]
"""


@pytest.fixture
def protocols(tmp_path, monkeypatch):
    (tmp_path / "my_protocols.py").write_text(PROTOCOL)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_protocols", None)


def test_a_protocol_that_keeps_models_of_earlier_versions_takes_part(protocols, tmp_path):
    experiment = experiment_of("sync", protocol={"kind": "my_protocols:Keeper", "says": True})
    started(experiment, tmp_path / "whole")
    started(experiment, tmp_path / "cut", stop=7)
    run = resumed(tmp_path / "cut")

    assert run.info.resumed[0].version == 6
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_protocol_whose_blends_do_not_say_what_they_remember_is_refused_by_name(protocols, tmp_path):
    experiment = experiment_of("sync", protocol={"kind": "my_protocols:Keeper"})
    with pytest.raises(RunError, match="the protocol my_protocols:Keeper blends models"):
        started(experiment, tmp_path / "run")


# the command line -------------------------------------------------------------------------------


def test_the_command_goes_on_and_says_from_where(cut, whole, capsys):
    assert call(["resume", str(cut)]) == 0
    out, err = capsys.readouterr()

    assert "done: 9 commits" in out
    assert "resumed from version 6: " in err
    assert "replayed and compared in" in err
    assert contents(cut) == whole
    assert (cut / "report.html").exists()
    assert call(["verify", str(cut)]) == 0

    assert call(["resume", str(cut)]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert call(["resume", str(cut), "-s", "seed=2"]) == 2
    assert "seed: was changed since the run began (got 2)" in capsys.readouterr().err
    assert call(["resume", str(cut), "-s", "budget.commits=10"]) == 0
    assert "done: 10 commits" in capsys.readouterr().out


def test_run_with_resume_goes_on_if_the_folder_holds_a_run_else_it_starts(ran, tmp_path, whole, capsys):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(experiment_of("fedbuff-adam").plain()))
    out = tmp_path / "out"
    assert call(["run", str(path), "--out", str(out), "--resume"]) == 0
    assert contents(out) == whole

    shutil.rmtree(out)
    shutil.copytree(ran / "cut", out)
    assert call(["run", str(path), "--out", str(out), "--resume"]) == 0
    assert contents(out) == whole
    assert "resumed from version 6" in capsys.readouterr().err
    assert call(["run", str(path), "--out", str(out), "--resume", "-s", "seed=4"]) == 2
    assert "seed: was changed since the run began (got 4)" in capsys.readouterr().err
    assert call(["run", str(path), "--resume"]) == 2
    assert "--resume: which run is not said" in capsys.readouterr().err


def test_run_with_resume_starts_where_a_run_was_killed_at_its_first_step(tmp_path, whole):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(experiment_of("fedbuff-adam").plain()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").touch()
    (tmp_path / "out" / ".experiment.yaml.123").touch()
    assert call(["run", str(path), "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert contents(tmp_path / "out") == whole
    assert not list((tmp_path / "out").glob(".*"))


def test_run_with_resume_keeps_rows_whose_head_is_lost(ran, tmp_path, capsys):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(experiment_of("fedbuff-adam").plain()))
    folder = copied(ran / "cut", tmp_path / "out")
    (folder / "run.json").write_bytes(b"")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert call(["run", str(path), "--out", str(folder), "--resume"]) == 2
    assert "has rows of a run, and no whole run.json" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
