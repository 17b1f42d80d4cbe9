"""Batteries over time, against hand calculation, steps of a second, and the balance of joules."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.battery import level_after, seconds_until
from pydantic import ValidationError
from worlds import device, windows

from fedsim.config.devices import Battery
from fedsim.cost.energy import BatteryState
from fedsim.devices.battery import NOTHING, Charge, Draw, Supply
from fedsim.devices.population import draw_devices
from fedsim.errors import ExperimentError

HOUR = 3600.0
DAY = 24 * HOUR
NEVER = windows([[]], DAY)


def supply(plugs=(), *, idle_w=0.5, use_w=0.0, charge_w=10.0, awake=(9.0, 24.0), ahead_s=0.0, period_s=DAY):
    return Supply(windows([list(plugs)], period_s), 0, idle_w, use_w, charge_w, awake, ahead_s)


def charge(level, *, wh=1.0, start=0.5, stop=0.3, low=None):
    return Charge(0.0, BatteryState.of_wh(wh, level), level < start if low is None else low, start, stop)


def test_an_idle_phone_turns_low_when_its_level_has_fallen_to_the_limit():
    """1 Wh at half a watt loses half of it an hour: from 80 % to 30 % takes one."""
    phone = charge(0.8)

    assert phone.turns_s(DAY, supply()) == pytest.approx(HOUR)
    later = phone.until(1.5 * HOUR, supply())
    assert later.low
    assert later.battery.level == pytest.approx(0.05)


def test_a_low_phone_recovers_at_the_higher_limit_and_not_before():
    """From 30 % with 10 W in and 0.5 W out: 20 % of 3600 J take 720/9.5 s."""
    phone = charge(0.3, low=True)

    assert phone.turns_s(DAY, supply([(0.0, HOUR)])) == pytest.approx(720 / 9.5)
    assert phone.until(75.0, supply([(0.0, HOUR)])).low
    assert not phone.until(76.0, supply([(0.0, HOUR)])).low


def test_work_brings_the_limit_nearer():
    """5 W more for 10 minutes take 3000 of the 1800 J that are left: 1800/5.5 s."""
    phone, work = charge(0.8), Draw.of(0.0, ((600.0, 5.0),))

    assert phone.turns_s(DAY, supply(), work) == pytest.approx(1800 / 5.5)
    assert phone.until(100.0, supply(), work).worked_j == pytest.approx(500.0)


def test_the_charger_the_user_and_our_work_add_up():
    """Plugged from 1 h, user awake from 9 h, work from 10 h to 11 h; a battery of 100 Wh, in Wh by hand."""
    phone = charge(0.5, wh=100.0)
    house = supply([(HOUR, 2 * HOUR)], use_w=0.7)
    work = Draw.of(10 * HOUR, ((HOUR, 3.0),))

    at_ten = phone.until(10 * HOUR, house)
    found = at_ten.until(12 * HOUR, house, work)

    assert found.battery.level == pytest.approx((50 + 10 - 12 * 0.5 - 3 * 0.7 - 3.0) / 100)
    assert found.worked_j == pytest.approx(3.0 * HOUR)
    assert found.received_j == pytest.approx(10.0 * HOUR)
    assert found.supplied_j == pytest.approx((12 * 0.5 + 3 * 0.7 + 3.0) * HOUR)


def test_a_user_who_lives_eight_hours_ahead_wakes_eight_hours_earlier():
    there = supply(use_w=0.7, ahead_s=8 * HOUR)

    assert there.at(0.0).until_s == HOUR
    assert [there.at(t * HOUR).load_w for t in (0.5, 1.0, 15.5, 16.0, 24.5)] == [0.5, 1.2, 1.2, 0.5, 0.5]


def test_a_full_battery_takes_only_what_the_device_draws_and_an_empty_one_gives_nothing():
    full = charge(1.0, low=False).until(HOUR, supply([(0.0, DAY / 2)]))
    empty = charge(0.0).until(HOUR, supply())

    assert (full.battery.level, full.received_j, full.supplied_j) == (1.0, 0.5 * HOUR, 0.5 * HOUR)
    assert (empty.battery.level, empty.received_j, empty.supplied_j) == (0.0, 0.0, 0.0)


def test_what_is_spent_at_once_is_no_more_than_there_is():
    spent = charge(0.5).spend(600.0).spend(1e6)

    assert (spent.battery.level, spent.supplied_j, spent.worked_j) == (0.0, 1800.0, 1_000_600.0)


@given(st.floats(0.05, 1), st.floats(0, 9), st.floats(0, 9), st.floats(0, 2e4))
def test_under_one_power_it_is_the_linear_battery(level, load_w, charge_w, to_s):
    """`BatteryState`: the level after so long, and when it is at the limit."""
    phone = charge(level, stop=0.01, low=False)
    house = Supply(windows([[(0.0, 1e9)]]), 0, load_w, 0.0, charge_w)

    turn_s = seconds_until(phone.battery, 0.01, load_w, charge_w)
    assert phone.turns_s(1e8, house) == (pytest.approx(turn_s) if turn_s <= 1e8 else math.inf)
    expected = level_after(phone.battery, to_s, load_w, charge_w)
    assert phone.until(to_s, house).battery.level == pytest.approx(expected, abs=1e-12)


def test_a_phone_that_trains_at_5_watts_empties_in_two_and_a_half_hours():
    phone = charge(0.8, wh=15.4, stop=0.0, low=False)
    house = Supply(windows([[(1e8, 1e9)]]), 0, 5.0, 0.0, 0.0)
    assert phone.battery.capacity_j == 55_440.0
    assert phone.until(3600.0, house).battery.stored_j == pytest.approx(0.8 * 55_440 - 18_000)
    assert phone.until(8870.4, house).battery.level == pytest.approx(0.0)
    assert phone.turns_s(1e6, house) == pytest.approx(8870.4)


# any powers ---------------------------------------------------------------------------------------

times = st.floats(0.0, DAY, allow_subnormal=False)


@st.composite
def courses(draw):
    """A battery, its supply and some work."""
    edges = sorted(draw(st.lists(times, max_size=6, unique=True)))
    plugs = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if b - a > 1.0]
    house = supply(
        plugs,
        idle_w=draw(st.floats(0, 2)),
        use_w=draw(st.sampled_from([0.0, 0.7])),
        charge_w=draw(st.floats(0, 20)),
    )
    powers = draw(st.lists(st.tuples(st.floats(1, 2e4), st.floats(0, 9)), max_size=3))
    phone = charge(draw(st.floats(0, 1)), wh=draw(st.floats(0.5, 20)))
    return phone, house, Draw.of(draw(times), tuple(powers))


@given(courses(), st.floats(0, 3 * DAY), st.floats(0, 1))
@settings(deadline=None)
def test_joules_in_less_joules_out_are_what_the_battery_gained_and_time_may_be_cut_anywhere(
    course, to_s, cut
):
    phone, house, work = course
    found = phone.until(to_s, house, work)
    twice = phone.until(cut * to_s, house, work).until(to_s, house, work)

    assert 0 <= found.battery.level <= 1
    gained_j = found.battery.stored_j - phone.battery.stored_j
    assert found.received_j - found.supplied_j == pytest.approx(gained_j, abs=1e-6)
    assert -1e-6 <= found.received_j <= house.charge_w * to_s + 1e-6
    assert -1e-6 <= found.supplied_j <= (house.idle_w + house.use_w) * to_s + found.worked_j + 1e-6
    assert twice.battery.level == pytest.approx(found.battery.level, abs=1e-9)
    assert twice.worked_j == pytest.approx(found.worked_j, abs=1e-6)


def stepped(phone, house, work, to_s, dt_s=1.0):
    """Second implementation: Euler's rule with steps of a second, and a look at every level."""
    level, low, turns = phone.battery.level, phone.low, []
    for k in range(int(to_s / dt_s)):
        now = k * dt_s
        load_w, charge_w, _ = house.at(now)
        net_w = charge_w - load_w - work.at(now)[0]
        level = min(max(level + net_w * dt_s / phone.battery.capacity_j, 0.0), 1.0)
        if low and level >= phone.start_at:
            low = False
            turns.append(now + dt_s)
        elif not low and level <= phone.stop_below:
            low = True
            turns.append(now + dt_s)
    return level, low, turns


@pytest.mark.parametrize("seed", range(6))
def test_the_times_at_which_it_turns_are_those_of_steps_of_a_second(seed):
    rng = np.random.default_rng(seed)
    plugs = [(float(a), float(a) + 2500.0) for a in 6000.0 * np.arange(4) + rng.integers(0, 3000, 4)]
    house = supply(plugs, use_w=0.7, awake=(2.0, 5.0), charge_w=6.0)
    work = Draw.of(float(rng.integers(0, 9000)), ((1500.0, 4.0), (900.0, 2.0)))
    phone = charge(float(rng.uniform(0.2, 1.0)), wh=2.0)
    to_s, turns = 7 * HOUR, []
    level, low, expected = stepped(phone, house, work, to_s)
    at, found = phone, phone
    while (next_s := at.turns_s(to_s, house, work)) < math.inf:
        turns.append(next_s)
        at = at.until(next_s, house, work)
        at = replace(at, low=len(turns) % 2 == (not phone.low))
    found = phone.until(to_s, house, work)

    assert expected
    assert turns == pytest.approx(expected, abs=3.0)
    assert (found.low, found.battery.level) == (low, pytest.approx(level, abs=0.01))


# which batteries ------------------------------------------------------------------------------------


def test_capacities_are_those_of_the_device_table_unless_given():
    phone = replace(device(0, flops_per_s=1.0), tier="phone-mid", battery_wh=15.4)
    board = replace(phone, tier="sbc", battery_wh=0.0)

    assert Battery().capacity_of(phone.tier, phone.device, phone.battery_wh) == 15.4
    assert Battery().capacity_of(board.tier, board.device, board.battery_wh) is None
    assert (
        Battery(capacity_wh={"phone-mid": 9.0}).capacity_of(phone.tier, phone.device, phone.battery_wh) == 9.0
    )
    assert (
        Battery(capacity_wh={"tablet": 9.0}).capacity_of(phone.tier, phone.device, phone.battery_wh) == 15.4
    )
    assert Battery(capacity_wh=9.0).capacity_of(board.tier, board.device, board.battery_wh) == 9.0


def test_powers_are_of_all_devices_or_by_class_and_else_the_default():
    settings = Battery(charge_w={"laptop": 45.0}, use_w=0.1)

    assert [settings.charge_w_of(tier) for tier in ("laptop", "tablet")] == [45.0, 10.0]
    assert [settings.use_w_of(tier) for tier in ("laptop", "tablet")] == [0.1, 0.1]


def test_a_phone_without_a_known_battery_is_refused_by_name():
    phone = replace(device(0, flops_per_s=1.0), device="brick", tier="phone-low")

    with pytest.raises(ExperimentError, match=r"energy\.battery: the capacity of brick \(phone-low\) is not"):
        Battery().capacity_of(phone.tier, phone.device, phone.battery_wh)


def test_every_portable_device_of_the_presets_has_a_battery():
    for preset in ("mixed_edge_2025", "phones_2020", "flash_like", "fedscale_like"):
        people = draw_devices(preset, 300, 0)
        for client in range(300):
            profile = people.profile(client)
            Battery().capacity_of(profile.tier, profile.device, profile.battery_wh)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"stop_below": 0.5, "start_at": 0.5}, "stop_below must be less than start_at"),
        ({"awake": [24, 9]}, "awake must be two hours of a day"),
        ({"initial": [0.9, 0.1]}, "initial must be the lowest and the highest level"),
    ],
)
def test_what_no_battery_can_be_is_refused(given, problem):
    with pytest.raises(ValidationError, match=problem):
        Battery.model_validate(given)


def test_nothing_is_drawn_after_the_last_power():
    work = Draw.of(10.0, ((5.0, 3.0), (5.0, 1.0)))

    assert [work.at(t)[0] for t in (10.0, 14.9, 15.0, 20.0)] == [3.0, 3.0, 1.0, 0.0]
    assert NOTHING.at(0.0) == (0.0, math.inf)
