"""One visit: a client downloads, trains and uploads, unless something ends it first.

`estimate` is pure and sees a visit alone on its own link. `Visit` is the same as a SimPy process
on the network of the run, raced at each phase with the device going away (its window closes, an outage,
its battery is low, it is too warm) and with the server's word to stop. What becomes of a visit whose device
goes away is `population.on_close`: lost, paused until it is back, or cut to the steps it had made. What a
visit had used when it ended is always accounted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal, Protocol

import simpy

from fedsim.adapters.adapter import Vector
from fedsim.clock.estimate import _joules
from fedsim.clock.training_session import Session
from fedsim.cost.energy import gross_j, tail_j
from fedsim.cost.work import Work
from fedsim.devices.compute import Machines
from fedsim.devices.population import Profile
from fedsim.instants import First
from fedsim.network.base import Direction, Network, Transfer

if TYPE_CHECKING:
    from fedsim.clock.attendance import Attendance

Outcome = Literal[
    "landed", "offline", "memory", "late", "surplus", "rejected", "polled", "failed", "in_flight"
]

SMALLEST_REFUSAL_S = 1e-3
"""A refusal takes at least this long, or a server that asks again at once would stop time."""
ROUNDING_STEPS = 1e-9
"""A step that lacks so little is whole."""


OnClose = Literal["lost", "pause", "partial"]
Step = Literal["down", "train", "up"]


class Phase(Protocol):
    """Something that a visit waits for and that can stand still meanwhile: a transfer, or a training."""

    @property
    def done(self) -> simpy.Event:
        """Happens at its end; another event after `resume`."""
        ...

    def pause(self) -> None:
        """Stop for now."""
        ...

    def resume(self) -> None:
        """Go on with what is left."""
        ...


class Visit:
    """A dispatched visit; `process` ends when the server knows how it went.

    The snapshot, the version and the work are taken when it is made: SimPy starts the process
    itself later in the same instant.

    Attributes:
        away: why its device went away last; empty if it never did.
        steps, steps_made: local steps that were asked for (0: not known), and those in the update.
        battery: share of the battery that is there at its end; NaN without one.
    """

    def __init__(
        self,
        env: simpy.Environment,
        network: Network,
        *,
        profile: Profile,
        work: Work,
        order: int,
        visit: int,
        version: int,
        round_: int,
        start: Vector,
        attendance: Attendance,
        detect_after_s: float,
        machines: Machines,
        tail: bool,
        on_end: Callable[[Visit], None],
        on_close: OnClose = "lost",
        steps: int = 0,
        shorten: Callable[[Visit, int], None] | None = None,
    ) -> None:
        self.env, self.network, self.profile, self.work = env, network, profile, work
        self.client = profile.client
        self.order, self.visit, self.version, self.round = order, visit, version, round_
        self.start = start
        self.dispatched_s = float(env.now)
        self.downloaded_s = self.trained_s = self.landed_s = self.ended_s = math.nan
        self.outcome: Outcome = "in_flight"
        self.trained = False
        self.staleness = self.committed_version = -1
        self.loss = self.battery = math.nan
        self.ignored: Outcome | None = None
        self.session: Session | None = None
        self.away = ""
        self.steps = self.steps_made = steps
        self._machines, self._tail = machines, tail
        self._attendance, self._on_close, self._shorten = attendance, on_close, shorten
        self._account: dict[str, float] | None = None
        self._on_end = on_end
        self._transfers: dict[Direction, Transfer] = {}
        self._sent: dict[Direction, int] = {}
        self._paused: dict[Step, float] = {"down": 0.0, "train": 0.0, "up": 0.0}
        self._waits: tuple[Step, float] | None = None
        self._cut = False
        self._stop = env.event()
        self._gone = attendance.away(self.client)
        self.process = env.process(self._course(detect_after_s))

    @property
    def ended(self) -> bool:
        """Whether the device has finished with it, whatever the server knows."""
        return self.outcome != "in_flight"

    @property
    def work_share(self) -> float:
        """Share of its local steps that are in its update."""
        return self.steps_made / self.steps if self.steps else 1.0

    @property
    def paused_s(self) -> float:
        """How long its device was away while it waited [s]."""
        return sum(self._paused.values())

    def stop(self, outcome: Outcome) -> None:
        """Tell the device to drop it now; the visit ends as `outcome`."""
        if not self.ended and not self._stop.triggered:
            self._end(outcome)
            self._stop.succeed()

    def ignore(self, outcome: Outcome) -> None:
        """Let the device go on to its end, which will then count as `outcome`."""
        if not self.ended:
            self.ignored = outcome

    def close(self, now_s: float) -> None:
        """Freeze the account at the end of the run; the outcome stays `in_flight`."""
        if not self.ended:
            self.ended_s = now_s
            self._woken(now_s)
            self._sent = {d: transfer.sent_bytes(now_s) for d, transfer in self._transfers.items()}
            self.battery = self._attendance.level(self.client, self.ended_s)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.ended_s = float(self.env.now)
        self._woken(self.ended_s)
        if self.session is not None:
            self.session.pause()
        self._sent = {d: transfer.cancel() for d, transfer in self._transfers.items()}
        self._attendance.relax(self.client, self._joules, over=True)
        self.battery = self._attendance.level(self.client, self.ended_s)
        self._on_end(self)

    def _course(self, detect_after_s: float) -> Generator[simpy.Event, Any, Visit]:
        env = self.env
        if self.ended or not (yield from self._move("down", self.work.down_bytes)):
            return (yield from self._lost(detect_after_s))
        self.downloaded_s = float(env.now)
        self._attendance.relax(self.client, self._joules)
        if self.work.memory_bytes > self.profile.usable_memory_bytes:
            if not (yield from self._refuse()):
                return (yield from self._lost(detect_after_s))
            self._end("memory")
            return self
        self.session = Session(env, self._machines, self.profile, self.work, self.visit)
        if not (yield from self._go("train", self.session)):
            return (yield from self._lost(detect_after_s))
        self.trained_s = float(env.now)
        self.session.pause()
        self._attendance.relax(self.client, self._joules)
        if self._cut and not (yield from self._sit_out("up")):
            return (yield from self._lost(detect_after_s))
        if not (yield from self._move("up", self.work.up_bytes)):
            return (yield from self._lost(detect_after_s))
        self.landed_s = float(env.now)
        self._end(self.ignored or "landed")
        return self

    def _move(self, direction: Direction, n_bytes: int) -> Generator[simpy.Event, Any, bool]:
        transfer = self._transfers[direction] = self.network.transfer(direction, self.client, n_bytes)
        return (yield from self._go(direction, transfer))

    def _go(self, step: Step, phase: Phase) -> Generator[simpy.Event, Any, bool]:
        """Let a phase go on to its end; False if the visit is lost, or was stopped."""
        self._strain(step)
        while True:
            yield First(self.env, (phase.done, self._gone, self._stop))
            if self.ended or phase.done.processed:
                return not self.ended
            self.away = self._attendance.why(self.client)
            if self._on_close == "lost" or (self._on_close == "partial" and step == "down"):
                return False
            phase.pause()
            self._attendance.relax(self.client, self._joules)
            if self._on_close == "partial" and step == "train":
                return self._cut_short()
            if not (yield from self._sit_out(step)):
                return False
            phase.resume()
            self._strain(step)

    def _sit_out(self, step: Step) -> Generator[simpy.Event, Any, bool]:
        """Wait until the device is back; False if it will never be, or the visit was stopped."""
        back = self._attendance.back(self.client)
        if back is None:
            return False
        self._waits = step, float(self.env.now)
        yield First(self.env, (back, self._stop))
        if self.ended:
            return False
        self._woken(float(self.env.now))
        self._gone = self._attendance.away(self.client)
        return True

    def _woken(self, now_s: float) -> None:
        """A wait for the device is over."""
        if self._waits is not None:
            step, since_s = self._waits
            self._paused[step] += now_s - since_s
            self._waits = None

    def _cut_short(self) -> bool:
        """Training ends with the last whole step; False if there is none."""
        assert self.session is not None
        share = self.session.share(float(self.env.now))
        made = min(self.steps, math.floor(self.steps * share + ROUNDING_STEPS))
        if not made:
            return False
        self.steps_made, self._cut = made, True
        if made < self.steps and self._shorten is not None:
            self._shorten(self, made)
        return True

    def _strain(self, step: Step) -> None:
        """Tell the device what this phase draws."""
        if step == "train":
            assert self.session is not None
            self._attendance.strain(self.client, training=self.session.course)
        else:
            p = self.profile
            self._attendance.strain(self.client, p.down_radio_w if step == "down" else p.up_radio_w)

    def _refuse(self) -> Generator[simpy.Event, Any, bool]:
        refusal = self.env.timeout(max(self.profile.rtt_s / 2, SMALLEST_REFUSAL_S))
        yield First(self.env, (refusal, self._gone, self._stop))
        if not self.ended and not refusal.processed:
            self.away = self._attendance.why(self.client)
        return refusal.processed and not self.ended

    def _lost(self, detect_after_s: float) -> Generator[simpy.Event, Any, Visit]:
        if not self.ended:
            self._end("offline")
            yield self.env.timeout(detect_after_s)
        return self

    def used(self) -> dict[str, float]:
        """Return what the visit had used when it ended (drawn up once, at the first call after that).

        Returns:
            down_bytes, up_bytes (int), flops, joules (above idle), gross_joules (all that the device drew
            while it was there).
        """
        if self._account is None or math.isnan(self.ended_s):
            self._account = self._used(self.ended_s)
        return self._account

    def _joules(self) -> float:
        """What it has used until now [J]."""
        return self._used(float(self.env.now))["joules"]

    def _used(self, end: float) -> dict[str, float]:
        p, w, session = self.profile, self.work, self.session
        down_s = _spent(self.dispatched_s, self.downloaded_s, end) - self._paused["down"]
        up_s = _spent(self.trained_s, self.landed_s, end) - self._paused["up"]
        down, up = w.down_bytes, w.up_bytes
        if math.isnan(self.downloaded_s):
            down = self._moved("down")
        if math.isnan(self.landed_s):
            up = self._moved("up")
        done = train_j = 0.0
        if session is not None:
            whole = not math.isnan(self.trained_s) and not self._cut
            done = w.flops if whole else w.flops * session.share(end)
            train_j = session.joules(end)
        joules = _joules(p, down_s, down, train_j, up_s, up)
        if self._tail:
            joules += self._tails_j(end)
        gross = gross_j(joules, p.idle_w, end - self.dispatched_s - self.paused_s)
        return {"down_bytes": down, "up_bytes": up, "flops": done, "joules": joules, "gross_joules": gross}

    def _moved(self, direction: Direction) -> int:
        """Payload of a transfer that is not done."""
        if direction not in self._sent and direction in self._transfers:
            return self._transfers[direction].sent_bytes()
        return self._sent.get(direction, 0)

    def _tails_j(self, end: float) -> float:
        """The radio stays up after the download until the upload begins, at most; and after the upload."""
        p, uploads = self.profile, not math.isnan(self.trained_s)
        train_s = _spent(self.downloaded_s, self.trained_s, end) if self.session is not None else 0.0
        down = tail_j(p.tail_w, p.tail_s, train_s if uploads else math.inf)
        return down + (tail_j(p.tail_w, p.tail_s) if uploads else 0.0)


def _spent(begin_s: float, finish_s: float, end_s: float) -> float:
    if math.isnan(begin_s):
        return 0.0
    return (end_s if math.isnan(finish_s) else finish_s) - begin_s
