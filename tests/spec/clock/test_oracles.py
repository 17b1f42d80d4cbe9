"""The clock against closed forms: order statistics, staleness, rates, participation, conservation.

Each expectation is exact for the population drawn, so the only error is that of sampling; bounds
are four standard errors of the simulated mean.
"""

import math
from math import comb

import numpy as np
import pytest
from worlds import simulated


def exponential_quantiles(n):
    """Times of an exponential population with mean 1, at its mid-quantiles."""
    return -np.log1p(-(np.arange(n) + 0.5) / n)


def lognormal(n, sigma, seed=0):
    return np.exp(sigma * np.random.default_rng(seed).standard_normal(n))


def expected_order_statistic(times, m, j):
    """E of the j-th smallest of m drawn without replacement: sum t_(k) C(k-1,j-1) C(N-k,m-j) / C(N,m)."""
    n = len(times)
    return sum(
        float(t) * (comb(k - 1, j - 1) * comb(n - k, m - j) / comb(n, m))
        for k, t in enumerate(np.sort(times), start=1)
    )


def round_times(run):
    return np.diff(run.commits.time_s.to_numpy(), prepend=0.0)


def agrees(values, expected):
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return abs(np.mean(values) - expected) < 4 * error + 1e-4


def test_a_synchronous_round_takes_the_maximum_of_its_cohort():
    times = exponential_quantiles(200)
    run = simulated({"kind": "synchronous", "cohort": 10}, times, budget={"commits": 600})

    assert agrees(round_times(run), expected_order_statistic(times, 10, 10))
    harmonic = sum(1 / k for k in range(1, 11))
    assert np.mean(round_times(run)) == pytest.approx(
        harmonic, rel=0.06
    )  # H_n / mu: 200 stand for infinitely many


def test_over_selection_waits_for_the_k_th_of_n():
    times = exponential_quantiles(200)
    run = simulated({"kind": "synchronous", "cohort": 10, "over_select": 1.3}, times, budget={"commits": 600})

    assert agrees(round_times(run), expected_order_statistic(times, 13, 10))
    h = lambda n: sum(1 / k for k in range(1, n + 1))
    assert np.mean(round_times(run)) == pytest.approx(h(13) - h(3), rel=0.06)
    assert (run.commits.updates == 10).all()


def test_reports_by_a_deadline_follow_the_hypergeometric_law():
    times = lognormal(120, 1.0)
    deadline = float(np.median(times)) * 1.0001
    run = simulated(
        {"kind": "synchronous", "cohort": 12, "deadline_s": deadline}, times, budget={"commits": 500}
    )

    in_time = int(np.sum(times + 2e-6 <= deadline))
    assert agrees(run.commits.updates.to_numpy(), 12 * in_time / 120)


@pytest.mark.parametrize(
    ("concurrency", "buffer", "sigma"),
    [
        (20, 5, 1.0),
        (12, 3, 0.3),
        *(
            pytest.param(*settings, marks=pytest.mark.slow)
            for settings in [(20, 5, 0.3), (12, 3, 1.0), (20, 1, 0.3), (20, 1, 1.0)]
        ),
    ],
)
def test_mean_staleness_is_concurrency_less_one_over_the_buffer_whatever_the_durations(
    concurrency, buffer, sigma
):
    """(n - 1) / K, free of the distribution: the sharpest test of versions there is."""
    run = simulated(
        {"kind": "buffered", "concurrency": concurrency, "buffer": buffer},
        lognormal(300, sigma),
        budget={"commits": 6000 // buffer},
    )
    committed = run.visits[run.visits.committed_version > 0].sort_values("committed_version")
    settled = committed.staleness.to_numpy()[10 * concurrency :]
    batch_means = settled[: len(settled) // 50 * 50].reshape(50, -1).mean(axis=1)

    assert agrees(batch_means, (concurrency - 1) / buffer)


def test_with_everyone_at_work_the_update_rate_is_the_sum_of_the_clients_rates():
    times = lognormal(30, 0.8)
    horizon = 100.0
    run = simulated({"kind": "buffered", "concurrency": 30, "buffer": 5}, times, budget={"time_s": horizon})

    landed = (run.visits.outcome == "landed").sum()
    assert landed == pytest.approx(sum(math.floor(horizon / (t + 2e-6)) for t in times), abs=1)
    assert landed / horizon == pytest.approx(np.sum(1 / times), rel=0.02)
    assert len(run.commits) == landed // 5


def test_asynchronous_participation_is_proportional_to_speed():
    times = lognormal(25, 0.8)
    run = simulated({"kind": "buffered", "concurrency": 25, "buffer": 1}, times, budget={"time_s": 125.0})

    share = (
        run.visits[run.visits.outcome == "landed"].groupby("client").size()
        / (run.visits.outcome == "landed").sum()
    )
    expected = (1 / times) / np.sum(1 / times)
    np.testing.assert_allclose(share.to_numpy(), expected, atol=3e-3)


def test_synchronous_participation_is_uniform():
    run = simulated({"kind": "synchronous", "cohort": 5}, lognormal(20, 1.0), budget={"commits": 800})

    counts = run.visits[run.visits.committed_version > 0].groupby("client").size().to_numpy()
    chi2 = np.sum((counts - 200.0) ** 2 / (200.0 * (1 - 5 / 20)))
    assert chi2 < 45.0  # 19 degrees of freedom: 43.8 at p = 0.001


def test_slots_times_horizon_is_the_time_spent_in_visits():
    """Little's law without an error bar: always on, no slot is ever empty."""
    run = simulated(
        {"kind": "buffered", "concurrency": 10, "buffer": 4}, lognormal(40, 1.0), budget={"time_s": 200.0}
    )

    assert (run.visits.ended_s - run.visits.dispatched_s).sum() == pytest.approx(10 * 200.0, rel=1e-9)


def test_asynchronous_beats_synchronous_by_the_harmonic_number():
    """Same concurrency n, exponential times: n / (n / H_n) = H_n updates for one."""
    times = exponential_quantiles(2000)
    n, horizon = 20, 400.0
    sync = simulated({"kind": "synchronous", "cohort": n}, times, budget={"time_s": horizon})
    async_ = simulated({"kind": "buffered", "concurrency": n, "buffer": 5}, times, budget={"time_s": horizon})

    gain = 5 * len(async_.commits) / (n * len(sync.commits))
    assert gain == pytest.approx(sum(1 / k for k in range(1, n + 1)), rel=0.1)


def test_energy_is_power_times_time():
    run = simulated({"kind": "synchronous", "cohort": 4}, [1.0, 2.0, 3.0, 4.0], budget={"commits": 3})

    assert run.visits.joules.sum() == pytest.approx(3 * 2.0 * 10.0, rel=1e-5)  # 3 rounds x 2 W x 10 s


# devices that come and go: exponential times there (mean a) and away (mean b), a job of x seconds -----------


def comings_and_goings(there_s, away_s, n=4000, seed=5):
    rng = np.random.default_rng(seed)
    up, down = rng.exponential(there_s, n), rng.exponential(away_s, n)
    starts = np.append(0.0, np.cumsum(up + down)[:-1])
    return [list(zip(starts.tolist(), (starts + up).tolist(), strict=True))]


def one_after_the_other(on_close, x, there_s, away_s, jobs):
    run = simulated(
        {"kind": "buffered", "concurrency": 1, "buffer": 1},
        [x],
        online=comings_and_goings(there_s, away_s),
        population={"preset": "homogeneous", "clients": 1, "on_close": on_close},
        network={"server_up_mbps": 1e12, "server_down_mbps": 1e12, "detect_after_s": 0.0},
        budget={"commits": jobs},
        runtime={"executor": "inline", "stall_s": 1e9},
    )
    return np.diff(run.commits.time_s.to_numpy(), prepend=0.0), run


@pytest.mark.parametrize(("x", "there_s", "away_s"), [(3.0, 2.0, 1.0), (1.0, 2.0, 3.0)])
def test_a_job_that_resumes_takes_x_times_1_plus_b_over_a(x, there_s, away_s):
    """x + N pauses of mean b, N Poisson of mean x / a; variance (x / a) 2 b^2."""
    times, run = one_after_the_other("pause", x, there_s, away_s, 1200)

    assert agrees(times, x * (1 + away_s / there_s))
    assert np.var(times) == pytest.approx(2 * x / there_s * away_s**2, rel=0.25)
    assert run.visits.outcome.eq("landed").all()


@pytest.mark.parametrize(("x", "there_s", "away_s"), [(3.0, 2.0, 1.0), (1.0, 2.0, 3.0)])
def test_a_job_that_starts_again_takes_exp_x_over_a_less_1_times_a_plus_b(x, there_s, away_s):
    """Each try succeeds with exp(-x / a), and one that fails is lost with the time until the device is back."""
    times, run = one_after_the_other("lost", x, there_s, away_s, 600)

    assert agrees(times, (math.exp(x / there_s) - 1) * (there_s + away_s))
    landed = run.visits.outcome.eq("landed").mean()
    assert landed == pytest.approx(math.exp(-x / there_s), abs=4 * 0.5 / math.sqrt(len(run.visits)))
