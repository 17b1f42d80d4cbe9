"""The verbs about who may be asked: granted, held, freed, online."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from fedsim.clock.device_training import Machines
from fedsim.clock.foreseen import agenda_of
from fedsim.clock.online.build import attendance_of
from fedsim.clock.online.roster import Roster
from fedsim.clock.plan import Plan
from fedsim.clock.visit_order import DeviceWorld
from fedsim.network.base import Network
from fedsim.samplers.seen import Records
from fedsim.server.alarm import DeskAlarm
from fedsim.server.clock_verbs import ClockVerbs
from fedsim.server.requests import Desk, PoolRequest


class IdleClients(ClockVerbs):
    """Who is online and idle, and the requests for them.

    Attributes:
        machines: the devices' heat and noise.
        attendance: when devices go offline and are online again.
        roster: who is idle.
        seen: what samplers may know.
        held_out: clients that are never asked, ascending.
        over: whether the run has come to its end.
        why_over: a sentence about its end, where that was not the budget's.
    """

    def __init__(
        self,
        env: simpy.Environment,
        plan: Plan,
        held_out: Sequence[int],
        expected_s: Callable[[int], float],
    ) -> None:
        """Start with everybody idle but those who are held out; `expected_s` says how long a client's visit takes."""
        super().__init__(env, plan)
        experiment, population = plan.experiment, plan.population
        self.held_out, self.over, self.why_over = held_out, False, ""
        self.machines = Machines(experiment.compute, experiment.population_seed)
        self.attendance = attendance_of(env, experiment, population, self.machines)
        self.roster = Roster(self.attendance)
        for client in held_out:
            self.roster.exclude(client)
        self.seen = Records(population.availability, plan.task.examples, expected_s)
        self.desk = Desk(plan, self.roster, self.seen, held_out=len(held_out), on_nobody_left=self.end)
        self._alarm = DeskAlarm(env, self.desk, experiment.budget.time_s or math.inf)

    def _device_world(self, network: Network) -> DeviceWorld:
        """Return where visits happen."""
        experiment, agenda = (
            self.plan.experiment,
            agenda_of(self.env, self.attendance, network, self.machines),
        )
        return DeviceWorld(
            self.env,
            network,
            self.machines,
            self.attendance,
            tail=experiment.energy.tail,
            detect_after_s=experiment.network.detect_after_s,
            agenda=agenda,
        )

    def grant(self, n: int, among: NDArray[np.int64] | None = None) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients are idle and online, and have the sampler choose: n, or more to be polled."""
        granted = self.env.event()
        self.desk.ask(PoolRequest(n, granted.succeed, self.now_s, among))
        self._alarm.ring()
        clients: list[int] = yield granted
        return clients

    def hold(self, client: int) -> None:
        """Keep a client from being asked, although its visit has ended, until `free`."""
        self.desk.hold(client)

    def free(self, clients: Sequence[int]) -> None:
        """Let held clients be asked again, from this instant's dispatches on."""
        self.desk.free(clients)
        self._alarm.ring()

    def end(self, why: str = "") -> None:
        """Let nothing more be committed or dispatched: the budget is used up, or `why`."""
        self.over, self.why_over = True, why
        self._alarm.stop()

    def online(self, client: int) -> bool:
        """Tell whether a client is online now."""
        return self.attendance.is_online(client, self.now_s)


def check_count(n: int, pool: int) -> None:
    """Refuse to ask for nobody, or for more than there are.

    Raises:
        ValueError: as said.
    """
    if not 1 <= n <= pool:
        raise ValueError(f"{n} clients are asked for, of {pool}: at least 1, and no more than there are")
