"""What a worker needs for a task: few modules and no torch to unpickle it, and the files that the task names."""

import pickle
import shutil
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

MOST = 36
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


def context():
    return TaskContext(4, 0, LoraConfig(r=4, targets="all-linear"), LocalConfig(optimizer="sgd", lr=0.1))


def test_a_language_task_names_its_model_and_trains_from_where_it_is_moved_to(tmp_path):
    from fedsim.builtin import model_folder

    home, node = tmp_path / "home", tmp_path / "node"
    shutil.copytree(model_folder(), home)
    shutil.copytree(model_folder(), node)
    task = Language(model=str(home)).build(context())
    moved = task.moved({str(home): str(node)}.__getitem__)

    assert task.files(["model"]) == {str(home): home}
    assert task.files(["data"]) == {}
    shutil.rmtree(home)  # the node has none
    probe = task.probes("test")[0]
    there = moved.score(task.initial(), probe)
    assert there == Language().build(context()).score(task.initial(), probe)


def test_an_images_task_names_what_looks_at_its_samples_too(tmp_path):
    from fedsim.builtin import digits

    classifier = tmp_path / "classifier.safetensors"
    shutil.copy(digits.model_folder() / "classifier.safetensors", classifier)
    images = Images(samples=20, features={"kind": "classifier", "classifier": str(classifier)})
    lora = LoraConfig(r=4, targets=("attention", "resnets"))
    task = images.build(TaskContext(4, 0, lora, LocalConfig(optimizer="sgd", lr=0.1)))
    moved = task.moved(lambda name: f"/node{name}")

    assert task.files(["model"]) == {task.model: Path(task.model), str(classifier): classifier}
    assert task.files(["data"]) == {}
    assert (moved.model, moved.features.classifier) == (f"/node{task.model}", f"/node{classifier}")
    assert moved.features.weights is None
    assert (
        Images(features={"kind": "none"})
        .build(TaskContext(4, 0, lora, LocalConfig(optimizer="sgd", lr=0.1)))
        .moved(str)
        .features
        is None
    )
