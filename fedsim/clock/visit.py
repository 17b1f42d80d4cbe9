"""One visit: a client downloads, trains and uploads, unless something ends it first.

Where all of it is known when it begins (`fedsim.clock.foreseen`), it is one event, at its end. Elsewhere it is a SimPy
process, raced in each phase with the device going offline (a window, an outage, battery, heat) and with the server's word
to stop; `population.on_close` says what becomes of it then. What it had used when it ended is always accounted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import simpy

from fedsim.clock.device_training import DeviceTraining
from fedsim.clock.foreseen import SMALLEST_REFUSAL_S, Course
from fedsim.clock.visit_order import DeviceWorld, OnClose, Pausable, Phase, VisitOrder
from fedsim.clock.visit_record import VisitAccount
from fedsim.instants import First, in_time
from fedsim.network.base import Direction
from fedsim.records.rows import Outcome

ROUNDING_STEPS = 1e-9
"""A step that lacks so little is whole."""

Waiting = Generator[simpy.Event, object, bool]
"""A part of a visit that takes time; tells in the end whether the visit goes on."""


class Visit(VisitAccount):
    """A dispatched visit under way: what is known of it, and the process in which it happens.

    All that it begins with is taken when it is made: SimPy starts the process itself later in the same instant.

    Attributes:
        process: happens when the server knows how it went.
    """

    __slots__ = (
        *("_at", "_attendance", "_offline", "_on_close", "_on_cut", "_on_end", "_outcome_of_landing"),
        *("_pause", "_stopped", "process"),
    )

    def __init__(
        self,
        world: DeviceWorld,
        order: VisitOrder,
        *,
        on_end: Callable[[Visit], None],
        on_close: OnClose = "lost",
        on_cut: Callable[[Visit, int], None] | None = None,
    ) -> None:
        """Begin now.

        Args:
            world: where it happens.
            order: what is asked of whom.
            on_end: called when the device has finished with it.
            on_close: what becomes of it if the device goes offline.
            on_cut: called with the steps that were made if these are fewer than was asked for.
        """
        super().__init__(world, order)
        self._attendance = world.attendance
        self._on_end, self._on_close, self._on_cut = on_end, on_close, on_cut
        self._outcome_of_landing: Outcome = "landed"
        self._pause: tuple[Phase, float] | None = None
        self._at: tuple[Phase, Pausable] | None = None
        self._stopped = self._env.event()
        self._known = self._foreseen()
        if self._known is not None:
            self.process: simpy.Event = self._stopped
        else:
            self._offline = world.goes_offline(self.client)
            self.process = self._env.process(self._course())

    # what ends it -------------------------------------------------------------------------------

    def stop(self, outcome: Outcome) -> None:
        """Tell the device to drop it now; the visit ends as `outcome`."""
        if not self.ended and not self._stopped.triggered:
            self._end(outcome)
            self._stopped.succeed()

    def ignore(self, outcome: Outcome) -> None:
        """Let the device go on to its end, which will then count as `outcome`."""
        if not self.ended:
            self._outcome_of_landing = outcome

    def close(self, now_s: float) -> None:
        """Freeze the account at the end of the run; the outcome stays `in_flight`, or is again if a signal came half-way."""
        if self.is_accounted:
            return
        self._outcome = "in_flight"
        self._catch_up()
        self.ended_s = now_s
        self._end_pause(now_s)
        self._left_bytes = self._left_at(now_s)
        self._left_bytes |= {d: transfer.sent_bytes(now_s) for d, transfer in self._transfers.items()}
        self._usage = self._usage_until(now_s)
        self.battery = self._attendance.battery_level(self.client, now_s)

    def _end(self, outcome: Outcome) -> None:
        self._catch_up()
        self._outcome = outcome
        self.ended_s = now_s = float(self._env.now)
        self._end_pause(now_s)
        if self._training is not None:
            self._training.end(now_s)
        self._left_bytes = self._left_at(now_s)
        self._left_bytes |= {d: transfer.cancel() for d, transfer in self._transfers.items()}
        self._usage = self._usage_until(now_s)
        self._attendance.end_load(self.client, self._usage.joules, over=True)
        self.battery = self._attendance.battery_level(self.client, now_s)
        self._on_end(self)

    @property
    def lands_s(self) -> float:
        """When its update lands if nothing happens on the way [virtual s]; inf: it is not at its last phase."""
        if self._known is not None and not self.ended:
            return self._known.lands_s(float(self._env.now), uploads=self.work.up_bytes > 0)
        if self._at is None or self.ended:
            return math.inf
        phase, activity = self._at
        return activity.due_s if phase == "up" or not (phase == "down" or self.work.up_bytes) else math.inf

    @property
    def at_words(self) -> str:
        """What it is at, in a word."""
        if self._known is not None:
            return self._known.at_words(float(self._env.now))
        return {"down": "download", "train": "training", "up": "upload"}[self._at[0]] if self._at else "start"

    # where its course is known ------------------------------------------------------------------

    def _foreseen(self) -> Course | None:
        """Return its course, if that is known, and have it end so."""
        agenda = self._world.agenda
        if agenda is None:
            return None
        waits = self._on_close != "lost"
        course = agenda.course(self.profile, self.work, self.visit, self.dispatched_s, waits=waits)
        if course is not None:
            agenda.note(course, self.order, self._end_as_foreseen)
        return course

    def _end_as_foreseen(self) -> None:
        course = self._known
        if self.ended or course is None:
            return
        if course.end == "landed" and course.training is not None and self._training is None:
            self._outcome, self.ended_s = self._outcome_of_landing, float(self._env.now)
            self._end_whole(course, course.training)
            self._on_end(self)
        elif course.end == "landed":
            self.landed_s = course.landed_s
            self._end(self._outcome_of_landing)
        elif course.end == "memory":
            self._end("memory")
        else:
            self.away = self._attendance.why_offline(self.client)
            self._end("offline")
            self._env.timeout(self._world.detect_after_s).callbacks.append(self._tell)
            return
        self._tell()

    def _tell(self, _event: simpy.Event | None = None) -> None:
        """The server knows how it went."""
        self.process.succeed()

    # its course ---------------------------------------------------------------------------------

    def _course(self) -> Generator[simpy.Event, object, None]:
        """Go from phase to phase; where its device does not get through one, the visit is lost."""
        for phase in (self._download, self._check_memory, self._train, self._upload):
            if self.ended or not (yield from phase()):
                break
        if not self.ended:
            self._end("offline")
            yield self._env.timeout(self._world.detect_after_s)

    def _download(self) -> Waiting:
        if not (yield from self._move("down", self.work.down_bytes)):
            return False
        self._downloaded_s = float(self._env.now)
        self._end_load()
        return True

    def _check_memory(self) -> Waiting:
        """The device refuses what it has no memory for."""
        if self.work.memory_bytes <= self.profile.usable_memory_bytes:
            return True
        refusal = self._env.timeout(max(self.profile.rtt_s / 2, SMALLEST_REFUSAL_S))
        yield First(self._env, (refusal, self._offline, self._stopped))
        if self.ended:
            return False
        if not refusal.processed:
            self.away = self._attendance.why_offline(self.client)
            return False
        self._end("memory")
        return False

    def _train(self) -> Waiting:
        world = self._world
        training = DeviceTraining(self._env, world.machines, self.profile, self.work, self.visit)
        self._training = training
        if not (yield from self._finish("train", training)):
            return False
        self._trained_s = float(self._env.now)
        training.pause()
        self._end_load()
        return not self._cut or (yield from self._wait_online("up"))

    def _upload(self) -> Waiting:
        if not (yield from self._move("up", self.work.up_bytes)):
            return False
        self.landed_s = float(self._env.now)
        self._end(self._outcome_of_landing)
        return True

    def _move(self, direction: Direction, n_bytes: int) -> Waiting:
        network, cdn_bytes = self._world.network, self.work.cdn_bytes if direction == "down" else 0
        if cdn_bytes:
            transfer = network.download(self.client, n_bytes, cdn_bytes)
        else:
            transfer = network.transfer(direction, self.client, n_bytes)
        self._transfers[direction] = transfer
        return self._finish(direction, transfer)

    def _finish(self, phase: Phase, activity: Pausable) -> Waiting:
        """Let a phase go on to its end; False if the visit is lost, or was stopped."""
        self._at = phase, activity
        self._begin_load(phase)
        while True:
            yield First(self._env, (activity.done, self._offline, self._stopped))
            if not (self.ended or activity.done.processed) and in_time(activity.due_s, self._env.now):
                yield First(self._env, (activity.done, self._stopped))  # it is due in this very instant
            if self.ended or activity.done.processed:
                return not self.ended
            self.away = self._attendance.why_offline(self.client)
            if self._on_close == "lost" or (self._on_close == "partial" and phase == "down"):
                return False
            activity.pause()
            self._end_load()
            if self._on_close == "partial" and phase == "train":
                return self._cut_short()
            if not (yield from self._wait_online(phase)):
                return False
            activity.resume()
            self._begin_load(phase)

    def _wait_online(self, phase: Phase) -> Waiting:
        """Wait until the device is online again; False if it will never be, or the visit was stopped."""
        online_again = self._attendance.online_again(self.client, to_train=phase == "train")
        if online_again is None:
            return False
        self._pause = phase, float(self._env.now)
        self.count_pause()
        yield First(self._env, (online_again, self._stopped))
        if self.ended:
            return False
        self._end_pause(float(self._env.now))
        self._offline = self._world.goes_offline(self.client)
        return True

    def _end_pause(self, now_s: float) -> None:
        """A wait for the device is over, if there was one."""
        if self._pause is not None:
            phase, since_s = self._pause
            self._paused_s[phase] += now_s - since_s
            self._pause = None

    def _cut_short(self) -> bool:
        """Training ends with the last whole step; False if there is none."""
        assert self._training is not None
        share = self._training.share(float(self._env.now))
        steps_made = min(self.steps, math.floor(self.steps * share + ROUNDING_STEPS))
        if not steps_made:
            return False
        self.steps_made, self._cut = steps_made, True
        if steps_made < self.steps and self._on_cut is not None:
            self._on_cut(self, steps_made)
        return True

    # what it draws and has used -----------------------------------------------------------------

    def _begin_load(self, phase: Phase) -> None:
        """Tell the device what this phase draws."""
        if phase == "train":
            assert self._training is not None
            self._attendance.begin_load(self.client, training=self._training.course)
        else:
            p = self.profile
            watts = p.down_radio_w if phase == "down" else p.up_radio_w
            self._attendance.begin_load(self.client, watts)

    def _end_load(self) -> None:
        """Tell the device that nothing is drawn for now."""
        follows = self._attendance.follows_battery(self.client)
        used_j = self._joules_until(float(self._env.now)) if follows else 0.0
        self._attendance.end_load(self.client, used_j)
