"""Max-min rates on links that are no tree: by hand, against filling in exact fractions, and a CDN beside shared lines."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.tree_filling import filled, finishes
from worlds import plan, shared_flows

from fedsim.config.network import NetworkConfig
from fedsim.cost.shape import backbone_bytes
from fedsim.network.build import network_of
from fedsim.network.shared import FluidNetwork
from fedsim.network.sharing.any_links import AnyLinks
from fedsim.network.sharing.max_min_tree import Bottleneck
from fedsim.network.tcp import Connections
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

NAMES = ("server", "home 0", "home 1", "cell", "region")


def link(name, capacities):
    return Bottleneck((name, 0), capacities[name])


def path_of(names, capacities):
    return [link(name, capacities) for name in names]


def played(arrivals, capacities, changes=(), *, watch=None):
    return shared_flows.played(AnyLinks(), path_of, arrivals, capacities, changes, watch=watch)


def fair(links, flows, capacities):
    for flow, rate in filled(flows, capacities).items():
        assert links.rate(flow) == pytest.approx(rate, rel=1e-9, abs=1e-12)


numbers = st.floats(0.01, 100) | st.integers(1, 5).map(float)
transfers = st.lists(
    st.tuples(
        st.floats(0, 20) | st.integers(0, 4).map(float),
        numbers,
        numbers,
        st.lists(st.sampled_from(NAMES), unique=True),
    ),
    min_size=1,
    max_size=9,
)


@settings(deadline=None, max_examples=40)
@given(
    transfers=transfers,
    capacities=st.fixed_dictionaries(dict.fromkeys(NAMES, numbers)),
    changes=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 8), numbers | st.none()), max_size=3),
)
def test_any_scenario_on_any_links_agrees_with_exact_filling(transfers, capacities, changes):
    arrivals = [(t, flow, size, cap, names) for flow, (t, size, cap, names) in enumerate(transfers)]
    found, wanted = played(arrivals, capacities, changes, watch=fair), finishes(arrivals, capacities, changes)
    assert found.keys() == wanted.keys()
    assert [found[flow] for flow in wanted] == pytest.approx(list(wanted.values()), rel=1e-9, abs=1e-9)


def test_what_the_server_holds_back_leaves_its_home_s_line_to_the_cdn():
    """A line of 10 with one flow of the server (2 for it) and two of a CDN: 2, 4 and 4; the server has room for no more."""
    capacities = {"home 0": 10.0, "server": 2.0}
    links = AnyLinks()
    links.add(0, 100, 50, 0.0, [link("home 0", capacities), link("server", capacities)])
    links.add(1, 100, 50, 0.0, [link("home 0", capacities)])
    links.add(2, 100, 50, 0.0, [link("home 0", capacities)])
    assert [links.rate(flow) for flow in range(3)] == [2.0, 4.0, 4.0]
    assert links.left(1, 5.0) == 80.0
    assert [links.finish(), links.finish()] == [(25.0, 1), (25.0, 2)]
    assert links.finish() == (50.0, 0)
    assert links.next_finish() is None


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda links: links.add(0, 1, 1, 5.0), "flow 0 is on the link already"),
        (lambda links: links.add(1, -1, 1, 5.0), "size must be at least 0"),
        (lambda links: links.add(1, 1, math.inf, 5.0), "cap must be at least 0 and less"),
        (lambda links: links.set_capacity(3.0, 5.0), "all flows together have no link"),
        (lambda links: links.advance(4.0), "time cannot go back from 5.0 s to 4.0 s"),
        (lambda _: AnyLinks().finish(), "no flow on this link ever finishes"),
    ],
)
def test_flows_and_rates_that_make_no_sense_are_refused(act, problem):
    links = AnyLinks()
    links.add(0, 10, 1, 5.0)
    with pytest.raises(ValueError, match=problem):
        act(links)


def lines(n, rate):
    made = SimpleNamespace(down_bytes_per_s=rate, up_bytes_per_s=rate, rtt_s=0.0, framing=1.0)
    return SimpleNamespace(
        profile=lambda _: made, mean_rates=lambda _: np.full(n, rate), varying=False, rates=lambda *_: None
    )


def home_of_two(client, _direction):
    return (Bottleneck(("home", 0), 10.0),) if client < 2 else ()


def test_downloads_of_a_cdn_share_the_line_of_a_home_and_not_the_server():
    """Two at home behind a line of 10 and one elsewhere at 50, all 900 of 1,000 bytes from the CDN, a server of 4.

    The one elsewhere has its 900 at 18 s, and its 100 of the server's at 18 + 25 s, alone on 4. At home 5 each until
    180 s, then 2 each of the server's 4 for 100 bytes.
    """
    env = simpy.Environment()
    groups = SimpleNamespace(path=home_of_two)
    network = FluidNetwork(env, lines(3, 50.0), 4.0, 1e9, groups=groups, cdn=Connections())
    downloads = [network.download(client, 1000, 900) for client in range(3)]
    upload = network.transfer("up", 0, 100)
    env.run()
    assert [d.done.value for d in downloads] == pytest.approx([230.0, 230.0, 43.0])
    assert upload.done.value == pytest.approx(10.0)


def test_the_settings_build_it():
    env = simpy.Environment()
    config = NetworkConfig(backbone="first_visit", backbone_from="cdn", server_up_mbps=8e-6 * 4)
    network = network_of(config, lines(3, 50.0), env, groups=SimpleNamespace(path=home_of_two))
    downloads = [network.download(client, 1000, 1000) for client in range(3)]
    env.run()
    assert [d.done.value for d in downloads] == pytest.approx([200.0, 200.0, 20.0])


def test_a_run_with_both_passes_the_auditor():
    made = plan(
        {"kind": "synchronous", "cohort": 3},
        [1.0] * 3,
        rate=1e6,
        network={
            "server_up_mbps": 8.0,
            "server_down_mbps": 1e12,
            "backbone": "first_visit",
            "backbone_from": "cdn",
        },
        budget={"commits": 2},
    )
    line = (Bottleneck(("home", 0), 3e5),)
    made.population.groups = SimpleNamespace(path=lambda client, _: line if client < 2 else ())
    run = simulate(made, timeline_only=True)
    first = run.visits[run.visits["visit"] == 0].sort_values("client")
    took_s = (first.downloaded_s - first.dispatched_s).tolist()
    model = backbone_bytes(made.shape)
    message = int(first.down_bytes.iloc[0]) - model
    elsewhere_s = (model + message) / 1e6
    assert elsewhere_s < 2 * model / 3e5  # it is through before the others need the server
    at_home_s = 2 * (model + message) / 3e5
    assert took_s == pytest.approx([at_home_s, at_home_s, elsewhere_s])
    assert verify(run) == []
