"""A device's next transition: what comes first, and what is taken of those that come at the same time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import simpy
from worlds import device, windows

from fedsim.clock.device_training import Machines
from fedsim.clock.online.attendance import Windowed
from fedsim.clock.online.device import LOOK_S, Transition, WatchedDevice
from fedsim.clock.online.watched import Watched
from fedsim.config.devices import ComputeConfig
from fedsim.cost.energy import BatteryState
from fedsim.devices.availability import Availability
from fedsim.devices.battery import Charge, Supply

PHONE = replace(device(0, flops_per_s=1.0), tier="phone-mid")
ALWAYS = Availability.always(1)
NEVER = windows([[]])


def battery(level=1.0, *, use_w=0.0, plugged=NEVER, charge_w=0.0):
    """1 kJ, low from 30 % until it is at 50 % again."""
    charge = Charge(0.0, BatteryState(1000.0, level), level < 0.5, start_at=0.5, stop_below=0.3)
    return charge, Supply(plugged, 0, idle_w=0.0, use_w=use_w, charge_w=charge_w, awake=(0.0, 24.0))


def phone(online=((0.0, math.inf),), *, power=None, hot_s=math.inf):
    machines = Machines(ComputeConfig(), seed=0)
    made = WatchedDevice(PHONE, windows([list(online)]), machines, battery=power)
    made.working, made.hot_s = True, hot_s
    return made


def test_the_first_is_taken():
    empties_s = 700.0

    assert phone().next_transition().at_s == math.inf
    assert phone(((0.0, 50.0),), hot_s=60.0).next_transition() == Transition(50.0, "window")
    assert phone(((0.0, 50.0),), hot_s=40.0).next_transition() == Transition(40.0, "heat")
    draining = battery(use_w=1.0)
    assert phone(power=draining).next_transition() == pytest.approx(Transition(empties_s, "battery"))
    assert phone(((0.0, 50.0),), power=draining).next_transition() == Transition(50.0, "window")


def test_with_a_battery_one_looks_again_after_a_day():
    assert phone(power=battery()).next_transition() == Transition(LOOK_S, "look")


def test_at_the_same_time_one_looks_again_before_a_window_before_heat_before_a_battery():
    day = ((0.0, LOOK_S),)
    empties_s = phone(power=battery(use_w=1.0)).next_transition().at_s

    assert phone(day, power=battery(), hot_s=LOOK_S).next_transition() == Transition(LOOK_S, "look")
    assert phone(day, hot_s=LOOK_S).next_transition() == Transition(LOOK_S, "window")
    at_once = phone(power=battery(use_w=1.0), hot_s=empties_s)
    assert at_once.next_transition() == Transition(empties_s, "heat")


def test_what_should_have_happened_already_happens_now():
    assert phone(power=battery(0.4)).next_transition() == Transition(0.0, "battery")
    assert phone(((7.0, 9.0),)).next_transition() == Transition(0.0, "window")


def test_a_device_is_online_again_when_its_window_opens_and_its_battery_has_recovered():
    plugged = windows([[(100.0, 1e6)]])
    recovering = phone(((0.0, 10.0), (400.0, 500.0)), power=battery(0.3, plugged=plugged, charge_w=1.0))
    recovering.go_offline("battery")
    assert recovering.next_transition() == Transition(400.0, "online")

    slow = phone(((0.0, 1e6),), power=battery(0.3, plugged=plugged, charge_w=1.0))
    slow.go_offline("battery")
    assert slow.next_transition() == pytest.approx(Transition(300.0, "online"))


def test_one_that_never_comes_online_again_is_looked_at_no_more():
    env = simpy.Environment()
    gone = phone(((0.0, 10.0),))
    watched = Watched(env, ALWAYS, [gone])
    assert watched.online(5.0).tolist() == [True]
    assert watched.online(10.0).tolist() == [False]
    assert watched.next_start_s(10.0) == math.inf
    assert watched.online_again(0) is None


def test_a_look_at_a_later_time_wakes_who_waits_until_then():
    env = simpy.Environment()
    watched = Watched(env, ALWAYS, [phone(((0.0, 10.0), (20.0, 30.0)))])
    offline = watched.goes_offline(0)

    assert watched.online(10.0).tolist() == [False]
    assert offline.triggered
    assert watched.why_offline(0) == "window"


class Clients:
    availability = windows([[(0.0, 5.0), (8.0, 9.0)]])


@pytest.mark.parametrize(("now_s", "again_s"), [(0.0, 0.0), (5.0, 8.0)])
def test_one_may_wait_for_a_device_that_nobody_has_watched_going_offline(now_s, again_s):
    env = simpy.Environment(initial_time=now_s)
    attendance = Windowed(env, Clients())

    assert attendance.why_offline(0) == "window"
    env.run(attendance.online_again(0))
    assert env.now == again_s
