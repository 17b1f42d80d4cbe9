"""The server's verbs: sample, dispatch, wait, collect, commit. The two times meet here.

SimPy decides when; the executor computes what. A dispatch leaves a pending job beside the visit;
`commit` is the only verb that reads values. Nothing here reads a wall clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import simpy

from fedsim.aggregators import Contribution, ServerModel
from fedsim.averaging import Average
from fedsim.compute import Machines
from fedsim.cost import Work
from fedsim.errors import FedsimError, RunError, message
from fedsim.experiment import Experiment
from fedsim.instants import At, Instant
from fedsim.jobs import Update
from fedsim.ledger import Ledger
from fedsim.network import Network
from fedsim.profiles import Population
from fedsim.roster import Roster
from fedsim.sampling import Desk, Request
from fedsim.sums import Moves
from fedsim.trainer import Trainer
from fedsim.visit import Visit


@dataclass(frozen=True)
class Charges:
    """What the clock charges for moving and training (all from the charged model).

    Attributes:
        work: (client) -> everything but the bytes of one visit.
        adapter_bytes: charged bytes of a whole adapter.
        backbone_bytes: bytes of the frozen backbone, for `network.backbone: first_visit`, else 0.
    """

    work: Callable[[int], Work]
    adapter_bytes: int
    backbone_bytes: int


class Server:
    """Mechanism without policy; a protocol is a generator over these verbs."""

    def __init__(
        self,
        env: simpy.Environment,
        experiment: Experiment,
        *,
        population: Population,
        network: Network,
        charges: Charges,
        model: ServerModel,
        trainer: Trainer,
        ledger: Ledger,
    ) -> None:
        self.env, self.experiment = env, experiment
        self.population, self.network, self.charges = population, network, charges
        self.aggregator: Any = experiment.aggregator
        self.model, self.state = model, self.aggregator.init(model)
        self.trainer, self.ledger = trainer, ledger
        self.average = Average(model, experiment.evaluate.ema)
        self.roster = Roster(population.availability)
        self.machines = Machines(experiment.compute, experiment.seed)
        self._desk = Desk(experiment, population, self.roster, ledger)
        self.version = 0
        self.over = False
        self.open: dict[int, Visit] = {}
        self._visits_of = np.zeros(len(population), dtype=np.int64)
        self._last_seen: dict[int, int] = {}
        self._with_backbone: set[int] = set()
        self._dispatches = 0
        self._rung_s = self._alarm_s = -1.0
        self._closing: dict[int, tuple[float, simpy.Event]] = {}
        self.last_commit_s = 0.0

    # time ---------------------------------------------------------------------------------------

    def process(self, generator: Generator[Any, Any, Any]) -> simpy.Process:
        """Start a process."""
        return self.env.process(generator)

    def timeout(self, delay_s: float) -> simpy.Event:
        """Return an event `delay_s` from now [virtual s]."""
        return self.env.timeout(delay_s)

    def all_of(self, events: Iterable[simpy.Event]) -> simpy.Event:
        """Return the event that all have happened."""
        return self.env.all_of(events)

    def turn(self, instant: Instant) -> simpy.Event:
        """Return the event that this instant has come to its commits (or dispatches)."""
        return At(self.env, 0.0, instant)

    # whom ---------------------------------------------------------------------------------------

    def sample(self, n: int) -> Generator[simpy.Event, Any, list[int]]:
        """Wait until n clients are idle and online, and choose them.

        Requests are served in the order in which they were made.
        """
        granted = self.env.event()
        self._desk.ask(Request(n, granted.succeed, float(self.env.now)))
        self._ring()
        chosen: list[int] = yield granted
        return chosen

    def _ring(self) -> None:
        if self._desk.waiting and self._rung_s != self.env.now:
            self._rung_s = float(self.env.now)
            At(self.env, 0.0, Instant.DISPATCH).callbacks.append(self._serve)

    def _serve(self, _: simpy.Event) -> None:
        self._rung_s = -1.0
        if self.over:
            return
        now = float(self.env.now)
        next_s = self._desk.serve(now)
        if math.isfinite(next_s) and self._alarm_s != next_s:
            self._alarm_s = next_s
            At(self.env, next_s - now, Instant.LANDING).callbacks.append(self._awake)

    def _awake(self, _: simpy.Event) -> None:
        self._alarm_s = -1.0  # now + (next - now) may round to just before the window: then wait once more
        self._ring()

    # visits -------------------------------------------------------------------------------------

    def dispatch(self, client: int, round_: int = -1) -> Visit:
        """Send the model of this version to a client; returns its visit, under way."""
        start, down_floats = self.aggregator.download(self.model, client, self._last_seen.get(client))
        up_floats = self.aggregator.upload(self.model, client)
        visit = Visit(
            self.env,
            self.network,
            profile=self.population.profile(client),
            work=self._work(client, down_floats, up_floats),
            order=self._dispatches,
            visit=int(self._visits_of[client]),
            version=self.version,
            round_=round_,
            start=start,
            offline=self._window_end(client),
            detect_after_s=self.experiment.network.detect_after_s,
            machines=self.machines,
            tail=self.experiment.energy.tail,
            on_end=self._ended,
        )
        self._dispatches += 1
        self._visits_of[client] += 1
        self.open[visit.order] = visit
        self.trainer.expect(visit, shared=start is self.model.adapter.vector)
        visit.process.callbacks.append(partial(self._home, visit))
        return visit

    def _window_end(self, client: int) -> simpy.Event:
        """Return the end of the client's window: one event for all of its visits in that window."""
        _, until_s = self.population.availability.window(client, self.env.now)
        known = self._closing.get(client)
        if known is not None and known[0] == until_s:
            return known[1]
        finite = math.isfinite(until_s)
        event = At(self.env, until_s - self.env.now, Instant.OFFLINE) if finite else self.env.event()
        self._closing[client] = (until_s, event)
        return event

    def _work(self, client: int, down_floats: int, up_floats: int) -> Work:
        size = self.model.adapter.layout.size
        whole = self.charges.adapter_bytes
        base = 0 if client in self._with_backbone else self.charges.backbone_bytes
        work = self.charges.work(client)
        return replace(
            work,
            down_bytes=base + round(whole * down_floats / size),
            up_bytes=round(whole * up_floats / size),
            serialized_down_bytes=4 * down_floats,
            serialized_up_bytes=4 * up_floats,
        )

    def _ended(self, visit: Visit) -> None:
        """The device has finished with a visit: what it used is in the books from now on."""
        if not math.isnan(visit.downloaded_s):
            self._last_seen[visit.client] = visit.version
            self._with_backbone.add(visit.client)
        self.ledger.count(visit)
        if visit.outcome != "landed":
            self.trainer.forget(visit)
            self._settle(visit)
        limit = self.experiment.budget.up_bytes
        if limit is not None and self.ledger.up_bytes >= limit:
            # what lands or is committed in this same instant still counts; then it is over
            At(self.env, 0.0, Instant.EVALUATE).callbacks.append(self._exhausted)

    def _exhausted(self, _: simpy.Event) -> None:
        self.over = True

    def _home(self, visit: Visit, _: simpy.Event) -> None:
        """The server knows how a visit ended: the client may be asked again, unless it is too small."""
        self.roster.release(visit.client)
        if visit.outcome == "memory":
            self.roster.exclude(visit.client)
        self._ring()

    def hold(self, client: int) -> None:
        """Keep a client from being asked, although its visit has ended, until `free`."""
        self._desk.hold(client)

    def free(self, clients: Sequence[int]) -> None:
        """Let held clients be asked again, from this instant's dispatches on."""
        self._desk.free(clients)
        self._ring()

    def _settle(self, visit: Visit) -> None:
        del self.open[visit.order]
        self.ledger.settle(visit)

    def refuse_to_spin(self) -> None:
        """Raise if the run has no horizon and nothing has been committed for `runtime.stall_s`.

        Raises:
            RunError: says how the visits ended instead.
        """
        stall_s = self.experiment.runtime.stall_s
        if self.env.now - self.last_commit_s <= stall_s:
            return
        ended = (
            ", ".join(f"{n} {outcome}" for outcome, n in sorted(self.ledger.outcomes.items())) or "none ended"
        )
        raise RunError(
            message(
                "run",
                f"no commit in {stall_s:.0f} s of virtual time, and no budget.time_s to end the run (visits: {ended})",
                fix="give budget.time_s, a longer protocol.deadline_s, a smaller protocol.buffer or min_reports",
            )
        )

    def close(self, now_s: float) -> None:
        """End the run here: write the visits that are still open as they stand at `now_s`."""
        for visit in sorted(self.open.values(), key=lambda v: v.order):
            if not visit.ended:
                visit.close(now_s)
                self.ledger.count(visit)
            self.ledger.settle(visit)
        self.open.clear()

    def wait(
        self, visits: Sequence[Visit], *, want: int, deadline_s: float | None = None
    ) -> Generator[simpy.Event, Any, None]:
        """Wait until `want` visits have landed, all have ended, or the deadline; then for the
        commits' place in that instant, so that whatever lands at the same time counts.
        """
        done = self.env.event()
        open_ = len(visits)
        landed = 0

        def count(visit: Visit, _: simpy.Event) -> None:
            nonlocal open_, landed
            open_ -= 1
            landed += visit.outcome == "landed"
            if (landed >= want or open_ == 0) and not done.triggered:
                done.succeed()

        for visit in visits:
            visit.process.callbacks.append(partial(count, visit))
        yield done if deadline_s is None else done | self.timeout(deadline_s)
        yield self.turn(Instant.COMMIT)

    def collect(
        self, visits: Sequence[Visit], *, want: int, late: Literal["stop", "finish"] = "stop"
    ) -> list[Visit]:
        """Close a round: return its first `want` landed visits, by landing time then dispatch.

        Landed visits beyond `want` are `surplus`. Those still at work are `surplus` when the
        round had enough and `late` when it had not; they stop now or finish in vain.
        """
        landed = sorted((v for v in visits if v.outcome == "landed"), key=lambda v: (v.landed_s, v.order))
        for visit in landed[want:]:
            self._refuse(visit, "surplus")
        why: Literal["surplus", "late"] = "surplus" if len(landed) >= want else "late"
        for visit in visits:
            if not visit.ended:
                self.trainer.forget(visit)
                (visit.stop if late == "stop" else visit.ignore)(why)
        return landed[:want]

    def reject(self, landed: Sequence[Visit]) -> None:
        """Drop landed visits: their round had too few reports."""
        for visit in landed:
            self._refuse(visit, "rejected")

    def _refuse(self, visit: Visit, outcome: Literal["surplus", "rejected"]) -> None:
        visit.outcome = outcome
        self.trainer.forget(visit)
        self._settle(visit)

    # values -------------------------------------------------------------------------------------

    def commit(self, landed: Sequence[Visit]) -> None:
        """Read the values of landed visits and make the next version of them."""
        if self.over:
            return
        before = self.model.adapter
        landed = sorted(landed, key=lambda v: (v.client, v.visit))
        results = self.trainer.results(landed)
        moves = Moves(before.layout.size) if results is not None else None
        taken: list[Visit] = []
        if results is None or moves is None:
            taken += landed
        else:
            contributions = self._contributions(results, moves, taken)
            first = next(contributions, None)
            if first is None:
                return
            self._apply(chain([first], contributions))
        if not taken:
            return
        self.version += 1
        self.last_commit_s = float(self.env.now)
        for visit in taken:
            visit.staleness = self.version - 1 - visit.version
            visit.committed_version = self.version
            self._settle(visit)
        self.ledger.commit(self.version, self.env.now, taken, moves, before, self.model.adapter)
        self.average.follow(self.model, self.version)
        if self.version % self.experiment.evaluate.every_commits == 0:
            self.trainer.evaluate(self.version, self.env.now, self.average.model)
        if self.version == self.experiment.budget.commits:
            self.over = True

    def _apply(self, contributions: Iterator[Contribution]) -> None:
        kind = self.experiment.aggregator.kind
        given = contributions if getattr(self.aggregator, "one_pass", False) else list(contributions)
        try:
            self.model, self.state = self.aggregator.apply(self.state, self.model, given)
            deque(contributions, maxlen=0)  # what the rule did not look at was committed all the same
        except FedsimError:
            raise
        except Exception as problem:  # SimPy would rebuild it from its args and may lose the message
            what = f"failed at version {self.version + 1}: {type(problem).__name__}: {problem}"
            raise RunError(message(f"aggregator {kind}", what)) from problem
        if not np.all(np.isfinite(self.model.adapter.vector)):
            fix = "lower aggregator.server_lr or local.lr"
            what = f"made version {self.version + 1} infinite from finite updates"
            raise RunError(message(f"aggregator {kind}", what, fix=fix))

    def _contributions(
        self, results: Iterator[tuple[Visit, Update]], moves: Moves, taken: list[Visit]
    ) -> Iterator[Contribution]:
        """Yield what the rule sees, one by one, as workers finish; notes moves and visits on the way.

        Updates that are not finite are rejected: they are in neither.
        """
        layout = self.model.adapter.layout
        first = layout.modules[0] if layout.modules else None
        for visit, update in results:
            visit.loss = update.loss
            if not moves.add(visit.start, update.end):
                self._refuse(visit, "rejected")
                continue
            taken.append(visit)
            yield Contribution(
                client=visit.client,
                visit=visit.visit,
                start=visit.start,
                end=update.end,
                weight=float(update.examples),
                staleness=self.version - visit.version,
                version=visit.version,
                rank=first.rank if first else 0,
                scale=first.scale if first else 1.0,
                base_version=self.model.base_version,
            )
