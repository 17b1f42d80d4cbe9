"""A plan as tables: the rows of clients.parquet, and what the clock charges, for run.json."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedsim.clock.plan import Plan
from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.shape import adapter_bytes
from fedsim.records.info import Charged


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
    return columns


def charged_facts(plan: Plan) -> Charged:
    """Return what the clock charged: the model's size, an adapter's bytes, a full model's bytes."""
    full = replace(plan.shape, full=True, adapter_params=plan.shape.params)
    plans = [plan.training_plan(client) for client in range(len(plan.population))]
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
        mean_flops_per_visit=float(
            np.mean([training.flops(plan.tokens(c)) for c, training in enumerate(plans)])
        ),
        clients_by_rank={str(r): int(n) for r, n in zip(by_rank, count, strict=True)},
    )
