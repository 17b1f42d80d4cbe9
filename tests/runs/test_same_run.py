"""One experiment, one result: whatever the executor, the workers, the delays or the weights."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from worlds import plan
from worlds.same_runs import BUFFERED, DEADLINE, RULES, planned, ruled, with_vector

from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.records.tables import TABLES
from fedsim.records.verify import verify
from fedsim.records.writer import Writer
from fedsim.runs.simulation import course, simulate

SCHEDULE = [c for c in TABLES["visits"] if c not in ("computed", "loss", "loss_square")]


def assert_equal_runs(one, other, columns=None):
    for table in TABLES:
        a, b = getattr(one, table), getattr(other, table)
        if columns is not None:
            if table not in columns:
                continue
            a, b = a[columns[table]], b[columns[table]]
        pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.parametrize("protocol", [DEADLINE, BUFFERED])
def test_the_same_experiment_twice_gives_the_same_tables_to_the_bit(protocol):
    (one, a), (other, b) = with_vector(planned(protocol)), with_vector(planned(protocol))

    assert_equal_runs(one, other)
    assert a.tobytes() == b.tobytes()
    assert np.linalg.norm(a) > 0.1


def test_another_seed_gives_another_run():
    one, _ = with_vector(planned(BUFFERED))
    other, _ = with_vector(planned(BUFFERED, seed=1))

    assert one.visits.client.tolist() != other.visits.client.tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("protocol", [DEADLINE, BUFFERED])
def test_ranks_and_a_base_that_moves_do_not_change_that(protocol, rule):
    (one, a), (other, b) = with_vector(ruled(protocol, rule)), with_vector(ruled(protocol, rule))
    alone = simulate(ruled(protocol, rule), timeline_only=True)

    assert_equal_runs(one, other)
    assert a.tobytes() == b.tobytes()
    assert_equal_runs(one, alone, {"visits": SCHEDULE, "clients": list(TABLES["clients"])})
    assert set(one.visits["rank"]) == ({1, 2, 4} if "rank_by" in RULES[rule]["lora"] else {4})
    assert verify(one) == []


@pytest.mark.ray
def test_unequal_ranks_and_a_moved_base_are_the_same_bits_in_two_workers_and_in_batches_of_any_size():
    from fedsim.executors.ray import RayExecutor

    reference, expected = with_vector(ruled(BUFFERED, "flora", numerics={"client_batch": 1}))
    delayed = ruled(BUFFERED, "flora", delay_s=0.02, numerics={"client_batch": 3})
    run, vector = with_vector(delayed, RayExecutor(workers=2))

    assert_equal_runs(reference, run)
    assert vector.tobytes() == expected.tobytes()


@pytest.mark.ray
def test_inline_one_worker_and_two_workers_with_random_delays_agree_to_the_bit():
    from fedsim.executors.ray import RayExecutor

    for protocol in (DEADLINE, BUFFERED):
        reference, expected = with_vector(planned(protocol))
        for workers in (1, 2):
            run, vector = with_vector(planned(protocol, delay_s=0.02), RayExecutor(workers=workers))
            assert_equal_runs(reference, run)
            assert vector.tobytes() == expected.tobytes()


@pytest.mark.ray
def test_killing_a_worker_in_mid_run_changes_no_table():
    from fedsim.executors.ray import RayExecutor

    reference, expected = with_vector(planned(BUFFERED))
    executor = RayExecutor(workers=2)
    killed = []

    def kill_when_busy():
        # the first worker process, once some commits have been made
        while not done.is_set() and not killed:
            if commits:
                pid = int(executor.places()[0].split()[1])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.01)

    commits, done = [], threading.Event()
    plan_ = planned(BUFFERED, delay_s=0.1)
    thread = threading.Thread(target=kill_when_busy)
    thread.start()
    try:
        tell = lambda kind, facts: commits.append(facts) if kind == "commit" else None
        run, model = course(plan_, executor, Writer(None, plan_.experiment), tell)
    finally:
        done.set()
        thread.join()
        executor.close()

    assert killed
    assert_equal_runs(reference, run)
    assert model.adapter.vector.tobytes() == expected.tobytes()


@pytest.mark.parametrize("protocol", [DEADLINE, BUFFERED])
def test_the_timeline_alone_is_the_timeline_of_the_trained_run(protocol):
    trained, _ = with_vector(planned(protocol))
    alone = simulate(planned(protocol), timeline_only=True)

    schedule = ["version", "time_s", "updates", "mean_staleness", "max_staleness", "up_bytes", "total_joules"]
    assert_equal_runs(
        trained, alone, {"visits": SCHEDULE, "commits": schedule, "clients": list(TABLES["clients"])}
    )
    assert not alone.visits.computed.any()
    assert trained.visits.computed.any()


@pytest.mark.parametrize("protocol", [DEADLINE, BUFFERED])
def test_doubling_all_durations_changes_the_clock_and_nothing_else(protocol):
    """Powers of two are exact in floating point, so every time is twice the other to the bit."""
    slow_protocol = {**protocol, **({"deadline_s": 12.0} if "deadline_s" in protocol else {})}
    one, a = with_vector(planned(protocol, rate=1e3))
    slow = planned(slow_protocol, rate=1e3)
    slow.population.profiles[:] = [
        dataclasses.replace(
            p,
            flops_per_s=p.flops_per_s / 2,
            down_bytes_per_s=p.down_bytes_per_s / 2,
            up_bytes_per_s=p.up_bytes_per_s / 2,
        )
        for p in slow.population.profiles
    ]
    two, b = with_vector(slow)

    twice = [*(c for c in SCHEDULE if c.endswith("_s")), "joules", "gross_joules"]
    same = [*(c for c in SCHEDULE if c not in twice), "loss", "loss_square", "computed"]
    assert_equal_runs(one, two, {"visits": same, "scores": ["version", "split", "metric", "value"]})
    pd.testing.assert_frame_equal(two.visits[twice], 2 * one.visits[twice], check_exact=True)
    assert a.tobytes() == b.tobytes()


def test_fedbuff_over_everybody_in_step_is_synchronous_fedavg():
    """Equal durations and weights, buffer = concurrency = population: the same models, never stale."""
    n = 6
    equal = {"budget": {"commits": 8}, "evaluate": {"every_commits": 1}, "seed": 4}
    buffered = plan(
        {"kind": "buffered", "concurrency": n, "buffer": n},
        [2.0] * n,
        aggregator={"kind": "fedit", "normalize": "K"},
        **equal,
    )
    sync = plan({"kind": "synchronous", "cohort": n}, [2.0] * n, **equal)
    (b, b_vector), (s, s_vector) = with_vector(buffered), with_vector(sync)

    assert (b.visits.staleness.max(), s.visits.staleness.max()) == (0, 0)
    assert b.commits.time_s.tolist() == s.commits.time_s.tolist()
    np.testing.assert_allclose(b.scores.value, s.scores.value, rtol=1e-6)
    np.testing.assert_allclose(b_vector, s_vector, rtol=1e-6)
    weights = plan({"kind": "buffered", "concurrency": n, "buffer": n}, [2.0] * n, **equal)
    assert with_vector(weights)[1].tobytes() == s_vector.tobytes()


def test_visits_that_are_lost_before_a_commit_are_never_trained():
    lossy = planned({"kind": "synchronous", "cohort": 3, "over_select": 2.0})
    run, _ = with_vector(lossy)

    lost = run.visits[run.visits.outcome == "surplus"]
    assert len(lost) > 0
    assert not lost.computed.any()
    assert run.visits[run.visits.committed_version > 0].computed.all()
    assert run.info.saved_share == 1 - run.visits.computed[run.visits.outcome != "polled"].mean()


def test_the_last_version_is_scored_at_the_time_of_its_commit():
    run, _ = with_vector(planned(BUFFERED, budget={"time_s": 30.0}, evaluate={"every_commits": 1000}))

    assert run.scores.time_s.max() == run.commits.time_s.max() < 30.0


def test_a_failing_client_is_named_in_the_tables_even_when_others_share_its_batch():
    from fedsim.errors import Message, WorkerError
    from fedsim.executors.inline import Inline

    class Broken(Inline):
        def train(self, batch):
            ticket = super().train(batch)
            if any(job.client == 5 for job in batch):
                ticket.result = lambda: (_ for _ in ()).throw(
                    WorkerError(Message("no", "whatever its words are", blamed=((5, 0),)))
                )
            return ticket

    everyone = planned({"kind": "synchronous", "cohort": 8}, numerics={"client_batch": 8})
    writer = Writer(None, everyone.experiment)
    with pytest.raises(WorkerError, match=r"whatever its words are \(version 0\): no"):
        course(everyone, Broken(), writer, lambda *_: None)
    visits = writer.close(status="failed").visits

    assert visits[visits.outcome == "failed"].client.tolist() == [5]


def test_local_only_training_shares_nothing_passes_its_audit_and_personalises_its_own_adapters():
    alone = planned({"kind": "buffered", "concurrency": 8, "buffer": 1}, aggregator={"kind": "local-only"})
    run, vector = with_vector(alone)

    assert verify(run) == []
    assert (run.visits.up_bytes.sum(), run.visits.down_bytes.sum()) == (0, 0)
    assert not vector.any()  # the shared model never moved
    trained = set(run.visits[run.visits.committed_version > 0].client)
    assert 0 < len(trained) < 8
    for row in run.personal.itertuples():
        untouched = 0.5 * float(np.sum(alone.task.optima[row.client] ** 2))  # version 0 is the origin
        assert row.metric_global == pytest.approx(untouched)  # the shared model is version 0
        assert row.metric_personal < (0.81 if row.client in trained else 0.9) * untouched


def test_client_batches_do_not_change_what_one_by_one_training_gives():
    small, a = with_vector(planned(BUFFERED, numerics={"client_batch": 1}))
    large, b = with_vector(planned(BUFFERED, numerics={"client_batch": 7}))

    assert_equal_runs(small, large)
    assert a.tobytes() == b.tobytes()


def test_runtime_and_name_are_not_part_of_the_digest_and_numerics_are():
    base = planned(BUFFERED).experiment
    other = base.model_copy(
        update={"name": "other", "runtime": base.runtime.model_copy(update={"workers": 7})}
    )
    numeric = Experiment.model_validate({**base.plain(), "numerics": {"client_batch": 5}})

    assert other.digest == base.digest
    assert numeric.digest != base.digest


def test_training_converges_to_the_mean_of_the_optima():
    """Everybody, equal weights, many rounds: FedAvg on quadratics ends at the mean optimum."""
    everybody = plan({"kind": "synchronous", "cohort": 8}, [1.0] * 8, budget={"commits": 120})
    _, vector = with_vector(everybody)

    np.testing.assert_allclose(vector, everybody.task.optima.mean(axis=0), atol=1e-4)


BY_TIER = {"r": 8, "rank_by": "tier", "ranks": {tier: (2, 4, 8)[i % 3] for i, tier in enumerate(CLASSES)}}


@pytest.mark.ray
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
        runs[name] = simulate(Experiment.model_validate({**blocks, "runtime": runtime}), out=tmp_path / name)

    assert_equal_runs(runs["inline"], runs["ray"])
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


@pytest.mark.ray
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
