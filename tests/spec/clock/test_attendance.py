"""Devices that go away and come back by their batteries and heat, against hand calculation and slow steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import simpy
from worlds import plan

from fedsim.clock.device_training import Machines
from fedsim.clock.online.attendance import Windowed
from fedsim.clock.online.build import attendance_of
from fedsim.clock.online.watched import Watched
from fedsim.errors import ExperimentError, RunError
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate
from fedsim.server.requests import Desk

ONE = {"kind": "synchronous", "cohort": 1}
NEAR = 1e-3
PHONE = {"tier": "phone-mid", "battery_wh": 1.0, "idle_w": 0.5, "train_w": 5.0}
FULL_J = 3600.0
TEN_STEPS = {"optimizer": "sgd", "lr": 0.1, "steps": 10}


def plugs(folder, *windows, period_s=None):
    """A table of plug-in windows: (client, start, stop)."""
    path = folder / "plugs.csv"
    head = f"# period_s: {period_s}\n" if period_s else ""
    rows = "".join(f"{c},{a},{b}\n" for c, a, b in windows)
    path.write_text(f"{head}client,start_s,stop_s\n{rows}")
    return str(path)


def phones(train_s, on_close="lost", protocol=ONE, device=PHONE, battery=None, **blocks):
    n = len(train_s)
    energy = {"battery": {"initial": [0.8, 0.8], "use_w": 0.0, **battery}} if battery else {}
    blocks = {"budget": {"commits": 3}, "energy": energy, **blocks}
    population = {"preset": "homogeneous", "clients": n, "on_close": on_close}
    made = plan(protocol, train_s, population=population, **blocks)
    made.population.profiles[:] = [replace(p, **device) for p in made.population.profiles]
    return made


def visits(made):
    run = simulate(made, timeline_only=True)
    assert verify(run) == []
    return run.visits.sort_values("order"), run


def test_heavy_training_makes_a_phone_unavailable_until_it_has_recovered(tmp_path):
    """From 80 to 30 % of 3600 J at 5 W: 360 s. Empty when the plug goes in, half full 1800/9.5 s later."""
    battery = {"plugged": plugs(tmp_path, (0, 50_000, 60_000))}
    found, _ = visits(phones([200.0], battery=battery))

    assert found.outcome.tolist() == ["landed", "offline", "landed", "landed"]
    assert found.away.tolist() == ["", "battery", "", ""]
    assert found.ended_s.iloc[1] == pytest.approx(360.0, abs=NEAR)
    assert found.dispatched_s.iloc[2] == pytest.approx(50_000 + 1800 / 9.5, abs=NEAR)
    assert found.battery.tolist() == pytest.approx(
        [0.8 - 1000 / FULL_J, 0.3, 0.5 + 1000 / FULL_J, 1.0], abs=1e-5
    )


def test_a_paused_visit_goes_on_when_the_battery_has_recovered(tmp_path):
    battery = {"plugged": plugs(tmp_path, (0, 50_000, 60_000))}
    found, run = visits(phones([500.0], "pause", battery=battery, budget={"commits": 1}))

    assert found.landed_s.tolist() == pytest.approx([50_000 + 1800 / 9.5 + 140], abs=NEAR)
    assert found.paused_s.tolist() == pytest.approx([50_000 + 1800 / 9.5 - 360], abs=NEAR)
    assert found.joules.tolist() == pytest.approx([4.5 * 500], abs=1e-2)
    away = {"battery": (50_000 + 1800 / 9.5 - 360) / run.info.end_time_s}
    assert run.info.away_share == pytest.approx(away, abs=1e-6)
    told = run.info.batteries
    assert told.end_j == pytest.approx(told.start_j + told.received_j - told.supplied_j)


def test_a_run_that_ends_in_a_visit_says_what_is_in_the_battery_then(tmp_path):
    battery = {"plugged": plugs(tmp_path, (0, 50_000, 60_000))}
    found, _ = visits(phones([300.0], battery=battery, budget={"time_s": 100.0}))

    assert found.outcome.tolist() == ["in_flight"]
    assert found.battery.tolist() == pytest.approx([0.8 - 500 / FULL_J], abs=1e-5)


def test_a_battery_gives_what_the_visits_are_charged_and_what_the_phone_draws_anyway(tmp_path):
    """With a price a byte and a radio's tail, which are paid at once, and a battery that is never full or empty."""
    device = PHONE | {
        "battery_wh": 50.0,
        "down_radio_w": 1.0,
        "up_radio_w": 0.7,
        "tail_w": 0.3,
        "tail_s": 9.0,
    }
    device |= {"down_radio_j_per_byte": 2.0, "up_radio_j_per_byte": 3.0}
    made = phones(
        [100.0, 250.0],
        protocol={"kind": "buffered", "concurrency": 2, "buffer": 1},
        device=device,
        battery={"plugged": plugs(tmp_path, (0, 500, 900), (1, 100, 200))},
        rate=8.0,
        budget={"time_s": 1000.0},
        energy={},
    )
    energy = type(made.experiment.energy).model_validate(
        {
            "tail": True,
            "battery": {"initial": [0.6, 0.6], "use_w": 0.0, "plugged": str(tmp_path / "plugs.csv")},
        }
    )
    made = made.alike(made.experiment.model_copy(update={"energy": energy}))
    found, run = visits(made)

    told = run.info.batteries
    idle_j = 2 * 0.5 * 1000.0
    flying = found.outcome == "in_flight"  # what these will be charged at once is not paid yet
    most_j, least_j = found.joules.sum(), found.joules[~flying].sum()
    assert told.received_j == pytest.approx(10.0 * (400 + 100))
    assert least_j + idle_j < told.supplied_j <= most_j + idle_j + 1e-6


def test_a_device_on_the_mains_does_not_care(tmp_path):
    battery = {"plugged": plugs(tmp_path, (0, 50_000, 60_000))}
    board = PHONE | {"tier": "sbc", "battery_wh": 0.0}
    found, run = visits(phones([200.0], device=board, battery=battery))

    assert found.outcome.tolist() == ["landed"] * 3
    assert found.battery.isna().all()
    assert run.info.batteries is None


def test_nobody_who_did_not_ask_is_watched():
    made = phones([1.0])
    there = attendance_of(
        simpy.Environment(), made.experiment, made.population, Machines(made.experiment.compute, 0)
    )

    assert isinstance(there, Windowed)
    assert there.constant


# who is there ---------------------------------------------------------------------------------------


def watched(made):
    env = simpy.Environment()
    machines = Machines(made.experiment.compute, made.experiment.seed)
    found = attendance_of(env, made.experiment, made.population, machines)
    assert isinstance(found, Watched)
    return found


def slowly(supplies, levels, wh, to_s, dt_s=10.0):
    """Second implementation: who is not low, by steps of ten seconds."""
    low = levels < 0.5
    history = []
    for k in range(int(to_s / dt_s)):
        history.append(~low)
        for c, house in enumerate(supplies):
            load_w, charge_w, _ = house.at(k * dt_s)
            levels[c] = min(max(levels[c] + (charge_w - load_w) * dt_s / (wh * 3600), 0.0), 1.0)
        low = np.where(low, levels < 0.5, levels <= 0.3)
    return np.array(history)


def test_the_roster_is_that_of_slow_steps_except_near_a_turn():
    made = phones(
        [1.0] * 12, device=PHONE | {"battery_wh": 4.0}, battery={"initial": [0.1, 1.0], "use_w": 0.6}
    )
    there = watched(made)
    devices = there._devices
    levels = np.array([d.charge.battery.level for d in devices])
    history = slowly([d.supply for d in devices], levels, 4.0, 2 * 86_400)
    changes = np.abs(np.diff(history.astype(int), axis=0))
    seen = 0
    for k in range(6, len(history) - 6, 25):
        online = there.online(10.0 * k)
        calm = changes[k - 6 : k + 6].sum(axis=0) == 0
        assert np.array_equal(online[calm], history[k][calm])
        seen += int(calm.sum())
    assert changes.sum() > 20
    assert seen > 5000


def test_nobody_comes_before_the_time_that_is_told_and_time_goes_on():
    made = phones(
        [1.0] * 8, device=PHONE | {"battery_wh": 4.0}, battery={"initial": [0.1, 0.4], "use_w": 0.6}
    )
    there, again = watched(made), watched(made)
    now_s, steps = 0.0, 0
    while now_s < 86_400.0:
        before, next_s = there.online(now_s), there.next_start_s(now_s)
        assert next_s > now_s
        middle = again.online((now_s + min(next_s, 1e6)) / 2)
        assert not np.any(middle & ~before)
        now_s, steps = next_s, steps + 1
    assert steps < 8 * 40


def test_a_server_that_waits_looks_once_a_turn(tmp_path, monkeypatch):
    """One empty phone, plugged in once a day for 100 s: it takes two days, and a handful of looks."""
    looks, serve = [], Desk.serve
    monkeypatch.setattr(Desk, "serve", lambda desk, now_s: looks.append(now_s) or serve(desk, now_s))
    battery = {"plugged": plugs(tmp_path, (0, 1000, 1140), period_s=86_400), "initial": [0.0, 0.0]}
    device = PHONE | {"idle_w": 0.0}
    found, _ = visits(phones([10.0], device=device, battery=battery, budget={"commits": 1}))

    assert found.dispatched_s.tolist() == pytest.approx([86_400 + 1040])  # 1800 J at 10 W: 140 s and 40 s
    assert len(looks) <= 6


def test_a_server_does_not_wait_for_ever_for_a_battery_that_never_recovers(tmp_path):
    battery = {"plugged": plugs(tmp_path, (0, 10, 20)), "initial": [0.1, 0.1]}
    looks = phones([10.0], battery=battery, budget={"time_s": 1e9})

    with pytest.raises(RunError, match="nobody to ask: 1 idle clients online at once were needed"):
        visits(looks)


# heat -----------------------------------------------------------------------------------------------

HEAT = {"ambient_c": 20, "cap_c": 45, "tiers": ["phone-mid"]}


def heated(k, seconds):
    """5 W on 6 K/W, 90 s: above the surroundings after so much training."""
    return 30 + (k - 30) * math.exp(-seconds / 90)


def test_a_phone_that_is_warm_takes_no_work_until_it_has_cooled():
    """At rest 0.5 W make 3 K; 100 s of training, then 135 s x ln((heat - 3) / (12 - 3)) of rest."""
    made = phones([100.0], compute={"thermal": {**HEAT, "start_below_c": 32}}, budget={"commits": 2})
    found, _ = visits(made)

    rest_s = 135 * math.log((heated(3.0, 100) - 3) / (12 - 3))
    assert found.dispatched_s.tolist() == pytest.approx([0.0, 100 + rest_s], abs=NEAR)
    assert found.outcome.tolist() == ["landed", "landed"]


def test_a_phone_that_gets_too_warm_stops_and_goes_on_when_it_has_cooled():
    """From 3 to 20 K: 90 ln(27/10) s; to 10 K: 135 ln(17/7) s; then on, from 10 K."""
    thermal = {**HEAT, "start_below_c": 30, "stop_above_c": 40}
    made = phones([150.0], "pause", compute={"thermal": thermal}, budget={"commits": 1})
    found, _ = visits(made)

    first_s, cool_s, again_s = 90 * math.log(27 / 10), 135 * math.log(17 / 7), 90 * math.log(20 / 10)
    assert first_s + again_s > 150 > first_s
    assert found.away.tolist() == ["heat"]
    assert found.paused_s.tolist() == pytest.approx([cool_s], abs=NEAR)
    assert found.landed_s.tolist() == pytest.approx([150 + cool_s], abs=NEAR)
    assert found.joules.tolist() == pytest.approx([4.5 * 150], abs=NEAR)


def test_a_phone_that_gets_too_warm_loses_its_visit_where_visits_are_lost():
    thermal = {**HEAT, "start_below_c": 30, "stop_above_c": 40}
    made = phones([150.0], compute={"thermal": thermal}, budget={"time_s": 150.0})
    found, _ = visits(made)

    assert found.outcome.iloc[0] == "offline"
    assert found.ended_s.iloc[0] == pytest.approx(90 * math.log(27 / 10), abs=NEAR)
    assert found.away.iloc[0] == "heat"


def test_a_device_that_is_never_cool_enough_is_refused_by_name():
    made = phones([1.0], compute={"thermal": {**HEAT, "start_below_c": 22}})

    with pytest.raises(
        ExperimentError, match=r"start_below_c: test is never that cool: at rest it has 23\.0"
    ):
        visits(made)


@pytest.mark.parametrize("cap_c", [23.0, 22.0])
def test_a_device_that_is_as_warm_as_its_cap_at_rest_is_refused_by_name(cap_c):
    """It would have no power left to train, and use less than nothing."""
    made = phones([1.0], compute={"thermal": {**HEAT, "cap_c": cap_c}})

    with pytest.raises(ExperimentError, match=r"cap_c: test is as warm as that at rest, at 23\.0 degrees"):
        visits(made)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"start_below_c": 20}, "start_below_c must be above ambient_c"),
        ({"stop_above_c": 40}, "stop_above_c must lie above start_below_c"),
        ({"start_below_c": 30, "stop_above_c": 46}, "not above cap_c"),
    ],
)
def test_limits_of_heat_must_make_sense(limits, problem):
    with pytest.raises(ExperimentError, match=problem):
        phones([1.0], compute={"thermal": HEAT | limits})


def test_a_phone_too_warm_to_train_uploads_what_it_has():
    """Cut at 20 K after 90 ln(27/10) s; the upload begins at once and takes as long as it takes, warm or not."""
    thermal = {**HEAT, "start_below_c": 30, "stop_above_c": 40}
    made = phones([150.0], "partial", compute={"thermal": thermal}, budget={"commits": 1}, local=TEN_STEPS)
    found, _ = visits(made)

    warm_s = 90 * math.log(27 / 10)
    assert found.away.tolist() == ["heat"]
    assert found.work_share.tolist() == [math.floor(10 * warm_s / 150) / 10]
    assert found.trained_s.tolist() == pytest.approx([warm_s], abs=NEAR)
    assert found.landed_s.tolist() == pytest.approx([warm_s], abs=NEAR)


def test_a_phone_that_has_uploaded_warm_is_asked_again_when_it_is_cool():
    thermal = {**HEAT, "start_below_c": 30, "stop_above_c": 40}
    made = phones([150.0], "partial", compute={"thermal": thermal}, budget={"commits": 2}, local=TEN_STEPS)
    found, _ = visits(made)

    cool_s = 135 * math.log(17 / 7)
    assert found.dispatched_s.iloc[1] == pytest.approx(90 * math.log(27 / 10) + cool_s, abs=NEAR)
