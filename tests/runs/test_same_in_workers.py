"""Whole runs in workers of Ray: the tables, models and refusals of the same runs in this process, to the bit."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import cache

import pytest
from safetensors.torch import load_file, save_file
from worlds.same_runs import BUFFERED, DEADLINE, planned, ruled, with_vector
from worlds.whole_runs import assert_same, run_on

from fedsim.cli import app
from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.executors.ray import RayExecutor
from fedsim.records.tables import TABLES
from fedsim.records.verify import verify
from fedsim.records.writer import Writer
from fedsim.runs.simulation import course, simulate

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]

DITTO = {"personal": {"kind": "ditto", "lam": 0.5, "unseen": 2, "local_epochs": 1}}


@pytest.fixture(scope="module")
def one_worker(ray_here):
    with closing(RayExecutor(workers=1)) as executor:
        yield executor


@pytest.fixture(scope="module")
def two_workers(ray_here):
    with closing(RayExecutor(workers=2)) as executor:
        yield executor


@cache
def inline(name):
    """The run and the final vector of a plan in this process."""
    return with_vector(PLANS[name]())


PLANS = {
    "deadline": lambda **blocks: planned(DEADLINE, **blocks),
    "buffered": lambda **blocks: planned(BUFFERED, **blocks),
    "ditto": lambda **blocks: planned(BUFFERED, **DITTO, **blocks),
    "unequal ranks and a moved base": lambda **blocks: ruled(BUFFERED, "flora", **blocks),
}
"""Name -> a function of the delay of a worker's answers and of other blocks."""


@pytest.mark.parametrize(
    ("name", "workers"),
    [*((name, "two_workers") for name in PLANS), ("deadline", "one_worker"), ("buffered", "one_worker")],
)
def test_workers_with_random_delays_agree_with_this_process_to_the_bit(name, workers, request):
    reference, expected = inline(name)
    run, model = run_on(PLANS[name](delay_s=0.02), request.getfixturevalue(workers))

    assert_same(reference, run)
    assert model.adapter.vector.tobytes() == expected.tobytes()


def test_unequal_ranks_and_a_moved_base_are_the_same_bits_in_batches_of_any_size(two_workers):
    name = "unequal ranks and a moved base"
    reference, expected = with_vector(PLANS[name](numerics={"client_batch": 1}))
    run, model = run_on(PLANS[name](delay_s=0.02, numerics={"client_batch": 3}), two_workers)

    assert_same(reference, run)
    assert model.adapter.vector.tobytes() == expected.tobytes()


def test_killing_a_worker_in_mid_run_changes_no_table(two_workers):
    reference, expected = inline("buffered")
    killed = []

    def kill_when_busy():
        # the first worker process, once some commits have been made
        while not done.is_set() and not killed:
            if commits:
                pid = int(two_workers.places()[0].split()[1])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.01)

    commits, done = [], threading.Event()
    plan = planned(BUFFERED, delay_s=0.1)
    thread = threading.Thread(target=kill_when_busy)
    thread.start()
    try:
        tell = lambda kind, facts: commits.append(facts) if kind == "commit" else None
        run, model = course(plan, two_workers, Writer(None, plan.experiment), tell)
    finally:
        done.set()
        thread.join()

    assert killed
    assert_same(reference, run)
    assert model.adapter.vector.tobytes() == expected.tobytes()


BY_TIER = {"r": 8, "rank_by": "tier", "ranks": {tier: (2, 4, 8)[i % 3] for i, tier in enumerate(CLASSES)}}


@pytest.mark.parametrize(
    "rule", [pytest.param({}, marks=pytest.mark.slow), {"aggregator": {"kind": "flora"}, "lora": BY_TIER}]
)
def test_real_adapters_are_the_same_bits_inline_and_in_two_ray_workers(tmp_path, rule):
    """Torch, PEFT, the embedded model and text: every table, and the adapter's file."""
    blocks = {
        "population": {"preset": "mixed_edge_2025", "clients": 12, "availability": "charging"},
        "task": {"kind": "language", "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20000}},
        "local": {"lr": 5e-3, "steps": 2, "batch": 4},
        "protocol": {"kind": "buffered", "concurrency": 3, "buffer": 2},
        "budget": {"commits": 3},
        "evaluate": {"every_commits": 2, "windows": 64},
        "personal": {"kind": "fine-tune", "clients": 2},
        **rule,
    }
    runs = {}
    for name, runtime in {"inline": {"executor": "inline"}, "ray": {"executor": "ray", "workers": 2}}.items():
        runs[name] = simulate(
            Experiment.model_validate({**blocks, "runtime": runtime}), out=tmp_path / name, report=False
        )

    assert_same(runs["inline"], runs["ray"])
    for table in TABLES:
        assert (tmp_path / "inline" / f"{table}.parquet").read_bytes() == (
            tmp_path / "ray" / f"{table}.parquet"
        ).read_bytes()
    inline_adapter, ray_adapter = (
        tmp_path / n / "adapter" / "adapter_model.safetensors" for n in ("inline", "ray")
    )
    assert inline_adapter.read_bytes() == ray_adapter.read_bytes()
    assert verify(runs["ray"]) == []
    assert runs["ray"].clients["rank"].nunique() == (3 if rule else 1)
    perplexity = runs["ray"].scores[runs["ray"].scores.metric == "perplexity"].value
    assert perplexity.iloc[-1] < perplexity.iloc[0]


TWO_RAYLETS = """
import sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from fedsim import Experiment, simulate

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
blocks = {
    "population": {"preset": "mixed_edge_2025", "clients": 30, "availability": "charging"},
    "task": {"kind": "quadratic", "delay_s": 0.02, "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20000}},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
    "protocol": {"kind": "synchronous", "cohort": 3, "over_select": 1.5, "deadline_s": 3600},
    "budget": {"commits": 10},
    "personal": {"kind": "fine-tune"},
}
folder = Path(sys.argv[1])
inline = simulate(Experiment.model_validate({**blocks, "runtime": {"executor": "inline"}}), out=folder / "inline")
joined = simulate(Experiment.model_validate({**blocks, "runtime": {"address": cluster.address}}), out=folder / "joined")
assert joined.info.workers == 2, joined.info
assert len(inline.commits) == 10 and inline.visits.outcome.nunique() >= 3
for table in ("clients", "visits", "commits", "scores", "personal"):
    assert (folder / "inline" / f"{table}.parquet").read_bytes() == (folder / "joined" / f"{table}.parquet").read_bytes()
cluster.shutdown()
print("equal")
"""


@pytest.mark.slow
def test_two_raylets_joined_by_their_address_give_the_same_tables(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO_RAYLETS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.stdout.splitlines()[-1:] == ["equal"], done.stderr[-2000:]


def test_a_model_that_lacks_weights_leaves_no_run_folder(llama, tmp_path, capsys):
    """What a worker finds out is said as what this process does."""
    path = tmp_path / "spoilt"
    shutil.copytree(llama, path)
    tensors = load_file(path / "model.safetensors")
    whole = {name: weights for name, weights in tensors.items() if ".0.mlp." not in name}
    save_file(whole, path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "exp.yaml").write_text(
        f"task: {{kind: language, model: {path}, sequence: 16}}\n"
        "population: {preset: homogeneous, clients: 2}\nlocal: {steps: 1}\n"
        "runtime: {executor: ray, workers: 1}\n"
        "protocol: {kind: synchronous, cohort: 2}\nbudget: {commits: 1}\n"
    )
    code = app.call(["run", str(tmp_path / "exp.yaml"), "--out", str(tmp_path / "out")])

    assert code == 2
    assert "the checkpoint lacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
