"""Heat: a phone that trains gets warm and slows down; one that rests cools. First order, in closed form.

The temperature above the surroundings goes to resistance x power with a time constant; at the cap the
governor lowers the clock so that it stays there, as far as it may. Without a fan only: phones, unless told otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedsim.config.thermal import PRESETS, Thermal

if TYPE_CHECKING:
    from fedsim.config.devices import ComputeConfig


def thermal_of(compute: ComputeConfig, tier: str) -> Thermal | None:
    """Return the heat model of a class of devices, None if it has none."""
    chosen = compute.thermal if isinstance(compute.thermal, Thermal) else PRESETS.get(compute.thermal)
    return chosen if chosen is not None and tier in chosen.tiers else None


def sustained_w(thermal: Thermal) -> float:
    """Return the power that holds the cap [W]."""
    return thermal.cap_k / thermal.resistance_k_per_w


def throttled(thermal: Thermal, watts: float) -> tuple[float, float]:
    """Return the share of full speed at the cap, and the power then [W], of a device that draws `watts` at full speed.

    (sustained / watts)^(1/e), at least `throttled_speed`, with power watts x speed^e; at most full speed. The step
    governor goes to `throttled_speed` at once and is held to the sustained power.
    """
    sustained = sustained_w(thermal)
    if watts <= sustained:
        return 1.0, watts
    if thermal.governor == "step":
        return thermal.throttled_speed, sustained
    e = thermal.power_exponent
    speed = (sustained / watts) ** (1.0 / e)
    if speed >= thermal.throttled_speed:
        return speed, sustained
    return thermal.throttled_speed, watts * thermal.throttled_speed**e


def settled_k(thermal: Thermal, watts: float) -> float:
    """Return where this power leads in the long run, at most the cap [K above the surroundings]."""
    return min(thermal.resistance_k_per_w * watts, thermal.cap_k)


def heated_k(thermal: Thermal, heat_k: float, watts: float, seconds: float) -> float:
    """Return the temperature after so much training, at most the cap [K above the surroundings]."""
    end_k = thermal.resistance_k_per_w * watts
    return min(end_k + (heat_k - end_k) * math.exp(-seconds / thermal.heating_s), thermal.cap_k)


def hot_k(thermal: Thermal, heat_k: float, watts: float, seconds: float) -> float:
    """Return the temperature after so much training at the cap, at a throttled power [K above the surroundings].

    The cap, unless the power is more than what holds it: then as of `heated_k`, without a cap.
    """
    end_k = thermal.resistance_k_per_w * watts
    if end_k <= thermal.cap_k * (1 + 1e-12):
        return thermal.cap_k
    from_k = max(heat_k, thermal.cap_k)
    return end_k + (from_k - end_k) * math.exp(-seconds / thermal.heating_s)


def cooled_k(thermal: Thermal, heat_k: float, idle_w: float, seconds: float) -> float:
    """Return the temperature after so much rest [K above the surroundings]."""
    end_k = settled_k(thermal, idle_w)
    return end_k + (heat_k - end_k) * math.exp(-seconds / thermal.cooling_s)


def onset_s(thermal: Thermal, heat_k: float, watts: float) -> float:
    """Return how long training at this power goes at full speed; inf if the cap is never reached [s]."""
    return reaches_s(thermal, heat_k, watts, thermal.cap_k)


def reaches_s(thermal: Thermal, heat_k: float, watts: float, to_k: float) -> float:
    """Return how long training at this power, at full speed, takes to get this warm; inf if it never does [s].

    tau ln((R P - heat) / (R P - to)), the inverse of `heated_k`.
    """
    end_k = thermal.resistance_k_per_w * watts
    if heat_k >= to_k:
        return 0.0 if end_k > to_k else math.inf
    if end_k <= to_k:
        return math.inf
    return thermal.heating_s * math.log((end_k - heat_k) / (end_k - to_k))


def cools_s(thermal: Thermal, heat_k: float, idle_w: float, to_k: float) -> float:
    """Return how long a device at rest takes to cool to this; inf if it never does [s].

    tau ln((heat - end) / (to - end)), the inverse of `cooled_k`.
    """
    if heat_k <= to_k:
        return 0.0
    end_k = settled_k(thermal, idle_w)
    return math.inf if to_k <= end_k else thermal.cooling_s * math.log((heat_k - end_k) / (to_k - end_k))
