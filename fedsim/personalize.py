"""What a client keeps to itself, and what it gains.

As in FedGen-Edge (arXiv 2511.11585): after the run each client fine-tunes its own copy of the
global adapter for E local epochs. gain = perplexity(global) - perplexity(personal), both on the
client's held-out part, which nobody trained on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

from fedsim.aggregators import ServerModel
from fedsim.executors import Executor, Ticket
from fedsim.experiment import Experiment, LocalConfig
from fedsim.jobs import Job, ScoreJob, Task, add_sums
from fedsim.rng import stream


def rows(
    experiment: Experiment, task: Task, executor: Executor, model: ServerModel
) -> Iterator[dict[str, Any]]:
    """Yield one row a client: client, kind, metric, metric_global, metric_personal, gain, tokens."""
    if experiment.personal.kind == "none":
        return
    clients = chosen(experiment, task.clients)
    together = int(experiment.numerics.client_batch)
    groups = [clients[at : at + together] for at in range(0, len(clients), together)]
    handles = _handles(executor, model, clients)
    # a few calls ahead of the one that is read: every worker is busy, and memory stays bounded
    ahead: deque[tuple[list[int], Ticket | None]] = deque()
    for group in groups:
        ahead.append((group, _fine_tuned(experiment, executor, group, handles)))
        if len(ahead) > 2 * executor.workers:
            yield from _scored(task, executor, handles, *ahead.popleft())
    while ahead:
        yield from _scored(task, executor, handles, *ahead.popleft())


def _handles(executor: Executor, model: ServerModel, clients: list[int]) -> dict[int, Any]:
    """Return the handle of what each client ends the run with: the shared adapter, or its own."""
    shared = executor.share(model.adapter.vector)
    own = model.personal
    return {client: executor.share(own[client]) if client in own else shared for client in clients}


def _fine_tuned(
    experiment: Experiment, executor: Executor, group: list[int], handles: dict[int, Any]
) -> Ticket | None:
    local = local_of(experiment)
    if local is None:
        return None
    return executor.train([Job(c, 0, handles[c], local, experiment.seed, purpose="personal") for c in group])


def _scored(
    task: Task, executor: Executor, handles: dict[int, Any], group: list[int], tuned: Ticket | None
) -> Iterator[dict[str, Any]]:
    starts = [handles[client] for client in group]
    ends = starts if tuned is None else [executor.share(update.end) for update in tuned.result()]
    before = [_held_out(task, executor, c, start) for c, start in zip(group, starts, strict=True)]
    after = [_held_out(task, executor, c, end) for c, end in zip(group, ends, strict=True)]
    for client, old, new in zip(group, before, after, strict=True):
        yield _row(task, client, old.result(), new.result())


def chosen(experiment: Experiment, clients: int) -> list[int]:
    """Return who is personalised: all, or `personal.clients` of them drawn by address."""
    n = experiment.personal.clients
    if n is None or n >= clients:
        return list(range(clients))
    drawn = stream(experiment.seed, "personal-clients").choice(clients, size=n, replace=False)
    return sorted(int(c) for c in drawn)


def local_of(experiment: Experiment) -> LocalConfig | None:
    """Return the local training of the personal phase; None for 0 epochs."""
    personal = experiment.personal
    if personal.epochs == 0:
        return None
    changes: dict[str, Any] = {"epochs": personal.epochs, "steps": None, "prox_mu": 0.0}
    if personal.lr is not None:
        changes["lr"] = personal.lr
    return experiment.local.model_copy(update=changes)


def _held_out(task: Task, executor: Executor, client: int, handle: Any) -> Ticket:
    return executor.score([ScoreJob(handle, probe) for probe in task.probes("client", client=client)])


def _row(task: Task, client: int, before: list[Any], after: list[Any]) -> dict[str, Any]:
    old, new = task.metrics(add_sums(before)), task.metrics(add_sums(after))
    metric = next(iter(old))
    tokens = add_sums(before).get("tokens", math.nan)
    return {
        "client": client,
        "kind": "fine-tune",
        "metric": metric,
        "metric_global": old[metric],
        "metric_personal": new[metric],
        "gain": old[metric] - new[metric],
        "tokens": int(tokens) if math.isfinite(tokens) else 0,
    }
