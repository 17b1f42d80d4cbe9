"""What a visit is made of: what is asked of whom, the devices and links on which it happens, and how it may end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import simpy

from fedsim.adapters.adapter import Vector
from fedsim.clock.device_training import Machines
from fedsim.clock.foreseen import Agenda
from fedsim.clock.online.attendance import Attendance
from fedsim.cost.work import Work
from fedsim.devices.population import Profile
from fedsim.network.base import Network

OnClose = Literal["lost", "pause", "partial"]
"""What becomes of a visit whose device goes offline: `population.on_close`."""
Phase = Literal["down", "train", "up"]
"""What a visit is at."""


class Pausable(Protocol):
    """Something that a visit waits for and that can stand still meanwhile: a transfer, or a training."""

    @property
    def done(self) -> simpy.Event:
        """Happens at its end; another event after `resume`."""
        ...

    @property
    def due_s(self) -> float:
        """When its end is if nothing happens on the way [virtual s]; inf: that is not known, or it stands still."""
        ...

    def pause(self) -> None:
        """Stop for now."""
        ...

    def resume(self) -> None:
        """Go on with what is left."""
        ...


@dataclass(frozen=True, slots=True)
class VisitOrder:
    """What the server asks of a client when it dispatches: all that is known of a visit before it begins.

    Attributes:
        profile: the client's device and link.
        order: number of the dispatch, over all clients.
        visit: number of the client's visit.
        version, round: which model is sent, and the protocol's own count of rounds; -1: it has none.
        start: the vector that is sent.
        work: what is moved, computed and held.
        steps: local steps that are asked for; 0: not known.
    """

    profile: Profile
    order: int
    visit: int
    version: int
    round: int
    start: Vector
    work: Work
    steps: int = 0


@dataclass(frozen=True, slots=True)
class DeviceWorld:
    """Where visits happen: the same for all visits of a run.

    Attributes:
        env: the clock.
        network: what carries transfers.
        machines: the devices' heat and noise.
        attendance: when devices go offline and are online again.
        tail: whether a radio stays up after a transfer.
        detect_after_s: how long it takes the server to know that a visit is lost [virtual s].
        agenda: takes visits whose course is known when they begin; None: that is never so.
    """

    env: simpy.Environment
    network: Network
    machines: Machines
    attendance: Attendance
    tail: bool
    detect_after_s: float
    agenda: Agenda | None = None

    def goes_offline(self, client: int) -> simpy.Event:
        """Return the event that a client's device goes offline, with which its connection ends if it keeps one."""
        offline = self.attendance.goes_offline(client)
        self.network.online_until(client, offline)
        return offline
