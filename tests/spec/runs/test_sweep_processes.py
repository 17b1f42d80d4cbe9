"""Points that run at the same time have processes of their own; results are those of one after the other, whatever ends one."""

from __future__ import annotations

import pytest
import yaml

from fedsim.runs.sweep import points, run_all

RULE = """
import os
import signal

from fedsim.aggregators.fedit import FedIT


class Odd(FedIT):
    kind: str = "odd"
    ends: str = "well"

    def init(self, model):
        if self.ends == "killed":
            print("last words")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.ends == "badly":
            raise ValueError("broken on purpose")
        return super().init(model)
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Three points at the same time, of which one is killed and one raises; and the good one beside it alone."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "odd_rules_of_test_sweep_processes.py").write_text(RULE)
    grid = {
        "name": "grid",
        "population": {"preset": "homogeneous", "clients": 8},
        "task": {"kind": "quadratic"},
        "local": {"optimizer": "sgd"},
        "protocol": {"kind": "synchronous", "cohort": 4},
        "aggregator": {"kind": "odd_rules_of_test_sweep_processes:Odd"},
        "budget": {"commits": 3},
        "runtime": {"executor": "inline"},
        "sweep": {"aggregator.ends": ["well", "killed", "badly"]},
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(grid))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        said = []
        results = run_all(points(path, (), folder / "out"), say=said.append, parallel=3)
        path.write_text(yaml.safe_dump(grid | {"sweep": {"aggregator.ends": ["well"]}}))
        run_all(points(path, (), folder / "alone"), say=lambda _: None)
    return folder, {result.point.label: result for result in results}, said


def test_the_tables_are_those_of_one_point_after_the_other(swept):
    folder, results, _ = swept
    assert results["ends-well"].status == "done"
    for name in ("clients", "visits", "commits", "scores"):
        apart, here = (folder / out / "ends-well" / f"{name}.parquet" for out in ("out", "alone"))
        assert apart.read_bytes() == here.read_bytes()
    stored = [(folder / out / "ends-well" / "experiment.yaml").read_bytes() for out in ("out", "alone")]
    assert stored[0] == stored[1]


def test_a_process_that_is_killed_takes_no_other_with_it_and_its_last_words_are_said(swept):
    _, results, _ = swept
    killed = results["ends-killed"]

    assert (killed.status, killed.exit_code) == ("failed", 1)
    assert killed.problem == "its process ended by signal SIGKILL; the last that it said: last words"


def test_an_error_in_a_child_is_said_as_it_is_here(swept):
    _, results, said = swept
    broken = results["ends-badly"]

    assert (broken.status, broken.exit_code) == ("failed", 1)
    assert "odd_rules_of_test_sweep_processes.py" in broken.problem
    assert "broken on purpose" in broken.problem
    assert any(line.startswith("[3/3] ends-badly: failed\nerror: ") for line in said)
    assert said[-1].startswith("sweep: ") or "failed" in said[-1]
