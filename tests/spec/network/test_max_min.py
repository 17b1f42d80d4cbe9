"""Max-min shares of one link: by hand, against a link filled anew at every event, and by their invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.refill import filled, finishes

from fedsim.network.max_min import MaxMinLink

# by hand ----------------------------------------------------------------------------------------------


def loaded(capacity, sizes, caps):
    link = MaxMinLink(capacity)
    for flow, (size, cap) in enumerate(zip(sizes, caps, strict=True)):
        link.add(flow, size, cap, 0.0)
    return link


def finished(link):
    """(time, flow) of everything, in order."""
    done = []
    while link.next_finish() is not None:
        done.append(link.finish())
    return done


def test_rates_fill_up_to_one_water_level_or_to_their_caps():
    link = loaded(20.0, [100] * 4, [2, 5, 20, 20])
    assert [link.rate(flow) for flow in range(4)] == [2.0, 5.0, 6.5, 6.5]
    assert link.level == 6.5


def test_a_link_that_holds_all_caps_limits_nobody():
    link = loaded(27.0, [100] * 3, [2, 5, 20])
    assert [link.rate(flow) for flow in range(3)] == [2, 5, 20]
    assert link.level == math.inf


def test_sizes_one_to_four_on_a_link_of_one_finish_at_four_seven_nine_and_ten():
    """T_k = T_(k-1) + (s_k - s_(k-1)) (n - k + 1) / C."""
    assert finished(loaded(1.0, [4, 2, 1, 3], [9] * 4)) == [(4, 2), (7, 1), (9, 3), (10, 0)]


def test_what_a_slow_link_leaves_goes_to_the_others():
    """10 bytes each, caps 1 and 9, C = 4: the second has 3 until 10 / 3 s, the first 1 all along."""
    assert finished(loaded(4.0, [10, 10], [1, 9])) == [(pytest.approx(10 / 3), 1), (10.0, 0)]


def test_a_capacity_of_one_none_and_three_lets_ten_bytes_through_at_eleven():
    link = loaded(1.0, [10], [9])
    link.set_capacity(0.0, 4.0)
    assert link.next_finish() is None
    link.set_capacity(3.0, 9.0)
    assert link.finish() == (11.0, 0)


def test_a_flow_that_is_taken_out_tells_what_it_had_left_and_gives_back_its_share():
    link = loaded(10.0, [100, 100], [50, 50])
    assert link.left(0, 4.0) == 80.0
    assert link.remove(0, 4.0) == 80.0
    assert 0 not in link
    assert link.finish() == (12.0, 1)  # 80 bytes left at 10 a second
    assert len(link) == 0


def test_a_new_cap_counts_from_its_own_instant():
    link = loaded(100.0, [100, 60], [10, 6])
    link.set_cap(0, 20.0, 5.0)
    assert link.finish() == (7.5, 0)
    link.set_cap(1, 0.0, 8.0)
    assert link.next_finish() is None
    link.set_cap(1, 12.0, 9.0)
    assert link.finish() == (10.0, 1)


def test_flows_that_tie_finish_at_one_instant_the_smaller_number_first():
    link = MaxMinLink(3.0)
    for flow in (2, 0, 1):
        link.add(flow, 7.0, 5.0, 0.1)
    times, flows = zip(*finished(link), strict=True)
    assert flows == (0, 1, 2)
    assert len(set(times)) == 1


@pytest.mark.parametrize("capacity", [8.0, math.nextafter(8, 9), math.nextafter(8, 7), 8 * (1 + 1e-12)])
def test_caps_exactly_at_the_level_do_not_swing_from_side_to_side(capacity):
    link = loaded(capacity, [1, 2, 3, 4], [2, 2.0, math.nextafter(2, 3), math.nextafter(2, 1)])
    assert sum(link.rate(flow) for flow in range(4)) <= capacity * (1 + 1e-12)
    assert [flow for _, flow in finished(link)] == [0, 1, 2, 3]


def test_a_giant_that_comes_and_goes_leaves_no_rounding_behind():
    link = MaxMinLink(1e16)
    link.add(0, 1e9, 0.3, 0.0)
    for flow in range(1, 200):
        link.add(flow, 1e9, 1e15 / 7, 0.0)
        link.add(-flow, 1e9, 0.1, 0.0)
        link.remove(flow, 0.0)
    link.set_capacity(20.0, 0.0)  # 0.3 + 199 x 0.1 = 20.2
    assert link.level < 0.3
    assert link.rate(0) == pytest.approx(20 / 200, rel=1e-11)


def test_notes_that_are_void_do_not_pile_up():
    link = loaded(10.0, [1e12] * 5, [3.0] * 5)
    for step in range(5000):
        link.set_cap(step % 5, 1.0 + step % 7, step * 1e-3)
    kept = (
        link._fair,
        link._capped,
        link._fair_caps,
        link._capped_caps,
        *(c.keys for c in link._classes.values()),
    )
    assert max(map(len, kept)) < 100


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda link: link.add(0, 1, 1, 5.0), "flow 0 is on the link already"),
        (lambda link: link.add(1, -1, 1, 5.0), "size must be at least 0"),
        (lambda link: link.add(1, 1, math.inf, 5.0), "cap must be at least 0 and less"),
        (lambda link: link.set_cap(0, math.nan, 5.0), "cap must be at least 0 and less"),
        (lambda link: link.set_capacity(-1.0, 5.0), "capacity must be at least 0"),
        (lambda link: link.advance(4.0), "time cannot go back from 5.0 s to 4.0 s"),
        (lambda _: MaxMinLink(1.0).finish(), "no flow on this link ever finishes"),
    ],
)
def test_flows_and_rates_that_make_no_sense_are_refused(act, problem):
    link = MaxMinLink(1.0)
    link.add(0, 10, 1, 5.0)
    with pytest.raises(ValueError, match=problem):
        act(link)


# against the link filled anew -------------------------------------------------------------------------


def played(arrivals, capacity, changes=(), *, watch=None):
    """Finish times of the same scenario on a link; `watch` is called after every event."""
    link = MaxMinLink(capacity)
    events = sorted([(t, 0, flow, size, cap) for t, flow, size, cap in arrivals] + [(t, 1, *c) for t, *c in changes],
                    key=lambda e: e[:2])  # fmt: skip
    done = {}
    while events or len(link):
        due = link.next_finish()
        if due is not None and (not events or due[0] <= events[0][0]):
            at_s, flow = link.finish()
            done[flow] = at_s
        elif not events:
            break
        else:
            at_s, change, what, value, *cap = events.pop(0)
            if not change:
                link.add(what, value, cap[0], at_s)
            elif what is None:
                capacity = value
                link.set_capacity(value, at_s)
            elif what in link and value is None:
                link.remove(what, at_s)
            elif what in link:
                link.set_cap(what, value, at_s)
        if watch is not None:
            watch(link, capacity)
    return done


def fair(link, capacity):
    """Every rate is that of a link filled from nothing; so they fit, respect caps and waste nothing."""
    caps = {flow: group.cap for flow, (_, group) in link._flows.items()}
    wanted = filled(caps, capacity)
    slack = 1e-9 * max([1e-300, *wanted.values()]) + 1e-14 * min(capacity, 1e300)
    for flow, rate in wanted.items():
        assert abs(link.rate(flow) - rate) <= slack


def same(found, wanted, rel=1e-9):
    assert found.keys() == wanted.keys()
    for flow, time_s in wanted.items():
        assert found[flow] == pytest.approx(time_s, rel=rel, abs=1e-12)


def scenario(rng):
    """A random scenario; half of them on whole numbers, where caps, sizes and times tie."""
    n = int(rng.integers(1, 13))
    whole = rng.random() < 0.5

    def number(low, high):
        return float(rng.integers(low, high + 1)) if whole else float(rng.uniform(low, high) + 1e-3)

    spread = 8 if rng.random() < 0.7 else 1  # or one cap for all
    arrivals = [(number(0, 9), flow, number(1, 20), number(1, spread)) for flow in range(n)]
    changes = [(number(1, 20), None, number(0, 12)) for _ in range(int(rng.integers(0, 4)))]
    changes += [(number(1, 20), int(rng.integers(n)), number(0, 8)) for _ in range(int(rng.integers(0, 4)))]
    changes += [(number(1, 20), int(rng.integers(n)), None) for _ in range(int(rng.integers(0, 2)))]
    rng.shuffle(changes)
    return arrivals, number(1, 12), changes


def test_three_thousand_random_scenarios_agree_with_a_link_filled_anew_at_every_event():
    rng = np.random.default_rng(7)
    for _ in range(3000):
        arrivals, capacity, changes = scenario(rng)
        changes.append((40.0, None, 5.0))  # whatever stands still goes on
        changes += [(41.0, flow, 3.0) for flow in range(len(arrivals))]
        same(played(arrivals, capacity, changes, watch=fair), finishes(arrivals, capacity, changes))


numbers = st.floats(0.01, 100) | st.integers(1, 5).map(float)
flows = st.lists(
    st.tuples(st.floats(0, 20) | st.integers(0, 4).map(float), numbers, numbers), min_size=1, max_size=14
)


def numbered(flows):
    return [(t, flow, size, cap) for flow, (t, size, cap) in enumerate(flows)]


@settings(deadline=None, max_examples=300)
@given(flows=flows, capacity=numbers)
def test_any_scenario_agrees_with_a_link_filled_anew(flows, capacity):
    same(played(numbered(flows), capacity, watch=fair), finishes(numbered(flows), capacity))


def test_hundreds_of_near_equal_caps_around_the_level_agree_too():
    rng = np.random.default_rng(3)
    n = 300
    caps = 1e6 * (1 + 1e-3 * rng.random(n))
    link = loaded(1e6 * n, 1e9 * (1 + rng.random(n)), caps)
    for step in range(1, 30):
        capacity = 1e6 * n * (1 + 1e-3 * rng.random())
        link.set_capacity(capacity, float(step))
        wanted = filled(dict(enumerate(caps)), capacity)
        assert max(abs(link.rate(flow) - rate) for flow, rate in wanted.items()) < 1e-3  # of 1e6


# invariants -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(flows=flows, capacity=numbers, stop=st.floats(0, 30))
def test_bytes_are_neither_made_nor_lost(flows, capacity, stop):
    """What has been let in is what was carried and what is left; nobody is carried faster than the link."""
    link, carried, size_of = MaxMinLink(capacity), 0.0, {}
    for at_s, flow, size, cap in sorted(numbered(flows)):
        if at_s > stop:
            break
        while (due := link.next_finish()) is not None and due[0] <= at_s:
            carried += size_of[link.finish()[1]]
        link.add(flow, size, cap, at_s)
        size_of[flow] = size
    while (due := link.next_finish()) is not None and due[0] <= stop:
        carried += size_of[link.finish()[1]]
    there = [flow for flow in size_of if flow in link]
    seen = {flow: link.left(flow, max(stop, link.now_s)) for flow in there}
    left = {flow: link.remove(flow, max(stop, link.now_s)) for flow in there}
    assert left == pytest.approx(seen, rel=1e-9, abs=1e-9)
    assert all(0 <= left[flow] <= size_of[flow] * (1 + 1e-9) for flow in there)
    moved = carried + sum(size_of[flow] - left[flow] for flow in there)
    began = min((t for t, *_ in numbered(flows)), default=0.0)
    assert moved <= capacity * max(0.0, link.now_s - began) * (1 + 1e-9) + 1e-9


@settings(deadline=None)
@given(flows=flows, capacity=numbers, shuffle=st.randoms(use_true_random=False))
def test_neither_numbers_nor_the_order_of_arrival_within_an_instant_matter(flows, capacity, shuffle):
    arrivals = numbered(flows)
    other = list(range(len(flows)))
    shuffle.shuffle(other)
    renamed = [(t, other[flow], size, cap) for t, flow, size, cap in arrivals]
    shuffle.shuffle(renamed)
    found = played(renamed, capacity)
    same({flow: found[other[flow]] for flow in range(len(flows))}, played(arrivals, capacity), rel=1e-12)


@settings(deadline=None)
@given(flows=flows, capacity=numbers, factor=st.floats(1e-3, 1e6))
def test_more_bytes_at_as_much_more_speed_take_the_same_time(flows, capacity, factor):
    arrivals = numbered(flows)
    scaled = [(t, flow, size * factor, cap * factor) for t, flow, size, cap in arrivals]
    same(played(scaled, capacity * factor), played(arrivals, capacity))
    slower = [(t * factor, flow, size * factor, cap) for t, flow, size, cap in arrivals]
    same({f: t / factor for f, t in played(slower, capacity).items()}, played(arrivals, capacity))


@settings(deadline=None)
@given(flows=flows, capacity=numbers, more=st.floats(1, 10), whose=st.integers(0, 13), wider=st.floats(1, 10))
def test_a_faster_link_delays_nobody_and_a_higher_cap_not_its_owner(flows, capacity, more, whose, wider):
    """Others may be delayed by a higher cap: its owner takes more while it is there."""
    arrivals = numbered(flows)
    before = played(arrivals, capacity)
    faster = played(arrivals, capacity * more)
    assert all(faster[flow] <= before[flow] * (1 + 1e-9) for flow in before)
    whose %= len(flows)
    raised = [(t, f, size, cap * wider if f == whose else cap) for t, f, size, cap in arrivals]
    assert played(raised, capacity)[whose] <= before[whose] * (1 + 1e-9)


@settings(deadline=None)
@given(flows=flows, capacity=numbers, at=st.lists(st.floats(0, 40), max_size=8))
def test_a_breakpoint_that_changes_nothing_changes_nothing(flows, capacity, at):
    arrivals = numbered(flows)
    changes = [(t, None, capacity) for t in at]
    changes += [(t, i % len(flows), flows[i % len(flows)][2]) for i, t in enumerate(at)]
    same(played(arrivals, capacity, changes), played(arrivals, capacity), rel=1e-12)


@settings(deadline=None)
@given(flows=flows, capacity=numbers, begin=st.floats(0, 30), length=st.floats(0, 30))
def test_an_outage_of_the_link_delays_what_it_meets_by_its_length_and_loses_nothing(
    flows, capacity, begin, length
):
    arrivals = [(0.0, flow, size, cap) for flow, (_, size, cap) in enumerate(flows)]
    before = played(arrivals, capacity)
    after = played(arrivals, capacity, [(begin, None, 0.0), (begin + length, None, capacity)])
    same(after, {flow: t if t <= begin else t + length for flow, t in before.items()})


@settings(deadline=None)
@given(flows=flows, capacity=st.floats(0.01, 1))
def test_where_every_cap_is_above_the_link_a_busy_period_ends_when_a_queue_would(flows, capacity):
    arrivals = [(t, flow, size, cap + 1) for t, flow, size, cap in numbered(flows)]
    free_s = 0.0
    for t, _, size, _ in sorted(arrivals):
        free_s = max(free_s, t) + size / capacity
    assert max(played(arrivals, capacity).values()) == pytest.approx(free_s, rel=1e-9)
