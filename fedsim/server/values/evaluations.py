"""Scores: queued at a commit, worked on where no training waits, and written in the order of the versions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import ServerModel
from fedsim.callbacks.telling import OnEvent
from fedsim.config.experiment import Experiment
from fedsim.errors import RunError, message
from fedsim.executors import Executor, Ticket
from fedsim.jobs import ScoreJob, Task
from fedsim.server import returned
from fedsim.server.values.batches import batches
from fedsim.server.values.goals import Best
from fedsim.server.values.handles import Handles, read_only
from fedsim.server.values.score_calls import ScoreCalls

OnScore = Callable[[int, float, str, dict[str, float]], None]
"""(version, time of its commit [virtual s], split, metrics)."""

VERSIONS_OPEN = 4
"""Versions whose scores may be outstanding; each of them is kept until then."""
SPLITS_BY_CLIENT = ("client", "samples")
"""Splits of which every client has its own part, where clients have their own models."""
PROBES_PER_CALL = 4
"""Pieces of an evaluation that travel in one call."""


@dataclass(frozen=True)
class _Evaluation:
    version: int
    time_s: float
    split: str
    tickets: list[Ticket]
    rows: list[int]
    model: ServerModel | None


class Evaluations:
    """Open evaluations, and the answers of polled clients; without an executor there are none.

    Attributes:
        queued: version and time of its commit of all evaluations [virtual s], also without an executor.
        best: the best version, if one is kept.
        newest: split -> the version that was scored last on it, and its metrics.
    """

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        executor: Executor | None,
        handles: Handles | None,
        on_score: OnScore,
        tell: OnEvent,
    ) -> None:
        """Start with none open."""
        self._experiment, self._task = experiment, task
        self._executor, self._handles = executor, handles
        self._on_score, self._tell = on_score, tell
        self._open: deque[_Evaluation] = deque()
        self._clients_per_call = max(PROBES_PER_CALL, experiment.numerics.clients_per_call)
        self.queued: list[tuple[int, float]] = []
        self.best = Best(experiment.evaluate)
        self.newest: dict[str, tuple[int, dict[str, float]]] = {}

    def attach(self, executor: Executor, handles: Handles) -> None:
        """Have scores made from now on."""
        self._executor, self._handles = executor, handles

    def queue(
        self,
        version: int,
        time_s: float,
        model: ServerModel,
        client_model: Callable[[int], Vector] | None = None,
    ) -> None:
        """Queue the evaluation of a version; its scores arrive later, in order.

        It is worked on where no training waits: the executor prefers training.

        Args:
            version: which.
            time_s: of its commit.
            model: the server's.
            client_model: client -> its own model, where clients have one: these then count, not the shared one.
        """
        self.queued.append((version, float(time_s)))
        if self._executor is None:
            return
        for split in self._experiment.evaluate.splits:
            jobs = (
                self._of_shared(model, split)
                if client_model is None
                else self._of_clients(model, split, client_model)
            )
            together = PROBES_PER_CALL if client_model is None else self._clients_per_call
            calls = [jobs[cut] for cut in batches(len(jobs), together)]
            tickets = [self._executor.score(call) for call in calls]
            rows = [sum(job.probe.stop - job.probe.start for job in call) for call in calls]
            looked_at = self.best.metric is not None and split == self.best.split
            kept = model if looked_at else None
            self._open.append(_Evaluation(version, float(time_s), split, tickets, rows, kept))

    def _of_shared(self, model: ServerModel, split: str) -> list[ScoreJob]:
        assert self._handles is not None
        handle, change = self._handles.of(model.adapter.vector), self._change(model)
        probes = self._task.probes(split, self._experiment.evaluate.most_windows)
        return [ScoreJob(handle, probe, change) for probe in probes]

    def _of_clients(
        self, model: ServerModel, split: str, client_model: Callable[[int], Vector]
    ) -> list[ScoreJob]:
        """Every client's own adapter: on its own held-out part (`clients`), its own draw (`samples`), else on the split."""
        assert self._handles is not None
        windows, change = self._experiment.evaluate.most_windows, self._change(model)
        scored = "client" if split == "clients" else split
        jobs: list[ScoreJob] = []
        for client in range(self._task.clients):
            vector = client_model(client)
            handle = self._handles.of(vector) if model.adapter.holds(vector) else read_only(vector)
            probes = self._task.probes(scored, windows, client if scored in SPLITS_BY_CLIENT else None)
            jobs += [ScoreJob(handle, probe, change) for probe in probes]
        return jobs

    def _change(self, model: ServerModel) -> Any:
        assert self._handles is not None
        return self._handles.of_change(model.change)

    def hand_over(self, *, all_of_them: bool = False) -> None:
        """Hand over the evaluations that are done, in order; wait only for those beyond what may be open."""
        most = 0 if all_of_them else len(self._experiment.evaluate.splits) * VERSIONS_OPEN
        while self._open:
            first = self._open[0]
            if len(self._open) <= most and not all(ticket.done() for ticket in first.tickets):
                return
            self._open.popleft()
            parts: list[Any] = []
            for i, ticket in enumerate(first.tickets):
                done = {"version": first.version, "split": first.split, "done": sum(first.rows[:i])}
                self._tell("scoring", done | {"of": sum(first.rows)})
                parts += ticket.result()
            metrics = returned.metrics(self._task, parts)
            self.newest[first.split] = (first.version, metrics)
            if first.model is not None:
                self.best.note(first.version, metrics, first.model)
            self._on_score(first.version, first.time_s, first.split, metrics)

    def losses(self, models: Sequence[tuple[int, Vector, Vector | None]]) -> list[float]:
        """Return the loss on each client's training data now.

        Args:
            models: a client, an adapter, and a change of the frozen weights under it, each.

        Raises:
            RunError: the task has no metric `loss`.
        """
        assert self._executor is not None
        assert self._handles is not None
        jobs, users = list[list[ScoreJob]](), Counter(id(vector) for _, vector, _ in models)
        for client, vector, change in models:
            handle = self._handles.of(vector) if users[id(vector)] > 1 else read_only(vector)
            under = self._handles.of_change(change)
            jobs.append([ScoreJob(handle, p, under) for p in self._task.probes("shard", client=client)])
        calls = ScoreCalls.begun(self._executor, jobs, self._clients_per_call)
        calls.want()
        metrics = [returned.metrics(self._task, parts) for parts in calls.parts()]
        if any("loss" not in row for row in metrics):
            what = f"needs the task's metric loss, and it has {', '.join(metrics[0])}"
            raise RunError(message(f"sampler {self._experiment.sampler.kind}", what))
        return [row["loss"] for row in metrics]
