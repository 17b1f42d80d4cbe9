"""Connections that stay open: handshakes and slow starts saved, in closed form, on private and on shared links."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import plan, simulated

from fedsim.checks.blocks import misfits
from fedsim.clock.estimate import estimate
from fedsim.config.network import NetworkConfig
from fedsim.network.private import PrivateLinks
from fedsim.network.shared import FluidNetwork
from fedsim.network.tcp import NEW, Connections, Opening, last_window, sent_bytes, transfer_s
from fedsim.network.traces import ConstantRate

IP = 1500 / 1448
RATE, RTT_S, SIZE = 4e6, 0.04, 10**6
ROUND_TRIP_BYTES = RATE * RTT_S
LINK = SimpleNamespace(down_bytes_per_s=RATE, up_bytes_per_s=RATE, rtt_s=RTT_S, framing=IP)
CLIENTS = SimpleNamespace(
    profile=lambda _: LINK,
    mean_rates=lambda _: np.array([RATE, RATE]),
    varying=False,
    rates=lambda *_: None,
)
WIRE_S = SIZE * IP / RATE
IDLE_S = sum(RTT_S - 15_000 * 2**k / RATE for k in range(4))
"""Slow start of 15, 30, 60 and 120 kB on a link that holds 160 kB in a round trip."""


def private(env, **kept):
    return PrivateLinks(env, CLIENTS, 1e9, 1e9, connections=Connections(**kept))


def piped(env, **kept):
    """A server that two clients together could overload, so that the pipe is used; one alone has its link's rate."""
    return FluidNetwork(env, CLIENTS, RATE, ConstantRate(RATE), connections=Connections(**kept))


NETWORKS = pytest.mark.parametrize("network_of", [private, piped])


def took(network_of, *steps, keep_alive_s=100.0):
    """Durations of transfers one after the other: (direction, wait before it) or (direction, wait, bytes)."""
    env = simpy.Environment()
    network = network_of(env, keep_alive_s=keep_alive_s)
    durations = []

    def course():
        for direction, wait_s, *size in steps:
            yield env.timeout(wait_s)
            transfer = network.transfer(direction, 0, size[0] if size else SIZE)
            durations.append((yield transfer.done))

    env.run(env.process(course()))
    return durations


@NETWORKS
def test_the_first_transfer_opens_the_connection_and_the_others_find_it_open(network_of):
    new = WIRE_S + 1.5 * RTT_S + IDLE_S
    cold = WIRE_S + 0.5 * RTT_S + IDLE_S

    assert transfer_s(SIZE, RATE, RTT_S, IP) == pytest.approx(new)
    assert took(network_of, ("down", 0), ("up", 1), ("down", 1)) == pytest.approx([new, cold, cold])


@NETWORKS
def test_without_a_connection_that_is_kept_every_transfer_opens_its_own(network_of):
    durations = took(network_of, ("down", 0), ("up", 0), ("down", 0), keep_alive_s=None)
    assert durations == pytest.approx([WIRE_S + 1.5 * RTT_S + IDLE_S] * 3)


@NETWORKS
def test_a_window_survives_a_silence_of_one_timeout_and_no_longer(network_of):
    """RFC 5681, 4.1: the sender has been silent since its last byte left, half a round trip before it arrived."""
    warm, cold = WIRE_S + 0.5 * RTT_S, WIRE_S + 0.5 * RTT_S + IDLE_S
    timeout_s = RTT_S + 0.2

    assert took(network_of, ("up", 0), ("up", timeout_s - RTT_S / 2 - 0.001))[1] == pytest.approx(warm)
    assert took(network_of, ("up", 0), ("up", timeout_s - RTT_S / 2 + 0.001))[1] == pytest.approx(cold)


@NETWORKS
def test_each_side_has_a_window_of_its_own(network_of):
    """The download's sender is the server: that it was busy a moment ago does not open the client's window."""
    assert took(network_of, ("down", 0), ("up", 0))[1] == pytest.approx(WIRE_S + 0.5 * RTT_S + IDLE_S)


@NETWORKS
def test_slow_start_goes_on_with_the_window_that_it_had_reached(network_of):
    """20,000 bytes leave in windows of 15 and 30 kB; the next transfer begins with 30 kB, and waits two rounds less."""
    idle_s = sum(RTT_S - 15_000 * 2**k / RATE for k in (1, 2, 3))
    durations = took(network_of, ("up", 0, 20_000), ("up", 0))
    assert durations[1] == pytest.approx(WIRE_S + 0.5 * RTT_S + idle_s)
    assert last_window(20_000, RATE, RTT_S, IP) == 30_000


@NETWORKS
def test_a_connection_is_closed_when_nobody_has_used_it_for_so_long(network_of):
    kept = took(network_of, ("down", 0), ("up", 99.99))[1]
    closed = took(network_of, ("down", 0), ("up", 100.01))[1]
    assert closed - kept == pytest.approx(RTT_S)


@NETWORKS
def test_a_transfer_that_is_broken_off_breaks_its_connection(network_of):
    env = simpy.Environment()
    network = network_of(env, keep_alive_s=100.0)
    env.run(network.transfer("down", 0, SIZE).done)
    second = network.transfer("up", 0, SIZE)
    env.run(env.now + 0.1)
    second.cancel()
    third = network.transfer("up", 0, SIZE)
    env.run()
    assert third.done.value == pytest.approx(WIRE_S + 1.5 * RTT_S + IDLE_S)


@NETWORKS
def test_a_transfer_that_goes_on_after_a_pause_opens_a_new_connection(network_of):
    """0.1 s after it began on an open connection the device is away for 10 s: what is left needs a handshake."""
    env = simpy.Environment()
    network = network_of(env, keep_alive_s=100.0)
    env.run(network.transfer("down", 0, SIZE).done)
    transfer = network.transfer("up", 0, SIZE)
    env.run(env.now + 0.1)
    left = SIZE - transfer.sent_bytes()
    transfer.pause()
    env.run(env.now + 10.0)
    transfer.resume()
    env.run()
    assert left < SIZE
    assert transfer.done.value == pytest.approx(0.1 + 10.0 + transfer_s(left, RATE, RTT_S, IP), abs=1e-6)


@NETWORKS
def test_a_device_that_goes_offline_has_no_connection_when_it_comes_back(network_of):
    env = simpy.Environment()
    network = network_of(env, keep_alive_s=100.0)
    offline = env.event()
    network.online_until(0, offline)
    env.run(network.transfer("down", 0, SIZE).done)
    network.online_until(0, offline)  # another visit in the same window
    second = network.transfer("up", 0, SIZE)
    env.run(second.done)
    offline.succeed()
    env.run()
    network.online_until(0, env.event())
    third = network.transfer("up", 0, SIZE)
    env.run()
    assert second.done.value == pytest.approx(WIRE_S + 0.5 * RTT_S + IDLE_S)
    assert third.done.value == pytest.approx(WIRE_S + 1.5 * RTT_S + IDLE_S)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["down", "up"]),
            st.sampled_from([0.0, 0.1, 0.219, 0.3, 5.0, 120.0]),
            st.integers(1, 3 * 10**6),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_both_networks_agree_on_any_course(steps):
    assert took(piped, *steps) == pytest.approx(took(private, *steps), rel=1e-9)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 10**6), st.booleans(), st.integers(0, 5), st.floats(0, 3))
def test_what_has_left_is_never_more_than_there_is_and_never_less_than_before(
    n_bytes, handshake, doublings, at_s
):
    opening = Opening(handshake, 15_000.0 * 2**doublings)
    earlier, later = (sent_bytes(t, n_bytes, RATE, RTT_S, IP, opening) for t in (at_s, at_s + 0.01))
    assert 0 <= earlier <= later <= n_bytes
    end_s = transfer_s(n_bytes, RATE, RTT_S, IP, opening)
    assert sent_bytes(end_s, n_bytes, RATE, RTT_S, IP, opening) == n_bytes
    assert end_s <= transfer_s(n_bytes, RATE, RTT_S, IP, NEW)


# in runs ----------------------------------------------------------------------------------------------

LANED = {"rate": 1e5, "rtt_s": 0.05}
SERIAL = {"kind": "synchronous", "cohort": 1}


def visits(connection, *, online=None, budget=3, **network):
    asked = {"server_up_mbps": 1e12, "server_down_mbps": 1e12, "connection": connection, **network}
    return simulated(
        SERIAL, [1.0], online=online, network=asked, budget={"commits": budget}, **LANED
    ).visits.sort_values("order")


def test_a_client_saves_a_round_trip_at_each_transfer_but_its_first():
    new, kept = visits("new"), visits("persistent")
    took_new, took_kept = (v.landed_s - v.dispatched_s for v in (new, kept))
    assert (took_new - took_kept).tolist() == pytest.approx([0.05, 0.10, 0.10])
    assert new.down_bytes.tolist() == kept.down_bytes.tolist()


def test_what_the_connection_does_not_outlive_is_paid_again():
    """Training lasts a second, so every upload needs a new one; the next download comes at once and does not."""
    new, short = visits("new"), visits("persistent", keep_alive_s=0.5)
    saved_s = (new.landed_s - new.dispatched_s) - (short.landed_s - short.dispatched_s)
    assert saved_s.tolist() == pytest.approx([0.0, 0.05, 0.05])


def test_a_window_that_closes_closes_the_connection():
    """The second visit is cut off, and the third begins as the first did: with a handshake."""
    one = visits("persistent").iloc[0]
    online = [[(0.0, float(one.landed_s) + 0.5), (1000.0, 1e6)]]
    first, second, third = visits("persistent", online=online, budget=2).itertuples()
    assert (second.outcome, third.dispatched_s) == ("offline", 1000.0)
    assert third.landed_s - third.dispatched_s == pytest.approx(first.landed_s - first.dispatched_s)


def test_an_estimate_knows_that_the_upload_finds_the_connection_open():
    network = {"server_up_mbps": 1e12, "server_down_mbps": 1e12, "connection": "persistent"}
    made = plan(SERIAL, [1.0], network=network, **LANED)
    profile, work = made.population.profile(0), made.work(0)
    [row] = visits("persistent", budget=1).itertuples()
    expected = estimate(profile, work, 0.0, network=made.experiment.network)
    assert row.landed_s - row.dispatched_s == pytest.approx(expected.total_s)
    assert estimate(profile, work, 0.0).total_s - expected.total_s == pytest.approx(0.05)


def test_settings_of_connections_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="connections that nobody keeps"):
        NetworkConfig(keep_alive_s=10.0)
    naive = {"model": "size-over-rate", "sharing": "private", "connection": "persistent"}
    made = plan(SERIAL, [1.0], network=naive)
    assert ("network", "connection") in [problem.path for problem in misfits(made.experiment)]
