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
from fedsim.cost.formulas import expanded_bytes, layer_passes, moved_bytes, pass_flops, train_memory_bytes
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
    plans, of = plan.training_plans
    columns["needed_memory_bytes"] = np.array([p.memory.memory_bytes for p in plans])[of]
    columns["memory_plan"] = np.array([p.memory.words for p in plans], dtype=object)[of]
    columns["online_share"] = plan.population.availability.share()
    columns["examples"] = np.fromiter(map(plan.task.examples, range(n)), dtype=np.int64, count=n)
    columns["tokens"] = plan.whole_tokens
    columns["visit_flops"] = _visit_flops(plan)
    columns["windows"], period_s = windows_in_words(plan.population.availability)
    columns["window_period_s"] = np.full(n, period_s)
    return columns


def _visit_flops(plan: Plan) -> Floats:
    """Return the FLOPs of each client's training in a whole visit at its own rank, (clients,)."""
    (plans, of), sizing, local = plan.training_plans, plan.sizing, plan.experiment.local
    if sizing.mean_sequence(0) is None and not any(pass_flops(p.memory.shape) for p in plans):
        per_token = np.array([p.flops_per_token for p in plans], dtype=np.float64)
        return np.asarray(plan.whole_tokens.astype(np.float64) * per_token[of])
    of_each = (
        plans[at].flops(sizing.batches(client, local), sizing.mean_sequence(client))
        for client, at in enumerate(of.tolist())
    )
    return np.fromiter(of_each, dtype=np.float64, count=len(of))


def windows_in_words(times: OnlineTimes) -> tuple[Names, float]:
    """Return each client's windows without outages, (clients,) `start:stop start:stop` [s], and their period [s].

    A population with more than `WINDOWS_WRITTEN` windows has a SHA-256 instead: of each client's starts and then its
    stops, as little-endian float64.
    """
    plain = times.windows if isinstance(times, Interrupted) else times
    assert isinstance(plain, Availability)
    offsets, starts_s, stops_s = plain.offsets.tolist(), plain.starts_s, plain.stops_s
    if len(starts_s) > WINDOWS_WRITTEN:
        starts, stops = (times_s.astype("<f8", copy=False).data.cast("B") for times_s in (starts_s, stops_s))
        texts = [_sha256(starts[8 * a : 8 * b], stops[8 * a : 8 * b]) for a, b in pairwise(offsets)]
    else:
        spans = [f"{a!r}:{b!r}" for a, b in zip(starts_s.tolist(), stops_s.tolist(), strict=True)]
        texts = [" ".join(spans[begin:end]) for begin, end in pairwise(offsets)]
    return np.array(texts, dtype=object), plain.period_s


def _sha256(starts: memoryview, stops: memoryview) -> str:
    sha = hashlib.sha256(starts)
    sha.update(stops)
    return sha.hexdigest()


def charged_facts(plan: Plan) -> Charged:
    """Return what the clock charged: the model's size, an adapter's bytes, a full model's bytes."""
    full = replace(plan.shape, full=True, adapter_params=plan.shape.params)
    by_rank, count = np.unique(plan.ranks, return_counts=True)
    return Charged(
        declared=plan.sizing.charged,
        model=plan.shape.name,
        params=plan.shape.params,
        adapter_params=plan.shape.trained_params,
        adapter_bytes=plan.sizing.adapter_bytes,
        serialized_adapter_bytes=4 * plan.task.layout.size,
        full_model_bytes=adapter_bytes(full),
        memory_bytes=train_memory_bytes(plan.shape),
        mean_flops_per_visit=float(np.mean(_visit_flops(plan))),
        clients_by_rank={str(r): int(n) for r, n in zip(by_rank, count, strict=True)},
        clients_by_depth=_by_depth(plan),
        laws=_laws(plan),
        passes=tuple(_passes(plan)),
    )


def _by_depth(plan: Plan) -> dict[str, int]:
    """Return how many clients have how many layers with adapters; nothing where all of them have all."""
    if not plan.experiment.lora.unequal:
        return {}
    depths, count = np.unique(plan.depths, return_counts=True)
    return {str(depth): int(n) for depth, n in zip(depths, count, strict=True)}


def _laws(plan: Plan) -> tuple[DeviceLaw, ...]:
    population = plan.population
    if population.laws is None:
        return ()
    return device_laws(population.device, population.flops_per_s, population.laws)


def _passes(plan: Plan) -> Iterator[PassWork]:
    """Yield what a pass is, once for each rank and way to fit the memory that a client has, where software is told apart."""
    if plan.population.laws is None:
        return
    told: set[tuple[int, str]] = set()
    for trained in plan.training_plans[0]:
        key = (trained.rank, trained.memory.words)
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
        examples=0 if plan.sizing.whole_tokens_declared else shape.batch,
        layer_passes=layer_passes(shape),
        moved_bytes=moved_bytes(shape, 1, 0, copied=copied),
        update_bytes=moved_bytes(shape, 0, 1, copied=copied),
        expanded_bytes=expanded_bytes(shape),
    )
