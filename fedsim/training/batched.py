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
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedsim.adapters.adapter import Vector
from fedsim.jobs import Job, Update
from fedsim.training import noise
from fedsim.training import slot_penalty as tail
from fedsim.training.backbone import Backbone, Stack
from fedsim.training.local import made, one_thread, scales, slots, steps
from fedsim.training.schedule import order, pieces, schedule
from fedsim.training.stacked_optimizers import AdamW, Sgd, column

Windows = NDArray[Any]


class Feed(Protocol):
    """The clients' examples on the device, and what a backbone is given of them at each step."""

    tokens: int
    """Tokens of an example."""

    def batch(self, step: int, clients: slice, rows: slice, picked: Any, lengths: Sequence[int]) -> Any:
        """Return some rows of a step's batches, (k, rows, ...).

        Args:
            step: of the visits, from 0.
            clients: which clients.
            rows: which rows of each client's batch.
            picked: (k, rows) the examples, by number in the client's own data.
            lengths: real rows of each client's whole batch; the others only fill the shape.
        """
        ...


class Texts:
    """Windows of token ids (n, T + 1): a `Feed` that hands out the windows themselves."""

    def __init__(self, data: Sequence[Windows], device: Any) -> None:
        self.tokens = data[0].shape[1] - 1
        self._windows = torch.from_numpy(np.concatenate(data).astype(np.int64)).to(device)
        self._from = torch.from_numpy(np.cumsum([0, *map(len, data[:-1])])).to(device)

    def batch(self, step: int, clients: slice, rows: slice, picked: Any, lengths: Sequence[int]) -> Any:
        """Return token ids (k, rows, T + 1)."""
        return self._windows[picked + self._from[clients, None]]


def train(
    backbone: Backbone,
    data: Sequence[Any],
    jobs: Sequence[Job],
    *,
    tokens_at_once: int,
    dropout: float = 0.0,
    hidden: Sequence[Any | None] | None = None,
) -> list[Update]:
    """Train every job from its start; what the others do changes at most the last bits of a result.

    Args:
        backbone: the frozen model.
        data: each job's windows of token ids (n, T + 1), or what the backbone's own `feed` takes.
        jobs: who trains how; a job's rank and factors apply to all its modules.
        tokens_at_once: predicted tokens in one pass through the model; a larger step is split.
        dropout: LoRA dropout of all adapters.
        hidden: what the backbone's prefix makes of each job's windows, (n, T, width); used if given for all.

    Returns:
        One update a job, in their order; `end` in the dtype of the backbone's factors.
    """
    groups: dict[Any, list[int]] = {}
    bases = list(dict.fromkeys(id(job.base) for job in jobs))  # one base after the other
    for i, (windows, job) in enumerate(zip(data, jobs, strict=True)):
        length = getattr(windows, "shape", (0, 0))[1]
        kind = (id(job.base), job.local.optimizer, job.trains, length)
        groups.setdefault(kind, []).append(i)
    updates: dict[int, Update] = {}
    with one_thread():
        for members in sorted(groups.values(), key=lambda of: bases.index(id(jobs[of[0]].base))):
            backbone.rebase(jobs[members[0]].base)
            counts = [made(len(data[i]), jobs[i]) for i in members]
            sorted_members = [members[i] for i in order(counts, [len(data[i]) for i in members])]
            own = [data[i] for i in sorted_members]
            given = [None if hidden is None else hidden[i] for i in sorted_members]
            visits = _Visits(backbone, own, [jobs[i] for i in sorted_members], given)
            done = visits.run(tokens_at_once, dropout)
            updates.update(zip(sorted_members, done, strict=True))
    return [updates[i] for i in range(len(jobs))]


class _Visits:
    """Visits of clients that share a kind of optimiser, trained factors and window length; longest first."""

    def __init__(
        self, backbone: Backbone, data: Sequence[Any], jobs: Sequence[Job], hidden: Sequence[Any | None]
    ) -> None:
        self.backbone, self.jobs = backbone, jobs
        self.sizes = [len(windows) for windows in data]
        own_feed = getattr(backbone, "feed", None)
        self.feed: Feed = Texts(data, backbone.device) if own_feed is None else own_feed(data, jobs)
        self.tokens = self.feed.tokens
        self.plan = schedule(self.sizes, jobs)

        def put(array: NDArray[Any], dtype: Any = None) -> Any:
            return torch.from_numpy(array).to(backbone.device, dtype)

        layout, floats, local = backbone.layout, backbone.dtype, [job.local for job in jobs]
        self.own_rows = put(self.plan.rows)
        self.weights = put(self.plan.weights, floats)
        self.hidden = [states for states in hidden if states is not None]

        self.factors = put(np.stack([job.start for job in jobs]), floats)
        self.free = None
        if any(job.rank is not None or job.trains != "AB" for job in jobs):
            self.factors *= put(np.stack([slots(layout, job.rank) for job in jobs]), floats)
            self.free = put(np.stack([slots(layout, job.rank, job.trains) for job in jobs]), floats)
        self.scales = put(np.array([scales(layout, job.rank, job.scale) for job in jobs]), floats)
        self.pull = self.clip = self.tail = None
        if any(one.prox_mu for one in local):
            self.pull = column([one.prox_mu for one in local], self.factors)
            self.centre = self.factors.clone()
            for i, job in enumerate(jobs):
                if job.anchor is not None:
                    self.centre[i] = put(np.array(job.anchor), floats)
        if any(job.tail is not None for job in jobs):
            self.tail = column([job.tail[0] if job.tail else 0.0 for job in jobs], self.factors)
        if any(one.clip_norm is not None for one in local):
            self.clip = column([one.clip_norm or math.inf for one in local], self.factors)
        self.rates = None
        if any(one.schedule != "constant" for one in local):
            counts = [steps(size, job.local) for size, job in zip(self.sizes, jobs, strict=True)]
            self.rates = [
                [one.lr_share(min(t, n - 1), n) if n else 1.0 for one, n in zip(local, counts, strict=True)]
                for t in range(len(self.plan.lengths))
            ]
        kind = Sgd if local[0].optimizer == "sgd" else AdamW
        self.optimiser = kind(self.factors, local, self.free)

    def run(self, tokens_at_once: int, dropout: float) -> list[Update]:
        """Make all steps."""
        losses = self.factors.new_zeros(self.plan.lengths.shape)
        for step, k in enumerate(self.plan.active):
            losses[step, :k], gradients = self._gradients(step, k, tokens_at_once, dropout)
            if self.pull is not None:
                gradients.addcmul_(self.factors[:k] - self.centre[:k], self.pull[:k])
            if self.tail is not None:
                first = [job.tail[1] if job.tail else 0 for job in self.jobs[:k]]
                gradients.add_(tail.gradient(self.backbone.layout, self.factors[:k], self.tail[:k], first))
            if self.free is not None:
                gradients.mul_(self.free[:k])
            if self.clip is not None:
                norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
                gradients.mul_((self.clip[:k] / (norms + 1e-6)).clamp_(max=1.0))
            self.optimiser.step(gradients, None if self.rates is None else self.rates[step][:k])
        return self._updates(losses.double().cpu().numpy())

    def _gradients(self, step: int, k: int, tokens_at_once: int, p: float) -> tuple[Any, Any]:
        """Return losses and gradients of the first k clients, piece by piece if the step is too large.

        On a CPU, clients whose batches differ in length are apart: a client's numbers then come from its
        own rows alone, and in other company at most the matrix products round them otherwise. On other
        devices shorter batches are filled up.
        """
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
            some_losses, some_gradients = self._piece(step, clients, rows, p)
            losses[clients] += some_losses
            gradients[clients] += some_gradients
        return losses, gradients

    def _piece(self, step: int, clients: slice, rows: slice, p: float) -> tuple[Any, Any]:
        drop = hidden = None
        lengths = self.plan.lengths[step, clients].tolist()
        if p:
            drop = noise.dropout(p, self.jobs[clients], lengths, step, rows, self.factors)
        if len(self.hidden) == len(self.jobs):
            own = zip(self.hidden[clients], self.own_rows[step, clients, rows], strict=True)
            hidden = torch.stack([states[picked] for states, picked in own])
        stack = Stack(self.factors[clients], self.scales[clients], self.jobs[0].trains, drop)
        batch = self.feed.batch(step, clients, rows, self.own_rows[step, clients, rows], lengths)
        return self.backbone.gradients(stack, batch, self.weights[step, clients, rows], hidden)

    def _updates(self, losses: NDArray[np.float64]) -> list[Update]:
        """Take the clients apart again; `losses` is (steps, k)."""
        ends = self.factors.cpu().numpy()
        updates = []
        for i, n in enumerate(self.sizes):
            lengths = self.plan.lengths[:, i]
            seen = int(lengths.sum())
            updates.append(
                Update(
                    ends[i].copy(),
                    examples=min(n, seen),
                    tokens=seen * self.tokens,
                    steps=int((lengths > 0).sum()),
                    loss=float(losses[:, i] @ lengths) / seen if seen else math.nan,
                    square=float(losses[:, i] ** 2 @ lengths) / seen if seen else math.nan,
                )
            )
        return updates


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
    layout = backbone.layout
    longest = max((len(own) for own in windows), default=0)
    totals = np.zeros(len(vectors))
    with one_thread():
        for clients, part in pieces(len(vectors), longest, 1, rows) if longest else ():
            some = range(clients.start, clients.stop)
            tokens = np.zeros((len(some), part.stop - part.start, windows[0].shape[1]), dtype=np.int64)
            real = np.zeros((*tokens.shape[:2], tokens.shape[2] - 1), dtype=bool)
            for at, i in enumerate(some):
                own = windows[i][part]
                tokens[at, : len(own)] = own
                real[at, : len(own)] = np.arange(real.shape[2]) < counts[i][part, None]
            factors = torch.from_numpy(np.stack(vectors[clients])).to(backbone.device, backbone.dtype)
            scales = factors.new_tensor([m.scale for m in layout.modules]).expand(len(some), -1)
            ids = torch.from_numpy(tokens).to(backbone.device)
            losses = backbone.losses(Stack(factors, scales), ids).double().cpu().numpy()
            totals[clients] += np.where(real, losses, 0).sum(axis=(1, 2))
    return [float(total) for total in totals]
