"""Client batches: many clients' visits at once through one frozen backbone.

The result of a visit is that of `sequential.visit` up to rounding. All factors are one tensor
(k, size), so everything that is not the model costs a few passes over it a step. Clients of one call
may differ in everything but their base, their optimiser's kind, the factors they train and the length
of their windows: those that do are trained one group after the other.

On one thread a visit ends at the same bits in a batch of any size, if the library's matrix product
gives a row the same bits however many rows there are (MKL's does for some shapes only, see
`fused/decoder.py`; a test asks). Elsewhere it differs by rounding. So it does where rows of one client
are split over several passes and summed in another order. AdamW lifts rounding where a gradient is as
small as that (A as long as B = 0, for one).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.adapters.adapter import Vector
from fedsim.config.learning import LocalConfig
from fedsim.jobs import Job, Update
from fedsim.training import noise
from fedsim.training.backbone import Backbone, Stack
from fedsim.training.feeds import Group
from fedsim.training.local import Windows, lr_ratios, made, one_thread, scales, slots
from fedsim.training.stacked.optimizers import optimiser
from fedsim.training.stacked.schedule import order, pieces, schedule
from fedsim.training.stacked.terms import terms


def train(
    backbone: Backbone,
    data: Sequence[Any],
    jobs: Sequence[Job],
    *,
    tokens_at_once: int,
    dropout: float = 0.0,
    lr_ratio: float = 1.0,
    hidden: Sequence[Tensor] | None = None,
) -> list[Update]:
    """Train every job from its start; what the others do changes at most the last bits of a result.

    Args:
        backbone: the frozen model.
        data: each job's windows of token ids (n, T + 1), or what the backbone's own `feed` takes.
        jobs: who trains how; a job's rank and factors apply to all its modules.
        tokens_at_once: predicted tokens in one pass through the model; a larger step is split.
        dropout: LoRA dropout of all adapters.
        lr_ratio: learning rate of B in units of that of A (`fedsim.training.local.lr_ratios`).
        hidden: what the backbone's prefix makes of each job's windows, (n, T, width); None: of nobody's.

    Returns:
        One update a job, in their order; `end` in the dtype of the backbone's factors.
    """
    updates: dict[int, Update] = {}
    with one_thread():
        for members in _groups(backbone, data, jobs):
            backbone.rebase(jobs[members[0]].base)
            states = None if hidden is None else [hidden[i] for i in members]
            visits = _Visits(
                backbone, [data[i] for i in members], [jobs[i] for i in members], states, lr_ratio
            )
            updates.update(zip(members, visits.run(tokens_at_once, dropout), strict=True))
    return [updates[i] for i in range(len(jobs))]


def _groups(backbone: Backbone, data: Sequence[Any], jobs: Sequence[Job]) -> list[list[int]]:
    """Return who is trained together, one base after the other; in each group those with more steps first."""
    bases = list(dict.fromkeys(id(job.base) for job in jobs))
    groups: dict[Hashable, list[int]] = {}
    for i, (examples, job) in enumerate(zip(data, jobs, strict=True)):
        kind = (id(job.base), job.local.optimizer, job.trains, backbone.length(examples))
        groups.setdefault(kind, []).append(i)
    by_base = sorted(groups.values(), key=lambda members: bases.index(id(jobs[members[0]].base)))
    return [_sorted(members, data, jobs) for members in by_base]


def _sorted(members: Sequence[int], data: Sequence[Any], jobs: Sequence[Job]) -> list[int]:
    sizes = [len(data[i]) for i in members]
    counts = [made(size, jobs[i]) for size, i in zip(sizes, members, strict=True)]
    return [members[i] for i in order(counts, sizes)]


class _Visits:
    """Visits of clients that share a kind of optimiser, trained factors and window length; longest first."""

    def __init__(
        self,
        backbone: Backbone,
        data: Sequence[Any],
        jobs: Sequence[Job],
        hidden: Sequence[Tensor] | None,
        lr_ratio: float,
    ) -> None:
        self.backbone, self.jobs, self.hidden = backbone, jobs, hidden
        self.sizes = [len(examples) for examples in data]
        self.feed = backbone.feed(data, jobs)
        self.tokens = self.feed.tokens
        self.plan = schedule(self.sizes, jobs)
        self.counted = self.feed.counted(self.plan)

        def put(array: NDArray[Any], dtype: torch.dtype = None) -> Tensor:
            return torch.from_numpy(array).to(backbone.device, dtype)

        layout, floats, local = backbone.layout, backbone.dtype, [job.local for job in jobs]
        self.own_rows = put(self.plan.rows)
        self.weights = put(self.plan.weights, floats)
        self.factors = put(np.stack([job.start for job in jobs]), floats)
        free = None
        if any(job.rank is not None or job.trains != "AB" or layout.below(job.depth) for job in jobs):
            there = [slots(layout, job.rank, depth=job.depth) for job in jobs]
            self.factors *= put(np.stack(there), floats)
            free = put(np.stack([slots(layout, job.rank, job.trains, job.depth) for job in jobs]), floats)
        self.scales = put(np.array([scales(layout, job.rank, job.scale) for job in jobs]), floats)
        self.terms = terms(layout, jobs, self.factors, free)
        self.rates = _rates(local, self.sizes, len(self.plan.lengths))
        self.optimiser = optimiser(self.factors, local, free, lr_ratios(layout, lr_ratio), layout)

    def run(self, tokens_at_once: int, dropout: float) -> list[Update]:
        """Make all steps."""
        losses = self.factors.new_zeros(self.plan.lengths.shape)
        for step, k in enumerate(self.plan.active):
            losses[step, :k], gradients = self._gradients(step, k, tokens_at_once, dropout)
            for term in self.terms:
                term.apply(self.factors[:k], gradients)
            self.optimiser.step(gradients, None if self.rates is None else self.rates[step][:k])
        return self._updates(losses.double().cpu().numpy())

    def _gradients(self, step: int, k: int, tokens_at_once: int, p: float) -> tuple[Tensor, Tensor]:
        """Return losses and gradients of the first k clients, piece by piece if the step is too large.

        On a CPU, clients whose batches differ in length are apart: a client's numbers then come from its
        own rows alone, and in other company at most the matrix products round them otherwise. On other
        devices shorter batches are filled up.
        """
        groups = self.feed.groups(self.plan, step, k)
        if groups is not None:
            return self._uneven(step, k, groups, tokens_at_once, p)
        runs = (
            self.plan.runs(step) if self.backbone.device.type == "cpu" else [(0, k, self.plan.longest[step])]
        )
        cuts = [
            (slice(start + clients.start, start + clients.stop), rows)
            for start, stop, longest in runs
            for clients, rows in pieces(stop - start, longest, self.tokens, tokens_at_once)
        ]
        if len(cuts) == 1:
            return self._piece(step, *cuts[0], p)
        losses, gradients = self.factors.new_zeros(k), self.factors.new_zeros(k, self.factors.shape[1])
        for clients, rows in cuts:
            piece_losses, piece_gradients = self._piece(step, clients, rows, p)
            losses[clients] += piece_losses
            gradients[clients] += piece_gradients
        return losses, gradients

    def _piece(self, step: int, clients: slice, rows: slice, p: float) -> tuple[Tensor, Tensor]:
        drop = hidden = None
        lengths = self.plan.lengths[step, clients].tolist()
        if p:
            drop = noise.dropout(p, self.jobs[clients], lengths, step, rows, self.factors)
        if self.hidden is not None:
            pairs = zip(self.hidden[clients], self.own_rows[step, clients, rows], strict=True)
            hidden = torch.stack([states[picked] for states, picked in pairs])
        stack = Stack(self.factors[clients], self.scales[clients], self.jobs[0].trains, drop)
        batch = self.feed.batch(step, clients, rows, self.own_rows[step, clients, rows], lengths)
        return self.backbone.gradients(stack, batch, self.weights[step, clients, rows], hidden)

    def _uneven(
        self, step: int, k: int, groups: Iterable[Group], tokens_at_once: int, p: float
    ) -> tuple[Tensor, Tensor]:
        """Return losses and gradients of the first k clients, whose examples differ in length, one shape after the other."""
        losses, gradients = self.factors.new_zeros(k), self.factors.new_zeros(k, self.factors.shape[1])
        weights = self.factors.new_tensor(1.0 / np.maximum(self.counted.learned[step, :k], 1))
        for group in groups:
            for clients, rows in pieces(len(group.clients), group.rows, group.width, tokens_at_once):
                some = Group(group.clients[clients], group.rows, group.width)
                who, drop = torch.from_numpy(some.clients).to(self.backbone.device), None
                if p:
                    jobs, lengths = [self.jobs[i] for i in some.clients], [group.rows] * len(some.clients)
                    drop = noise.dropout(p, jobs, lengths, step, rows, self.factors)
                stack = Stack(self.factors[who], self.scales[who], self.jobs[0].trains, drop)
                batch = self.feed.grouped(some, rows, self.plan.rows[step, some.clients, rows])
                each = weights[who, None].expand(-1, rows.stop - rows.start)
                piece_losses, piece_gradients = self.backbone.gradients(stack, batch, each)
                losses[who] += piece_losses
                gradients[who] += piece_gradients
        return losses, gradients

    def _updates(self, losses: NDArray[np.float64]) -> list[Update]:
        """Take the clients apart again; `losses` is (steps, k)."""
        ends = self.factors.cpu().numpy()
        updates = []
        for i, n in enumerate(self.sizes):
            lengths = self.plan.lengths[:, i]
            seen = int(lengths.sum())
            learned = self.counted.learned[:, i]
            updates.append(
                Update(
                    ends[i].copy(),
                    examples=min(n, seen),
                    tokens=int(self.counted.read[:, i].sum()),
                    steps=int((lengths > 0).sum()),
                    loss=float(losses[:, i] @ learned) / int(learned.sum()) if seen else math.nan,
                    square=float(losses[:, i] ** 2 @ learned) / int(learned.sum()) if seen else math.nan,
                )
            )
        return updates


def _rates(local: Sequence[LocalConfig], sizes: Sequence[int], steps: int) -> list[list[float]] | None:
    """Return what each client takes of its learning rate at each step; None: all of it at every step."""
    if all(settings.schedule == "constant" for settings in local):
        return None
    counts = [settings.steps_over(size) for settings, size in zip(local, sizes, strict=True)]
    return [
        [settings.lr_share(min(t, n - 1), n) if n else 1.0 for settings, n in zip(local, counts, strict=True)]
        for t in range(steps)
    ]


def score(
    backbone: Backbone,
    vectors: Sequence[Vector],
    windows: Sequence[Windows],
    counts: Sequence[NDArray[Any]],
    rows: int,
    base: Vector | None = None,
) -> list[float]:
    """Return, for each vector, the summed NLL [nats] in float64 of the first tokens of its own windows.

    Args:
        backbone: the frozen model.
        vectors: what to score.
        windows: token ids (n, T + 1) for each vector, of one T.
        counts: real tokens (n,) of each vector's windows; the rest is padding.
        rows: windows in one pass through the model, all vectors together.
        base: change of the frozen weights under all of them, or None.
    """
    backbone.rebase(base)
    longest = max((len(ids) for ids in windows), default=0)
    totals = np.zeros(len(vectors))
    with one_thread():
        for clients, part in pieces(len(vectors), longest, 1, rows) if longest else ():
            tokens, real = _padded(windows[clients], counts[clients], part)
            factors = torch.from_numpy(np.stack(vectors[clients])).to(backbone.device, backbone.dtype)
            scales = factors.new_tensor([m.scale for m in backbone.layout.modules]).expand(len(tokens), -1)
            ids = torch.from_numpy(tokens).to(backbone.device)
            losses = backbone.losses(Stack(factors, scales), ids).double().cpu().numpy()
            totals[clients] += np.where(real, losses, 0).sum(axis=(1, 2))
    return [float(total) for total in totals]


def _padded(
    windows: Sequence[Windows], counts: Sequence[NDArray[Any]], part: slice
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return some rows of each vector's windows, (k, rows, T + 1), and which predicted tokens are real."""
    tokens = np.zeros((len(windows), part.stop - part.start, windows[0].shape[1]), dtype=np.int64)
    real = np.zeros((*tokens.shape[:2], tokens.shape[2] - 1), dtype=bool)
    for at, (ids, lengths) in enumerate(zip(windows, counts, strict=True)):
        rows = ids[part]
        tokens[at, : len(rows)] = rows
        real[at, : len(rows)] = np.arange(real.shape[2]) < lengths[part, None]
    return tokens, real
