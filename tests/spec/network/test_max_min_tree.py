"""Max-min rates on a tree of links: by hand, against progressive filling that knows no tree, and by their invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.tree_filling import filled, finishes
from worlds import shared_flows

from fedsim.network.max_min import MaxMinLink
from fedsim.network.sharing.max_min_tree import Bottleneck, MaxMinTree

HOME_A, HOME_B, REGION = (
    Bottleneck(("home", 0), 10.0),
    Bottleneck(("home", 1), 100.0),
    Bottleneck(("region", 0), 16.0),
)

# by hand ----------------------------------------------------------------------------------------------


def loaded(capacity, *flows):
    """Flows (size, cap, path) on a tree, numbered from 0."""
    tree = MaxMinTree(capacity)
    for flow, (size, cap, path) in enumerate(flows):
        tree.add(flow, size, cap, 0.0, path)
    return tree


def rates(tree):
    return [tree.rate(flow) for flow in range(len(tree))]


def finished(tree):
    done = []
    while tree.next_finish() is not None:
        done.append(tree.finish())
    return done


def test_a_home_that_is_full_leaves_the_rest_of_the_server_to_the_others():
    """Home A gives its two 5 each, B's slow one has its 4, and the fast one all that is left of 30."""
    tree = loaded(30.0, (100, 8, [HOME_A]), (100, 8, [HOME_A]), (100, 4, [HOME_B]), (100, 50, [HOME_B]))
    assert rates(tree) == [5.0, 5.0, 4.0, 16.0]
    assert (tree.level(("home", 0)), tree.level(("home", 1)), tree.level()) == (5.0, math.inf, 16.0)


def test_where_the_server_is_the_tightest_link_homes_do_not_matter():
    tree = loaded(12.0, (100, 8, [HOME_A]), (100, 8, [HOME_A]), (100, 4, [HOME_B]), (100, 50, [HOME_B]))
    assert rates(tree) == [3.0] * 4
    assert tree.level() == 3.0


def test_three_links_one_behind_the_other():
    """Home A (10) and home B (100) behind a region of 16, one flow outside, a server of 40.

    In A 5 and 5; the region has 16 - 10 = 6 left for B's one; outside: min(60, 40 - 16).
    """
    tree = loaded(
        40.0,
        (100, 8, [HOME_A, REGION]),
        (100, 9, [HOME_A, REGION]),
        (100, 50, [HOME_B, REGION]),
        (100, 60, []),
    )
    assert rates(tree) == [5.0, 5.0, 6.0, 24.0]
    tree.set_capacity(20.0, 0.0)
    assert rates(tree) == [5.0, 5.0, 5.0, 5.0]
    tree.set_capacity(18.0, 0.0)
    assert rates(tree) == [4.5] * 4


def test_transfers_of_one_home_finish_when_its_line_lets_them():
    """100 bytes each at 5/s until 20 s; the one outside has 5/s beside them and then all 15/s for its other 100."""
    tree = loaded(15.0, (100, 50, [HOME_A]), (100, 50, [HOME_A]), (200, 50, []))
    assert finished(tree) == [(20.0, 0), (20.0, 1), (20 + 100 / 15, 2)]


def test_a_flow_that_leaves_gives_its_share_to_its_own_home_first():
    tree = loaded(100.0, (100, 50, [HOME_A]), (100, 50, [HOME_A]), (300, 50, [HOME_B]))
    assert tree.left(0, 4.0) == 80.0
    assert tree.remove(0, 4.0) == 80.0
    assert (tree.rate(1), tree.rate(2)) == (10.0, 50.0)
    assert finished(tree) == [(6.0, 2), (12.0, 1)]


def test_a_cap_that_rises_takes_from_its_home_and_not_from_the_others():
    tree = loaded(20.0, (100, 1, [HOME_A]), (100, 50, [HOME_A]), (100, 50, [HOME_B]))
    assert rates(tree) == [1.0, 9.0, 10.0]
    tree.set_cap(0, 6.0, 1.0)
    assert rates(tree) == [5.0, 5.0, 10.0]
    tree.set_cap(0, 0.0, 2.0)
    assert rates(tree) == [0.0, 10.0, 10.0]


def test_links_without_transfers_are_forgotten():
    tree = MaxMinTree(1e6)
    for flow in range(3000):
        tree.add(flow, 1.0, 10.0, float(flow), [Bottleneck(("home", flow), 5.0), REGION])
        tree.finish()
    assert len(tree._nodes) == 0
    assert len(tree._free) < 200
    assert tree.next_finish() is None


def test_notes_that_are_void_do_not_pile_up():
    tree = loaded(30.0, *[(1e12, 3.0 + k, [HOME_A if k % 2 else HOME_B, REGION]) for k in range(6)])
    for step in range(5000):
        tree.set_cap(step % 6, 1.0 + step % 7, step * 1e-3)
    notes = [
        heap
        for node in (tree._root, *tree._nodes.values())
        for heap in (node.finishes, node.passed_caps, node.held_caps)
    ]
    assert max(map(len, [*notes, tree._free])) < 200


def test_a_full_region_of_two_thousand_is_not_looked_at_flow_by_flow(monkeypatch):
    """All that a link holds is one class for those above it: an event moves a few classes, however many there are."""
    moved, put = [], MaxMinTree._put
    monkeypatch.setattr(MaxMinTree, "_put", lambda *args: (moved.append(1), put(*args))[1])
    tree, region = MaxMinTree(5e4), Bottleneck(("region", 0), 1e4)
    rng = np.random.default_rng(5)
    for flow, (size, cap) in enumerate(
        zip(rng.uniform(1e3, 1e5, 2000), rng.uniform(1, 100, 2000), strict=True)
    ):
        tree.add(flow, size, cap, 0.0, [Bottleneck(("home", flow // 3), 150.0), region])
    for _ in range(500):
        tree.finish()
    assert len(moved) < 15 * 2500


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda tree: tree.add(0, 1, 1, 5.0), "flow 0 is on the link already"),
        (lambda tree: tree.add(1, -1, 1, 5.0), "size must be at least 0"),
        (lambda tree: tree.add(1, 1, math.inf, 5.0), "cap must be at least 0 and less"),
        (lambda tree: tree.add(1, 1, 1, 5.0, [Bottleneck(("home", 3), -1.0)]), "capacity must be at least 0"),
        (lambda tree: tree.add(1, 1, 1, 5.0, [HOME_A, HOME_B]), "has two ways to the root"),
        (lambda tree: tree.set_cap(0, math.nan, 5.0), "cap must be at least 0 and less"),
        (lambda tree: tree.set_capacity(-1.0, 5.0), "capacity must be at least 0"),
        (lambda tree: tree.advance(4.0), "time cannot go back from 5.0 s to 4.0 s"),
        (lambda _: MaxMinTree(1.0).finish(), "no flow on this link ever finishes"),
    ],
)
def test_flows_and_rates_that_make_no_sense_are_refused(act, problem):
    tree = MaxMinTree(1.0)
    tree.add(0, 10, 1, 5.0, [HOME_A])
    with pytest.raises(ValueError, match=problem):
        act(tree)


# against progressive filling --------------------------------------------------------------------------

SERVER = "server"
LATER = 0.137 * math.pi  # a flow that ends as its cap falls to nothing ends, or does not, by the last bit
SHAPES = {
    "alone": (),
    "home 0": (("home", 0),),
    "home 1": (("home", 1),),
    "home 2 of region 0": (("home", 2), ("region", 0)),
    "home 3 of region 0": (("home", 3), ("region", 0)),
    "region 0": (("region", 0),),
    "home 4 of region 1": (("home", 4), ("region", 1)),
}
LINKS = tuple(sorted({name for path in SHAPES.values() for name in path}))


def path_of(names, capacities):
    return [Bottleneck(name, capacities[name]) for name in names]


def played(arrivals, capacities, changes=(), *, watch=None):
    """Finish times on a tree; `watch` sees it after every event, with the flows that are there."""
    tree = MaxMinTree(capacities[SERVER])
    below = lambda names, now: path_of([name for name in names if name != SERVER], now)
    return shared_flows.played(tree, below, arrivals, capacities, changes, server=SERVER, watch=watch)


def fair(tree, flows, capacities):
    wanted = filled(flows, capacities)
    slack = 1e-9 * max([1e-300, *wanted.values()]) + 1e-14 * min(capacities[SERVER], 1e300)
    for flow, rate in wanted.items():
        assert abs(tree.rate(flow) - rate) <= slack, (flow, tree.rate(flow), rate)


def same(found, wanted, rel=1e-9):
    assert found.keys() == wanted.keys()
    for flow, time_s in wanted.items():
        assert found[flow] == pytest.approx(time_s, rel=rel, abs=1e-12)


def scenario(rng):
    """A random scenario; half of them on whole numbers, where caps, sizes and times tie, but no end with a change."""
    whole = rng.random() < 0.5

    def number(low, high):
        return float(rng.integers(low, high + 1)) if whole else float(rng.uniform(low, high) + 1e-3)

    n, shapes = int(rng.integers(1, 13)), list(SHAPES.values())
    spread = 8 if rng.random() < 0.7 else 1
    capacities = {SERVER: number(1, 20)} | {name: number(1, 8) for name in LINKS}
    arrivals = [
        (
            number(0, 9),
            flow,
            number(1, 20),
            number(1, spread),
            (*shapes[int(rng.integers(len(shapes)))], SERVER),
        )
        for flow in range(n)
    ]
    changes = [(number(1, 20) + LATER, SERVER, number(0, 12)) for _ in range(int(rng.integers(0, 4)))]
    changes += [
        (number(1, 20) + LATER, int(rng.integers(n)), number(0, 8)) for _ in range(int(rng.integers(0, 4)))
    ]
    changes += [(number(1, 20) + LATER, int(rng.integers(n)), None) for _ in range(int(rng.integers(0, 2)))]
    changes += [
        (40.0, SERVER, 5.0),
        *((41.0, flow, 3.0) for flow in range(n)),
    ]  # whatever stands still goes on
    rng.shuffle(changes)
    return arrivals, capacities, changes


def test_random_scenarios_agree_with_filling_that_knows_no_tree():
    rng = np.random.default_rng(11)
    for _ in range(60):
        arrivals, capacities, changes = scenario(rng)
        same(played(arrivals, capacities, changes, watch=fair), finishes(arrivals, capacities, changes))


# invariants -------------------------------------------------------------------------------------------

numbers = st.floats(0.01, 100) | st.integers(1, 5).map(float)
shapes = st.sampled_from(list(SHAPES.values()))
transfers = st.lists(
    st.tuples(st.floats(0, 20) | st.integers(0, 4).map(float), numbers, numbers, shapes),
    min_size=1,
    max_size=12,
)
sizes = st.fixed_dictionaries(dict.fromkeys((SERVER, *LINKS), numbers))


def numbered(transfers):
    return [(t, flow, size, cap, (*path, SERVER)) for flow, (t, size, cap, path) in enumerate(transfers)]


def optimal(tree, flows, capacities):
    """No link carries more than it can, and every flow runs at its cap or is among the fastest of a link that is full."""
    rate = {flow: tree.rate(flow) for flow in flows}
    on = {link: [f for f, (_, links) in flows.items() if link in links] for link in capacities}
    load = {link: sum(rate[f] for f in members) for link, members in on.items()}
    for link, carried in load.items():
        assert carried <= capacities[link] * (1 + 1e-9)
    for flow, (cap, links) in flows.items():
        assert rate[flow] <= cap * (1 + 1e-12)
        held = any(
            load[link] >= capacities[link] * (1 - 1e-9)
            and rate[flow] >= max(rate[f] for f in on[link]) * (1 - 1e-9)
            for link in links
        )
        assert held or rate[flow] >= cap * (1 - 1e-9)


@settings(deadline=None, max_examples=40)
@given(transfers=transfers, capacities=sizes)
def test_no_link_is_overloaded_and_every_flow_has_a_bottleneck(transfers, capacities):
    done = played(numbered(transfers), capacities, watch=optimal)
    assert len(done) == len(transfers)


@settings(deadline=None, max_examples=20)
@given(transfers=transfers, capacities=sizes, shuffle=st.randoms(use_true_random=False))
def test_neither_numbers_nor_the_order_of_arrival_within_an_instant_matter(transfers, capacities, shuffle):
    arrivals = numbered(transfers)
    other = list(range(len(transfers)))
    shuffle.shuffle(other)
    renamed = [(t, other[flow], *rest) for t, flow, *rest in arrivals]
    shuffle.shuffle(renamed)
    found = played(renamed, capacities)
    same(
        {flow: found[other[flow]] for flow in range(len(transfers))}, played(arrivals, capacities), rel=1e-11
    )


@settings(deadline=None, max_examples=20)
@given(transfers=transfers, capacity=numbers)
def test_a_tree_without_branches_is_one_link(transfers, capacity):
    link, tree = MaxMinLink(capacity), MaxMinTree(capacity)
    for on in (link, tree):
        for flow, (t, size, cap, _) in enumerate(sorted(transfers)):
            while (due := on.next_finish()) is not None and due[0] <= t:
                on.finish()
            on.add(flow, size, cap, t)
    found, wanted = finished(tree), finished(link)
    assert [flow for _, flow in found] == [flow for _, flow in wanted]
    assert [time_s for time_s, _ in found] == pytest.approx([time_s for time_s, _ in wanted], rel=1e-11)


@settings(deadline=None, max_examples=20)
@given(transfers=transfers, capacities=sizes)
def test_a_link_that_is_wider_than_all_caps_changes_nothing(transfers, capacities):
    wide = dict.fromkeys(LINKS, 1000000000.0) | {SERVER: capacities[SERVER]}
    flat = [(t, flow, size, cap, (SERVER,)) for t, flow, size, cap, _ in numbered(transfers)]
    same(played(numbered(transfers), wide), played(flat, capacities), rel=1e-11)
