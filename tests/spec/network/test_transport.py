"""On the way: handshakes of TLS, losses that come in bursts, a CDN before the server; by hand and in runs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import simpy
from worlds import plan, simulated

from fedsim.clock.estimate import estimate
from fedsim.config.network import LossBursts, NetworkConfig, Tls
from fedsim.cost.shape import backbone_bytes
from fedsim.network.build import handshakes_of, network_of
from fedsim.network.private import PrivateLinks
from fedsim.network.shared import FluidNetwork
from fedsim.network.tcp import Connections, loss_limit, transfer_s
from fedsim.network.traces import ConstantRate
from fedsim.network.transport.cdn import WithCdn
from fedsim.network.transport.loss_bursts import Bursts, BurstyLimit
from fedsim.network.transport.tls import Handshakes, tls_handshakes
from fedsim.network.transport.two_states import chances, second_state
from fedsim.records.verify import verify
from fedsim.rng import stream

IP = 1500 / 1448
RATE, RTT_S, SIZE = 4e6, 0.04, 10**6
LINK = SimpleNamespace(down_bytes_per_s=RATE, up_bytes_per_s=RATE, rtt_s=RTT_S, framing=IP)
CLIENTS = SimpleNamespace(
    profile=lambda _: LINK,
    mean_rates=lambda _: np.array([RATE, RATE]),
    varying=False,
    rates=lambda *_: None,
)
PLAIN_S = transfer_s(SIZE, RATE, RTT_S, IP)  # with TCP's own handshake


def private(env, **kept):
    return PrivateLinks(env, CLIENTS, 1e9, 1e9, connections=Connections(**kept))


def piped(env, **kept):
    return FluidNetwork(env, CLIENTS, RATE, ConstantRate(RATE), connections=Connections(**kept))


NETWORKS = pytest.mark.parametrize("way", [private, piped])


def took(way, waits, **kept):
    """Durations of uploads one after the other, each after a wait."""
    env = simpy.Environment()
    network = way(env, **kept)
    durations = []

    def course():
        for wait_s in waits:
            yield env.timeout(wait_s)
            durations.append((yield network.transfer("up", 0, SIZE).done))

    env.run(env.process(course()))
    return durations


# TLS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tls", "full", "resumed"),
    [
        (None, 1, 1),
        (Tls(version="1.2"), 3, 2),
        (Tls(), 2, 2),
        (Tls(early_data=True), 2, 1),
    ],
)
def test_round_trips_of_a_new_connection_and_of_a_resumed_one(tls, full, resumed):
    """TCP 1; TLS 1.2 2 and 1 (RFC 5246, 7.3), TLS 1.3 1 and 1, none with early data (RFC 8446, 2)."""
    assert handshakes_of(NetworkConfig(tls=tls))[:2] == (full, resumed)


@NETWORKS
def test_a_session_is_resumed_as_long_as_its_ticket_is_good(way):
    """The ticket is of the end of the handshake, three (or two) round trips after the transfer began."""
    tls = tls_handshakes("1.2", 10.0, early_data=False)
    first, later, late = took(way, [0.0, 1.0, 30.0], handshakes=tls)
    assert first == pytest.approx(PLAIN_S + 2 * RTT_S)
    assert later == pytest.approx(PLAIN_S + RTT_S)
    assert late == pytest.approx(first)
    edge_s = 10.0 - (first - 3 * RTT_S)
    assert took(way, [0.0, edge_s - 0.01], handshakes=tls)[1] == pytest.approx(later)
    assert took(way, [0.0, edge_s + 0.01], handshakes=tls)[1] == pytest.approx(first)


@NETWORKS
def test_early_data_saves_all_round_trips_but_tcp_s(way):
    tls = tls_handshakes("1.3", 300.0, early_data=True)
    assert took(way, [0.0, 1.0], handshakes=tls) == pytest.approx([PLAIN_S + RTT_S, PLAIN_S])


@NETWORKS
def test_a_connection_that_is_held_pays_no_handshake_of_tls_either(way):
    tls = tls_handshakes("1.2", 300.0, early_data=False)
    first, second = took(way, [0.0, 1.0], handshakes=tls, keep_alive_s=100.0)
    assert first == pytest.approx(PLAIN_S + 2 * RTT_S)
    assert second == pytest.approx(PLAIN_S - RTT_S)


@NETWORKS
def test_who_never_resumes_pays_in_full_every_time(way):
    tls = tls_handshakes("1.2", 0.0, early_data=False)
    assert took(way, [0.0, 0.0], handshakes=tls) == pytest.approx([PLAIN_S + 2 * RTT_S] * 2)


@NETWORKS
@pytest.mark.parametrize(("stop_s", "resumes"), [(2.5 * RTT_S, False), (3.5 * RTT_S, True)])
def test_a_handshake_that_is_broken_off_leaves_no_ticket(way, stop_s, resumes):
    env = simpy.Environment()
    network = way(env, handshakes=tls_handshakes("1.2", 300.0, early_data=False))
    broken = network.transfer("up", 0, SIZE)
    env.run(stop_s)
    broken.cancel()
    env.run(10.0)
    again = network.transfer("up", 0, SIZE)
    env.run()
    assert again.done.value == pytest.approx(PLAIN_S + (1 if resumes else 2) * RTT_S)


@NETWORKS
def test_a_transfer_that_goes_on_after_a_pause_resumes_its_session(way):
    env = simpy.Environment()
    network = way(env, handshakes=tls_handshakes("1.2", 300.0, early_data=False))
    transfer = network.transfer("up", 0, SIZE)
    env.run(0.25)
    left = SIZE - transfer.sent_bytes()
    transfer.pause()
    env.run(10.0)
    transfer.resume()
    env.run()
    assert 0 < left < SIZE
    assert env.now == pytest.approx(10.0 + transfer_s(left, RATE, RTT_S, IP) + RTT_S, abs=1e-6)


def test_nothing_to_send_opens_no_connection_and_gets_no_ticket():
    env = simpy.Environment()
    network = private(env, handshakes=tls_handshakes("1.2", 300.0, early_data=False))
    env.run(network.transfer("down", 0, 0).done)
    transfer = network.transfer("up", 0, SIZE)
    env.run()
    assert transfer.done.value == pytest.approx(PLAIN_S + 2 * RTT_S)


LANED = {"rate": 1e5, "rtt_s": 0.05}
SERIAL = {"kind": "synchronous", "cohort": 1}
WIDE = {"server_up_mbps": 1e12, "server_down_mbps": 1e12}


def test_a_run_pays_for_tls_what_it_takes_and_an_estimate_knows_it():
    """Training lasts 1 s, so the upload resumes the session of the download: 2 + 1 round trips more than plain TCP."""
    settings = {**WIDE, "tls": {"version": 1.2}}
    plain = simulated(SERIAL, [1.0], network=WIDE, budget={"commits": 1}, **LANED)
    tls = simulated(SERIAL, [1.0], network=settings, budget={"commits": 1}, **LANED)
    more_s = (tls.visits.landed_s - tls.visits.dispatched_s) - (
        plain.visits.landed_s - plain.visits.dispatched_s
    )
    assert more_s.tolist() == pytest.approx([0.15])
    assert verify(tls) == []
    made = plan(SERIAL, [1.0], network=settings, **LANED)
    expected = estimate(made.population.profile(0), made.work(0), 0.0, network=made.experiment.network)
    assert tls.visits.landed_s[0] - tls.visits.dispatched_s[0] == pytest.approx(expected.total_s)


# loss bursts ------------------------------------------------------------------------------------------


def test_spells_hold_their_share_of_the_time_and_last_as_long_as_they_should():
    """10 % of the time in spells of 4 s; 61,440 s of each of 20 clients have some 1,500 spells each."""
    at, shares, lengths = chances(0.1, 4.0), [], []
    for client in range(20):
        draws = [stream(3, "test", client, block).random(2048) for block in range(30)]
        lossy = np.concatenate([second_state(at, draws.__getitem__, block) for block in range(30)])
        begins = np.flatnonzero(lossy[1:] & ~lossy[:-1])
        shares.append(lossy.mean())
        lengths.append(lossy.sum() / len(begins))
    for values, expected in ((shares, 0.1), (lengths, 4.0)):
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert error < 0.02 * expected
        assert abs(np.mean(values) - expected) < 4 * error


def test_a_limit_changes_only_where_it_says_and_is_the_same_whatever_was_asked_before():
    limit = BurstyLimit(math.inf, 1.0, chances(0.3, 3.0), 7, 5)
    t, ends = 0.0, []
    while t < 10_000:
        ends.append((t, limit.next_change(t), limit.rate(t)))
        t = ends[-1][1]
    for begin, end, rate in ends:
        assert {limit.rate(s) for s in np.arange(begin, end, 0.5).tolist()} == {rate}
    other = BurstyLimit(math.inf, 1.0, chances(0.3, 3.0), 7, 5)
    assert [other.rate(begin) for begin, _, _ in reversed(ends)] == [rate for *_, rate in reversed(ends)]
    assert BurstyLimit(math.inf, 1.0, chances(0.3, 3.0), 7, 6).rate(ends[1][0]) in (math.inf, 1.0)


def test_a_transfer_follows_its_spells_to_the_byte():
    """No round trip, so no slow start: what passes in a second is the lesser of link and limit."""
    bursts = Bursts(0.05, chances(0.4, 3.0), 2)
    link = SimpleNamespace(down_bytes_per_s=1e6, up_bytes_per_s=1e6, rtt_s=0.0, framing=1.0)
    links = SimpleNamespace(
        profile=lambda _: link, mean_rates=lambda _: np.array([1e6]), varying=False, rates=lambda *_: None
    )
    env = simpy.Environment()
    transfer = FluidNetwork(env, links, 1e9, 1e9, bursts=bursts).transfer("up", 0, 20_000_000)
    limit = bursts.limit(0, 0.0, 0.0)
    assert limit.lossy == loss_limit(0.05, 0.0) < 1e6
    left, t = 20_000_000.0, 0
    while left > (rate := min(1e6, limit.rate(t))):
        left, t = left - rate, t + 1
    env.run()
    assert transfer.done.value == pytest.approx(t + left / rate, rel=1e-9)
    assert 20.0 < transfer.done.value


def test_over_a_long_transfer_the_rate_is_the_mean_of_both_states():
    """Padhye's formula at each state's loss, by the share of the time in it."""
    bursts = Bursts(0.05, chances(0.2, 2.0), 0)
    link = SimpleNamespace(down_bytes_per_s=1e8, up_bytes_per_s=1e8, rtt_s=0.05, framing=1.0)
    links = SimpleNamespace(
        profile=lambda _: link, mean_rates=lambda _: np.array([1e8]), varying=False, rates=lambda *_: None
    )
    expected = 0.8 * loss_limit(0.001, 0.05) + 0.2 * loss_limit(0.05, 0.05)
    env = simpy.Environment()
    transfer = FluidNetwork(env, links, 1e9, 1e9, loss=0.001, bursts=bursts).transfer(
        "up", 0, int(expected * 20_000)
    )
    env.run()
    assert transfer.done.value == pytest.approx(20_000, rel=0.02)


def test_private_links_have_bursts_too():
    config = NetworkConfig(
        sharing="private", congestion="loss-based", loss_bursts=LossBursts(loss=0.05, share=0.5, mean_s=5.0)
    )
    env = simpy.Environment()
    network = network_of(config, CLIENTS, env)
    uploads = [network.transfer("up", client, SIZE) for client in range(30)]
    env.run()
    assert isinstance(network, FluidNetwork)
    slower = [upload.done.value > 1.001 * PLAIN_S for upload in uploads]
    assert 5 < sum(slower) < 25  # who begins in a spell


# a CDN ------------------------------------------------------------------------------------------------


def with_cdn(rates, server):
    """Clients of these rates, a server of so much, no delays."""
    made = [SimpleNamespace(down_bytes_per_s=r, up_bytes_per_s=r, rtt_s=0.0, framing=1.0) for r in rates]
    links = SimpleNamespace(
        profile=lambda client: made[client],
        mean_rates=lambda _: np.array(rates, dtype=float),
        varying=False,
        rates=lambda *_: None,
    )
    env = simpy.Environment()
    return env, WithCdn(
        env, FluidNetwork(env, links, server, server), PrivateLinks(env, links, math.inf, math.inf)
    )


def test_what_a_cdn_sends_does_not_use_the_server_s_link():
    """900 of 1,000 bytes come at the clients' own 50/s and 30/s; the others share the server's 10/s as they come."""
    env, network = with_cdn([50.0, 30.0], 10.0)
    downloads = [network.download(client, 1000, 900) for client in (0, 1)]
    env.run(downloads[0].done)
    assert env.now == 18.0 + 100 / 10.0
    env.run(downloads[1].done)
    assert env.now == 30.0 + 100 / 10.0
    assert [d.done.value for d in downloads] == [28.0, 40.0]


def test_a_download_from_a_cdn_and_the_server_is_one_to_the_byte():
    env, network = with_cdn([50.0], 10.0)
    download = network.download(0, 1000, 900)
    env.run(10.0)
    assert (download.sent_bytes(), download.sent_bytes(12.0), download.due_s) == (500, 600, math.inf)
    download.pause()
    env.run(20.0)
    download.resume()
    env.run(30.0)
    assert (download.sent_bytes(), download.due_s) == (920, 38.0)
    assert download.cancel() == 920
    env.run()
    assert not download.done.triggered


def test_a_download_that_is_all_the_cdn_s_never_sees_the_server():
    env, network = with_cdn([50.0], 1e-3)
    env.run(network.download(0, 1000, 1000).done)
    assert env.now == 20.0


def test_in_a_run_the_frozen_model_comes_at_the_clients_own_rate_and_messages_from_the_server():
    """Three clients on links of 1 MB/s and a server of 125 kB/s: without a CDN they share that for the model, too."""
    narrow = {"server_up_mbps": 1.0, "server_down_mbps": 1e12, "backbone": "first_visit"}
    protocol = {"kind": "synchronous", "cohort": 3}
    runs = {
        name: simulated(
            protocol, [1.0] * 3, rate=1e6, network=narrow | {"backbone_from": name}, budget={"commits": 2}
        )
        for name in ("server", "cdn")
    }
    model = backbone_bytes(plan(protocol, [1.0] * 3).shape)
    first = {name: run.visits[run.visits["visit"] == 0] for name, run in runs.items()}
    message = int(first["cdn"].down_bytes.iloc[0]) - model
    took_s = {name: (v.downloaded_s - v.dispatched_s).tolist() for name, v in first.items()}
    assert took_s["server"] == pytest.approx([3 * (model + message) / 125e3] * 3)
    assert took_s["cdn"] == pytest.approx([model / 1e6 + 3 * message / 125e3] * 3)
    assert first["cdn"].down_bytes.tolist() == first["server"].down_bytes.tolist()
    later = [run.visits[run.visits["visit"] == 1] for run in runs.values()]
    assert (later[0].downloaded_s - later[0].dispatched_s).tolist() == pytest.approx(
        (later[1].downloaded_s - later[1].dispatched_s).tolist()
    )
    assert [verify(run) for run in runs.values()] == [[], []]


def test_every_plain_handshake_is_one_round_trip():
    assert Handshakes() == (1, 1, 0.0)
