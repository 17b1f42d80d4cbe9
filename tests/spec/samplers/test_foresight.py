"""Nobody foresees an outage: samplers, estimates and the rooms below them see the plain windows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.config.experiment import Experiment
from fedsim.config.population import Outages
from fedsim.devices.availability import Availability
from fedsim.devices.outages import interrupted
from fedsim.runs.simulation import simulate
from fedsim.samplers.seen import Records

DAY_S = 86_400.0


def nights(n):
    start_s = 3600.0 * np.arange(n)
    return Availability.from_windows(np.arange(n), start_s, start_s + 8 * 3600.0, n=n, period_s=DAY_S)


@given(
    now_s=st.floats(0, 10 * DAY_S),
    seed=st.integers(0, 99),
    per_day=st.floats(0.5, 40.0),
)
@settings(max_examples=60, deadline=None)
def test_what_a_sampler_sees_is_the_same_with_and_without_outages(now_s, seed, per_day):
    windows = nights(12)
    config = Outages(by="region", regions=3, per_day=per_day, mean_s=900.0)
    cut = interrupted(windows, config, {}, seed)
    online = np.flatnonzero(cut.online(now_s))
    seen = [Records(times, lambda _: 1, lambda _: 1.0).now(now_s) for times in (windows, cut)]
    plain, outages = (view.remaining_s(online) for view in seen)
    assert plain.tolist() == outages.tolist()
    assert np.all(plain > 0)


def test_the_least_available_are_not_those_who_are_about_to_fail():
    """With everybody always there, least-available chooses uniformly, whatever outages will come.

    Six outages a day of a quarter of an hour in twenty regions, over the same seeds: with foresight it lost three times
    as many visits as uniform sampling.
    """
    lost = {}
    for kind in ("uniform", "least-available"):
        outcomes = []
        for seed in range(2):
            run = simulate(
                Experiment.model_validate(
                    {
                        "seed": seed,
                        "population": {
                            "preset": "homogeneous",
                            "clients": 300,
                            "outages": {"by": "region", "regions": 20, "per_day": 6, "mean_s": 900},
                        },
                        "task": {
                            "kind": "quadratic",
                            "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 6_000},
                        },
                        "local": {"optimizer": "sgd", "lr": 0.1, "steps": 4},
                        "protocol": {"kind": "buffered", "concurrency": 40, "buffer": 10},
                        "sampler": {"kind": kind},
                        "budget": {"time_s": 20_000},
                        "runtime": {"executor": "inline"},
                    }
                ),
                timeline_only=True,
            )
            ended = run.visits[run.visits.outcome != "in_flight"]
            outcomes += [(ended.outcome == "offline").sum(), len(ended)]
        lost[kind] = sum(outcomes[::2]) / sum(outcomes[1::2])
    assert lost["uniform"] > 0.01
    assert lost["least-available"] == pytest.approx(lost["uniform"], rel=0.35)


def test_an_estimate_knows_the_window_and_no_outage():
    cut = interrupted(nights(2), Outages(by="everyone", per_day=500.0, mean_s=60.0), {}, 3)
    assert cut.plain.window(0, 100.0) == (0.0, 8 * 3600.0)
    assert cut.window(0, 100.0)[1] < 8 * 3600.0
    assert math.isinf(Availability.always(1).plain.window(0, 5.0)[1])
