"""A plan as tables: the rows of clients.parquet, and what the clock charges, for run.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from fedsim.arrays import Floats, Names
from fedsim.clock.plan import Plan
from fedsim.cost.formulas import expanded_bytes, layer_passes, moved_bytes, train_memory_bytes
from fedsim.cost.shape import ModelShape, adapter_bytes
from fedsim.devices.availability import Availability, OnlineTimes
from fedsim.devices.outages import Interrupted
from fedsim.devices.stacks.told import device_laws
from fedsim.records.info import Charged
from fedsim.records.resolved import DeviceLaw, PassWork

WINDOWS_WRITTEN = 1_000_000
"""Windows of a population that are written down one by one."""


def clients_table(plan: Plan) -> dict[str, Any]:
    """Return the columns of clients.parquet."""
    n = len(plan.population)
    columns = dict(plan.population.columns())
    columns["rank"] = plan.ranks
    memory = [plan.training_plan(client).memory for client in range(n)]
    columns["needed_memory_bytes"] = np.array([m.memory_bytes for m in memory])
    columns["memory_plan"] = np.array([m.words for m in memory], dtype=object)
    columns["online_share"] = plan.population.availability.share()
    columns["examples"] = np.array([plan.task.examples(c) for c in range(n)], dtype=np.int64)
    columns["tokens"] = np.array([plan.tokens(c) for c in range(n)], dtype=np.int64)
    columns["visit_flops"] = _visit_flops(plan)
    columns["windows"], period_s = windows_in_words(plan.population.availability)
    columns["window_period_s"] = np.full(n, period_s)
    return columns


def _visit_flops(plan: Plan) -> Floats:
    """Return the FLOPs of each client's training in a whole visit at its own rank, (clients,)."""
    clients = range(len(plan.population))
    return np.array([plan.training_plan(c).flops(plan.tokens(c)) for c in clients], dtype=np.float64)


def windows_in_words(times: OnlineTimes) -> tuple[Names, float]:
    """Return each client's windows without outages, (clients,) `start:stop start:stop` [s], and their period [s].

    A population with more than `WINDOWS_WRITTEN` windows has the SHA-256 of that text instead.
    """
    plain = times.windows if isinstance(times, Interrupted) else times
    assert isinstance(plain, Availability)
    spans = [f"{a!r}:{b!r}" for a, b in zip(plain.starts_s.tolist(), plain.stops_s.tolist(), strict=True)]
    offsets = plain.offsets.tolist()
    texts = [" ".join(spans[begin:end]) for begin, end in pairwise(offsets)]
    if len(spans) > WINDOWS_WRITTEN:
        texts = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return np.array(texts, dtype=object), plain.period_s


def charged_facts(plan: Plan) -> Charged:
    """Return what the clock charged: the model's size, an adapter's bytes, a full model's bytes."""
    full = replace(plan.shape, full=True, adapter_params=plan.shape.params)
    by_rank, count = np.unique(plan.ranks, return_counts=True)
    return Charged(
        declared=plan.sizing.charged,
        model=plan.shape.name,
        params=plan.shape.params,
        adapter_params=plan.shape.adapter_params,
        adapter_bytes=plan.sizing.adapter_bytes,
        serialized_adapter_bytes=4 * plan.task.layout.size,
        full_model_bytes=adapter_bytes(full),
        memory_bytes=train_memory_bytes(plan.shape),
        mean_flops_per_visit=float(np.mean(_visit_flops(plan))),
        clients_by_rank={str(r): int(n) for r, n in zip(by_rank, count, strict=True)},
        laws=_laws(plan),
        passes=tuple(_passes(plan)),
    )


def _laws(plan: Plan) -> tuple[DeviceLaw, ...]:
    population = plan.population
    if population.laws is None:
        return ()
    return device_laws(population.device, population.flops_per_s, population.laws)


def _passes(plan: Plan) -> Iterator[PassWork]:
    """Yield what a pass is, once for each rank and way to fit the memory that a client has, where software is told apart."""
    if plan.population.laws is None:
        return
    _, place = plan.population.rooms
    _, first = np.unique(np.stack([place, plan.ranks]), axis=1, return_index=True)
    told: set[tuple[int, str]] = set()
    for client in first.tolist():
        trained = plan.training_plan(client)
        key = (int(plan.ranks[client]), trained.memory.words)
        if key not in told:
            told.add(key)
            yield _pass(plan, *key, trained.memory.shape)


def _pass(plan: Plan, rank: int, words: str, shape: ModelShape) -> PassWork:
    copied = plan.experiment.compute.dequantisation == "copy"
    return PassWork(
        rank=rank,
        memory_plan=words,
        tokens=shape.sequence * shape.batch,
        update_tokens=plan.shape.sequence * plan.shape.batch,
        layer_passes=layer_passes(shape),
        moved_bytes=moved_bytes(shape, 1, 0, copied=copied),
        update_bytes=moved_bytes(shape, 0, 1, copied=copied),
        expanded_bytes=expanded_bytes(shape),
    )
