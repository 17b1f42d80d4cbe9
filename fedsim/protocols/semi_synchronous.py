"""A server with a beat: it commits what has landed, at fixed times, and nobody waits for the slowest."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedsim.component import Component
from fedsim.instants import At, Instant

if TYPE_CHECKING:
    from fedsim.clock.visit import Visit
    from fedsim.server.server import Server


class SemiSynchronous(Component):
    """Commit at `beat_s`, 2 `beat_s`, ... whatever has landed since the last beat, if anything has.

    `concurrency` slots ask one client each. A visit goes on across beats until it ends; its staleness is
    the number of commits that it has missed. A slot whose visit has ended asks again at the next beat,
    when there is a new model to train (`refill: beat`), or at once (`refill: landing`).

    Updates and commits of one beat: an update that lands at the beat counts in it, and whoever is asked
    at the beat gets the new version. A visit of T seconds lands in beat ceil(T / beat_s) after its own
    dispatch. Source: rounds of fixed length as in SAFA (Wu et al., arXiv 1910.01355) and REFL (Abdelmoniem
    et al., arXiv 2111.01108), without their selection.
    """

    stale: ClassVar[bool] = True
    kind: Literal["semi-synchronous"] = "semi-synchronous"
    concurrency: Annotated[int, Field(ge=1)] = 30
    beat_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    refill: Literal["beat", "landing"] = "beat"

    @property
    def asked(self) -> int:
        """Clients asked at once."""
        return 1

    def run(self, server: Server) -> Generator[Any, Any, None]:
        """Run the slots and the beat for ever; the server's budget ends them."""
        landed: list[Visit] = []
        beats, next_beat = 0, server.env.event()

        def slot() -> Generator[Any, Any, None]:
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
            yield At(server.env, (beats + 1) * self.beat_s - server.env.now, Instant.COMMIT)
            if landed:
                server.commit(landed)
                landed.clear()
            beats += 1
            passed, next_beat = next_beat, server.env.event()
            passed.succeed()
