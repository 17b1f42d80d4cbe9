"""HetLoRA: every client its own rank, weights by the size of its update, ranks that prune themselves.

Cho et al., "Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models", arXiv 2401.06432.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.products import inner, one_thread, pairs, scales
from fedsim.adapters.sums import length
from fedsim.aggregators._base import Aggregator, Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import Padding, SlotMean, moved, payload, start
from fedsim.aggregators._staleness import Polynomial, Staleness, discount
from fedsim.aggregators._weighting import counted
from fedsim.config.fields import NonNegative, Positive
from fedsim.errors import invalid

LEAST = 1e-150
"""Least weight of a client: clients whose products are all 0 count alike, beside others they do not count."""

Ranks = Mapping[int, int]
"""Rank of every client that has pruned itself."""


class HetLoRA(Aggregator):
    """Truncate, train, pad with zeros, and average with weights p_k = |s_k B_k A_k|_F / sum_j |s_j B_j A_j|_F.

    Source: arXiv 2401.06432, section 3. `weights: examples` weighs by examples instead (`used` and `uniform` as in
    other rules): with equal ranks that is FedIT. The norm is over all modules, by Gram matrices, |BA|^2 = sum((B'B) * (AA')): no dense product.

    Not exact: FedIT's cross terms; a client's product is truncated when it downloads; and padding dilutes:
    slot j is multiplied by the weight of those who have it, sum over r_k > j of p_k. `padding: rows`
    divides by that again (RBLA, arXiv 2408.08699), `moves` leaves a slot to those who have it.

    Self-pruning (`prune`, the paper's gamma): if the product of norms |B[:, t:]| |A[t:, :]| with t = floor(gamma r_k),
    summed over modules, is smaller where a visit ended than where it began, the client's rank is t (at least 1)
    from then on. `prune_at: upload`, as published: it sends t slots of this visit already, and says 0 about the
    others; `next_visit`: it still sends all that it trained. With `penalty` (the paper's lambda) the clients train
    on their loss plus lambda times it, which is what makes it shrink. Pruned slots are 0 and do not train. A visit
    that was asked for fewer slots than the client has (`timely, partial: rank`) says nothing about its last slots,
    and prunes none.

    Up and down: r_k (in + out) floats a matrix, r_k being the device's rank. What self-pruning would save
    is not taken off: a schedule never depends on what training computes.

    Under staleness: the slots that a client has move by its own move, discounted; those that it lacks are pulled
    to 0 from where the server has them now (`padding: zeros`). Weights are always normalised, so the discount of
    a commit whose updates are equally stale cancels; `server_lr` is an addition to the paper.

    Attributes:
        weights: what a client counts as: the norm of its product, its examples, those used, or 1.
        padding: what slots that a client lacks count as.
        staleness: how much a late update counts: `constant`, `polynomial`, `hinge` or `product`, each with its
            numbers.
        server_lr: factor of the move.
        prune: share of its rank below which a client prunes itself (gamma); None: never.
        prune_at: when pruned slots stop travelling.
        penalty: weight in the local loss of the last slots' norms (lambda).
    """

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=True, unequal_depths=True, history=False)
    one_pass: ClassVar[bool] = True
    kind: Literal["hetlora"] = "hetlora"
    weights: Literal["norm", "examples", "used", "uniform"] = "norm"
    padding: Padding = "zeros"
    staleness: Staleness = Polynomial(a=0.5)
    server_lr: Positive = 1.0
    prune: Annotated[float, Field(gt=0, lt=1)] | None = None
    prune_at: Literal["upload", "next_visit"] = "upload"
    penalty: NonNegative = 0.0

    @model_validator(mode="after")
    def _penalty_of_what(self) -> HetLoRA:
        if self.penalty and self.prune is None:
            what = "has a `penalty` for slots that are never pruned"
            raise invalid(what, fix="add prune: 0.5, or remove it")
        if self.prune_at != "upload" and self.prune is None:
            raise invalid("has a `prune_at` and prunes nothing", fix="add prune: 0.5, or remove it")
        return self

    @property
    def votes_zero(self) -> bool:
        """With `padding: zeros`."""
        return self.padding == "zeros"

    def init(self, model: ServerModel) -> Ranks:
        """Return the state: nobody has pruned itself."""
        return {}

    def offer(self, state: Ranks, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the slots of the shared adapter that the client still uses; the tag is how many, of how many."""
        asked_of = invitation.rank if invitation.own_rank is None else invitation.own_rank
        own = min(asked_of, state.get(invitation.client, asked_of))
        slots, rank = payload(model.adapter.layout, invitation), min(invitation.rank, own)
        first = self.first(own)
        slot_penalty = (self.penalty, first) if self.penalty and first < rank else None
        return Offer(
            start(model.adapter, replace(invitation, rank=rank)),
            slots,
            slots,
            phase=str(rank) if rank == own else f"{rank} of {own}",
            slot_penalty=slot_penalty,
        )

    def apply(
        self, state: Ranks, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Ranks]:
        """Return the next model, and the ranks from now on."""
        layout = model.adapter.layout
        mean, ranks = SlotMean(layout, self.padding), dict(state)
        for landed in contributions:
            c = _as_used(landed)
            left = self.rank_after(layout, c)
            if left < c.rank:
                ranks[c.client] = min(left, ranks.get(c.client, left))
                c = replace(c, rank=left, own_rank=left) if self.prune_at == "upload" else c
            mean.add(discount(self.staleness, c, model), c, weight=self._weight(layout, c))
        return moved(model, self.server_lr * mean.step(model.adapter.vector)), ranks

    def _weight(self, layout: Layout, c: Contribution) -> float:
        if self.weights == "norm":
            return max(LEAST, product_norm(layout, c.end, c.rank, c.scale))
        return counted(self.weights, c)

    def first(self, rank: int) -> int:
        """Return t: the slots that a client of this rank would have after pruning.

        >>> [HetLoRA(prune=0.7).first(r) for r in (8, 5, 1)]
        [5, 3, 1]
        """
        return rank if self.prune is None else max(1, math.floor(self.prune * rank))

    def rank_after(self, layout: Layout, c: Contribution) -> int:
        """Return the rank of a client after a visit in which it used `c.rank` slots of `c.whole_rank`."""
        first = self.first(c.rank)
        if first == c.rank or c.rank < c.whole_rank:
            return c.rank
        before, after = (norm_beyond(layout, vector, first, c.rank) for vector in (c.start, c.end))
        return first if after < before else c.rank


def _as_used(c: Contribution) -> Contribution:
    """Return a contribution with the ranks that the client really had, from its tag."""
    if not c.phase:
        return c
    used, *of = c.phase.split(" of ")
    own = of[0] if of else used
    return replace(c, rank=min(c.rank, int(used)), own_rank=min(c.whole_rank, int(own)))


def product_norm(layout: Layout, vector: Vector, rank: int, scale: float) -> float:
    """Return |s B A|_F over all modules, of the first `rank` slots."""
    scaled = zip(scales(layout, scale), pairs(layout, vector, rank), strict=True)
    with one_thread():
        return math.sqrt(max(0.0, sum(s**2 * inner(pair, pair) for s, pair in scaled)))


def norm_beyond(layout: Layout, vector: Vector, first: int, rank: int) -> float:
    """Return the sum over modules of |B[:, first:rank]|_F |A[first:rank]|_F."""
    return sum(
        length(b[:, first:].ravel()) * length(a[first:].ravel()) for b, a in pairs(layout, vector, rank)
    )
