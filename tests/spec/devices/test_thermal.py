"""What a device does at its cap, by the closed forms of each governor, and that nearly equal devices do nearly the same."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import device

from fedsim.config.devices import ComputeConfig
from fedsim.config.thermal import HYSTERESIS_K, PRESETS, Thermal
from fedsim.cost.work import Work
from fedsim.devices.compute import training
from fedsim.devices.thermal import hot_k, throttled

PHONE = replace(device(0, flops_per_s=1e9, idle_w=0.5), tier="phone-mid")
WORK = Work(0, 0, 1000e9, 0.0, 1000, 0, 0)
SUSTAINED_W = 25 / 6


def course(watts, *, heat_k=0.0, **thermal):
    return training(
        replace(PHONE, train_w=watts), WORK, ComputeConfig(thermal=Thermal(**thermal)), heat_k=heat_k
    )


@pytest.mark.parametrize(("exponent", "watts"), [(1.0, 5.0), (2.0, 5.5), (3.0, 8.0)])
def test_at_the_cap_the_speed_is_a_root_of_the_share_of_power_that_can_be_held(exponent, watts):
    """tau ln(R P / (R P - cap)) at full speed, the rest at (cap / R / P)^(1/e), at the power that holds the cap."""
    found = course(watts, power_exponent=exponent, throttled_speed=0.1)

    onset_s, speed = 90 * math.log(6 * watts / (6 * watts - 25)), (SUSTAINED_W / watts) ** (1 / exponent)
    hot_s = (1000 - onset_s) / speed
    assert found.duration_s == pytest.approx(onset_s + hot_s)
    assert found.joules(found.duration_s, 0.0) == pytest.approx(watts * onset_s + SUSTAINED_W * hot_s)
    assert found.heat_after_k(found.duration_s) == 25.0


def test_a_device_just_above_what_it_can_hold_is_just_slower():
    """4.16 W never reach the cap; 4.17 W do, and cost a third more time and energy under the step governor."""
    below, above = course(4.16), course(4.17)

    assert below.duration_s == 1000.0
    assert above.duration_s == pytest.approx(1000.0, rel=1e-3)
    assert above.joules(above.duration_s, 0.5) == pytest.approx(below.joules(1000.0, 0.5), rel=5e-3)
    assert course(4.17, heat_k=25.0, governor="step").duration_s == pytest.approx(1000 / 0.75)


@given(watts=st.floats(0.5, 20), exponent=st.floats(1, 3), floor=st.floats(0.05, 1))
def test_time_and_energy_are_continuous_in_power(watts, exponent, floor):
    near = watts * (1 + 1e-7)
    one, two = (course(w, power_exponent=exponent, throttled_speed=floor) for w in (watts, near))

    assert two.duration_s == pytest.approx(one.duration_s, rel=1e-3)
    assert two.duration_s >= one.duration_s * (1 - 1e-9)
    assert two.joules(two.duration_s, 0.0) == pytest.approx(one.joules(one.duration_s, 0.0), rel=1e-3)


def test_a_clock_that_can_fall_no_further_lets_the_device_get_warmer_than_the_cap():
    """12 W at half the clock and e = 2 are 3 W x ... = 12 x 0.5^2; 20 W are 5 W, which settle at 30 K."""
    thermal = Thermal(power_exponent=2.0, throttled_speed=0.5)

    assert throttled(thermal, 20.0) == (0.5, 5.0)
    assert hot_k(thermal, 25.0, 5.0, 90.0) == pytest.approx(30 - 5 / math.e)
    found = course(20.0, power_exponent=2.0, throttled_speed=0.5)
    onset_s = 90 * math.log(120 / 95)
    assert found.duration_s == pytest.approx(onset_s + (1000 - onset_s) / 0.5)
    assert found.heat_after_k(onset_s + 90.0) == pytest.approx(30 - 5 / math.e)


def test_severe_is_slower_than_moderate():
    moderate, severe = (throttled(PRESETS[name], 5.5) for name in ("moderate", "severe"))

    assert moderate[0] == pytest.approx(math.sqrt(SUSTAINED_W / 5.5))
    assert severe[0] == pytest.approx(SUSTAINED_W / 5.5)


@pytest.mark.parametrize("distance_k", [1e-9, 1e-5, 1e-3, 0.05, 0.0999])
def test_limits_too_close_to_each_other_are_refused_in_words(distance_k):
    with pytest.raises(ValidationError, match=r"stop_above_c must lie 0\.1 degrees above start_below_c"):
        Thermal(start_below_c=40.0, stop_above_c=40.0 + distance_k)


def test_limits_just_far_enough_apart_are_taken():
    assert Thermal(start_below_c=40.0, stop_above_c=40.0 + HYSTERESIS_K).gates


@pytest.mark.parametrize("name", ["heating_s", "cooling_s"])
def test_a_device_does_not_heat_or_cool_in_no_time(name):
    with pytest.raises(ValidationError, match="greater than or equal to 10"):
        Thermal(**{name: 1e-6})
