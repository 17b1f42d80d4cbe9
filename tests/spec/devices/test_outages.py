"""Outages that many clients share: their law, and how they cut windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import plan, windows

from fedsim.config.fields import DAY_S
from fedsim.config.population import Outages, PopulationConfig
from fedsim.devices.availability import Availability
from fedsim.devices.outages import Interrupted, Line, interrupted
from fedsim.devices.population import draw
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

OFTEN = Outages(per_day=24.0, mean_s=600.0)  # up for an hour on average, down for ten minutes


def stretches(line, until_s):
    """The times up of a group, one after the other."""
    found, now_s = [], 0.0
    while now_s < until_s:
        up_s, down_s = line.stretch(now_s)
        found.append((up_s, down_s))
        now_s = down_s
    return found


def test_times_up_and_down_are_exponential_with_the_means_asked_for():
    found = np.array(stretches(Line(OFTEN, 0, "lte"), 400 * DAY_S))
    up, down = np.diff(found, axis=1).ravel(), found[1:, 0] - found[:-1, 1]

    for lengths, mean in ((up, 3600.0), (down, 600.0)):
        error = mean / math.sqrt(len(lengths))
        assert np.mean(lengths) == pytest.approx(mean, abs=4 * error)
        assert np.std(lengths) == pytest.approx(mean, rel=0.06)


def test_a_run_starts_in_the_long_run_share_of_outages():
    up = np.mean([Line(OFTEN, 0, name).up(0.0) for name in range(4000)])

    assert OFTEN.up_share == pytest.approx(6 / 7)
    assert up == pytest.approx(6 / 7, abs=4 * math.sqrt(6 / 49 / 4000))


def test_asking_changes_nothing_and_nobody_else_matters():
    one, other = Line(OFTEN, 3, "lte"), Line(OFTEN, 3, "lte")
    late = other.stretch(50 * DAY_S)

    assert stretches(one, 10 * DAY_S) == stretches(other, 10 * DAY_S)
    assert one.stretch(50 * DAY_S) == late


def test_clients_of_a_region_are_gone_together_and_others_are_not():
    config = Outages(per_day=24.0, mean_s=1800.0, regions=4)
    there = interrupted(Availability.always(400), config, {}, seed=1)
    seen = np.array([there.online(t) for t in np.linspace(0.0, 10 * DAY_S, 500)], dtype=float)

    for region in range(4):
        assert np.all(np.ptp(seen[:, there.group == region], axis=1) == 0)
    apart = np.corrcoef([seen[:, there.group == region][:, 0] for region in range(4)])
    assert np.all(np.abs(apart[~np.eye(4, dtype=bool)]) < 0.25)
    assert seen.mean() == pytest.approx(there.share()[0], abs=0.05)


def test_everyone_is_gone_at_once_and_networks_by_name():
    names = np.array(["wifi", "lte", "lte"], dtype=object)
    alone = interrupted(Availability.always(3), Outages(by="everyone", per_day=1, mean_s=60), {}, seed=0)
    apart = interrupted(
        Availability.always(3), Outages(by="network", per_day=1, mean_s=60), {"network": names}, seed=0
    )

    assert alone.group.tolist() == [0, 0, 0]
    assert apart.group.tolist() == [1, 0, 0]
    assert apart.lines[0].stretch(0.0) == Line(Outages(by="network", per_day=1, mean_s=60), 0, "lte").stretch(
        0.0
    )


class Down:
    """A group whose times up are given."""

    def __init__(self, *ups):
        self.ups = ups

    def up(self, now_s):
        return any(a <= now_s < b for a, b in self.ups)

    def stretch(self, now_s):
        return next((a, b) for a, b in self.ups if now_s < b)

    def comes_s(self, now_s):
        return next((a for a, _ in self.ups if a > now_s), math.inf)


HAND = Interrupted(
    windows([[(0.0, 10.0), (20.0, 30.0)]]),
    [Down((0.0, 4.0), (6.0, 8.0), (12.0, 25.0), (40.0, 99.0))],
    np.zeros(1, dtype=np.int64),
    0.5,
)


@pytest.mark.parametrize(
    ("now_s", "window"),
    [
        (1.0, (0.0, 4.0)),
        (4.0, (6.0, 8.0)),
        (8.0, (20.0, 25.0)),
        (21.0, (20.0, 25.0)),
        (25.0, (math.inf, math.inf)),
    ],
)
def test_a_client_is_there_while_its_window_is_open_and_its_group_is_up(now_s, window):
    found = HAND.window(0, now_s)

    assert found[1] == window[1]
    assert max(found[0], now_s) == max(window[0], now_s)


def test_each_end_has_its_reason():
    assert [HAND.reason(0, t) for t in (4.0, 8.0, 10.0, 25.0)] == ["outage", "outage", "outage", "outage"]
    assert HAND.reason(0, 15.0) == "window"


@given(st.integers(0, 50), st.floats(0, 20 * DAY_S))
@settings(max_examples=50, deadline=None)
def test_window_online_and_next_start_agree(seed, now_s):
    rng = np.random.default_rng(seed)
    nights = [[(float(a), float(a) + 3e4)] for a in rng.uniform(0, DAY_S, 8)]
    there = interrupted(windows(nights, DAY_S), Outages(per_day=9, mean_s=3000, regions=3), {}, seed)
    online = there.online(now_s)
    comes = there.next_start_s(now_s)

    for client in range(8):
        start_s, stop_s = there.window(client, now_s)
        assert online[client] == (start_s <= now_s < stop_s)
        if not online[client]:
            assert now_s < comes <= start_s


def test_a_visit_that_an_outage_hits_says_so_and_waits_for_its_end():
    outages = {"per_day": 240.0, "mean_s": 100.0}
    asked = PopulationConfig(preset="homogeneous", clients=1, outages=outages)
    made = plan(
        {"kind": "synchronous", "cohort": 1},
        [1000.0],
        budget={"commits": 5},
        population={"preset": "homogeneous", "clients": 1, "on_close": "pause", "outages": outages},
    )
    made.population.availability = draw(asked, 0).availability
    run = simulate(made, timeline_only=True)

    assert verify(run) == []
    assert set(run.visits.away) == {"outage"}
    busy = (run.visits.ended_s - run.visits.dispatched_s - run.visits.paused_s).to_numpy()
    assert busy == pytest.approx(1000.0, abs=1e-3)


def test_the_population_records_its_outages():
    population = draw(
        PopulationConfig(
            preset="homogeneous", clients=5, outages={"by": "network", "per_day": 1, "mean_s": 60}
        ),
        0,
    )

    assert population.sources["outages"] == "by network, regions 10, per_day 1.0, mean_s 60.0"
    assert population.availability.share() == pytest.approx(DAY_S / (DAY_S + 60))
