"""Settings of heat: how a device warms, at which temperature it slows down, and when it is left alone.

What follows from them is in `fedsim.devices.thermal`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.classes import CLASSES
from fedsim.config.fields import Positive
from fedsim.errors import Shown, invalid

HYSTERESIS_K = 0.1
"""Least distance of `stop_above_c` and `start_below_c`: closer together a device would stop and go on without end."""
SHORTEST_CONSTANT_S = 10.0
"""Least time constant: a device without a fan has minutes."""
TimeConstant = Annotated[float, Field(ge=SHORTEST_CONSTANT_S, le=1e6)]


class Thermal(Config):
    """How a device without a fan heats up, and what it does at its cap.

    Defaults: the coefficient table of Dr-PKDP/FMCL-paper5-energy_thermal_aware_simulation (MIT), which
    names the source of each figure. A phone at 5 W then throttles after 161 s (observed: about 150 s,
    arXiv 2503.21109), one at 4 W never.

    Only training heats: transfers, a charger and its owner's use do not (a device cools meanwhile as at rest).

    Attributes:
        resistance_k_per_w: warming per watt in the long run; 5-8, derived there from the onset of throttling.
        heating_s: time constant while training; 55-150, derived.
        cooling_s: time constant at rest; 55-400, not published for such loads.
        ambient_c: surroundings.
        cap_c: the temperature that the governor holds; about 50 (Wang et al., arXiv 2005.12326), 60-72 on
            a tolerant phone.
        governor: what it does at the cap. `sustainable`: it lowers the clock until the power is the one that holds
            the cap, so that a device slightly above it is slightly slower; see `power_exponent`. `step`: it goes to
            `throttled_speed`, however much too warm the device would get.
        power_exponent: how a device's power falls with its clock, P ~ speed^e: at the cap the speed is
            (sustainable power / power)^(1/e). 3 where voltage and clock fall together, P ~ f V^2 (Mudge, IEEE
            Computer 34(4), 2001), 1 where the voltage is at its least already; 2 in between is our assumption.
        throttled_speed: least share of full speed at the cap (`sustainable`), or just that share (`step`): 0.7-0.8
            (Wang et al.) down to 0.23 (arXiv 2503.21109: 3 GHz to 1 GHz). A device that has come to it draws
            more than what holds the cap, and gets warmer.
        tiers: classes of devices that it applies to.
        start_below_c: a device that is warmer takes no new work until it has cooled; None: heat keeps nobody away.
        stop_above_c: training stops here, at most the cap, and goes on (if `population.on_close` lets it) below
            `start_below_c`; None: the device trains on at a lower clock.
    """

    resistance_k_per_w: Positive = 6.0
    heating_s: TimeConstant = 90.0
    cooling_s: TimeConstant = 135.0
    ambient_c: Annotated[float, Field(ge=-50, le=60)] = 25.0
    cap_c: Annotated[float, Field(le=120)] = 50.0
    governor: Literal["sustainable", "step"] = "sustainable"
    power_exponent: Annotated[float, Field(ge=1, le=3)] = 2.0
    throttled_speed: Annotated[float, Field(gt=0, le=1)] = 0.75
    tiers: tuple[str, ...] = tuple(name for name, implied in CLASSES.items() if implied.heats)
    start_below_c: Annotated[float, Field(le=120)] | None = None
    stop_above_c: Annotated[float, Field(le=120)] | None = None

    @model_validator(mode="after")
    def _cap_above_ambient(self) -> Thermal:
        if self.cap_c <= self.ambient_c:
            got = Shown(f"{self.cap_c:g} and {self.ambient_c:g}")
            raise invalid("cap_c must be above ambient_c", got=got, fix="give a cap of about 50 degrees")
        return self

    @model_validator(mode="after")
    def _limits_in_order(self) -> Thermal:
        start_c, stop_c = self.start_below_c, self.stop_above_c
        if start_c is not None and start_c <= self.ambient_c:
            got = Shown(f"{start_c:g} and {self.ambient_c:g}")
            fix = "give a temperature to which a device cools, about 40 degrees"
            raise invalid("start_below_c must be above ambient_c", got=got, fix=fix)
        if stop_c is None:
            return self
        if start_c is None or not start_c < stop_c <= self.cap_c:
            start = "none" if start_c is None else f"{start_c:g}"
            what = "stop_above_c must lie above start_below_c and not above cap_c"
            got = Shown(f"{stop_c:g}, {start} and {self.cap_c:g}")
            raise invalid(what, got=got, fix="as in start_below_c: 40, stop_above_c: 48, cap_c: 50")
        if stop_c - start_c < HYSTERESIS_K * (1 - 1e-9):
            what = f"stop_above_c must lie {HYSTERESIS_K} degrees above start_below_c, or devices stop without end"
            got = Shown(f"{stop_c!r} and {start_c!r}")
            raise invalid(what, got=got, fix="as in start_below_c: 40, stop_above_c: 48")
        return self

    @property
    def gates(self) -> bool:
        """Whether heat keeps devices away."""
        return self.start_below_c is not None

    @property
    def start_k(self) -> float:
        """The temperature below which a device takes work [K above the surroundings]; inf: any."""
        return math.inf if self.start_below_c is None else self.start_below_c - self.ambient_c

    @property
    def stop_k(self) -> float:
        """The temperature at which training stops [K above the surroundings]; inf: it does not."""
        return math.inf if self.stop_above_c is None else self.stop_above_c - self.ambient_c

    @property
    def cap_k(self) -> float:
        """The cap above the surroundings [K]."""
        return self.cap_c - self.ambient_c


PRESETS: dict[str, Thermal] = {
    "moderate": Thermal(),
    "severe": Thermal(power_exponent=1.0, throttled_speed=0.23),
}
"""`moderate`: voltage and clock fall together, to 0.75 at least; `severe`: the clock alone, to the least reported."""
