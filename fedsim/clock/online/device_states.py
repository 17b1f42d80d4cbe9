"""The devices of a run whose batteries and heat are followed, as arrays; those at work, and those looked at last, as objects.

A device at rest is a row of numbers, so a million of them take a hundred megabytes. Whoever asks for one gets an object
with these numbers, the same to the bit; they are written back when it rests and many others were asked for since.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from fedsim.arrays import Floats, Ints
from fedsim.clock.device_training import Machines
from fedsim.clock.online.device import KINDS, Transition, WatchedDevice
from fedsim.config.devices import Battery
from fedsim.cost.energy import BatteryState
from fedsim.devices.availability import Availability
from fedsim.devices.battery import Charge, Supply
from fedsim.devices.population import Population
from fedsim.records.rows import CAUSES

MOST_OBJECTS = 4096
"""Devices that are objects at a time, besides those at work."""


@dataclass(frozen=True, slots=True)
class Model:
    """What devices of one model have in common.

    Attributes:
        battery_j: what a full battery holds [J]; None: it is on the mains.
        use_w, charge_w: what its owner draws while awake, and what the charger gives.
        heat_gates: whether heat may keep it offline.
    """

    battery_j: float | None
    use_w: float
    charge_w: float
    heat_gates: bool


@dataclass(frozen=True, eq=False)
class Batteries:
    """What feeds and drains the batteries besides our work, and what they hold at the start of a run.

    Attributes:
        config: of the batteries.
        plugged: when chargers are in.
        levels: shares of a full battery that are there at the start, (n,).
        ahead_s: local time less virtual time, (n,).
    """

    config: Battery
    plugged: Availability
    levels: Floats
    ahead_s: Floats


_NUMBERS = ("time_s", "offline_since_s", "at_s", "charge_s", "level", "received_j", "supplied_j", "worked_j")
_ONLINE, _LOW, _CAUSE, _KIND = range(4)


class DeviceStates(Sequence[WatchedDevice]):
    """Every client's device, by client."""

    def __init__(
        self,
        population: Population,
        machines: Machines,
        models: Sequence[Model],
        model_of: Ints,
        batteries: Batteries | None = None,
    ) -> None:
        """Take devices at rest, at the start of a run.

        Args:
            population: who they are.
            machines: how warm they are.
            models: of the devices, each once.
            model_of: the place of each client's among them, (n,).
            batteries: of those that are not on the mains; None: all are.
        """
        n = len(population)
        self._population, self._machines, self._batteries = population, machines, batteries
        self._models, self._model_of = models, model_of.astype(np.int32)
        self._numbers, self._codes = np.zeros((n, len(_NUMBERS))), np.zeros((n, 4), dtype=np.uint8)
        self._numbers[:, 2] = math.inf
        self._codes[:, _ONLINE], self._codes[:, _KIND] = True, KINDS.index("look")
        if batteries is not None:
            self._numbers[:, 4] = batteries.levels
            self._codes[:, _LOW] = batteries.levels < batteries.config.start_at
        self._objects: dict[int, WatchedDevice] = {}
        self._most = MOST_OBJECTS

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> WatchedDevice: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[WatchedDevice]: ...
    def __getitem__(self, place: int | slice) -> WatchedDevice | Sequence[WatchedDevice]:
        """Return a client's device; what is done to it stays."""
        if isinstance(place, slice):
            return [self[client] for client in range(*place.indices(len(self)))]
        device = self._objects.get(place)
        if device is None:
            if len(self._objects) >= self._most:
                self._put_away()
            self._objects[place] = device = self._made(place)
        return device

    def __iter__(self) -> Iterator[WatchedDevice]:
        """Go through all of them; what is done to one at rest is lost."""
        for client in range(len(self)):
            yield self._objects.get(client) or self._made(client)

    def stored_at_start_j(self) -> float:
        """Return what all batteries hold at the start of a run [J]."""
        if self._batteries is None:
            return 0.0
        full_j = np.array(
            [math.nan if model.battery_j is None else model.battery_j for model in self._models]
        )
        held_j = self._batteries.levels * full_j[self._model_of]
        return math.fsum(held_j[~np.isnan(held_j)])

    def _made(self, client: int) -> WatchedDevice:
        """Return the object of a device at rest."""
        time_s, offline_since_s, at_s, charge_s, level, received_j, supplied_j, worked_j = self._numbers[
            client
        ].tolist()
        online, low, cause, kind = self._codes[client].tolist()
        profile, batteries = self._population.profile(client), self._batteries
        model = self._models[self._model_of.item(client)]
        battery: tuple[Charge, Supply] | None = None
        if batteries is not None and model.battery_j is not None:
            config = batteries.config
            state = BatteryState(model.battery_j, level)
            limits = (config.start_at, config.stop_below)
            charge = Charge(charge_s, state, bool(low), *limits, received_j, supplied_j, worked_j)
            powers = (profile.idle_w, model.use_w, model.charge_w)
            awake, ahead_s = config.awake, batteries.ahead_s.item(client)
            battery = charge, Supply(batteries.plugged, client, *powers, awake, ahead_s)
        device = WatchedDevice(
            profile,
            self._population.availability,
            self._machines,
            battery=battery,
            heat_gates=model.heat_gates,
        )
        device.time_s, device.offline_since_s = time_s, offline_since_s
        device.online, device.cause = bool(online), CAUSES[cause]
        device.transition = Transition(at_s, KINDS[kind])
        return device

    def _put_away(self) -> None:
        """Write the objects of devices at rest back."""
        working = {client: device for client, device in self._objects.items() if not device.rests}
        resting = [client for client in self._objects if client not in working]
        rows = [self._row(self._objects[client]) for client in resting]
        if resting:
            self._numbers[resting] = [numbers for numbers, _ in rows]
            self._codes[resting] = [codes for _, codes in rows]
        self._objects = working
        self._most = len(working) + MOST_OBJECTS

    @staticmethod
    def _row(device: WatchedDevice) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Return what is written of a device at rest."""
        charge, transition = device.charge, device.transition
        held = (0.0, 0.0, 0.0, 0.0, 0.0)
        if charge is not None:
            held = charge.time_s, charge.battery.level, charge.received_j, charge.supplied_j, charge.worked_j
        codes = device.online, charge is not None and charge.low, CAUSES.index(device.cause)
        times = device.time_s, device.offline_since_s, transition.at_s
        return (*times, *held), (*codes, KINDS.index(transition.kind))
