"""After the run: the model that each client ends with, on its own held-out part, beside three others.

    metric_global     the shared model as it is after the run (nothing of the client's own in it)
    metric_personal   the client's model: what `personal.kind` says, or the rule if clients keep a part under it
    metric_local      a model trained on this client's data alone, `personal.local_epochs` from version 0
    gain              by how much the personal model is better than the shared one, above 0 if it is

All are scored on the same split, which nobody trained on. `seen` counts the client's visits that are in
the model; clients that were held out (`unseen`), like those of which nothing was committed, follow the
method's way for clients that join. As in FedGen-Edge (arXiv 2511.11585), where the method is fine-tuning
and the gain is perplexity(global) - perplexity(personal).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.adapters.units import in_server_units
from fedsim.aggregators._base import Invitation, ServerModel
from fedsim.aggregators._depth import offered
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig
from fedsim.executors import Executor, Ticket
from fedsim.jobs import Job, ScoreJob, Update
from fedsim.metrics.direction import rises
from fedsim.metrics.sums import add_sums
from fedsim.personal import Home, Personal, Used, tuned
from fedsim.personal.held_out import unseen
from fedsim.records.rows import PersonalRow
from fedsim.rng import stream
from fedsim.server.values.handles import Handles
from fedsim.server.values.private_parts import PrivateParts
from fedsim.server.values.score_calls import ScoreCalls


@dataclass(frozen=True)
class FinalState:
    """A run whose last version is made.

    Attributes:
        plan: of the run.
        executor: where to train and score.
        model: the server's, at the end of the run.
        state: the rule's.
        private_parts: what the clients have kept, nothing under way.
        version: of the model: the learning rate of what clients train now has decayed as that of a visit would.
    """

    plan: Plan
    executor: Executor
    model: ServerModel
    state: Any
    private_parts: PrivateParts
    version: int = 0

    @property
    def base(self) -> Vector | None:
        """The change of the frozen weights; None if they have not changed."""
        return self.model.change

    @property
    def shared(self) -> Used:
        """The shared model, as it is scored."""
        return Used(self.model.adapter.vector, self.base)


@dataclass(frozen=True)
class _Visit:
    """A client after the run: the training it could do now, and what it keeps to itself (None: nothing)."""

    client: int
    job: Job
    private: Vector | None


@dataclass(frozen=True)
class _Group:
    """Clients whose last trainings are under way: their own (`after`), and training alone."""

    visits: list[_Visit]
    after: list[Job | None]
    after_ticket: Ticket | None
    alone: list[Job | None]
    alone_ticket: Ticket | None

    def ends(self) -> tuple[list[Update | None], list[Update | None]]:
        """Wait for the trainings; return what both gave, one a client, None where there was none."""
        return _spread(self.after, self.after_ticket), _spread(self.alone, self.alone_ticket)


def _failed(update: Update) -> bool:
    return not np.all(np.isfinite(update.end))


def _spread(jobs: Sequence[Job | None], ticket: Ticket | None) -> list[Update | None]:
    done = iter([] if ticket is None else ticket.result())
    return [None if job is None else next(done) for job in jobs]


def rows(final: FinalState) -> Iterator[PersonalRow]:
    """Yield one row a client, ascending; none where there is nothing personal to look at."""
    experiment, personal = final.plan.experiment, final.private_parts.kind
    keeps = final.plan.parts.aggregator.traits.personal
    if personal.kind == "none" and not (keeps or final.private_parts.unseen or personal.local_epochs):
        return
    last = _LastTraining(final)
    clients, together = chosen(experiment), experiment.numerics.clients_per_call
    # a few calls ahead of the one that is read: every worker is busy, and memory stays bounded
    ahead: deque[_Group] = deque()
    for at in range(0, len(clients), together):
        ahead.append(last.begin(clients[at : at + together]))
        if len(ahead) > 2 * final.executor.workers:
            yield from last.scored(ahead.popleft())
    while ahead:
        yield from last.scored(ahead.popleft())


def with_models(final: FinalState) -> list[int]:
    """Return the clients that end with a model of their own, ascending; none where all have the shared one."""
    clients = chosen(final.plan.experiment)
    if final.private_parts.kind.kind != "none":
        return clients
    keeps = final.plan.parts.aggregator.traits.personal
    return [client for client in clients if client in final.model.personal] if keeps else []


def client_models(final: FinalState, clients: Sequence[int]) -> list[Used]:
    """Return the models that some clients end with, as they are scored."""
    return _LastTraining(final).client_models(clients)


def chosen(experiment: Experiment) -> list[int]:
    """Return who is looked at, ascending: all, or those held out and `personal.clients` of the others."""
    personal = parts_of(experiment).personal
    held = set(unseen(personal, experiment))
    others = [client for client in range(experiment.population.clients) if client not in held]
    if personal.clients is not None and personal.clients < len(others):
        drawn = stream(experiment.data_seed, "personal-clients").choice(
            others, size=personal.clients, replace=False
        )
        others = [int(client) for client in drawn]
    return sorted({*others, *held})


def visits_after(plan: Plan) -> float:
    """Return what is trained after the run, in mean visits, if everybody who is asked has landed."""
    experiment, personal = plan.experiment, plan.parts.personal
    trainees = chosen(experiment) if personal.everybody_after else unseen(personal, experiment)
    last = tuned(experiment.local, personal.epochs_at_end, None)
    alone = tuned(experiment.local, personal.local_epochs or 0, None)
    tokens = _tokens(plan, trainees, last) + _tokens(plan, chosen(experiment), alone)
    clients = plan.task.clients
    return tokens * clients / max(1, _tokens(plan, range(clients), experiment.local))


def _tokens(plan: Plan, clients: Iterable[int], local: LocalConfig | None) -> int:
    return 0 if local is None else sum(plan.task.tokens(client, local) for client in clients)


class _LastTraining:
    """What clients train after the run, and how good it is, for some clients at a time."""

    def __init__(self, final: FinalState) -> None:
        """Take a run whose last version is made."""
        self._final, self._executor, self._privates = final, final.executor, final.private_parts
        self._plan, self._task = final.plan, final.plan.task
        self._kind: Personal = final.private_parts.kind
        self._rule = final.plan.parts.aggregator
        self._handles = Handles(final.executor)
        self._unseen = set(final.private_parts.unseen)
        rules_own = self._kind.kind == "none" and self._rule.traits.personal
        self._named = self._rule.kind if rules_own else self._kind.kind
        self._shared = final.shared

    # training -----------------------------------------------------------------------------------

    def begin(self, clients: Sequence[int]) -> _Group:
        """Have clients train what they train last."""
        visits = [self._visit(client) for client in clients]
        after = [self._after(visit) for visit in visits]
        alone = [self._alone(visit) for visit in visits]
        return _Group(visits, after, self._trained(after), alone, self._trained(alone))

    def client_models(self, clients: Sequence[int]) -> list[Used]:
        """Return what clients end with."""
        visits = [self._visit(client) for client in clients]
        after = [self._after(visit) for visit in visits]
        ends = _spread(after, self._trained(after))
        return [self._client_model(visit, end) for visit, end in zip(visits, ends, strict=True)]

    def _visit(self, client: int) -> _Visit:
        """Return what a visit without an upload would be now."""
        plan, layout = self._plan, self._task.layout
        rank = plan.rank(client)
        common = layout.modules[0].scale if layout.modules else 1.0
        scale = plan.experiment.lora.scale_at(rank, common)
        depth = plan.depth(client)
        invitation = Invitation(client, 0, rank, scale, None, depth=depth)
        offer = offered(self._rule, self._final.state, self._final.model, invitation)
        start = self._privates.start(client, offer.start, rank, scale, depth)
        job = Job(
            client,
            0,
            start,
            plan.experiment.local.at_version(self._final.version),
            plan.experiment.training_seed,
            purpose="personal",
            rank=rank if rank < layout.rank else None,
            trains=offer.trains,
            scale=scale if rank < layout.rank or scale != common else None,
            base=self._final.base,
            slot_penalty=offer.slot_penalty,
            depth=depth,
        )
        return _Visit(client, job, self._privates.own(client, rank, scale, depth))

    def _home(self, visit: _Visit) -> Home:
        return self._privates.home_of(visit.job)

    def _after(self, visit: _Visit) -> Job | None:
        return self._kind.after(self._home(visit), visit.job, visit.private)

    def _alone(self, visit: _Visit) -> Job | None:
        local = tuned(self._plan.experiment.local, self._kind.local_epochs or 0, None)
        if local is None:
            return None
        start = self._home(visit).initial
        return replace(
            visit.job, start=start, base=None, local=local, purpose="alone", trains="AB", slot_penalty=None
        )

    def _trained(self, jobs: Sequence[Job | None]) -> Ticket | None:
        made = [self._handles.in_place(job) for job in jobs if job is not None]
        return self._executor.train(made) if made else None

    # scores -------------------------------------------------------------------------------------

    def scored(self, group: _Group) -> Iterator[PersonalRow]:
        """Yield the rows of clients once they have trained."""
        models: list[list[Used]] = [[], [], []]  # shared, the client's, alone: one a client each
        for visit, after, alone in zip(group.visits, *group.ends(), strict=True):
            self._privates.faulty += after is not None and _failed(after)
            models[0].append(self._shared)
            models[1].append(self._client_model(visit, after))
            if alone is not None:
                models[2].append(self._at_layout_scale(visit, Used(alone.end)))
        calls = [self._held_out(group.visits, kind) for kind in models if kind]
        for visit, *parts in zip(group.visits, *(call.parts() for call in calls), strict=True):
            yield self._row(visit, parts)

    def _client_model(self, visit: _Visit, update: Update | None) -> Used:
        end = None if update is None or _failed(update) else update.end  # failed: it uses what it had
        if end is None and visit.private is None and not self._rule.traits.personal:
            return self._shared  # nothing of its own: the shared model, at the server's rank
        return self._at_layout_scale(
            visit, self._kind.model(self._home(visit), visit.job, visit.private, end)
        )

    def _at_layout_scale(self, visit: _Visit, used: Used) -> Used:
        """Return a model as it is scored: scores multiply B A with the layout's scale."""
        return replace(used, vector=in_server_units(self._task.layout, used.vector, visit.job.scale))

    def _held_out(self, visits: Sequence[_Visit], models: Sequence[Used]) -> ScoreCalls:
        """Have a model of each client scored on its held-out part, all of them in one call."""
        jobs = []
        for visit, model in zip(visits, models, strict=True):
            vector = self._handles.of(model.vector) if model is self._shared else model.vector
            base = self._handles.of_change(model.base)
            probes = self._task.probes("client", client=visit.client)
            jobs.append([ScoreJob(vector, probe, base) for probe in probes])
        return ScoreCalls.begun(self._executor, jobs, len(jobs))

    def _row(self, visit: _Visit, scores: Sequence[Sequence[Mapping[str, float]]]) -> PersonalRow:
        sums = [add_sums(parts) for parts in scores]
        metrics = [self._task.metrics(parts) for parts in sums]
        metric = next(iter(metrics[0]))
        shared, personal = metrics[0][metric], metrics[1][metric]
        tokens = sums[0].get("tokens", math.nan)
        return PersonalRow(
            client=visit.client,
            kind=self._named,
            unseen=visit.client in self._unseen,
            seen=int(self._privates.seen[visit.client]),
            metric=metric,
            metric_global=shared,
            metric_personal=personal,
            metric_local=metrics[2][metric] if len(metrics) > 2 else math.nan,
            gain=personal - shared if rises(metric) else shared - personal,
            tokens=int(tokens) if math.isfinite(tokens) else 0,
        )
