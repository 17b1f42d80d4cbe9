"""Whole runs on clusters of several raylets: shipped models, a node lost in mid-run, other software, tokens, a SLURM job."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from worlds.executor_worlds import gone, python

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

TWO_NODES = """
import shutil, signal
from contextlib import suppress
from pathlib import Path
from ray.cluster_utils import Cluster
from fedsim import Experiment, simulate
from fedsim.builtin import model_folder

folder = Path({folder!r})
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False, "env_vars": {{"XDG_CACHE_HOME": str(folder / "node1")}}}})
second = cluster.add_node(num_cpus=1, env_vars={{"XDG_CACHE_HOME": str(folder / "node2")}})
cluster.wait_for_nodes()
tables = ("clients", "visits", "commits", "scores", "personal")

def content(name):
    files = [f"{{table}}.parquet" for table in tables] + ["adapter/adapter_model.safetensors"]
    return {{file: (folder / name / file).read_bytes() for file in files if (folder / name / file).is_file()}}
"""
"""A cluster of two nodes, each with a cache of its own."""

SHIPPED = """
home = folder / "home" / "model"
home.parent.mkdir()
shutil.copytree(model_folder(), home)
blocks = {
    "population": {"preset": "mixed_edge_2025", "clients": 12, "availability": "charging"},
    "task": {"kind": "language", "model": str(home), "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20000}},
    "local": {"lr": 5e-3, "steps": 2, "batch": 4},
    "protocol": {"kind": "buffered", "concurrency": 3, "buffer": 2},
    "budget": {"commits": 6},
    "evaluate": {"every_commits": 2, "windows": 64},
}
simulate(Experiment.model_validate({**blocks, "runtime": {"executor": "inline"}}), out=folder / "inline")
executor = RayExecutor(workers=2, address=cluster.address, ship=["model"])
weights, away = home / "model.safetensors", folder / "away"
told = []

def happen(kind, facts):
    if kind == "start":
        weights.rename(away)  # the nodes have their own by now
    elif kind == "commit" and facts["version"] == 2:
        cluster.remove_node(second, allow_graceful=False)
        told.append("a node is gone")
    elif kind == "commit" and facts["version"] == 4:
        for place in executor.places():  # the one worker that is left; the next one loads the model anew
            if place.startswith("pid"):
                with suppress(ProcessLookupError):
                    os.kill(int(place.split()[1]), signal.SIGKILL)
                    told.append("a worker is gone")
    elif kind == "commit" and facts["version"] == 6:
        away.rename(weights)  # the driver writes the adapter

run = simulate(Experiment.model_validate(blocks), executor, out=folder / "cluster", on_event=happen)
executor.close()
assert told == ["a node is gone", "a worker is gone"] and run.info.workers == 2, told
assert content("cluster") == content("inline") and len(content("cluster")) == 6, sorted(content("cluster"))
assert sum(run.info.processors.values()) == 2 and run.info.mixed == "", run.info.processors
caches = [sorted(p.name for p in (folder / f"node{n}" / "fedsim" / "shipped").iterdir() if p.is_dir()) for n in (1, 2)]
assert caches[0] == caches[1] and len(caches[0]) == 1, caches
shipped = folder / "node2" / "fedsim" / "shipped" / caches[0][0]
assert (shipped / "model.safetensors").read_bytes() == (model_folder() / "model.safetensors").read_bytes()

cluster.add_node(num_cpus=1, env_vars={"XDG_CACHE_HOME": str(folder / "node2"), "ATEN_CPU_CAPABILITY": "default"})
cluster.wait_for_nodes()
quadratic = {**blocks, "task": {"kind": "quadratic", "charge_as": blocks["task"]["charge_as"]}, "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2}}
simulate(Experiment.model_validate({**quadratic, "runtime": {"executor": "inline"}}), out=folder / "inline2")
run = simulate(Experiment.model_validate({**quadratic, "runtime": {"address": cluster.address}}), out=folder / "mixed")
assert content("mixed") == content("inline2")
assert sorted(run.info.processors.values()) == [1, 1] and "differ" in run.info.mixed, run.info
assert any(kind.endswith(", DEFAULT") for kind in run.info.processors)
cluster.shutdown()
print("equal")
"""


def script_of(*parts, folder):
    return "\n".join([textwrap.dedent(parts[0]).format(folder=str(folder)), *map(textwrap.dedent, parts[1:])])


def ran(script, *, timeout_s=600, **environment):
    """Run a script in a process of its own; returns what it printed last, checks that nothing of it is left."""
    # Ray's workers are as nice as the driver: 15 more would starve them on a machine with other work
    with python(script, {"RAY_worker_niceness": "0", **environment}) as (process, others):
        said, _ = process.communicate(timeout=timeout_s)
        assert gone(others)
    return said.splitlines()[-1] if said.strip() else said


def test_a_shipped_model_and_the_loss_of_a_node_change_no_byte(tmp_path):
    assert ran(script_of(TWO_NODES, SHIPPED, folder=tmp_path)) == "equal"


HOOK = """
import importlib.util, os, sys
class Elsewhere:
    def find_spec(self, name, path=None, target=None):
        if name != "fedsim" or "ELSEWHERE" not in os.environ:
            return None
        if os.environ["ELSEWHERE"] == "nowhere":
            raise ModuleNotFoundError(name)
        folder = os.environ["ELSEWHERE"]
        return importlib.util.spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.meta_path.insert(0, Elsewhere())
"""
"""A node's Python that finds another fedsim, or none: on one machine all raylets have the same files."""

OTHERS = """
from fedsim.errors import HostError
from fedsim.executors.ray import RayExecutor

def refused(**settings):
    executor = RayExecutor(address=cluster.address, **settings)
    try:
        executor.open(t.quadratic())
    except HostError as problem:
        return str(problem)
    finally:
        executor.close()

import fedsim
copy = folder / "other" / "fedsim"
shutil.copytree(Path(fedsim.__file__).parent, copy)
with (copy / "rng.py").open("a") as file:
    file.write("# one line more\\n")
hook = folder / "hook"
hook.mkdir()
(hook / "sitecustomize.py").write_text(HOOK)
here = {"PYTHONPATH": f"{hook}:{os.environ['PYTHONPATH']}"}
cluster.remove_node(second)
third = cluster.add_node(num_cpus=1, env_vars={**here, "ELSEWHERE": str(copy)})
fourth = cluster.add_node(num_cpus=1, env_vars={**here, "ELSEWHERE": "nowhere"})
cluster.wait_for_nodes()
said = refused()
assert "has other files there" in said and str(copy) in said, said
assert "fedsim is not installed there" in said, said
cluster.remove_node(third)
cluster.remove_node(fourth)
cluster.wait_for_nodes()
said = refused(workers=9)
assert "Ray has 1 CPUs on 1 nodes, one a worker (got 9)" in said, said
said = refused(gpus_per_worker=0.5)
assert "Ray has 0 GPUs" in said, said
said = refused(ship=["model"])
assert "does not say which files its workers read" in said, said
cluster.shutdown()
print("refused")
"""


def test_a_node_with_other_files_of_fedsim_and_workers_without_a_place_are_refused(tmp_path):
    assert ran(script_of(TWO_NODES, f"HOOK = {HOOK!r}", OTHERS, folder=tmp_path)) == "refused"


BUSY = """
import threading
from fedsim.errors import HostError
from fedsim.executors import ray_session
from fedsim.executors.ray import RayExecutor
holder = RayExecutor(workers=1, address=cluster.address)
holder.open(t.quadratic())
import subprocess
code = '''
import sys
from worlds import executor_worlds as t
from fedsim.executors import ray_session
from fedsim.executors.ray import RayExecutor
ray_session.FREE_S = 2.0
for workers in (2, "auto"):
    executor = RayExecutor(workers=workers, address=sys.argv[1])
    try:
        executor.open(t.quadratic())
        print(executor.workers, executor.reason)
    except t.HostError as problem:
        print(str(problem).splitlines()[0])
    executor.close()
'''
done = subprocess.run([sys.executable, "-c", code, cluster.address], capture_output=True, text=True, timeout=200)
print(done.stderr, file=sys.stderr)
lines = done.stdout.splitlines()
assert "1 of the 2 places on 2 nodes are free, others hold the rest (got 2)" in lines[0], lines
assert lines[1] == "1 1 of 2 places on 2 nodes are free", lines
holder.close()
cluster.shutdown()
print("said")
"""


def test_what_others_hold_is_waited_for_and_then_said(tmp_path):
    assert ran(script_of(TWO_NODES, BUSY, folder=tmp_path)) == "said"


# tokens -----------------------------------------------------------------------------------------

TOKENS = """
import subprocess
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
code = '''
import sys
from worlds import executor_worlds as t
from fedsim.executors.ray import RayExecutor
executor = RayExecutor(workers=1, address=sys.argv[1])
try:
    executor.open(t.quadratic())
    print("open")
except t.HostError as problem:
    print(str(problem).splitlines()[0])
executor.close()
'''

def said(**environment):
    ours = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    ours["HOME"] = str(EMPTY)
    command = [sys.executable, "-c", code, cluster.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**ours, **environment})
    print(environment, done.stdout, done.stderr[-300:], file=sys.stderr)
    return done.stdout.strip()

import tempfile
from pathlib import Path
EMPTY = Path(tempfile.mkdtemp())
(EMPTY / "token").write_text(os.environ["RAY_AUTH_TOKEN"])
right = os.environ["RAY_AUTH_TOKEN"]
assert said(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=right) == "open"
assert said(RAY_AUTH_TOKEN=right) == "open"
assert said(RAY_AUTH_TOKEN_PATH=str(EMPTY / "token")) == "open"
assert "wants a token, and this process has none" in said()
assert "wants a token, and this process has none" in said(RAY_AUTH_MODE="token")
wrong = "0" * 64
assert "does not take this process's token" in said(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=wrong)
assert "does not take this process's token" in said(RAY_AUTH_TOKEN=wrong)
(EMPTY / ".ray").mkdir()
(EMPTY / ".ray" / "auth_token").write_text(right)
assert said() == "open"
cluster.shutdown()
print("said")
"""


def test_a_token_is_used_and_a_missing_or_wrong_one_is_said(tmp_path):
    assert ran(TOKENS, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="ab" * 32) == "said"


# a long TMPDIR ----------------------------------------------------------------------------------

OWN = """
executor = RayExecutor(workers=1)
executor.open(t.quadratic())
assert t.outcome(executor, t.quadratic()) == expected
import ray
print(ray._private.worker._global_node.get_session_dir_path())
executor.close()
"""


def test_a_long_tmpdir_is_no_trouble_for_a_ray_of_our_own(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()

    assert ran(OWN, TMPDIR=str(long), RAY_TMPDIR="").startswith(f"/tmp/fedsim-ray-{os.getuid()}/")


# SLURM ------------------------------------------------------------------------------------------

EXPERIMENT = """
population: {preset: homogeneous, clients: 12}
task: {kind: quadratic, delay_s: 0.01, charge_as: {preset: gemma-3-270m, tokens_per_visit: 20000}}
local: {optimizer: sgd, lr: 0.1, steps: 2}
protocol: {kind: synchronous, cohort: 4}
budget: {commits: 5}
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
printf 'one\\ntwo\\n'
"""


def own_address():
    """Return the address by which other machines would reach this one, as Ray finds it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("8.8.8.8", 80))
        return asked.getsockname()[0]


def test_the_slurm_script_runs_an_experiment_on_all_nodes_of_its_job_and_leaves_nothing(tmp_path):
    """SLURM itself is played: `srun` runs the command here, the job has two nodes, both are this machine."""
    bin_ = tmp_path / "venv" / "bin"
    bin_.mkdir(parents=True)
    ray = Path(sys.executable).parent / "ray"
    own = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "hostname": f"#!/bin/bash\necho {own_address()}\n",
        "ray": f'#!/bin/bash\nexec {ray} "$@"\n',
        "python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
        "fedsim": f'#!/bin/bash\nexec {sys.executable} -m fedsim "$@"\n',
    }
    for name, text in own.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(stat.S_IRWXU)
    (tmp_path / "my.yaml").write_text(EXPERIMENT)
    environment = {
        **os.environ,
        "FEDSIM_VENV": str(tmp_path / "venv"),
        "SLURM_JOB_ID": str(70000 + os.getpid() % 10000),
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
    }
    done = subprocess.run(
        ["bash", ROOT / "deploy" / "slurm.sh", tmp_path / "my.yaml", tmp_path / "run"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.search(r"\b2 workers\b", done.stderr), done.stderr
    assert '"status": "done"' in (tmp_path / "run" / "run.json").read_text()
    secret = re.findall(r"[0-9a-f]{64}", (tmp_path / "run" / "experiment.yaml").read_text())
    assert secret == []
