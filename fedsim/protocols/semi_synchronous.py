"""A server with a beat: it commits what has landed, at fixed times, and nobody waits for the slowest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedsim.clock.protocol import ServerProtocol, Steps, Verbs, more_than_there_are
from fedsim.clock.visit import Visit
from fedsim.config.fields import LARGEST, Count, CountOrZero
from fedsim.config.problem import Problem
from fedsim.instants import Instant


class SemiSynchronous(ServerProtocol):
    """Commit at `beat_s`, 2 `beat_s`, ... whatever has landed since the last beat, if anything has.

    `concurrency` slots ask one client each. A visit goes on across beats until it ends; its staleness is
    the number of commits that it has missed. A slot whose visit has ended asks again at the next beat,
    when there is a new model to train (`refill: beat`), or at once (`refill: landing`).

    Updates and commits of one beat: an update that lands at the beat counts in it, and whoever is asked
    at the beat gets the new version. A visit of T seconds lands in beat ceil(T / beat_s) after its own
    dispatch. Source: rounds of fixed length as in SAFA (Wu et al., arXiv 1910.01355) and REFL (Abdelmoniem
    et al., arXiv 2111.01108), without their selection, SAFA's cache and REFL's weights of stale updates.
    `max_staleness` drops an update that has missed more commits than that (outcome `stale`): SAFA's lag tolerance.

    Attributes:
        concurrency: clients kept at work.
        beat_s: virtual time [s] between two commits.
        refill: when a slot asks again: at the next `beat`, or at its `landing`.
        max_staleness: commits missed beyond which an update is dropped; None: never.
    """

    kind: Literal["semi-synchronous"] = "semi-synchronous"
    concurrency: Count = 30
    beat_s: Annotated[float, Field(ge=1e-3, le=LARGEST, allow_inf_nan=False)] = 600.0
    refill: Literal["beat", "landing"] = "beat"
    max_staleness: CountOrZero | None = None

    @property
    def clients_at_work(self) -> int:
        """One a slot."""
        return self.concurrency

    @property
    def whole_visits(self) -> bool:
        """Always."""
        return True

    @property
    def commits_every_s(self) -> float:
        """The beat."""
        return self.beat_s

    def problems(self, clients: int) -> list[Problem]:
        """Return what is larger than the population."""
        busy = f"keeps more clients at work than there are ({clients})"
        return more_than_there_are("concurrency", self.concurrency, clients, busy)

    def run(self, server: Verbs) -> Steps:
        """Run the slots and the beat for ever; the server's budget ends them."""
        landed: list[Visit] = []
        beats, next_beat = 0, server.event()

        def slot() -> Steps:
            while True:
                (client,) = yield from server.sample(1)
                visit = server.dispatch(client, beats)
                yield visit.process
                if visit.outcome == "landed":
                    landed.append(visit)
                if self.refill == "beat":
                    yield next_beat

        for _ in range(self.concurrency):
            server.process(slot())
        while True:
            yield server.turn(Instant.COMMIT, at_s=(beats + 1) * self.beat_s)
            fresh = server.fresh(landed, self.max_staleness)
            landed.clear()
            if fresh:
                server.commit(fresh)
            beats += 1
            passed, next_beat = next_beat, server.event()
            passed.succeed()
