"""Settings of what devices do: `compute`, `memory` and `energy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.classes import CLASSES
from fedsim.config.fields import NonNegative, Sigma
from fedsim.config.thermal import Thermal
from fedsim.errors import ExperimentError, Shown, invalid, message

Share = Annotated[float, Field(ge=0, le=1)]
Watts = Annotated[float, Field(ge=0, le=1000)]
Hours = Annotated[float, Field(ge=0, le=24)]
SMALLEST_WH = 0.1
"""Least capacity of a battery: a smaller one would be empty and full again within one step of training."""
HYSTERESIS = 0.005
"""Least distance of the levels at which a device stops and goes on."""
Capacity = Annotated[float, Field(ge=SMALLEST_WH, le=10_000)]
CHARGE_W, USE_W = 10.0, 0.7
"""Defaults of `Battery`: what a charger gives, and what its owner draws."""


class ComputeConfig(Config):
    """How training time follows from work; every effect is off by default.

    Attributes:
        flops: `parameters`: FLOPs from the number of parameters; `layers`: every matrix product, by layer.
        calibration: `none`; `measured`: where `lora_speeds.csv` of `hetero_profiles` has this device and model,
            its measured speed; or a table of your own in that format.
        stack: which software trains. Where the population says what devices are (`devices_2026.csv`): a row of `stacks.csv` for
            all, or one a class of devices or an operating system (a class comes first); without it, and where it is `auto`,
            what each device's row says. With a
            `calibration`: which software of that table; needed where it has several for a device and model.
        stacks: a table of stacks of your own, whose rows stand beside those of `stacks.csv`, or in their place.
        uncertainty: how what is not known of the stacks is drawn, within the spread of what was measured: `none`; `units`: every
            device by itself; `stacks`: one draw a stack, as if it were faster or slower than was measured.
        uncertainty_draw: which draw of it; two experiments that differ in it alone differ in nothing else.
        app: where the app is that trains, which decides how much memory a system leaves it (`memory_limits.csv`): in the
            `background`, as at night; or in the `foreground`, on the screen.
        unit_sigma: spread of the natural logarithm of speed between units of one device: 0.12 between three
            boards of a lab, 0.01 between five phones of one model (EdgeFlowerTune's measurements). One number,
            or one a class of devices.
        step_sigma: the same between passes of one training: 0.06-0.18 on slow phones, 0.01-0.04 on middle,
            0.01-0.09 on fast ones (FLASH, WWW 2021, batches of four models).
        step_overhead_s: fixed time of each forward and backward pass; `fedsim profiles calibrate` measures it.
        bandwidth_floor: no training is faster than the memory can deliver the weights.
        dequantisation: whether quantised weights are unpacked on the way (`fused`) or to memory (`copy`).
        codecs: whether devices take time to decode and code messages (`wire`), as part of their training: bytes over
            memory bandwidth, the least that it can be.
        thermal: `none`, `moderate`, `severe`, or coefficients: see `fedsim.config.thermal`.
    """

    flops: Literal["parameters", "layers"] = "parameters"
    calibration: str = "none"
    stack: str | dict[str, str] | None = None
    stacks: Path | None = None
    uncertainty: Literal["none", "units", "stacks"] = "none"
    uncertainty_draw: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    app: Literal["background", "foreground"] = "background"
    unit_sigma: Sigma | dict[str, Sigma] = 0.0
    step_sigma: Sigma | dict[str, Sigma] = 0.0
    step_overhead_s: NonNegative = 0.0
    bandwidth_floor: bool = False
    dequantisation: Literal["fused", "copy"] = "fused"
    codecs: bool = False
    thermal: Literal["none", "moderate", "severe"] | Thermal = "none"

    def unit_sigma_of(self, tier: str) -> float:
        """Return `unit_sigma` of a class of devices; 0 for one that a mapping leaves out."""
        return _by_class(self.unit_sigma, tier, 0.0)

    def step_sigma_of(self, tier: str) -> float:
        """Return `step_sigma` of a class of devices; 0 for one that a mapping leaves out."""
        return _by_class(self.step_sigma, tier, 0.0)


class MemoryConfig(Config):
    """What a device with too little memory does: refuses, or the first measures that help, in this order.

    `micro-batch`: smaller batches, accumulated; `checkpoint`: activations are computed again; `rank`: a smaller
    adapter, only where clients of different ranks can be aggregated.

    Attributes:
        when_short: `refuse`, or one measure or several, tried in their order until the training fits.
    """

    when_short: (
        Literal["refuse", "micro-batch", "checkpoint", "rank"]
        | tuple[Literal["micro-batch", "checkpoint", "rank"], ...]
    ) = "refuse"

    @property
    def measures(self) -> tuple[Literal["micro-batch", "checkpoint", "rank"], ...]:
        """The measures to try, none for `refuse`."""
        if isinstance(self.when_short, tuple):
            return self.when_short
        return () if self.when_short == "refuse" else (self.when_short,)


class EnergyConfig(Config):
    """What joules include besides training and transfers, and where they come from.

    Attributes:
        tail: the radio stays up after a transfer (`tail_s` at `tail_w` of the network's row), unless the
            next one of the same visit begins before; a transfer without bytes wakes no radio. That of a visit's last
            transfer is charged whole, also where the client's next visit begins within it.
        battery: what the devices' batteries hold, and at which level they take part; none: it does not matter.
    """

    tail: bool = False
    battery: Battery | None = None


class Battery(Config):
    """What devices with a battery hold, and at which level they take part.

    `plugged` says when the charger is in, `population.availability` when a device may be asked. Where both are
    `charging` they are the same windows: a device is asked while it charges, if its level is high enough. With
    `availability: always` it is also asked on battery. A class of devices that a mapping leaves out has the default.

    Attributes:
        start_at: a device that was low takes work again from this level on, and none below it at the start.
        stop_below: down to this level it goes on with work, and takes new work.
        capacity_wh: of all devices, or by class; else `battery_wh` of the device's row (0: on the mains).
        initial: levels at the start of a run, drawn uniformly by address.
        plugged: `charging`, the sessions of the generator; or a table of windows, as for `population.availability`.
        charge_w: what the charger gives (assumption: a 5 V, 2 A charger), of all devices or by class.
        use_w: what its owner draws while awake, above idle, of all devices or by class. 892 falls from 75 to 50 %
            without a charger on 300 FLASH phones: 3.1 % an hour from 0 to 9 h and 7.5 % from 9 to 24 h (ours, from
            the events of Yang et al., WWW 2021); at 15.4 Wh that is an idle phone's 0.47 W, and 0.7 W more by day. With
            the defaults a phone of `phones_2020` charges or has 50 % for 55 % of the time; of the 300, for 62 %.
        awake: from which hour to which, local time.
    """

    start_at: Share = 0.5
    stop_below: Share = 0.3
    capacity_wh: Capacity | dict[str, Capacity] | None = None
    initial: tuple[Share, Share] = (0.2, 1.0)
    plugged: str = "charging"
    charge_w: Watts | dict[str, Watts] = CHARGE_W
    use_w: Watts | dict[str, Watts] = USE_W
    awake: tuple[Hours, Hours] = (9.0, 24.0)

    @model_validator(mode="after")
    def _in_order(self) -> Battery:
        for low, high, names in (
            (self.stop_below, self.start_at, "stop_below must be less than start_at"),
            (*self.awake, "awake must be two hours of a day, the first less than the second"),
        ):
            if not low < high:
                fix = "as in stop_below: 0.3, start_at: 0.5, awake: [9, 24]"
                raise invalid(names, got=Shown(f"{low:g} and {high:g}"), fix=fix)
        if self.start_at - self.stop_below < HYSTERESIS * (1 - 1e-9):
            what = f"start_at must be {HYSTERESIS} above stop_below, or devices stop and go on without end"
            got = Shown(f"{self.start_at!r} and {self.stop_below!r}")
            raise invalid(what, got=got, fix="as in stop_below: 0.3, start_at: 0.5")
        if self.initial[0] > self.initial[1]:
            what = "initial must be the lowest and the highest level"
            raise invalid(what, got=list(self.initial), fix="as in initial: [0.2, 1.0]")
        return self

    def charge_w_of(self, tier: str) -> float:
        """Return `charge_w` of a class of devices; the default for one that a mapping leaves out."""
        return _by_class(self.charge_w, tier, CHARGE_W)

    def use_w_of(self, tier: str) -> float:
        """Return `use_w` of a class of devices; the default for one that a mapping leaves out."""
        return _by_class(self.use_w, tier, USE_W)

    def capacity_of(self, tier: str, device: str, battery_wh: float) -> float | None:
        """Return a device's capacity [Wh]; None: it is on the mains.

        Args:
            tier: class of the device.
            device: its row, for the error.
            battery_wh: what its row says; 0: nothing.

        Raises:
            ExperimentError: a phone, tablet or laptop whose capacity is not known, or too small a battery.
        """
        asked_wh = self.capacity_wh.get(tier) if isinstance(self.capacity_wh, dict) else self.capacity_wh
        if asked_wh is not None:
            return asked_wh
        if 0 < battery_wh < SMALLEST_WH:
            what = f"the battery_wh of {device} ({tier}) is less than {SMALLEST_WH}"
            fix = "give its row the capacity in Wh, or 0 for a device on the mains"
            raise ExperimentError(message("energy.battery", what, got=battery_wh, fix=fix))
        if battery_wh > 0:
            return battery_wh
        if tier in CLASSES and CLASSES[tier].portable:
            what = f"the capacity of {device} ({tier}) is not known: its battery_wh is 0"
            fix = f"give its row a battery_wh, or energy.battery.capacity_wh: {{{tier}: 15}}"
            raise ExperimentError(message("energy.battery", what, fix=fix))
        return None


def _by_class(value: float | dict[str, float], tier: str, default: float) -> float:
    """Return one number of all devices, or that of a class; the default for one that a mapping leaves out."""
    return value.get(tier, default) if isinstance(value, dict) else value
