"""Clients that have adapters in their last layers only, trained through a model that has no others.

Each depth is trained apart: its backward pass ends at its own lowest adapter, and what lies below is a frozen prefix, whose
states are kept (`frozen_prefix`). A client's numbers then never depend on how deep others are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.jobs import Job, Update


def by_depth(layout: Layout, jobs: Sequence[Job]) -> dict[int | None, list[int]]:
    """Return the places of the jobs of each depth; None: all layers.

    >>> from fedsim.config.learning import LocalConfig
    >>> from fedsim.adapters.adapter import Module
    >>> layout = Layout(tuple(Module(f"h.{i}.w", 1, (1, 2), (2, 1), 1.0) for i in range(3)))
    >>> depths = (3, 1, None, 1)
    >>> by_depth(layout, [Job(0, 0, None, LocalConfig(), 0, depth=depth) for depth in depths])
    {None: [0, 2], 1: [1, 3]}
    """
    places: dict[int | None, list[int]] = {}
    for at, job in enumerate(jobs):
        places.setdefault(job.depth if layout.below(job.depth) else None, []).append(at)
    return places


def narrowed(layout: Layout, job: Job) -> Job:
    """Return the same training of a vector that has the job's layers only (`Layout.last`)."""
    there = layout.slots(depth=job.depth)
    anchor = None if job.anchor is None else np.asarray(job.anchor)[there]
    return replace(job, start=np.asarray(job.start)[there], anchor=anchor, depth=None)


def widened(layout: Layout, depth: int | None, update: Update) -> Update:
    """Return where such a training ended in the layout's shape: zeros below."""
    end: Vector = np.zeros(layout.size, update.end.dtype)
    end[layout.slots(depth=depth)] = update.end
    return replace(update, end=end)
