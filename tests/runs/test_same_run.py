"""One experiment, one result: whatever the batches, the durations or the weights."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from worlds import plan
from worlds.same_runs import BUFFERED, DEADLINE, RULES, planned, ruled, with_vector

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
