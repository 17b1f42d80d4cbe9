"""Real uploads and real rounds of processes on this machine take what the clock says, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # at the end: fedsim itself comes from where it is installed

from benchmarks.fidelity import end_to_end, permits, quota
from benchmarks.fidelity.federation import FEDERATIONS
from benchmarks.fidelity.rows import Flow, Scenario
from benchmarks.fidelity.steps import Steps

SMALL = replace(FEDERATIONS["four"], name="small", rounds=1)


def leftovers():
    base = quota.root()
    return [] if base is None else sorted(folder.name for folder in base.glob(f"{quota.PREFIX}-*"))


@pytest.mark.slow
@pytest.mark.skipif(permits.tun() is not None, reason=str(permits.tun()))
def test_a_real_upload_takes_what_the_clock_says():
    from benchmarks.fidelity.lab import kernel, user_space
    from benchmarks.fidelity.measure import EQUAL, Upload, star, uploads
    from benchmarks.fidelity.replay import fedsim

    with user_space(star([(5, 50)], 1e4, fair=True)) as lab:
        (row,) = uploads(lab, [Upload(0, 1_000_000)])
    alone = Scenario(
        "",
        (Steps.constant(5e6 / 8),),
        (0.05,),
        None,
        1500 / 1448,
        fair=True,
        flows=(Flow(0, 1_000_000, 0, 1),),
    )
    assert row["t_rx"] == pytest.approx(fedsim(alone)[0], rel=0.05)

    with kernel(star([(20, 0)] * 4, 20, fair=True)) as lab:
        measured = uploads(lab, EQUAL)
    assert max(row["t_rx"] for row in measured) == pytest.approx(
        4 * 2_500_000 * 1514 / 1448 / 2.5e6, rel=0.05
    )


@pytest.mark.slow
@pytest.mark.skipif(end_to_end.forbidden() is not None, reason=str(end_to_end.forbidden()))
def test_a_real_round_takes_what_the_clock_says_and_leaves_nothing_behind(tmp_path):
    answer = end_to_end.run([SMALL], ["spin"], ["synchronous"], repetitions=1, out=tmp_path / "run.json")

    (one,) = answer["results"]
    assert abs(one["models"]["fedsim"]["error_percent"]) < 5
    assert json.loads((tmp_path / "run.json").read_text())["results"] == [one]
    assert leftovers() == []


@pytest.mark.slow
@pytest.mark.skipif(end_to_end.forbidden() is not None, reason=str(end_to_end.forbidden()))
@pytest.mark.parametrize(("word", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_nothing_behind(word, code):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.fidelity", "run"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE) as process:
        while not leftovers() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(3)
        process.send_signal(word)
        _, said = process.communicate(timeout=60)

    assert process.returncode == code
    assert b"Traceback" not in said
    assert leftovers() == []
