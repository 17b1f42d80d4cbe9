"""Transfers on the clock: when they end, what pausing and stopping them does, and who goes first in an instant."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import RunError
from fedsim.instants import At, Instant
from fedsim.network.private import PrivateLinks
from fedsim.network.shared import FluidNetwork
from fedsim.network.tcp import loss_limit, transfer_s
from fedsim.network.traces import ConstantRate, RateTrace, SlowerRate

IP = 1500 / 1448


def population(*rates, rtt_s=0.0, framing=1.0, over_time=None):
    """Clients with the same rate down and up; `over_time`: (client, direction) -> rates over time."""
    over_time = over_time or {}
    made = [
        SimpleNamespace(down_bytes_per_s=r, up_bytes_per_s=r, rtt_s=rtt_s, framing=framing) for r in rates
    ]
    return SimpleNamespace(
        profile=lambda client: made[client],
        mean_rates=lambda _: np.array(rates, dtype=float),
        varying=bool(over_time),
        rates=lambda client, direction: over_time.get((client, direction)),
    )


def shared(*rates, server=10.0, **links):
    env = simpy.Environment()
    return env, FluidNetwork(env, population(*rates, **links), server, server)


def at(env, when_s, act):
    """Do something at a time, in its place after what ends there."""
    At(env, when_s - env.now, Instant.COMMIT).callbacks.append(lambda _: act())


def landings(env, transfers):
    """When each transfer was done, as it is then on the clock; those that never are, are left out."""
    seen = {}
    for name, transfer in enumerate(transfers):
        transfer.done.callbacks.append(lambda _, name=name: seen.setdefault(name, env.now))
    env.run()
    return seen


# durations --------------------------------------------------------------------------------------------


def test_uploads_share_the_server_s_downlink_and_downloads_its_uplink():
    env = simpy.Environment()
    network = FluidNetwork(env, population(50.0, 50.0), 20.0, 10.0)
    transfers = [
        network.transfer(direction, client, 100) for direction in ("up", "down") for client in (0, 1)
    ]
    assert landings(env, transfers) == {0: 20.0, 1: 20.0, 2: 10.0, 3: 10.0}
    assert [transfer.done.value for transfer in transfers] == [20.0, 20.0, 10.0, 10.0]


def test_a_latecomer_slows_the_others_from_its_handshake_on():
    """1,000 bytes each at 10/s; the second has its handshake at 12 + 4 s, when the first has 880 left."""
    env, network = shared(50.0, 50.0, rtt_s=4.0)
    transfers = [network.transfer("up", 0, 1000)]
    at(env, 12.0, lambda: transfers.append(network.transfer("up", 1, 1000)))
    env.run(until=13)
    assert landings(env, transfers) == {0: 16 + 880 / 5 + 2, 1: 16 + 880 / 5 + (1000 - 880) / 10 + 2}
    assert transfers[1].done.value == 4 + 880 / 5 + 12 + 2


def test_where_the_server_holds_everybody_the_closed_form_is_used():
    env, network = shared(4.0, 6.0, server=10.0, rtt_s=0.1, framing=IP)
    transfers = [network.transfer("down", client, 10**4) for client in (0, 1)]
    env.run()
    assert [t.done.value for t in transfers] == [transfer_s(10**4, rate, 0.1, IP) for rate in (4.0, 6.0)]


@settings(deadline=None, max_examples=50)
@given(
    rates=st.lists(st.floats(1e4, 1e7), min_size=1, max_size=5),
    n_bytes=st.integers(1, 10**7),
    rtt_s=st.floats(0, 0.5),
    share=st.floats(0, 1.2),
)
def test_the_fast_path_and_the_slow_path_are_one(rates, n_bytes, rtt_s, share):
    """Both end alike, and both have sent the same at the end of every round trip of slow start."""
    outcomes = []
    for over_time in (
        None,
        {(i, "up"): SlowerRate(ConstantRate(r), ConstantRate(r)) for i, r in enumerate(rates)},
    ):
        env = simpy.Environment()
        links = population(*rates, rtt_s=rtt_s, framing=IP, over_time=over_time)
        network = FluidNetwork(env, links, sum(rates) * 2, sum(rates) * 2)
        transfers = [network.transfer("up", client, n_bytes) for client in range(len(rates))]
        rounds = (
            int(share * max(transfer_s(n_bytes, r, rtt_s, IP) for r in rates) / rtt_s) if rtt_s > 1e-3 else 0
        )
        env.run(until=max(min(rounds, 6), 1) * rtt_s + 1e-12)
        sent = [transfer.sent_bytes() for transfer in transfers]
        env.run()
        outcomes.append(([t.done.value for t in transfers], sent))
    (fast, sent), (slow, also) = outcomes
    assert fast == pytest.approx(slow, rel=1e-9)
    assert sent == pytest.approx(also, abs=2 + 1e-11 * max(rates))


def test_isolated_transfers_follow_their_rates_and_slow_nobody_down():
    steps = RateTrace(np.array([0.0, 4.0, 9.0]), np.array([1.0, 0.0, 3.0]), "hold")
    env = simpy.Environment()
    links = population(5.0, 50.0, over_time={(0, "up"): steps})
    network = FluidNetwork(env, links, 10.0, 10.0, isolated=True)
    transfers = [network.transfer("up", 0, 10), network.transfer("up", 1, 100), network.transfer("up", 1, 0)]
    assert landings(env, transfers) == {0: 11.0, 1: 10.0, 2: 0.0}


def test_the_server_s_rate_may_change_over_time():
    steps = RateTrace(np.array([0.0, 4.0, 9.0]), np.array([1.0, 0.0, 3.0]), "hold")
    env = simpy.Environment()
    network = FluidNetwork(env, population(5.0, 5.0), 10.0, steps)
    transfers = [network.transfer("up", client, 5) for client in (0, 1)]
    assert landings(env, transfers) == {0: 11.0, 1: 11.0}


@pytest.mark.parametrize(("client", "rate"), [(0, 10.0), (1, 4.0)])
def test_alone_on_the_link_the_slower_side_decides(client, rate):
    env, network = shared(50.0, 4.0, rtt_s=0.2, framing=IP)
    transfer = network.transfer("up", client, 10**5)
    env.run()
    assert transfer.done.value == pytest.approx(transfer_s(10**5, rate, 0.2, IP))


def test_a_link_that_stands_still_for_ever_leaves_the_clock_in_peace():
    env = simpy.Environment()
    network = FluidNetwork(
        env, population(5.0), 10.0, RateTrace(np.array([0.0, 4.0]), np.array([1.0, 0.0]), "hold")
    )
    stuck = network.transfer("up", 0, 5)
    assert landings(env, [stuck]) == {}
    assert stuck.sent_bytes() == 4


def test_losses_limit_each_connection():
    env = simpy.Environment()
    lossy = FluidNetwork(env, population(1e7, rtt_s=0.05), 1e6, 1e6, loss=0.01)
    assert loss_limit(0.01, 0.05) < 2.5e5
    transfer = lossy.transfer("up", 0, 10**6)
    env.run()
    assert transfer.done.value == pytest.approx(transfer_s(10**6, loss_limit(0.01, 0.05), 0.05, 1.0))


# stopping and pausing ---------------------------------------------------------------------------------


def private(*rates, **links):
    env = simpy.Environment()
    return env, PrivateLinks(env, population(*rates, **links), 1e9, 1e9)


def test_a_cancelled_transfer_gives_its_share_back_at_once():
    env, network = shared(50.0, 50.0)
    gone, other = network.transfer("up", 0, 1000), network.transfer("up", 1, 100)
    at(env, 4.0, lambda: sent.append(gone.cancel()))
    sent = []
    assert landings(env, [gone, other]) == {1: 4 + 80 / 10}
    assert sent == [20]
    assert gone.cancel() == gone.sent_bytes() == 20
    gone.resume()
    env.run()
    assert not gone.done.triggered


@pytest.mark.parametrize("links", [shared, private])
def test_a_paused_transfer_goes_on_with_what_is_left_after_another_handshake(links):
    """100 bytes at 10/s, round trip 2 s: 30 sent by 5 s, 70 more from 8 + 2 s on, the last on its way for 1 s."""
    env, network = links(10.0, 5.0, rtt_s=2.0)
    transfer = network.transfer("up", 0, 100)
    at(env, 5.0, transfer.pause)
    at(env, 6.0, transfer.pause)
    at(env, 8.0, transfer.resume)
    at(env, 9.0, transfer.resume)
    env.run(until=7)
    assert transfer.sent_bytes() == 30
    assert landings(env, [transfer]) == {0: 18.0}
    assert transfer.done.value == 18.0
    assert transfer.cancel() == 100


@pytest.mark.parametrize("links", [shared, private])
def test_a_pause_in_the_handshake_or_on_the_last_way_costs_a_new_connection(links):
    env, network = links(10.0, 5.0, rtt_s=2.0)
    early, late = network.transfer("up", 0, 100), network.transfer("down", 0, 100)
    at(env, 1.0, early.pause)
    at(env, 3.0, early.resume)
    at(env, 12.5, late.pause)
    at(env, 20.0, late.resume)
    assert landings(env, [early, late]) == {0: 3 + 13.0, 1: 20 + 3.0}


@pytest.mark.parametrize("links", [shared, private])
@settings(deadline=None, max_examples=40)
@given(
    times=st.lists(st.floats(0.01, 30), min_size=1, max_size=9, unique=True),
    rtt_s=st.floats(0, 2),
    rate=st.floats(1, 20),
)
def test_however_often_a_transfer_is_paused_no_byte_is_made_or_lost(links, times, rtt_s, rate):
    env, network = links(rate, 20.0, rtt_s=rtt_s)
    transfer = network.transfer("up", 0, 60)
    looks = []

    def look(act):
        act()
        looks.append(transfer.sent_bytes())

    for k, time_s in enumerate(sorted(times)):
        at(env, time_s, lambda act=(transfer.resume if k % 2 else transfer.pause): look(act))
    at(env, 31.0, transfer.resume)
    env.run()
    assert transfer.done.triggered
    assert looks == sorted(looks)
    assert transfer.sent_bytes() == 60
    used = min(rate, 10.0) if links is shared else rate
    assert env.now >= 60 / used + 1.5 * rtt_s - 1e-9


@pytest.mark.parametrize("links", [shared, private])
def test_what_arrives_at_the_very_instant_of_a_stop_has_arrived(links):
    env, network = links(10.0, 5.0)
    transfer = network.transfer("up", 0, 100)
    At(env, 10.0, Instant.LANDING).callbacks.append(lambda _: said.append(transfer.cancel()))
    said = []
    assert landings(env, [transfer]) == {0: 10.0}
    assert said == [100]


@pytest.mark.parametrize("links", [shared, private])
def test_bytes_sent_by_a_time_ahead_are_told_without_moving_the_clock(links):
    env, network = links(10.0, 5.0, rtt_s=2.0)
    transfer = network.transfer("up", 0, 100)
    env.run(until=3)
    assert transfer.sent_bytes() == 10
    assert transfer.sent_bytes(5.0) == 30
    assert env.now == 3.0


# order ------------------------------------------------------------------------------------------------


def test_a_landing_comes_before_the_end_of_a_window_and_a_commit_of_its_instant():
    env, network = shared(50.0, 50.0)
    order = []
    for instant in (Instant.COMMIT, Instant.OFFLINE):
        At(env, 20.0, instant).callbacks.append(lambda _, name=instant.name: order.append(name))
    transfers = [network.transfer("up", client, 100) for client in (0, 1)]
    for name, transfer in enumerate(transfers):
        transfer.done.callbacks.append(lambda _, name=name: order.append(name))
    env.run()
    assert order == [0, 1, "OFFLINE", "COMMIT"]


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 10), min_size=2, max_size=8))
def test_who_ties_lands_in_the_order_of_the_starts(sizes):
    env, network = shared(*[100.0] * len(sizes))
    transfers = [network.transfer("up", client, size) for client, size in enumerate(sizes)]
    landed = list(landings(env, transfers))
    assert landed == sorted(range(len(sizes)), key=lambda client: (sizes[client], client))


def test_wake_ups_do_not_pile_up():
    """Every arrival makes the earlier wake-up void; the clock holds a few of them, not one a transfer."""
    env, network = shared(*[50.0] * 300, server=10.0)
    most = 0
    for client in range(300):
        at(env, 0.01 * client, lambda client=client: network.transfer("up", client, 1000))
    while env.peek() < math.inf:
        env.step()
        if env.now > 3.0:
            most = max(most, len(env._queue))
    assert most < 10


@pytest.mark.parametrize("isolated", [False, True])
def test_a_transfer_that_would_follow_a_looping_trace_for_ever_is_refused_at_once(isolated):
    """A bit a second in steps of a millisecond: a million bytes are 8 million seconds, and 8e9 steps."""
    slow = RateTrace(np.array([0.0, 0.001, 0.002]), np.array([0.25, 0.0, 0.25]), "loop", "r.csv: trace a")
    links = population(1.0, over_time={(0, "up"): slow})
    network = FluidNetwork(simpy.Environment(), links, 10.0, 10.0, isolated=isolated)
    with pytest.raises(
        RunError, match=r"r\.csv: trace a: a transfer of 1e\+06 bytes would take 8e\+09 steps"
    ):
        network.transfer("up", 0, 10**6)
    network.transfer("up", 0, 30)  # 240 s, 240,000 steps


def test_a_trace_that_ends_is_followed_however_slow_it_is():
    held = RateTrace(np.array([0.0, 0.001, 0.002]), np.array([0.25, 0.0, 1.0]), "hold")
    env = simpy.Environment()
    network = FluidNetwork(env, population(1.0, over_time={(0, "up"): held}), 10.0, 10.0)
    transfer = network.transfer("up", 0, 10**6)
    env.run()
    assert transfer.done.value == pytest.approx(0.002 + 10**6 - 0.00025)
