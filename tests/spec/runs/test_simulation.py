"""One run: whom its executor belongs to, and which files it leaves."""

from __future__ import annotations

import os
import subprocess
import sys

from worlds import experiment, plan

from fedsim.executors.inline import Inline
from fedsim.runs import simulation
from fedsim.runs.simulation import simulate

ROUND = {"kind": "synchronous", "cohort": 1}


class Counted(Inline):
    """Counts how often it was closed."""

    closed = 0

    def close(self):
        self.closed += 1
        super().close()


def test_an_executor_that_is_passed_in_belongs_to_the_caller_and_serves_again():
    executor = Counted()
    runs = [simulate(plan(ROUND, [1.0, 2.0]), executor) for _ in range(2)]

    assert executor.closed == 0
    assert runs[0].scores.equals(runs[1].scores)


def test_an_executor_of_its_own_is_closed_also_when_the_run_fails(monkeypatch):
    executor = Counted()
    monkeypatch.setattr(simulation, "executor_for", lambda _: executor)
    simulate(experiment(ROUND, 2))
    assert executor.closed == 1


def test_a_call_that_declines_the_page_gets_none_and_loads_no_plotly(tmp_path):
    code = f"""
import sys
from worlds import plan
from fedsim.runs.simulation import simulate
run = simulate(plan({ROUND}, [1.0, 2.0]), timeline_only=True, out={str(tmp_path / "a")!r}, report=False)
assert "plotly" not in sys.modules
assert (run.folder / "run.json").exists() and not (run.folder / "report.html").exists()
run = simulate(plan({ROUND}, [1.0, 2.0]), timeline_only=True, out={str(tmp_path / "b")!r})
assert (run.folder / "report.html").exists()
"""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
