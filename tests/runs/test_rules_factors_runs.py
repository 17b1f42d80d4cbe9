"""Rules over the factors in real runs: the quadratic task against its algebra, and a small language model."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from oracles import stale_rules
from worlds import plan
from worlds.whole_runs import finished, run_on

from fedsim.clock.plan import Plan

N = 4
RANKS = (4, 2, 2, 1)
LR, STEPS = 0.5, 2
Q = (1 - LR) ** STEPS
"""A visit takes a client from x to c + Q (x - c)."""
SYNC = {"kind": "synchronous", "cohort": N}
KINDS = ["fedit", "ffa", "rolora", "fedsa", "hetlora", "mixing"]


def planned(rule, protocol=SYNC, *, commits, ranks=None, train_s=(1.0,) * N, scale="common", **blocks):
    """Four clients on the quadratic task of one 4 x 4 matrix at rank 4; a client's tier names its rank."""
    lora = {"r": 4, "alpha": 8.0}
    if ranks is not None:
        lora |= {"rank_by": "tier", "ranks": {f"r{r}": r for r in ranks}, "scale": scale}
    made = plan(
        protocol,
        list(train_s),
        task={"kind": "quadratic", "layout": "lora", "dimension": 4, "spread": 3.0},
        lora=lora,
        aggregator=rule,
        local={"optimizer": "sgd", "lr": LR, "steps": STEPS},
        budget={"commits": commits},
        **blocks,
    )
    if ranks is None:
        return made
    profiles = made.population.profiles
    made.population.profiles = [
        dataclasses.replace(p, tier=f"r{r}") for p, r in zip(profiles, ranks, strict=True)
    ]
    return Plan(made.experiment, made.population, made.task, made.shape)


def factors_of(made, values):
    """(A, B) of the task's one matrix: A (4, 3), B (3, 4)."""
    arrays = made.task.layout.arrays(np.asarray(values))
    return arrays["w.lora_A"], arrays["w.lora_B"]


def ended(made):
    """What the factors are at the end of a run of a plan."""
    return factors_of(made, finished(made)[1].adapter.vector)


def mean_optimum(made):
    return factors_of(made, made.task.optima.mean(axis=0))


# fixed points ----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["weights", "K"])
def test_fedit_goes_to_the_mean_optimum_at_the_rate_of_a_visit(normalize):
    """x_t = c + Q^t (x_0 - c), c the mean of the clients' optima."""
    made = planned({"kind": "fedit", "normalize": normalize}, commits=3)
    x, c = made.task.initial(), made.task.optima.mean(axis=0)

    np.testing.assert_allclose(finished(made)[1].adapter.vector, c + Q**3 * (x - c), rtol=1e-5, atol=1e-6)


def test_ffa_goes_to_the_mean_optimum_in_b_and_stays_where_it_began_in_a():
    made = planned({"kind": "ffa"}, commits=3)
    a, b = ended(made)

    assert a.tobytes() == factors_of(made, made.task.initial())[0].tobytes()
    np.testing.assert_allclose(b, (1 - Q**3) * mean_optimum(made)[1], rtol=1e-5, atol=1e-6)


def test_rolora_moves_b_in_every_other_commit_and_a_in_the_others():
    """After 5 commits: 3 of B, 2 of A."""
    made = planned({"kind": "rolora"}, commits=5)
    (a, b), (c_a, c_b) = ended(made), mean_optimum(made)
    a0, _ = factors_of(made, made.task.initial())

    np.testing.assert_allclose(b, (1 - Q**3) * c_b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a, c_a + Q**2 * (a0 - c_a), rtol=1e-5, atol=1e-6)


def test_fedsa_goes_to_the_mean_optimum_in_a_and_every_client_to_its_own_in_b():
    made = planned({"kind": "fedsa"}, commits=3)
    rule = made.experiment.aggregator
    _, model = finished(made)
    a0, _ = factors_of(made, made.task.initial())
    c_a = mean_optimum(made)[0]

    assert not np.any(factors_of(made, model.adapter.vector)[1])
    for k in range(N):
        a, b = factors_of(made, rule.client_model(model, k))
        np.testing.assert_allclose(a, c_a + Q**3 * (a0 - c_a), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            b, (1 - Q**3) * factors_of(made, made.task.optima[k])[1], rtol=1e-5, atol=1e-6
        )


def test_fedasync_of_a_whole_round_stops_where_the_last_clients_count_most():
    """x <- (1 - a)^N x + sum_k a (1 - a)^(N - 1 - k) (c_k + Q (x - c_k)): a fixed point by linear algebra."""
    a = 0.3
    made = planned({"kind": "mixing", "alpha": a}, commits=40)
    shares = a * (1 - a) ** np.arange(N - 1, -1, -1)
    x = (1 - Q) * shares @ made.task.optima / (1 - (1 - a) ** N - Q * shares.sum())

    np.testing.assert_allclose(finished(made)[1].adapter.vector, x, rtol=1e-5, atol=1e-5)
    assert np.abs(x - made.task.optima.mean(axis=0)).max() > 0.05, "biased"


def test_hetlora_stops_where_weights_by_norm_balance_which_is_not_the_mean_optimum():
    """x = sum_k w_k (c_k + Q (x - c_k)) means x = sum_k w_k c_k, with w_k of the ends themselves."""
    made = planned({"kind": "hetlora"}, commits=60)
    x = finished(made)[1].adapter.vector.astype(np.float64)
    optima = made.task.optima
    ends = [factors_of(made, c + Q * (x - c)) for c in optima]
    norms = np.array([np.linalg.norm(b @ a) for a, b in ends])

    np.testing.assert_allclose(x, (norms / norms.sum()) @ optima, rtol=1e-4, atol=1e-5)
    assert np.abs(x - optima.mean(axis=0)).max() > 0.01


# unequal ranks ---------------------------------------------------------------------------------


def owners(j):
    return [k for k, rank in enumerate(RANKS) if rank > j]


@pytest.mark.parametrize("kind", ["fedit", "hetlora"])
@pytest.mark.parametrize("padding", ["zeros", "rows", "moves"])
def test_padding_with_zeros_has_a_bias_towards_zero_and_rows_and_moves_have_none(kind, padding):
    """Slot j, owned by a share m of the weight, stops at m (1 - Q) / (1 - m Q) times its owners' mean optimum."""
    rule = {"kind": kind, "padding": padding} | ({"weights": "examples"} if kind == "hetlora" else {})
    made = planned(rule, commits=60, ranks=RANKS)
    a, b = ended(made)
    for j in range(4):
        m = len(owners(j)) / N
        shrunk = m * (1 - Q) / (1 - m * Q) if padding == "zeros" else 1.0
        assert padding != "zeros" or j == 0 or shrunk < 0.9
        for found, which, row in ((a, 0, (j,)), (b, 1, (slice(None), j))):
            aim = np.mean([factors_of(made, made.task.optima[k])[which][row] for k in owners(j)], axis=0)
            np.testing.assert_allclose(found[row], shrunk * aim, rtol=1e-4, atol=1e-4)


def test_fedasync_brings_slots_to_those_who_have_them():
    made = planned({"kind": "mixing", "alpha": 0.5}, commits=60, ranks=RANKS)
    a, _ = ended(made)

    np.testing.assert_allclose(a[3], factors_of(made, made.task.optima[0])[0][3], rtol=1e-4)


@pytest.mark.parametrize("kind", ["ffa", "rolora", "fedsa"])
def test_rules_of_one_factor_run_with_unequal_ranks_and_their_own_scales(kind):
    """At twice the scale a client's B is half as large: it stops at half the way to its optimum, in its own units."""
    made = planned({"kind": kind, "padding": "rows"}, commits=40, ranks=RANKS, scale="own")
    _, model = finished(made)
    a, b = factors_of(made, model.adapter.vector)
    c = [factors_of(made, optimum) for optimum in made.task.optima]
    for j in range(4):
        if kind != "ffa":
            np.testing.assert_allclose(
                a[j], np.mean([c[k][0][j] for k in owners(j)], axis=0), rtol=1e-4, atol=1e-4
            )
        if kind != "fedsa":  # alpha / r_k = 8 / r_k against the server's 8 / 4: B counts 4 / r_k times
            aims = [4 / RANKS[k] * c[k][1][:, j] for k in owners(j)]
            np.testing.assert_allclose(b[:, j], np.mean(aims, axis=0), rtol=1e-4, atol=1e-4)
    if kind == "fedsa":
        b3 = factors_of(made, made.experiment.aggregator.client_model(model, 3))[1]
        np.testing.assert_allclose(b3[:, 0], 4 * c[3][1][:, 0], rtol=1e-4)
        assert not np.any(b3[:, 1:])


# asynchronous ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_of_everybody_at_equal_speed_is_the_synchronous_run_to_the_bit(kind):
    """FedBuff with K = concurrency = everybody is FedAvg: nobody is stale, and the sums are taken in one order."""
    sync = finished(planned({"kind": kind}, commits=5))[1]
    buffered = finished(
        planned({"kind": kind}, {"kind": "buffered", "concurrency": N, "buffer": N}, commits=5)
    )[1]

    assert sync.adapter.vector.tobytes() == buffered.adapter.vector.tobytes()


@pytest.mark.parametrize(
    "rule",
    [
        *({"kind": k} for k in KINDS),
        {"kind": "rolora", "other_phase": "drop"},
        {"kind": "fedit", "normalize": "weights"},
    ],
    ids=str,
)
def test_stale_runs_are_what_the_table_of_visits_says(rule):
    """A second implementation replays the run's rows: snapshots of their version, discounts, factors by phase."""
    buffered = {"kind": "buffered", "concurrency": 3, "buffer": 2}
    made = planned(rule, buffered, commits=12, train_s=(1.0, 1.7, 2.3, 5.1))
    run, model = finished(made)
    assert run.visits[run.visits.committed_version > 0].staleness.max() >= 2
    replayed = stale_rules.replayed(
        run.visits,
        made.task,
        rule["kind"],
        left=Q,
        drop="other_phase" in rule,
        by_weights="normalize" in rule,
    )

    np.testing.assert_allclose(model.adapter.vector, replayed.vector, rtol=1e-4, atol=1e-4)
    for client, end in replayed.own.items():
        mine = made.experiment.aggregator.client_model(model, client)
        b = [factors_of(made, values)[1] for values in (mine, end)]
        np.testing.assert_allclose(*b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "protocol", [SYNC, {"kind": "buffered", "concurrency": 3, "buffer": 2}], ids=lambda p: p["kind"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_needs_no_training(kind, protocol):
    """RoLoRA's phases and catch-ups too: bytes follow from versions and phases, never from values."""
    made = [
        planned({"kind": kind}, protocol, commits=9, ranks=RANKS, train_s=(1.0, 1.7, 2.3, 5.1), rate=100.0)
        for _ in range(2)
    ]
    trained = finished(made[0])[0]
    timeline = run_on(made[1], None)[0]
    columns = [
        "client",
        "version",
        "dispatched_s",
        "ended_s",
        "outcome",
        "down_bytes",
        "up_bytes",
        "committed_version",
    ]

    pd.testing.assert_frame_equal(trained.visits[columns], timeline.visits[columns], check_exact=True)
    assert len(trained.visits.up_bytes.unique()) > 1
