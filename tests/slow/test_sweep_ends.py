"""A sweep of several processes that is stopped or killed leaves nobody behind, and goes on when it is started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

pytestmark = pytest.mark.slow

GRID = {
    "name": "grid",
    "population": {"preset": "homogeneous", "clients": 8},
    "task": {"kind": "quadratic", "delay_s": 0.02},
    "local": {"optimizer": "sgd"},
    "protocol": {"kind": "synchronous", "cohort": 4},
    "budget": {"commits": 60},
    "runtime": {"executor": "inline"},
    "sweep": {"seed": [0, 1, 2]},
}


@pytest.fixture
def started(tmp_path):
    """A sweep of three points, two at a time, both of which have made two commits."""
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    process = begin(tmp_path)
    wait_for(lambda: [commits(tmp_path, seed) >= 2 for seed in (0, 1)] == [True, True], process)
    yield tmp_path, process
    process.kill()
    process.communicate()


def begin(folder, *args):
    command = [sys.executable, "-m", "fedsim", "sweep", "grid.yaml", "--out", "out", "--parallel", "2", *args]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what, process=None, patience_s=90.0):
    until = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < until, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def commits(folder, seed):
    path = folder / "out" / f"seed-{seed}" / "commits.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def head(folder, seed):
    return json.loads((folder / "out" / f"seed-{seed}" / "run.json").read_text())


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_all_children_with_their_tables_kept(started):
    folder, process = started
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert [head(folder, seed)["status"] for seed in (0, 1)] == ["interrupted", "interrupted"]
    assert not any(alive(head(folder, seed)["pid"]) for seed in (0, 1))
    assert not (folder / "out" / "seed-2").exists()
    assert "Traceback" not in err


def test_children_of_a_parent_that_was_killed_end_by_themselves_and_the_sweep_goes_on(started):
    folder, process = started
    pids = [head(folder, seed)["pid"] for seed in (0, 1)]
    process.kill()
    process.wait()
    again = begin(folder)  # at once: the children may still be there
    _, err = again.communicate(timeout=120)

    assert again.returncode == 0, err
    assert not any(map(alive, pids))
    assert [head(folder, seed)["status"] for seed in (0, 1, 2)] == ["done"] * 3
    for seed in (0, 1, 2):
        alone = ["run", "grid.yaml", "--out", f"alone-{seed}", "-s", f"seed={seed}", "-s", "task.delay_s=0.0"]
        plain = folder / "plain"
        plain.mkdir(exist_ok=True)
        (plain / "grid.yaml").write_text(yaml.safe_dump({k: v for k, v in GRID.items() if k != "sweep"}))
        subprocess.run([sys.executable, "-m", "fedsim", *alone], cwd=plain, check=True, capture_output=True)
        for name in ("visits", "commits", "scores"):
            swept = (folder / "out" / f"seed-{seed}" / f"{name}.parquet").read_bytes()
            assert swept == (plain / f"alone-{seed}" / f"{name}.parquet").read_bytes()


def test_of_two_parents_at_once_one_gets_the_folder(started):
    folder, process = started
    second = begin(folder)
    _, err = second.communicate(timeout=60)

    assert second.returncode == 2
    assert f"process {process.pid} on" in err
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def test_a_child_that_is_killed_fails_alone_and_its_run_goes_on_at_the_next_start(started):
    folder, process = started
    os.kill(head(folder, 1)["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "its process ended by signal SIGKILL" in out + err
    assert [head(folder, seed)["status"] for seed in (0, 2)] == ["done", "done"]
    again = begin(folder)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert out.count("skipped") == 2
    assert head(folder, 1)["status"] == "done"


def test_fail_fast_stops_the_others_cleanly(started):
    folder, process = started
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(head(folder, seed)["pid"]) for seed in (0, 1)))
    process = begin(folder, "--fail-fast")
    wait_for(lambda: commits(folder, 1) >= 2 and commits(folder, 0) >= 2, process)
    os.kill(head(folder, 1)["pid"], signal.SIGKILL)
    out, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert head(folder, 0)["status"] == "interrupted"
    endings = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:4]}
    assert endings == {"seed-0": "stopped", "seed-1": "failed", "seed-2": "waiting"}
