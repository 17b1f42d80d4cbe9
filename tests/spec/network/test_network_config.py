"""Shared links in whole runs: what the configuration builds, what it refuses, and that runs stay exact."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import simpy
from pydantic import ValidationError
from worlds import experiment, plan, simulated

from fedsim.checks.blocks import misfits
from fedsim.config.fields import least_shown
from fedsim.config.network import LossBursts, NetworkConfig
from fedsim.network.build import network_of
from fedsim.network.generated import RateLaw
from fedsim.network.private import PrivateLinks
from fedsim.network.shared import FluidNetwork
from fedsim.network.traces import RateTrace
from fedsim.records.verify import verify
from fedsim.runs.dry_run import dry_run
from fedsim.runs.simulation import simulate

ROUNDS = {"kind": "synchronous", "cohort": 6}
SHARED = {"sharing": "max-min", "server_up_mbps": 1e12, "server_down_mbps": 0.001, "detect_after_s": 30.0}


def built(links=None, **network):
    made = plan(ROUNDS, [1.0] * 6, network=network)
    made.population.links.update(links or {})
    return network_of(made.experiment.network, made.population, simpy.Environment())


def test_the_configuration_picks_the_network():
    varying = {(0, "up"): RateTrace(np.array([0.0]), np.array([1e6]), "hold")}
    private = {"sharing": "private"}
    assert isinstance(built(**private), PrivateLinks)
    assert isinstance(built(**private, model="size-over-rate"), PrivateLinks)
    assert isinstance(built(), FluidNetwork)
    assert isinstance(built(links=varying, **private), FluidNetwork)


@pytest.mark.parametrize("sharing", [None, "private"])
def test_by_default_two_thousand_downloads_are_no_faster_than_the_server(sharing):
    """7.6 MB each through 1 Gbit/s are 2,000 x 7.6 MB x 1500/1448 / 125 MB/s = 126 s; private links have no such bound."""
    n, n_bytes, framing = 2000, 7_600_000, 1500 / 1448
    link = SimpleNamespace(down_bytes_per_s=2e7, up_bytes_per_s=2e7, rtt_s=0.03, framing=framing)
    links = SimpleNamespace(
        profile=lambda _: link, varying=False, rates=lambda *_: None, mean_rates=lambda _: np.full(n, 2e7)
    )
    env = simpy.Environment()
    settings = NetworkConfig() if sharing is None else NetworkConfig(sharing=sharing)
    network = network_of(settings, links, env)
    transfers = [network.transfer("down", client, n_bytes) for client in range(n)]
    env.run()
    assert all(transfer.done.processed for transfer in transfers)
    least_s = n * n_bytes * framing / 125e6
    if sharing is None:
        assert least_s <= env.now <= 1.01 * least_s
    else:
        assert env.now < 0.01 * least_s


def test_size_over_rate_knows_no_round_trip():
    naive = {"model": "size-over-rate", "sharing": "private"}
    made = plan(ROUNDS, [1.0] * 6, rate=1000.0, rtt_s=2.0, network=naive)
    env = simpy.Environment()
    transfer = network_of(made.experiment.network, made.population, env).transfer("up", 0, 5000)
    env.run()
    assert transfer.done.value == 5.0


@pytest.mark.parametrize(
    ("network", "at"),
    [
        ({"loss": 0.01}, "network.loss"),
        ({"model": "size-over-rate", "sharing": "max-min"}, "network.sharing"),
        ({"model": "size-over-rate", "connection": "persistent"}, "network.connection"),
        ({"model": "size-over-rate", "congestion": "loss-based", "loss": 0.01}, "network.congestion"),
    ],
)
def test_settings_without_effect_are_refused(network, at):
    assert at in {".".join(problem.path) for problem in misfits(experiment(ROUNDS, 6, network=network))}


def test_who_asks_for_size_over_rate_alone_has_private_links():
    naive = experiment(ROUNDS, 6, network={"model": "size-over-rate"})
    assert (naive.network.sharing, NetworkConfig().sharing) == ("private", "max-min")
    assert misfits(naive) == []
    assert naive.plain()["network"]["sharing"] == "private"


def test_settings_that_fit_are_not():
    lossy = {"sharing": "max-min", "congestion": "loss-based", "loss": 0.01}
    assert misfits(experiment(ROUNDS, 6, network=lossy)) == []


@pytest.mark.parametrize(
    "protocol",
    [
        ROUNDS | {"over_select": 1.5, "deadline_s": 3.0},
        ROUNDS | {"over_select": 1.5, "late": "finish"},
        {"kind": "buffered", "concurrency": 8, "buffer": 3},
    ],
)
def test_shared_runs_repeat_to_the_bit_and_pass_the_auditor(protocol):
    """Windows close in mid-transfer too, so that bytes of lost visits are counted."""
    online = [[(0.0, 20.0 + 3.1 * c), (60.0, 400.0)] for c in range(12)]
    train_s = np.linspace(0.3, 2.0, 12).tolist()
    runs = [
        simulated(protocol, train_s, online=online, network=SHARED, budget={"time_s": 90.0}) for _ in range(2)
    ]
    for table in ("visits", "commits"):
        pd.testing.assert_frame_equal(*(getattr(run, table) for run in runs), check_exact=True)
    assert verify(runs[0]) == []
    assert len(runs[0].visits) > 20


def test_a_lost_visit_has_sent_what_its_share_allowed():
    """Two uploads at once of 125 bytes/s: the one whose window closes after 0.1 s has sent 6 of its bytes."""
    online = [[(0.0, 1.1)], [(0.0, 1e6)]]
    protocol = {"kind": "synchronous", "cohort": 2}
    run = simulated(protocol, [1.0, 1.0], online=online, network=SHARED, budget={"commits": 1})
    lost = run.visits[run.visits.outcome == "offline"].iloc[0]
    assert lost.up_bytes == 6


def test_a_dry_run_tells_of_the_shared_timeline():
    made = plan(ROUNDS, [1.0] * 6, network=SHARED, budget={"commits": 3})
    run = simulate(made, timeline_only=True)
    assert dry_run(made, measure=False).virtual_s == run.info.end_time_s
    private = plan(ROUNDS, [1.0] * 6, network=SHARED | {"sharing": "private"}, budget={"commits": 3})
    assert run.info.end_time_s > simulate(private, timeline_only=True).info.end_time_s


@pytest.mark.parametrize("share", [0.62, 0.7, 0.71, 0.77, 0.83, 0.9])
def test_the_least_length_of_a_spell_that_is_shown_is_one_that_is_taken(share):
    with pytest.raises(ValidationError) as refused:
        LossBursts(loss=0.05, share=share, mean_s=1.0)
    shown = float(str(refused.value).partition("mean_s must be at least ")[2].split()[0].rstrip(","))
    assert LossBursts(loss=0.05, share=share, mean_s=shown).mean_s == shown


@pytest.mark.parametrize("share", [0.3, 0.62, 0.7, 0.71, 0.77, 0.83, 0.9])
def test_and_so_is_that_of_an_outage(share):
    shown = float(least_shown(1 / (1 - share)))
    assert shown * (1 - share) < 1.01
    RateLaw(0.3, 0.7, share, shown)
