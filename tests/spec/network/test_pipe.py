"""TCP transfers over a shared link: alone as the closed form, together by hand, and against measurements."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.refill import filled

from fedsim.network.pipe import Pipe
from fedsim.network.predict import PlannedTransfer, transfers_s
from fedsim.network.sharing.flow import LinkInUse, OneWayLink
from fedsim.network.tcp import loss_limit, transfer_s
from fedsim.network.traces import ConstantRate, RateTrace, SlowerRate

IP = 1500 / 1448
MBIT = 1e6 / 8
NO_LIMIT = ConstantRate(math.inf)


class Steps:
    """A rate by steps: [(from, bytes per second), ...], the last for ever."""

    def __init__(self, *steps):
        self.steps = steps

    def rate(self, t_s):
        return [rate for begin, rate in self.steps if begin <= t_s][-1]

    def next_change(self, t_s):
        return min((begin for begin, _ in self.steps if begin > t_s), default=math.inf)


def path(rate, rtt_s=0.0, framing=1.0, limit=math.inf):
    return OneWayLink(rate if hasattr(rate, "rate") else ConstantRate(rate), rtt_s, framing, limit)


def together(asked, paths, server):
    """Seconds of transfers given as (bytes, start), each of its own client."""
    return transfers_s([PlannedTransfer(i, n, start) for i, (n, start) in enumerate(asked)], paths, server)


# alone ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    n_bytes=st.integers(1, 10**8),
    rate=st.floats(1e3, 1e9),
    server=st.floats(1e3, 1e9) | st.just(math.inf),
    rtt_s=st.floats(0, 1),
    framing=st.sampled_from([IP, 1514 / 1448, 1.0]),
)
def test_alone_a_transfer_takes_what_the_closed_form_says(n_bytes, rate, server, rtt_s, framing):
    [seconds] = together([(n_bytes, 3.0)], [path(rate, rtt_s, framing)], ConstantRate(server))
    assert seconds == pytest.approx(
        max(1e-6, transfer_s(n_bytes, min(rate, server), rtt_s, framing)), rel=1e-9
    )


@settings(deadline=None)
@given(
    links=st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 5), st.floats(1e4, 1e7), st.floats(0, 0.5)), min_size=1, max_size=8)
)  # fmt: skip
def test_where_the_server_holds_all_links_everybody_is_alone(links):
    paths = [path(rate, rtt_s, IP) for _, _, rate, rtt_s in links]
    server = ConstantRate(sum(rate for _, _, rate, _ in links))
    found = together([(n, start) for n, start, _, _ in links], paths, server)
    alone = [max(1e-6, transfer_s(n, rate, rtt_s, IP)) for n, _, rate, rtt_s in links]
    assert found == pytest.approx(alone, rel=1e-9)


def test_nothing_takes_no_time_and_one_byte_some():
    assert together([(0, 1.0), (1, 1.0)], [path(1e15), path(1e15)], NO_LIMIT) == [0.0, pytest.approx(1e-6)]


def test_bytes_that_never_pass_take_for_ever():
    found = together([(10, 0.0), (10, 0.0)], [path(5.0), path(0.0)], NO_LIMIT)
    assert found == [2.0, math.inf]
    assert together([(10, 0.0)], [path(5.0)], Steps((0, 1.0), (4, 0.0))) == [math.inf]


def test_two_loops_that_are_never_open_together_let_nothing_pass_and_are_found_out(monkeypatch):
    monkeypatch.setattr("fedsim.network.predict.MOST_CHANGES", 1000)
    times = np.array([0.0, 1.0, 2.0])
    even = RateTrace(times, np.array([7.0, 0.0, 0.0]), "loop")
    odd = RateTrace(times, np.array([0.0, 7.0, 0.0]), "loop")
    rare = Steps((0, 1.0), (1, 0.0), (700, 1.0))  # one outage, long but not for ever

    assert together([(10, 0.0)], [path(even)], odd) == [math.inf]
    assert together([(10, 0.0), (10, 0.0)], [path(even), path(SlowerRate(even, odd))], NO_LIMIT) == [
        pytest.approx(2 + 3 / 7),
        math.inf,
    ]
    assert together([(10, 0.0)], [path(SlowerRate(even, rare))], NO_LIMIT) == [pytest.approx(700 + 8 * 2 + 1)]


def test_negative_bytes_are_refused():
    with pytest.raises(ValueError, match=r"n_bytes must not be negative \(got -1\)"):
        together([(-1, 0.0)], [path(1.0)], NO_LIMIT)


# together, by hand ------------------------------------------------------------------------------------


def test_sizes_one_to_four_at_once_without_delay():
    found = together([(n, 0.0) for n in (1, 2, 3, 4)], [path(50.0)] * 4, ConstantRate(1.0))
    assert found == [4.0, 7.0, 9.0, 10.0]


def test_handshake_and_last_packet_frame_the_fair_share():
    """Round trips of 0.2 s, but a first window that covers the file: 0.2 + (8,000 shared at 20,000/s) + 0.1."""
    assert together([(4000, 0.0)] * 2, [path(1e6, 0.2)] * 2, ConstantRate(20_000)) == pytest.approx(
        [0.7, 0.7]
    )


def test_slow_start_leaves_its_share_to_the_others():
    """RTT 0.1 s, so 150,000 B/s in the first round trip, 300,000 in the second, and so on.

    One link of 1 MB/s at 0.1 s beside one of 1 MB/s without delay, 100 kB from the start, C = 0.5 MB/s:
    the handshake leaves the second all of C for 0.1 s (50 kB), the first round trip 350 kB/s, so it has its
    other 50 kB at 0.1 + 1/7 s: 35 kB until 0.2 s, then 250 kB/s each, until 0.26 s. The first has sent
    15 kB by 0.2 s and 15 more by 0.26 s; then 300 kB/s (its window) until 0.3 s, after that all of C.
    """
    first, second = together([(100_000, 0.0)] * 2, [path(1e6, 0.1), path(1e6)], ConstantRate(0.5e6))
    assert second == pytest.approx(0.1 + 0.1 + 15_000 / 250_000)
    sent_by_300_ms = 15_000 + 15_000 + 0.04 * 300_000
    assert first == pytest.approx(0.3 + (100_000 - sent_by_300_ms) / 0.5e6 + 0.05)


def test_two_transfers_of_one_client_share_its_link():
    both = transfers_s(
        [PlannedTransfer(0, 100, 0.0), PlannedTransfer(0, 100, 0.0), PlannedTransfer(1, 100, 0.0)],
        [path(10.0), path(10.0)],
        NO_LIMIT,
    )
    assert both == [20.0, 20.0, 10.0]
    late = transfers_s([PlannedTransfer(0, 100, 0.0), PlannedTransfer(0, 25, 5.0)], [path(10.0)], NO_LIMIT)
    assert late == [12.5, 5.0]


def test_what_the_window_of_one_leaves_of_the_client_s_link_goes_to_its_other_transfer():
    """150 kB/s in the first round trip of the new one: 50 kB/s more than its half stay with the old one."""
    paths = [path(ConstantRate(400_000.0), 0.1)]
    pipe = Pipe(NO_LIMIT)
    access = LinkInUse(paths[0])
    old = pipe.open(access, 10**6, 0.0)
    pipe.run(2.0)
    new = pipe.open(access, 10**6, 2.0)
    pipe.run(2.15)
    before = pipe.sent(old, 2.15), pipe.sent(new, 2.15)
    after = pipe.sent(old, 2.16), pipe.sent(new, 2.16)
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([2500, 1500], abs=1)


@settings(deadline=None, max_examples=60)
@given(
    caps=st.lists(st.floats(1, 50), min_size=1, max_size=5),
    owner=st.lists(st.integers(0, 4), min_size=1, max_size=10),
    capacity=st.floats(1, 100),
)
def test_rates_over_two_levels_of_links_are_max_min(caps, owner, capacity):
    """Filled from nothing: all rise until their client's link or the server's is full."""
    owner = [o % len(caps) for o in owner]
    pipe = Pipe(ConstantRate(capacity))
    accesses = [LinkInUse(path(cap)) for cap in caps]
    flows = [pipe.open(accesses[o], 10**9, 0.0) for o in owner]
    pipe.run(1.0)
    sent = [flow.left for flow in flows]
    rates = {i: pipe._shares.rate(flow.number) for i, flow in enumerate(flows)}
    assert len(sent) == len(rates)

    wanted = dict.fromkeys(rates, 0.0)
    rising, spare = set(rates), capacity
    room = dict(enumerate(caps))
    while rising:
        there = {c: sum(owner[i] == c for i in rising) for c in {owner[i] for i in rising}}
        step = min(spare / len(rising), *(room[c] / n for c, n in there.items()))
        for i in rising:
            wanted[i] += step
        spare -= step * len(rising)
        for c, n in there.items():
            room[c] -= step * n
        if spare <= 1e-12:
            break
        rising = {i for i in rising if room[owner[i]] > 1e-12}
    assert rates == pytest.approx(wanted, rel=1e-9, abs=1e-9)


# rates that change ------------------------------------------------------------------------------------


def test_a_trace_is_integrated_exactly_whoever_s_link_it_is():
    """Rates 1, 0 and 3 from 0, 4 and 9 s: the tenth byte passes at 11 s."""
    steps = Steps((0, 1.0), (4, 0.0), (9, 3.0))
    assert together([(10, 0.0)], [path(steps)], NO_LIMIT) == [11.0]
    assert together([(10, 0.0)], [path(9.0)], steps) == [11.0]
    assert together([(10, 0.0)], [path(SlowerRate(ConstantRate(9.0), steps))], NO_LIMIT) == [11.0]


def test_a_link_may_change_between_two_of_its_transfers():
    steps = Steps((0, 1.0), (20, 4.0))
    found = transfers_s([PlannedTransfer(0, 10, 0.0), PlannedTransfer(0, 10, 30.0)], [path(steps)], NO_LIMIT)
    assert found == [10.0, 2.5]
    found = transfers_s([PlannedTransfer(0, 10, 0.0), PlannedTransfer(0, 10, 30.0)], [path(9.0)], steps)
    assert found == [10.0, 2.5]


def test_slow_start_waits_for_the_end_of_an_outage():
    """The link comes back at 5 s: then 10, 20 and 40 packets leave in three round trips of 0.1 s."""
    steps = Steps((0, 0.0), (5, 1e9))
    [seconds] = together([(70 * 1500, 0.0)], [path(steps, 0.1)], NO_LIMIT)
    assert seconds == pytest.approx(5 + 2 * 0.1 + 0.05, abs=1e-3)
    blink = Steps((0, 1e9), (0.12, 0.0), (0.14, 1e9), (0.16, 0.0), (0.18, 1e9))
    [seconds] = together([(70 * 1500, 0.0)], [path(blink, 0.1)], NO_LIMIT)
    rest = (
        105_000 - 0.6 * 15_000 - 30_000 - 60_000
    )  # two fifths of the first window's round trip were an outage
    assert seconds == pytest.approx(0.1 + 3 * 0.1 + rest / 1e9 + 0.05, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    flows=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 3), st.floats(1e4, 1e6), st.floats(0, 0.3)), min_size=1, max_size=6),
    server=st.floats(1e4, 1e6),
    at=st.lists(st.floats(0.01, 10), max_size=5),
)  # fmt: skip
def test_a_breakpoint_that_changes_nothing_changes_nothing(flows, server, at):
    asked = [(n, start) for n, start, _, _ in flows]
    plain = together(asked, [path(rate, rtt_s, IP) for *_, rate, rtt_s in flows], ConstantRate(server))

    def broken(rate):
        return Steps((0, rate), *((t, rate) for t in sorted(at)))

    found = together(asked, [path(broken(rate), rtt_s, IP) for *_, rate, rtt_s in flows], broken(server))
    assert found == pytest.approx(plain, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    flows=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 3), st.floats(1e4, 1e6), st.floats(0, 0.3)), min_size=1, max_size=6),
    server=st.floats(1e4, 1e6),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_link_carries_what_was_asked_and_no_more_than_it_can(flows, server, seed):
    """Payload sent never falls, ends at all, and between two looks is at most what the link carries."""
    rng = np.random.default_rng(seed)
    pipe = Pipe(ConstantRate(server))
    ends = sorted(rng.uniform(0, 60, 12))
    begun, looks = [], []
    pending = sorted((start, n, rate, rtt_s) for n, start, rate, rtt_s in flows)
    for now in ends:
        while pending and pending[0][0] <= now:
            start, n, rate, rtt_s = pending.pop(0)
            pipe.run(start)
            begun.append(pipe.open(LinkInUse(path(rate, rtt_s)), n, start))
        pipe.run(now)
        looks.append((now, [pipe.sent(flow, now) for flow in begun]))
    for (before_s, before), (after_s, after) in pairwise(looks):
        assert all(a <= b for a, b in zip(before, after, strict=False))
        assert sum(after) - sum(before) <= server * (after_s - before_s) * (1 + 1e-9) + 2 * len(flows)
    pipe.run(math.inf)
    assert [pipe.sent(flow, 1e9) for flow in begun] == [flow.n_bytes for flow in begun]
    assert pipe.next_s() == math.inf


# losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percent", "mbit_per_s"), [(0.1, 6.3), (1, 1.8), (3, 0.9)])
def test_the_rate_under_losses_at_50_ms(percent, mbit_per_s):
    """PFTK in payload: between Reno's and CUBIC's 2 MB uploads, which vary by a factor of 2 and more."""
    assert loss_limit(percent / 100, 0.05) * 1448 / 1500 / MBIT == pytest.approx(mbit_per_s, abs=0.06)


def test_losses_cap_a_connection_not_the_link():
    limit = loss_limit(0.01, 0.05)
    slow, also = transfers_s(
        [PlannedTransfer(0, 10**6, 0.0)] * 2, [path(20 * MBIT, 0.05, IP, limit)], NO_LIMIT
    )
    assert slow == also == pytest.approx(transfer_s(10**6, limit, 0.05, IP))


@given(loss=st.floats(0, 0.9), more=st.floats(0, 0.09), rtt_s=st.floats(0, 1))
def test_more_loss_or_a_longer_way_never_gives_more(loss, more, rtt_s):
    assert loss_limit(0.0, rtt_s) == math.inf
    assert loss_limit(loss + more, rtt_s) <= loss_limit(loss, rtt_s)
    assert loss_limit(loss, rtt_s + more) <= loss_limit(loss, rtt_s)


@pytest.mark.parametrize(
    ("loss", "rtt_s", "name"), [(-0.1, 0.1, "loss"), (1.0, 0.1, "loss"), (0.1, -1.0, "rtt_s")]
)
def test_impossible_losses_are_refused(loss, rtt_s, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        loss_limit(loss, rtt_s)


# measured ---------------------------------------------------------------------------------------------

FAIR_QUEUE = [
    # (rate Mbit/s, RTT ms, MB, start s) of four uploads into 20 Mbit/s; seconds measured over real TCP (CUBIC)
    (
        "sizes",
        [(20, 50, 1, 0), (20, 50, 2, 0), (20, 50, 3, 0), (20, 50, 4, 0)],
        [1.764, 3.009, 3.837, 4.252],
        0.5,
    ),
    ("starts", [(20, 50, 2, s) for s in (0, 0.5, 1, 1.5)], [1.523, 2.343, 2.323, 2.008], 0.5),
    ("caps", [(2, 50, 1, 0), (5, 50, 2, 0), (20, 50, 3, 0), (20, 50, 3, 0)], [4.22, 3.43, 3.80, 3.80], 0.5),
    ("round trips", [(20, rtt, 2.5, 0) for rtt in (10, 50, 100, 200)], [3.463, 3.834, 4.021, 4.284], 4.0),
]


@pytest.mark.parametrize(
    ("flows", "measured", "percent"), [row[1:] for row in FAIR_QUEUE], ids=[r[0] for r in FAIR_QUEUE]
)
def test_uploads_measured_behind_a_fair_queue_are_met(flows, measured, percent):
    asked = [(round(mb * 1e6), start) for *_, mb, start in flows]
    found = together(
        asked, [path(rate * MBIT, rtt / 1e3, IP) for rate, rtt, *_ in flows], ConstantRate(20 * MBIT)
    )
    errors = [100 * (s / m - 1) for s, m in zip(found, measured, strict=True)]
    assert max(map(abs, errors)) < percent
    ends = [(start + m, start + s) for (_, start), m, s in zip(asked, measured, found, strict=True)]
    assert max(s for _, s in ends) == pytest.approx(max(m for m, _ in ends), rel=0.007)


def test_an_upload_measured_over_a_changing_link_is_met():
    steps = Steps((0, 5 * MBIT), (2, 1 * MBIT), (5, 10 * MBIT))
    assert together([(3_000_000, 0.0)], [path(steps, 0.05, IP)], NO_LIMIT) == [pytest.approx(6.253, rel=1e-3)]


def test_uploads_measured_into_a_changing_server_are_met():
    server = Steps((0, 20 * MBIT), (1.5, 6 * MBIT), (3.5, 20 * MBIT))
    asked = [(2_000_000, start) for start in (0.0, 0.3, 0.6)]
    found = together(asked, [path(20 * MBIT, 0.05, IP)] * 3, server)
    assert found[0] == pytest.approx(3.24, rel=0.025)
    assert found[1:] == pytest.approx([3.638, 3.479], rel=0.003)


def test_without_sharing_the_same_uploads_would_be_half_as_long():
    """So the tests above do measure sharing."""
    alone = transfer_s(4_000_000, 20 * MBIT, 0.05, IP)
    assert alone < 0.5 * 4.252
    assert filled({0: 20.0, 1: 20.0}, 20.0) == {0: 10.0, 1: 10.0}
