"""Answers that a model gives, in the run folder: before, after, and by a few clients' own adapters.

    samples/answers.json: a list of {client, question, expected, before, after, own}

Of test examples `client` and `own` are null. Those of clients are of what they keep apart. Where clients keep a part of the
model, nothing is asked of what they share: `after` is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fedsim.executors import Executor
from fedsim.files.atomic import write_atomically
from fedsim.jobs import SPLIT, Probe, ScoreJob
from fedsim.personal import Used
from fedsim.server.after.personalize import FinalState, client_models, with_models
from fedsim.tasks._chats.answering import AnsweringTask, Shown

FILE = "answers.json"
PERSONAL = 3
"""Clients whose own models are asked."""
Entry = dict[str, str | int | None]


def keep(final: FinalState, folder: Path) -> list[str]:
    """Write the answers of a finished run into `folder`, if its task has a model that answers; return the files' names."""
    task = final.plan.task
    if not isinstance(task, AnsweringTask):
        return []
    entries = list(_entries(final, task))
    if not entries:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / FILE, text.encode("utf-8", "replace"))
    return [FILE]


def _entries(final: FinalState, task: AnsweringTask) -> Iterator[Entry]:
    before = Used(task.initial())
    after = None if final.private_parts.waits else final.shared
    yield from _asked(final.executor, task, None, before, after, None)
    clients = [client for client in with_models(final) if task.shown(client)][:PERSONAL]
    models = client_models(final, clients) if clients else []
    for client, model in zip(clients, models, strict=True):
        yield from _asked(final.executor, task, client, before, after, model)


def _asked(
    executor: Executor,
    task: AnsweringTask,
    client: int | None,
    before: Used,
    after: Used | None,
    own: Used | None,
) -> Iterator[Entry]:
    """Yield what some models answer to the same questions, one after the other."""
    count = task.shown(client)
    if not count:
        return
    said = [
        [None] * count if model is None else _answers(executor, task, client, model, count)
        for model in (before, after, own)
    ]
    for first, second, third in zip(*said, strict=True):
        assert first is not None
        yield {
            "client": client,
            "question": first.question,
            "expected": first.expected,
            "before": first.answer,
            "after": None if second is None else second.answer,
            "own": None if third is None else third.answer,
        }


def _answers(
    executor: Executor, task: AnsweringTask, client: int | None, model: Used, count: int
) -> list[Shown]:
    base = None if model.base is None else executor.share(model.base)
    job = ScoreJob(executor.share(model.vector), Probe(SPLIT, 0, count, client), base)
    return task.read_answers(executor.score([job]).result()[0])
