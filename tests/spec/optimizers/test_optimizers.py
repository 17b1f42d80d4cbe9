"""Server optimisers: published first steps, hand calculation, torch.optim as the second implementation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import simulated

from fedsim.component import find, kinds
from fedsim.optimizers.adagrad import Adagrad
from fedsim.optimizers.adam import Adam
from fedsim.optimizers.fadas import Fadas
from fedsim.optimizers.momentum import Momentum
from fedsim.optimizers.none import NoOptimizer
from fedsim.optimizers.yogi import Yogi

KINDS = kinds("optimizers")
ADAPTIVE = [Adagrad, Adam, Yogi, Fadas]
STEPS = 6


def moves(seed, size=5, steps=STEPS):
    """Moves of very different sizes, a zero among them."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((steps, size)) * 10.0 ** rng.uniform(-3, 1, (steps, size))
    found[rng.integers(steps), rng.integers(size)] = 0.0
    return found.astype(np.float32)


def walk(optimizer, by, staleness=0, start=None):
    """The adapter after each of a series of moves."""
    x = np.zeros(by.shape[1], np.float32) if start is None else np.asarray(start, np.float32)
    state = optimizer.init(by.shape[1])
    path = []
    for d in by:
        after = (x.astype(np.float64) + d).astype(np.float32)
        x, state = optimizer.step(state, x, after, staleness)
        path.append(x)
    return np.array(path)


def first_step(optimizer, d, staleness=0):
    return walk(optimizer, np.array([d], np.float32), staleness)[0]


def test_the_optimisers_that_ship_are_those_of_fedopt_momentum_and_none():
    assert KINDS == ["adagrad", "adam", "fadas", "momentum", "none", "yogi"]


# the start: two conventions ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Adam, Yogi, Fadas])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.9, 0.999), (0.5, 0.9)])
def test_a_corrected_first_step_is_the_learning_rate_whatever_the_betas(kind, betas):
    optimizer = kind(lr=0.01, beta1=betas[0], beta2=betas[1], tau=1e-12, bias="corrected")

    np.testing.assert_allclose(first_step(optimizer, [3.0, -0.2]), [0.01, -0.01], rtol=1e-6)


@pytest.mark.parametrize("kind", [Adam, Yogi, Fadas])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.9, 0.999), (0.5, 0.9)])
def test_an_uncorrected_first_step_is_lr_times_one_less_beta1_over_the_root_of_one_less_beta2(kind, betas):
    optimizer = kind(lr=0.01, beta1=betas[0], beta2=betas[1], tau=1e-12, bias="none")
    expected = 0.01 * (1 - betas[0]) / math.sqrt(1 - betas[1])

    np.testing.assert_allclose(first_step(optimizer, [3.0, -0.2]), [expected, -expected], rtol=1e-6)


def test_with_the_defaults_of_fedopt_both_conventions_begin_alike_and_then_part():
    """(1 - 0.9) / sqrt(1 - 0.99) = 1: a coincidence that hides which convention a code follows."""
    plain, corrected = (Adam(lr=0.01, tau=1e-12, bias=bias) for bias in ("none", "corrected"))
    by = np.array([[1.0], [1.0], [-1.0]], np.float32)

    np.testing.assert_allclose(walk(plain, by)[0], walk(corrected, by)[0], rtol=1e-6)
    # step 2: (0.19 / sqrt(0.0199)) against 1
    np.testing.assert_allclose(np.diff(walk(plain, by)[:2, 0]), 0.01 * 0.19 / math.sqrt(0.0199), rtol=1e-4)
    np.testing.assert_allclose(np.diff(walk(corrected, by)[:2, 0]), 0.01, rtol=1e-4)


def test_a_correction_that_is_one_step_ahead_is_not_ours():
    """Exponent t + 1 at step t, as in a published FedAdam: the first step would be 0.742 lr."""
    ahead = ((1 - 0.9) / (1 - 0.9**2)) / math.sqrt((1 - 0.99) / (1 - 0.99**2))
    assert ahead == pytest.approx(0.742, abs=1e-3)

    assert first_step(Adam(lr=1.0, tau=1e-12, bias="corrected"), [2.0])[0] == pytest.approx(1.0)


def test_adagrad_begins_with_the_learning_rate_and_slows_as_one_over_the_root_of_the_steps():
    path = walk(Adagrad(lr=0.1, tau=1e-12), np.full((4, 1), 2.0, np.float32))[:, 0]

    np.testing.assert_allclose(
        np.diff(path, prepend=0.0), [0.1 / math.sqrt(t) for t in (1, 2, 3, 4)], rtol=1e-5
    )


def test_the_first_v_is_tau_squared_not_tau_and_not_zero():
    """v = 0.99 tau^2 + 0.01 D^2 with D = tau = 0.5: v = tau^2, so the step is lr 0.1 D / (2 tau)."""
    assert first_step(Adam(lr=1.0, tau=0.5), [0.5])[0] == pytest.approx(0.1 * 0.5 / 1.0)
    assert Adam(tau=0.5).init(1).v.tolist() == [0.25]
    assert Adam(tau=0.5, bias="corrected").init(1).v.tolist() == [0.0]


def test_the_second_moment_is_of_the_move_not_of_its_mean():
    """A published FedAdam squares m: after moves (1, -1) that is nearly 0 where D^2 is 1."""
    state = Adam(tau=1e-12).init(1)
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    for after in (one, -one):
        _, state = Adam(tau=1e-12).step(state, zero, after, 0)

    assert state.v[0] == pytest.approx(0.01 * (1 + 0.99))


# second implementations ----------------------------------------------------------------------------


def torch_path(by, make):
    """The same walk by torch.optim in float64, which goes against its gradient: -D."""
    x = torch.nn.Parameter(torch.zeros(by.shape[1], dtype=torch.float64))
    optimizer = make([x])
    path = []
    for d in by:
        x.grad = -torch.tensor(d, dtype=torch.float64)
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Momentum(lr=0.7, beta=0.9), lambda p: torch.optim.SGD(p, lr=0.7, momentum=0.9)),
        (
            Adam(lr=0.02, beta1=0.8, beta2=0.95, tau=1e-3, bias="corrected"),
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-3),
        ),
        (
            Adagrad(lr=0.05, tau=0.01),
            lambda p: torch.optim.Adagrad(p, lr=0.05, eps=0.01, initial_accumulator_value=1e-4),
        ),
        (
            Fadas(lr=0.02, tau=1e-3),
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.99), eps=1e-3, amsgrad=True),
        ),
    ],
    ids=["momentum", "adam", "adagrad", "fadas"],
)
def test_torch_takes_the_same_steps(ours, theirs, seed):
    by = moves(seed)

    np.testing.assert_allclose(walk(ours, by), torch_path(by, theirs), rtol=2e-4, atol=2e-6)


def by_hand(kind, by, lr, beta1, beta2, tau):
    """Algorithm 2 of FedOpt, one float at a time."""
    path = []
    x, m, v = [0.0] * by.shape[1], [0.0] * by.shape[1], [tau**2] * by.shape[1]
    for row in by:
        for i, d in enumerate(map(float, row)):
            m[i] = beta1 * m[i] + (1 - beta1) * d
            if kind == "adagrad":
                v[i] = v[i] + d * d
            elif kind == "adam":
                v[i] = beta2 * v[i] + (1 - beta2) * d * d
            elif v[i] > d * d:
                v[i] = v[i] - (1 - beta2) * d * d
            elif v[i] < d * d:
                v[i] = v[i] + (1 - beta2) * d * d
            x[i] += lr * m[i] / (math.sqrt(v[i]) + tau)
        path.append(list(x))
    return path


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["adagrad", "adam", "yogi"])
def test_the_uncorrected_family_is_algorithm_2_of_fedopt(kind, seed):
    by = moves(seed)
    given_ = {"lr": 0.03, "beta1": 0.7, "tau": 0.01} | ({} if kind == "adagrad" else {"beta2": 0.9})
    ours = walk(find("optimizers", kind)(**given_), by)

    np.testing.assert_allclose(ours, by_hand(kind, by, 0.03, 0.7, 0.9, 0.01), rtol=2e-4, atol=2e-6)


# corners -------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_momentum_without_memory_is_the_plain_rule(seed):
    by = moves(seed)

    np.testing.assert_allclose(walk(Momentum(lr=1.0, beta=0.0), by), np.cumsum(by, axis=0), atol=1e-5)


def test_none_hands_back_what_the_rule_has_made():
    before, after = np.zeros(2, np.float32), np.ones(2, np.float32)

    assert NoOptimizer().step(NoOptimizer().init(2), before, after, 9)[0] is after


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_that_never_moved_the_model_leaves_it(kind):
    still = np.zeros((3, 4), np.float32)

    assert (
        walk(find("optimizers", kind)(), still, start=[1.0, -2.0, 0.0, 1e-7]).tolist()
        == [np.array([1.0, -2.0, 0.0, 1e-7], np.float32).tolist()] * 3
    )


def test_without_a_move_momentum_decays_by_beta_and_goes_on():
    optimizer = Momentum(lr=1.0, beta=0.5)
    by = np.array([[8.0], [0.0], [0.0]], np.float32)

    assert walk(optimizer, by)[:, 0].tolist() == [8.0, 12.0, 14.0]


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.999))
@settings(max_examples=40)
def test_the_v_of_yogi_is_never_negative(seed, beta2):
    v = Yogi().init(5).v
    for d in moves(seed, steps=30).astype(np.float64):
        v = Yogi(beta2=beta2).second(v, d * d)
        assert (v >= 0).all()


def test_yogi_forgets_a_burst_slowly_where_adam_forgets_it_fast():
    """v = 4, then D^2 = 1, with beta2 = 0.5: Adam (4 + 1) / 2, Yogi 4 - 1/2."""
    four, one = np.array([4.0]), np.array([1.0])

    assert Adam(beta2=0.5).second(four, one).tolist() == [2.5]
    assert Yogi(beta2=0.5).second(four, one).tolist() == [3.5]


def test_yogi_and_adam_begin_alike():
    by = np.array([[0.3, -4.0]], np.float32)

    np.testing.assert_allclose(
        walk(Yogi(tau=1e-6, bias="corrected"), by), walk(Adam(tau=1e-6, bias="corrected"), by), rtol=1e-6
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "none"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_a_step_is_pure(kind, seed):
    optimizer = find("optimizers", kind)()
    by = moves(seed, steps=2)
    zero = np.zeros(5, np.float32)
    _, state = optimizer.step(optimizer.init(5), zero, by[0], 0)
    before = [np.copy(part) for part in state] if isinstance(state, tuple) else [np.copy(state)]

    first, second = (optimizer.step(state, zero, by[1], 3)[0] for _ in range(2))

    assert first.tolist() == second.tolist()
    assert first.dtype == np.float32
    for part, copy in zip(state if isinstance(state, tuple) else [state], before, strict=True):
        np.testing.assert_array_equal(part, copy)
    assert zero.tolist() == [0.0] * 5


# FADAS ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "table"),
    [
        ("scaled", {0: 0.6, 1: 0.6, 2: 0.3, 3: 0.2, 6: 0.1}),
        ("capped", {0: 0.6, 1: 0.6, 2: 0.5, 3: 1 / 3, 6: 1 / 6}),
    ],
)
def test_fadas_shortens_its_steps_by_the_largest_staleness(delay, table):
    optimizer = Fadas(lr=0.6, tau=1e-12, delay=delay)

    assert {late: pytest.approx(first_step(optimizer, [5.0], late)[0]) for late in table} == table


def test_a_cap_far_above_the_learning_rate_does_nothing_and_scaling_does():
    assert Fadas(lr=0.001, delay="capped").rate(9) == 0.001
    assert Fadas(lr=0.001, delay="scaled").rate(10) == pytest.approx(0.0001)


def test_fadas_waits_with_that_for_its_patience():
    assert [Fadas(lr=0.6, patience=4).rate(late) for late in (4, 5)] == [0.6, 0.12]


def test_fadas_never_lets_a_step_grow_again_where_adam_does():
    """Moves 8, 0, 0 with beta1 = 0: then one of 1. Adam has forgotten part of the 8, FADAS has not."""
    by = np.array([[8.0], [0.0], [0.0], [1.0]], np.float32)
    fadas = walk(Fadas(lr=1.0, beta1=0.0, beta2=0.5, tau=1e-12, bias="none"), by)[:, 0]
    adam = walk(Adam(lr=1.0, beta1=0.0, beta2=0.5, tau=1e-12, bias="none"), by)[:, 0]

    # v after the four: 32, 16, 8, 4.5; the largest is 32
    assert fadas[3] - fadas[2] == pytest.approx(1 / math.sqrt(32))
    assert adam[3] - adam[2] == pytest.approx(1 / math.sqrt(4.5))


# over a rule, in a run -----------------------------------------------------------------------------

SYNC = {"kind": "synchronous", "cohort": 3}


def losses(**blocks):
    run = simulated(SYNC, [1.0] * 3, timeline_only=False, budget={"commits": 4}, **blocks)
    return run.scores[run.scores.metric == "loss"].value.tolist()


def test_a_run_with_plain_steps_is_the_run_without_an_optimiser():
    plain = losses()
    momentum = losses(server_optimizer={"kind": "momentum", "lr": 1.0, "beta": 0.0})

    np.testing.assert_allclose(momentum, plain, rtol=1e-6)


def test_momentum_follows_its_closed_form_on_the_quadratic():
    """All at work, equal examples: the rule's move is (1 - q)(c - x) with q = (1 - eta)^steps."""
    made = simulated(
        SYNC,
        [1.0] * 3,
        timeline_only=False,
        budget={"commits": 4},
        task={"kind": "quadratic", "spread": 0.0, "distance": 4.0},
        server_optimizer={"kind": "momentum", "lr": 0.5, "beta": 0.8},
        evaluate={"every_commits": 1},
    )
    gap, v, expected = 4.0, 0.0, [8.0]
    for _ in range(4):
        v = 0.8 * v + (1 - 0.9**2) * gap
        gap -= 0.5 * v
        expected.append(0.5 * gap**2)

    found = made.scores[(made.scores.metric == "loss") & (made.scores.split == "test")].value
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fadas_sees_the_largest_staleness_of_a_commit():
    """Slots of 1 s and 3.5 s, buffer 1: the fourth commit is three versions late."""
    run = simulated(
        {"kind": "buffered", "concurrency": 2, "buffer": 1},
        [1.0, 3.5],
        timeline_only=False,
        budget={"commits": 4},
        task={"kind": "quadratic", "spread": 0.0},
        aggregator={"kind": "fedit", "staleness": {"kind": "constant"}},
        server_optimizer={"kind": "fadas", "lr": 0.1, "beta1": 0.0, "tau": 1e-12},
    )
    norms = run.commits.update_norm.to_numpy()

    assert run.commits.max_staleness.tolist() == [0, 0, 0, 3]
    # 8 coordinates; all but the first step are a little longer or shorter than lr, the last one a third
    assert norms[0] == pytest.approx(0.1 * math.sqrt(8), rel=1e-4)
    assert norms[3] < norms[2] / 2
