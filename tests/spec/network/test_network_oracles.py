"""Shared links against queueing theory: processor sharing, closed networks, on/off connections.

Each expectation is exact, so the only error is that of sampling; bounds are four standard errors of the
simulated mean, from batch means where observations depend on each other.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import simpy
from worlds import simulated

from fedsim.network.max_min import MaxMinLink
from fedsim.network.shared import FluidNetwork
from fedsim.records.verify import verify


def agrees(values, expected, batches=40):
    """Whether the mean of a dependent series is the expectation, within four standard errors."""
    size = len(values) // batches
    means = np.asarray(values[: size * batches]).reshape(batches, size).mean(axis=1)
    error = np.std(means, ddof=1) / math.sqrt(batches)
    assert error < 0.1 * expected  # or the test could not fail
    return abs(means.mean() - expected) < 4 * error


SIZES = {
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "equal": lambda _, n: np.ones(n),
    "lognormal": lambda rng, n: rng.lognormal(-0.5, 1.0, n),
}


def open_queue(sizes, arrivals_per_s, capacity, cap):
    """Response time of each job, and how many it found on the link."""
    rng = np.random.default_rng(11)
    arrivals = np.cumsum(rng.exponential(1 / arrivals_per_s, len(sizes)))
    star, took, found = MaxMinLink(capacity), np.zeros(len(sizes)), []
    for job, (at_s, size) in enumerate(zip(arrivals.tolist(), sizes.tolist(), strict=True)):
        while (due := star.next_finish()) is not None and due[0] <= at_s:
            end_s, who = star.finish()
            took[who] = end_s - arrivals[who]
        found.append(len(star))
        star.add(job, size, cap, at_s)
    while len(star):
        end_s, who = star.finish()
        took[who] = end_s - arrivals[who]
    return took, np.array(found)


@pytest.mark.parametrize("law", SIZES)
def test_m_g_1_ps_whatever_the_law_of_sizes(law):
    """E R = (E S / C) / (1 - rho), E[R | s] = s / (C (1 - rho)), P(n) = (1 - rho) rho^n."""
    sizes = SIZES[law](np.random.default_rng(5), 60_000)
    capacity, load = 2.0, 0.6
    took, found = open_queue(sizes, load * capacity, capacity, 9.0)

    assert agrees(took, 0.5 / (1 - load))
    assert agrees(took / sizes, 0.5 / (1 - load))
    for n in range(4):
        assert agrees((found == n).astype(float), (1 - load) * load**n)


def erlang_c(m, a):
    """Chance to find m servers busy, at a load of a Erlang."""
    waits = a**m / math.factorial(m) * m / (m - a)
    return waits / (sum(a**k / math.factorial(k) for k in range(m)) + waits)


@pytest.mark.parametrize("law", SIZES)
def test_flows_capped_at_a_part_of_the_link_wait_by_erlang_c(law):
    """c = C / m is M/G/m-PS: E R = (E S / c) (1 + ErlangC(m, a) / (m - a)), a = lambda E S / c."""
    m, a = 4, 3.0
    sizes = SIZES[law](np.random.default_rng(6), 50_000)
    took, _ = open_queue(sizes, a, float(m), 1.0)

    assert agrees(took, 1 + erlang_c(m, a) / (m - a))


def mva(n, think_s, demand_s, m=1):
    """Exact mean value analysis of n customers: a delay, and a link that m of them can fill.

    Returns:
        Throughput and response time of the link.
    """
    idle = [1.0]  # P(j there | n - 1 customers), j = 0 ...
    for k in range(1, n + 1):
        rate = [min(j, m) / (m * demand_s) for j in range(1, k + 1)]
        response = sum(j / rate[j - 1] * idle[j - 1] for j in range(1, k + 1))
        through = k / (think_s + response)
        there = [through / rate[j - 1] * idle[j - 1] for j in range(1, k + 1)]
        idle = [1 - sum(there), *there]
    return through, response


def test_mean_value_analysis_of_two_customers_by_hand():
    """One alone: R = D. Two: the second finds the first there for D / (Z + D) of the time: R = D (1 + Q(1))."""
    assert mva(1, 3.0, 1.0) == (0.25, 1.0)
    through, response = mva(2, 3.0, 1.0)
    assert response == pytest.approx(1.25)
    assert through == pytest.approx(2 / 4.25)


def closed_network(n, think, sizes, capacity, cap, horizon_s):
    """Clients that think and upload for ever on the network of the simulator; returns the uploads' times."""
    env = simpy.Environment()
    profile = SimpleNamespace(down_bytes_per_s=cap, up_bytes_per_s=cap, rtt_s=0.0, framing=1.0)
    population = SimpleNamespace(
        profile=lambda _: profile,
        mean_rates=lambda _: np.full(n, cap),
        varying=False,
        rates=lambda *_: None,
    )
    network = FluidNetwork(env, population, 1e12, capacity)
    rng, took, begun = np.random.default_rng(2), [], set()

    def client(number):
        while True:
            yield env.timeout(think(rng))
            begun.add(number)
            took.append((yield network.transfer("up", number, round(sizes(rng))).done))
            begun.remove(number)

    seen = []

    def observer():
        while True:
            yield env.timeout(rng.exponential(7.0))
            seen.append(len(begun))

    for number in range(n):
        env.process(client(number))
    env.process(observer())
    env.run(until=horizon_s)
    return np.array(took), np.array(seen)


LAWS = {
    "exponential": (lambda r: r.exponential(8.0), lambda r: r.exponential(1e6)),
    "lognormal think, equal sizes": (lambda r: r.lognormal(math.log(8) - 0.5, 1.0), lambda _: 1e6),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("m", [1, 3])
def test_asynchronous_clients_on_one_link_are_a_closed_network(law, m):
    """12 clients, 8 s of work, 1 s of upload alone: throughput and time by MVA, whatever the laws (BCMP)."""
    through, response = mva(12, 8.0, 1.0, m)
    assert (through, response) == pytest.approx({1: (0.9486, 4.650), 3: (0.9133, 5.139)}[m], rel=1e-3)
    think, sizes = LAWS[law]
    horizon_s = 12_000.0
    took, seen = closed_network(12, think, sizes, 1e6, 1e6 / m, horizon_s)

    assert agrees(took, response)
    assert len(took) / horizon_s == pytest.approx(through, rel=0.02)
    assert agrees(seen.astype(float), through * response)  # Little: the mean number uploading


@pytest.mark.parametrize("again", ["resume", "restart"])
def test_a_connection_that_comes_and_goes(again):
    """On for 4 s, off for 2 s on average (exponential), 3 s of bytes.

    What is resumed takes x (1 + b / a) = 4.5 s, what starts anew (e^(x / a) - 1) (a + b) = 6.702 s.
    """
    env = simpy.Environment()
    profile = SimpleNamespace(down_bytes_per_s=1e6, up_bytes_per_s=1e6, rtt_s=0.0, framing=1.0)
    population = SimpleNamespace(
        profile=lambda _: profile,
        mean_rates=lambda _: np.full(2, 1e6),
        varying=False,
        rates=lambda *_: None,
    )
    network, rng, took = FluidNetwork(env, population, 1e6, 1e6), np.random.default_rng(9), []

    def client():
        while True:
            began_s, transfer = env.now, network.transfer("up", 0, 3_000_000)
            while True:
                off = env.timeout(rng.exponential(4.0))
                yield transfer.done | off
                if transfer.done.triggered:
                    break
                (transfer.pause if again == "resume" else transfer.cancel)()
                yield env.timeout(rng.exponential(2.0))
                if again == "resume":
                    transfer.resume()
                else:
                    transfer = network.transfer("up", 0, 3_000_000)
            took.append(env.now - began_s)

    env.process(client())
    env.run(until=40_000)
    assert agrees(np.array(took), 4.5 if again == "resume" else (math.exp(0.75) - 1) * 6)


# the whole simulator ----------------------------------------------------------------------------------


def shared(up_mbps, **network):
    return {
        "server_up_mbps": 1e12,
        "server_down_mbps": up_mbps,
        "sharing": "max-min",
        "detect_after_s": 30.0,
    } | network


@pytest.mark.parametrize("own", [100.0, 1e15])
def test_the_uploads_of_a_synchronous_round_take_the_slower_of_client_and_server(own):
    """n equal uploads at once: max(S / c, n S / C)."""
    run = simulated(
        {"kind": "synchronous", "cohort": 8}, [1.0] * 8, rate=own, network=shared(0.008), budget={"commits": 3}
    )  # fmt: skip
    size, capacity = int(run.visits.up_bytes.iloc[0]), 1000.0
    down_s = size / own + (0 if own < 1e9 else 1e-6)
    round_s = down_s + 1.0 + max(size / own, 8 * size / capacity)
    assert np.diff(run.commits.time_s.to_numpy(), prepend=0.0) == pytest.approx([round_s] * 3, rel=1e-5)
    assert verify(run) == []


def test_a_full_link_sets_the_rate_of_asynchronous_updates():
    """30 clients that could send 15 updates a second, and a link for one a second, which is never idle."""
    train_s = np.random.default_rng(1).uniform(0.5, 1.5, 30).tolist()
    protocol = {"kind": "buffered", "concurrency": 30, "buffer": 1}
    size = int(simulated(protocol, [1.0] * 30, budget={"commits": 1}).visits.up_bytes.max())
    mbps = size * 8 / 1e6
    run = simulated(protocol, train_s, network=shared(mbps), budget={"time_s": 300.0})
    assert run.visits.up_bytes.sum() == pytest.approx(size * (300 - min(train_s)), abs=30)
    assert run.commits.time_s.between(100, 300).sum() == pytest.approx(200, abs=5)
    assert verify(run) == []
    alone = simulated(protocol, train_s, network=shared(mbps, sharing="private"), budget={"time_s": 300.0})
    assert len(alone.commits) == pytest.approx(sum(300 / (t + 1) for t in train_s), rel=0.02)
