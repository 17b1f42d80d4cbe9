"""Every run ends: a clock that stands still, updates that are never finite, windows that are over, clients without a model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from worlds import FAST, plan, simulated

import fedsim
from fedsim.clock.protocol import ServerProtocol
from fedsim.clock.visit import Visit
from fedsim.config.devices import Battery
from fedsim.errors import ExperimentError, RunError
from fedsim.instants import Instant
from fedsim.runs.simulation import simulate

ROUND = {"kind": "synchronous", "cohort": 1}
STREAM = {"kind": "buffered", "concurrency": 1, "buffer": 1}


# instants without progress ----------------------------------------------------------------------


class Restless(ServerProtocol):
    """Waits for nothing."""

    kind: str = "restless"
    wait: str = "turn"

    def run(self, server):
        """Go round and round."""
        while True:
            if self.wait == "turn":
                yield server.turn(Instant.COMMIT)
            else:
                yield server.timeout(0.0 if self.wait == "timeout" else 1e-12)


@pytest.mark.parametrize("budget", [{"commits": 3}, {"time_s": 1e6}])
@pytest.mark.parametrize("wait", ["turn", "timeout", "next to nothing"])
def test_a_protocol_that_waits_for_no_time_is_named(wait, budget):
    with pytest.raises(RunError, match=r"virtual time stands still at .* s .*the protocol restless"):
        simulated(Restless(wait=wait), [1.0], budget=budget)


class Impatient(ServerProtocol):
    """Gives everybody next to no time."""

    kind: str = "impatient"

    def run(self, server):
        """Ask, wait for a thousandth of a second, and begin anew."""
        while True:
            (client,) = yield from server.sample(1)
            visits = [server.dispatch(client)]
            yield from server.wait(visits, want=1, deadline_s=1e-3)
            server.collect(visits, want=1)


def test_very_many_visits_without_a_commit_end_a_run_soon(monkeypatch):
    monkeypatch.setattr("fedsim.server.stall.VISITS", 500)
    monkeypatch.setattr("fedsim.server.stall.EVENTS", 10_000)
    with pytest.raises(RunError, match=r"no commit in \d+ s of virtual time.*late"):
        simulated(Impatient(), [1.0], budget={"commits": 1})


def test_a_protocol_that_only_waits_is_named(monkeypatch):
    monkeypatch.setattr("fedsim.server.clock_verbs.SHORT_WAITS", 1000)

    class Waits(ServerProtocol):
        kind: str = "waits"

        def run(self, server):
            """Look at the clock."""
            while True:
                yield server.timeout(5e-4)

    with pytest.raises(RunError, match=r"protocol waits: has waited 1,000 times for less than 0\.001 s"):
        simulated(Waits(), [1.0], budget={"time_s": 1e9})


def test_a_visit_that_pauses_without_end_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("fedsim.clock.visit_record.MOST_PAUSES", 50)
    windows = [[(k * 2.0, k * 2.0 + 1.0) for k in range(1000)]]
    population = {"preset": "homogeneous", "clients": 1, "on_close": "pause"}
    with pytest.raises(RunError, match=r"client 0: its visit has stopped and gone on 50 times \(window\)"):
        simulated(ROUND, [500.0], online=windows, population=population, budget={"commits": 1})


def test_many_clients_may_do_much_in_one_instant():
    run = simulated({"kind": "synchronous", "cohort": 3000}, [1.0] * 3000, budget={"commits": 2})

    assert run.commits.updates.tolist() == [3000, 3000]


@pytest.mark.parametrize(("stop_below", "start_at"), [(0.3, 0.3 + 1e-7), (0.3, 0.3049), (0.0, 0.001)])
def test_levels_of_a_battery_too_close_to_each_other_are_refused(stop_below, start_at):
    with pytest.raises(ValueError, match=r"start_at must be 0\.005 above stop_below"):
        Battery(stop_below=stop_below, start_at=start_at)


def test_a_battery_of_next_to_nothing_is_refused():
    with pytest.raises(ValueError, match=r"greater than or equal to 0\.1"):
        Battery(capacity_wh=1e-6)
    with pytest.raises(ExperimentError, match=r"the battery_wh of x \(phone-mid\) is less than 0\.1"):
        Battery().capacity_of("phone-mid", "x", 1e-9)


# updates that are never finite ------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol", [STREAM, {"kind": "synchronous", "cohort": 2}, {"kind": "timely", "cohort": 2, "k": 2}]
)
@pytest.mark.parametrize("budget", [{"commits": 5}, {"time_s": 1e9}])
def test_training_that_never_gives_finite_numbers_ends_the_run_with_the_reason(protocol, budget):
    local = {"optimizer": "sgd", "lr": 1e38, "steps": 20}
    with pytest.raises(RunError, match=r"commits took no update: all \d+ were refused.*client \d: .*finite"):
        simulate(plan(protocol, [1.0, 2.0], local=local, budget=budget))


def test_some_refusals_between_commits_end_nothing():
    """The counts begin anew with every commit that takes an update."""
    from fedsim.server.values.commits import RefusedCommits

    counted, one = RefusedCommits(), [(object(), "the move is not finite")] * 99
    for _ in range(50):
        counted.note([], one)
        counted.note([object()], one)


# windows that are over --------------------------------------------------------------------------


def test_a_run_whose_windows_are_over_ends_with_what_it_has(tmp_path):
    made = plan(ROUND, [10.0], online=[[(0.0, 45.0), (100.0, 125.0)]], budget={"commits": 100})
    run = simulate(made, out=tmp_path / "run", report=False)

    assert run.info.status == "done"
    assert "windows were over at" in run.info.reason
    assert len(run.commits) == 6
    assert (tmp_path / "run" / "adapter").exists()
    assert run.info.end_time_s == pytest.approx(155.0, abs=1e-3)  # lost at 125 s, noticed 30 s later


def test_a_budget_of_time_ends_a_run_whose_windows_are_over_before():
    run = simulated(ROUND, [10.0], online=[[(0.0, 25.0)]], budget={"time_s": 1000.0})

    assert (run.info.status, run.info.reason, run.info.end_time_s) == ("done", "", 1000.0)
    assert len(run.commits) == 2


def test_waiting_for_more_clients_than_are_ever_there_is_said_in_numbers():
    never_both = [[(float(t), t + 1.0) for t in range(0, 90_000, 10)], [(8000.5, 8000.6)]]
    with pytest.raises(
        RunError, match=r"nobody to ask: 2 idle clients online at once were needed, at most 1 of 2"
    ):
        simulated(
            {"kind": "synchronous", "cohort": 2},
            [1.0, 1.0],
            online=never_both,
            runtime={"executor": "inline", "stall_s": 1000.0},
        )


# clients that never get the model ---------------------------------------------------------------


def test_a_client_to_whom_the_model_never_gets_through_is_asked_five_times():
    """The frozen model takes client 1 longer than the deadline, client 0 not."""
    made = plan(
        {"kind": "synchronous", "cohort": 2, "deadline_s": 30.0},
        [1.0, 1.0],
        network={"server_up_mbps": 1e12, "server_down_mbps": 1e12, "backbone": "first_visit"},
        budget={"time_s": 1e4},
    )
    from dataclasses import replace

    slow = made.population.profiles[1]
    made.population.profiles[1] = replace(slow, down_bytes_per_s=1.0)
    with pytest.raises(RunError, match="1 have too little memory or never got the model"):
        simulate(made, timeline_only=True)


def test_who_was_given_up_is_counted(tmp_path):
    made = plan(
        {"kind": "buffered", "concurrency": 2, "buffer": 1},
        [1.0, 1.0],
        rate=FAST,
        online=[[(0.0, 1e6)], [(k * 20.0, k * 20.0 + 10.0) for k in range(1000)]],
        network={"server_up_mbps": 1e12, "server_down_mbps": 1e12, "backbone": "first_visit"},
        budget={"time_s": 900.0},
    )
    from dataclasses import replace

    made.population.profiles[1] = replace(made.population.profiles[1], down_bytes_per_s=1e-3)
    run = simulate(made, timeline_only=True, out=tmp_path / "run", report=False)

    assert (run.visits.client == 1).sum() == 5
    assert run.info.never_equipped == 1
    assert fedsim.load(tmp_path / "run").info.never_equipped == 1


# signals ----------------------------------------------------------------------------------------

FOREVER = """
import sys
from worlds import experiment
import fedsim
import fedsim.records.writer
fedsim.records.writer.FOLDED_AT_ONCE = 100
blocks = {blocks}
fedsim.simulate(experiment({protocol}, 40, **blocks), timeline_only={timeline}, out={out!r})
"""


def stopped(tmp_path, protocol, timeline, number=signal.SIGTERM, rows=1, **blocks):
    """Begin a run of a process of its own, stop it, and return how it ended, how long that took, and its folder."""
    out = tmp_path / "run"
    code = FOREVER.format(protocol=protocol, blocks=blocks, timeline=timeline, out=str(out))
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    until, visits = time.monotonic() + 100, out / "visits.jsonl"
    while time.monotonic() < until and not (visits.exists() and visits.read_bytes().count(b"\n") >= rows):
        time.sleep(0.1)
    process.send_signal(number)
    began = time.monotonic()
    process.communicate(timeout=100)
    return process.returncode, time.monotonic() - began, fedsim.load(out)


@pytest.mark.parametrize("rows", [10, 500])
def test_sigterm_ends_a_timeline_soon_and_its_folder_can_be_read(tmp_path, rows):
    """A script's own process, without a handler: 143, and the tables hold what there was."""
    code, took_s, run = stopped(tmp_path, STREAM, True, rows=rows, budget={"commits": 10**9})

    assert code == 143
    assert took_s < 8.0  # two on an idle machine
    assert run.info.status == "interrupted"
    assert len(run.visits) >= rows
    assert run.info.totals.visits == len(run.visits)
    assert list((tmp_path / "run").glob("*.jsonl")) in ([], [tmp_path / "run" / "wall.jsonl"])


def test_a_signal_in_the_middle_of_a_visit_s_end_leaves_a_whole_folder(tmp_path, monkeypatch):
    """It has an outcome then, and what it used is not worked out yet: it counts as in flight."""
    end_whole, asked = Visit._end_whole, []

    def interrupted(visit, course, training):
        asked.append(visit)
        if len(asked) == 3:
            raise KeyboardInterrupt
        end_whole(visit, course, training)

    monkeypatch.setattr(Visit, "_end_whole", interrupted)
    made = plan({"kind": "synchronous", "cohort": 2}, [1.0, 2.0], budget={"commits": 9})
    with pytest.raises(KeyboardInterrupt):
        simulate(made, timeline_only=True, out=tmp_path / "run", report=False)
    run = fedsim.load(tmp_path / "run")

    assert run.info.status == "interrupted"
    assert run.visits.outcome.tolist() == ["landed", "landed", "in_flight", "in_flight"]
    assert run.info.totals.visits == 4


def test_sigterm_while_clients_train_behind_the_run_ends_it_and_blames_nobody(tmp_path, monkeypatch):
    """No event of the clock comes any more at which it could be heard: what arrives is no `sys.exit` of the task's code."""
    rounds = {"kind": "synchronous", "cohort": 2}
    made = plan(rounds, [1.0, 2.0], budget={"commits": 2}, personal={"kind": "fine-tune", "epochs": 1})
    train = type(made.task).train

    def terminated(task, jobs):
        if any(job.purpose != "train" for job in jobs):
            os.kill(os.getpid(), signal.SIGTERM)
        return train(task, jobs)

    def handler(signum, frame):
        raise SystemExit(7)

    monkeypatch.setattr(type(made.task), "train", terminated)
    before = signal.signal(signal.SIGTERM, handler)  # of somebody else, such as Ray
    try:
        with pytest.raises(SystemExit) as ended:
            simulate(made, out=tmp_path / "run", report=False)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert ended.value.code == 7
    assert fedsim.load(tmp_path / "run").info.status == "interrupted"


def test_sigterm_ends_a_run_that_swallows_it(monkeypatch):
    """Whatever catches the exception where the signal arrives: the run hears it at its next event."""

    class Deaf(ServerProtocol):
        kind: str = "deaf"

        def run(self, server):
            """Catch everything."""
            while True:
                with contextlib.suppress(BaseException):
                    os.kill(os.getpid(), signal.SIGTERM)
                yield server.timeout(1.0)

    inherited = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test may have left Ray's
    try:
        with pytest.raises(SystemExit, match="143"):
            simulated(Deaf(), [1.0], budget={"time_s": 100.0})
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, inherited)


@pytest.mark.ray
def test_sigterm_ends_a_run_while_ray_trains(tmp_path):
    """Ray installs a handler of its own, which would end the process before the tables are closed."""
    blocks = {
        "task": {"kind": "quadratic", "delay_s": 0.3},
        "runtime": {"executor": "ray", "workers": 1},
        "budget": {"commits": 10**6},
    }
    code, took_s, run = stopped(tmp_path, STREAM, False, rows=2, **blocks)

    assert code == 143
    assert took_s < 15.0  # three on an idle machine: Ray's own processes end, too
    assert run.info.status == "interrupted"
    assert len(run.commits) >= 1
