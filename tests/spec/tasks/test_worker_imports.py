"""What a worker imports of fedsim to unpickle a task: the task and what crosses to it, no server, no physics, no torch."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import fedsim
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.jobs import TaskContext
from fedsim.tasks.images import Images
from fedsim.tasks.language import Language
from fedsim.tasks.quadratic import Quadratic

MOST = 25
"""Modules of fedsim, itself included."""
COUNT = """
import pickle, sys
task = pickle.load(open(sys.argv[1], "rb"))
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("fedsim", "torch")))
"""


def unpickled(task, folder):
    """The modules of fedsim, and torch, that a fresh process has after it has unpickled a task."""
    path = folder / "task.pickle"
    path.write_bytes(pickle.dumps(task))
    root = str(Path(fedsim.__file__).parents[1])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}){COUNT}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("component", "targets"),
    [
        (Language(), "all-linear"),
        (Images(samples=20), ("attention", "resnets")),
        (Quadratic(layout="lora"), "all-linear"),
    ],
    ids=["language", "images", "quadratic"],
)
def test_a_worker_unpickles_a_task_with_few_modules_and_without_torch(component, targets, tmp_path):
    context = TaskContext(4, 0, LoraConfig(r=4, targets=targets), LocalConfig(optimizer="sgd", lr=0.1))
    task = component.build(context)
    task.probes("test")
    task.initial()
    modules = unpickled(task, tmp_path)
    assert "fedsim.jobs" in modules
    assert "torch" not in modules
    assert len(modules) <= MOST, modules
