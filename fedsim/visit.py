"""One visit: a client downloads, trains and uploads, unless something ends it first.

`estimate` is pure and sees a visit alone on its own link. `Visit` is the same as a SimPy process
on the network of the run, raced at each phase with the end of the client's window and with the
server's word to stop. What a visit had used when it ended is always accounted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import simpy

from fedsim.adapter import Vector
from fedsim.compute import Machines, Training, training
from fedsim.cost import Work
from fedsim.energy import gross_j, radio_j, tail_j
from fedsim.experiment import ComputeConfig
from fedsim.network import Direction, Network, Transfer
from fedsim.profiles import Profile
from fedsim.tcp import transfer_s

Outcome = Literal[
    "landed", "offline", "memory", "late", "surplus", "rejected", "polled", "failed", "in_flight"
]

SMALLEST_REFUSAL_S = 1e-3
"""A refusal takes at least this long, or a server that asks again at once would stop time."""


@dataclass(frozen=True)
class Estimate:
    """How long a visit would take by itself, and what it would cost.

    Attributes:
        download_s, train_s, upload_s, total_s: durations [s].
        joules, gross_joules: energy above idle, and all that the device draws meanwhile [J].
        fits: whether the device's memory holds the training.
        lands: whether it fits and the client's window (ending at `until_s`) is long enough.
    """

    download_s: float
    train_s: float
    upload_s: float
    total_s: float
    joules: float
    gross_joules: float
    fits: bool
    lands: bool


def estimate(
    profile: Profile,
    work: Work,
    now_s: float,
    until_s: float = math.inf,
    *,
    compute: ComputeConfig | None = None,
    tail: bool = False,
) -> Estimate:
    """Return the course of a visit that starts at `now_s`, alone on its own link, on a cool device; pure.

    `compute` says what is modelled of the training (noise is left out), `tail` whether the radio stays up.
    """
    down = transfer_s(work.down_bytes, profile.down_bytes_per_s, profile.rtt_s, profile.framing)
    course = training(profile, work, compute)
    train = course.duration_s
    up = transfer_s(work.up_bytes, profile.up_bytes_per_s, profile.rtt_s, profile.framing)
    total = down + train + up
    train_j = course.joules(train, profile.idle_w)
    joules = _joules(profile, down, work.down_bytes, train_j, up, work.up_bytes)
    if tail:
        joules += tail_j(profile.tail_w, profile.tail_s, train) + tail_j(profile.tail_w, profile.tail_s)
    gross = gross_j(joules, profile.idle_w, total)
    fits = work.memory_bytes <= profile.usable_memory_bytes
    return Estimate(down, train, up, total, joules, gross, fits, fits and now_s + total <= until_s)


class Visit:
    """A dispatched visit; `process` ends when the server knows how it went.

    The snapshot, the version and the work are taken when it is made: SimPy starts the process
    itself later in the same instant.
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
        offline: simpy.Event,
        detect_after_s: float,
        machines: Machines,
        tail: bool,
        on_end: Callable[[Visit], None],
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
        self.loss = math.nan
        self.ignored: Outcome | None = None
        self.training: Training | None = None
        self._machines, self._tail = machines, tail
        self._account: dict[str, float] | None = None
        self._on_end = on_end
        self._transfers: dict[Direction, Transfer] = {}
        self._sent: dict[Direction, int] = {}
        self._stop = env.event()
        self._offline = offline
        self.process = env.process(self._course(detect_after_s))

    @property
    def ended(self) -> bool:
        """Whether the device has finished with it, whatever the server knows."""
        return self.outcome != "in_flight"

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
            self._sent = {d: transfer.sent_bytes(now_s) for d, transfer in self._transfers.items()}

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.ended_s = float(self.env.now)
        if math.isnan(self.trained_s):
            self._rest()
        self._sent = {d: transfer.cancel() for d, transfer in self._transfers.items()}
        self._on_end(self)

    def _course(self, detect_after_s: float) -> Generator[simpy.Event, Any, Visit]:
        env = self.env
        if self.ended or not (yield from self._move("down", self.work.down_bytes)):
            return (yield from self._lost(detect_after_s))
        self.downloaded_s = float(env.now)
        if self.work.memory_bytes > self.profile.usable_memory_bytes:
            refusal = env.timeout(max(self.profile.rtt_s / 2, SMALLEST_REFUSAL_S))
            if not (yield from self._phase(refusal)):
                return (yield from self._lost(detect_after_s))
            self._end("memory")
            return self
        self.training = self._machines.start(self.profile, self.work, self.visit, self.downloaded_s)
        if not (yield from self._phase(env.timeout(self.training.duration_s))):
            return (yield from self._lost(detect_after_s))
        self.trained_s = float(env.now)
        self._rest()
        if not (yield from self._move("up", self.work.up_bytes)):
            return (yield from self._lost(detect_after_s))
        self.landed_s = float(env.now)
        self._end(self.ignored or "landed")
        return self

    def _rest(self) -> None:
        """The device has stopped training: from now on it cools."""
        if self.training is not None:
            now = float(self.env.now)
            self._machines.stop(self.profile, self.training, now - self.downloaded_s, now)

    def _move(self, direction: Direction, n_bytes: int) -> Generator[simpy.Event, Any, bool]:
        transfer = self._transfers[direction] = self.network.transfer(direction, self.client, n_bytes)
        return (yield from self._phase(transfer.done))

    def _phase(self, done: simpy.Event) -> Generator[simpy.Event, Any, bool]:
        yield self.env.any_of((done, self._offline, self._stop))
        return done.processed and not self.ended

    def _lost(self, detect_after_s: float) -> Generator[simpy.Event, Any, Visit]:
        if not self.ended:
            self._end("offline")
            yield self.env.timeout(detect_after_s)
        return self

    def used(self) -> dict[str, float]:
        """Return what the visit had used when it ended (drawn up once, at the first call after that).

        Returns:
            down_bytes, up_bytes (int), flops, joules (above idle), gross_joules (all that the device drew).
        """
        if self._account is None or math.isnan(self.ended_s):
            self._account = self._used()
        return self._account

    def _used(self) -> dict[str, float]:
        p, w = self.profile, self.work
        end = self.ended_s
        down_s = _spent(self.dispatched_s, self.downloaded_s, end)
        train_s = _spent(self.downloaded_s, self.trained_s, end) if self.training is not None else 0.0
        up_s = _spent(self.trained_s, self.landed_s, end)
        down, up = w.down_bytes, w.up_bytes
        if math.isnan(self.downloaded_s):
            down = self._sent.get("down", 0)
        if math.isnan(self.landed_s):
            up = self._sent.get("up", 0)
        done = train_j = 0.0
        if self.training is not None:
            done = w.flops if not math.isnan(self.trained_s) else w.flops * self.training.share(train_s)
            train_j = self.training.joules(train_s, p.idle_w)
        joules = _joules(p, down_s, down, train_j, up_s, up)
        if self._tail:
            joules += self._tails_j(train_s)
        gross = gross_j(joules, p.idle_w, end - self.dispatched_s)
        return {"down_bytes": down, "up_bytes": up, "flops": done, "joules": joules, "gross_joules": gross}

    def _tails_j(self, train_s: float) -> float:
        """The radio stays up after the download until the upload begins, at most; and after the upload."""
        p, uploads = self.profile, not math.isnan(self.trained_s)
        down = tail_j(p.tail_w, p.tail_s, train_s if uploads else math.inf)
        return down + (tail_j(p.tail_w, p.tail_s) if uploads else 0.0)


def _spent(begin_s: float, finish_s: float, end_s: float) -> float:
    if math.isnan(begin_s):
        return 0.0
    return (end_s if math.isnan(finish_s) else finish_s) - begin_s


def _joules(p: Profile, down_s: float, down_bytes: int, train_j: float, up_s: float, up_bytes: int) -> float:
    """Return the energy above idle [J] of a download, a training and an upload."""
    return (
        radio_j(p.down_radio_w, p.down_radio_j_per_byte, down_s, down_bytes)
        + train_j
        + radio_j(p.up_radio_w, p.up_radio_j_per_byte, up_s, up_bytes)
    )
