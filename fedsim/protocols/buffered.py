"""Buffered asynchronous aggregation: FedBuff (Nguyen et al., AISTATS 2022); FedAsync with buffer 1."""

from __future__ import annotations

from bisect import insort
from typing import Literal

from fedsim.clock.protocol import ServerProtocol, Steps, Verbs, more_than_there_are
from fedsim.clock.visit import Visit
from fedsim.config.fields import Count, CountOrZero
from fedsim.config.problem import Problem
from fedsim.instants import Instant


class Buffered(ServerProtocol):
    """Keep `concurrency` clients at work; commit whenever `buffer` updates have landed.

    Each of the slots asks one client, waits until its visit has ended as far as the server knows,
    and asks the next. Updates of one instant enter the buffer in the order of their dispatch.

    With few clients online, the fastest of them is asked again and again and soon trains the model
    alone. `once_per_buffer` keeps a client whose update waits in the buffer from being asked until
    that buffer is committed, so no buffer holds two updates of one client.

    It is FedBuff as published with the default rule, whose `normalize: auto` is K here: the model moves by
    sum_k s(tau_k) D_k / K, and no n_k enters. `max_staleness` drops an update that more versions were made since
    its dispatch (outcome `stale`) as soon as that is so: at its landing, or in the buffer.

    Attributes:
        concurrency: clients kept at work.
        buffer: landed updates that make a commit.
        once_per_buffer: whether a client whose update waits in the buffer is left in peace until the commit.
        max_staleness: versions made since its dispatch beyond which an update is dropped; None: never.
    """

    kind: Literal["buffered"] = "buffered"
    concurrency: Count = 30
    buffer: Count = 10
    once_per_buffer: bool = False
    max_staleness: CountOrZero | None = None

    @property
    def clients_at_work(self) -> int:
        """One a slot."""
        return self.concurrency

    @property
    def fedbuff(self) -> bool:
        """It is."""
        return True

    @property
    def updates_per_commit(self) -> int:
        """A buffer full."""
        return self.buffer

    @property
    def whole_visits(self) -> bool:
        """Always."""
        return True

    def problems(self, clients: int) -> list[Problem]:
        """Return what is larger than the population."""
        busy = f"keeps more clients at work than there are ({clients})"
        never = f"can never be filled by {clients} different clients (`once_per_buffer`)"
        return [
            *more_than_there_are("concurrency", self.concurrency, clients, busy),
            *(more_than_there_are("buffer", self.buffer, clients, never) if self.once_per_buffer else ()),
        ]

    def run(self, server: Verbs) -> Steps:
        """Run the slots for ever; the server's budget ends them."""
        arrived: list[Visit] = []
        waiting: list[Visit] = []

        def slot() -> Steps:
            while True:
                (client,) = yield from server.sample(1)
                visit = server.dispatch(client)
                yield visit.process
                if visit.outcome == "landed":
                    arrived.append(visit)
                    if self.once_per_buffer:
                        server.hold(client)
                    yield server.turn(Instant.COMMIT)
                    self._empty(server, arrived, waiting)

        yield server.all_of([server.process(slot()) for _ in range(self.concurrency)])

    def _empty(self, server: Verbs, arrived: list[Visit], waiting: list[Visit]) -> None:
        """Take what has arrived into the buffer, and commit as often as it is full; what is too stale leaves it.

        Those that wait were fresh when they were looked at last, and are until a commit.
        """
        while True:
            fresh = server.fresh(arrived, self.max_staleness)
            left = [visit for visit in arrived if visit.outcome != "landed"]
            arrived.clear()
            for visit in fresh:
                if not waiting or _by_landing(waiting[-1]) < _by_landing(visit):  # as they come
                    waiting.append(visit)
                else:
                    insort(waiting, visit, key=_by_landing)
            full = waiting[: self.buffer] if len(waiting) >= self.buffer else []
            del waiting[: len(full)]
            if full:
                server.commit(full)
            if self.once_per_buffer and (left or full):
                server.free([visit.client for visit in [*left, *full]])
            if not full:
                return
            if self.max_staleness is not None:  # there is another version now
                arrived, waiting[:] = [*waiting], []


def _by_landing(visit: Visit) -> tuple[float, int]:
    return visit.landed_s, visit.order
