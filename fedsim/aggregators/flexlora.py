"""FlexLoRA: average the products, hand out the best approximation of each rank (Bai et al., arXiv 2402.11505)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from fedsim.adapters.adapter import Layout, Module
from fedsim.adapters.moved_base import dense_shape
from fedsim.adapters.products import Pair, completed, one_thread, pairs, scales, stacked, svd, vector_of
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import payload
from fedsim.aggregators._weighting import Weighting
from fedsim.cost.decompositions import factored_svd_flops

Split = Literal["B", "balanced"]
ROUNDING = 1e-12
"""A weight that is zero but for the rounding of float64."""


class FlexLoRA(Weighting):
    """D = sum_k w_k s_k B_k A_k = U S V'; a client of rank r_k gets B = (U S)_{:r_k} / s_k, A = V'_{:r_k}.

    Source: arXiv 2402.11505. The singular values come from thin QR decompositions of the stacked factors
    and an SVD of their core; the dense product is never formed.

    Exact only up to the layout's rank R: the model is off by the tail (sum_{j>R} S_j^2)^1/2, the least that
    rank R can do, so never more than FedIT; a client of rank r_k starts off by its own tail.

    Unequal ranks: yes. The first r_k slots of the model are the best approximation of rank r_k; a saved adapter (`lora.start_from`)
    has no such order, so that it is refused with them.

    Up and down: r_k (in + out) floats a matrix, nothing to catch up with.

    `split`: where S goes. `B` as published: A has orthonormal rows. `balanced`: its root on both sides, so
    that a learning rate means the same to both factors. A slot with S = 0 gets B = 0 and a row of length 1
    in A, for it would never learn again if both were 0. While the product is 0, the factors stay.

    Under staleness everything is in product space, because factors of two versions have nothing to do with
    each other. Client k says X_k, what it would have sent had it started from the model of now:

        X_k = D cut to R_k + s_k (B_k A_k - B_v A_v),    v its own snapshot, as it was sent, R_k its own rank
        D <- D + sum_k w_k (X_k - D),                    w_k with the discount s(tau), see `Weighting`

    A client that did start from the model of now says s_k B_k A_k, so with `normalize: weights` and nobody
    stale D is the published mean. `tail` is about the slots that a small client never had: `voted` (as
    published) takes its silence for zero, so that D's tail shrinks by the weight of small clients in every
    commit, even if nobody learns anything; `kept` has D itself in the place of D cut to R_k. A client that has
    more slots than it was asked for this time (`timely, partial: rank`, `memory.when_short: rank`) is not silent
    about those: it starts from D cut to r_k < R_k and says nothing about the rest.

    Unequal depths: w_k of a layer is over the clients that trained it; a layer that nobody trained keeps its factors.

    Attributes:
        split: where the singular values go.
        tail: what a small client says about slots that it never had.
    """

    traits: ClassVar[Traits] = Traits(
        exact=False,
        unequal_ranks=True,
        unequal_depths=True,
        refactors=True,
        optimizer=False,
        compressible=False,
        history=False,
        unequal_modules=True,
    )
    one_pass: ClassVar[bool] = False
    kind: Literal["flexlora"] = "flexlora"
    split: Split = "B"
    tail: Literal["voted", "kept"] = "voted"

    @property
    def votes_zero(self) -> bool:
        """With `tail: voted`."""
        return self.tail == "voted"

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the best approximation that the client's rank allows, in its scale."""
        sent = payload(model.adapter.layout, invitation)
        return Offer(model.adapter.cut(invitation.rank, invitation.scale), sent, sent)

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the refactored mean of the products."""
        received = list(contributions)
        layout = model.adapter.layout
        with one_thread():
            products = self._products(model, received, self._shares_by_module(received, model))
            now = pairs(layout, model.adapter.vector)
            factors = [
                pair if product is None else refactored(product, pair, m.rank, m.scale, self.split)
                for m, product, pair in zip(layout.modules, products, now, strict=True)
            ]
        return replace(model, adapter=model.adapter.replace(vector_of(layout, factors))), state

    def commit_flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return those of the singular values of the stacked products, sum_k r_k slots wide."""
        return sum(factored_svd_flops(m, n, sum(ranks), rank) for m, n in shapes)

    def _shares_by_module(
        self, contributions: list[Contribution], model: ServerModel
    ) -> list[dict[int, float]]:
        """Return, for every module, w_k of those that trained it, by their place among the contributions."""
        layout = model.adapter.layout
        of_owners: dict[tuple[int, ...], dict[int, float]] = {}
        by_module = []
        for m in layout.modules:
            owners = tuple(
                k for k, c in enumerate(contributions) if f"{m.name}.lora_B" not in layout.below(c.depth)
            )
            if owners not in of_owners:
                shares = self.shares([contributions[k] for k in owners], model) if owners else []
                of_owners[owners] = dict(zip(owners, shares, strict=True))
            by_module.append(of_owners[owners])
        return by_module

    def _products(
        self, model: ServerModel, contributions: list[Contribution], shares: list[dict[int, float]]
    ) -> list[Pair | None]:
        """Return D + sum w_k (X_k - D) of every module, as stacks; None where nobody trained it."""
        layout = model.adapter.layout
        now = _scaled(layout, pairs(layout, model.adapter.vector), None)
        ends = [_scaled(layout, pairs(layout, c.end, c.rank), c.scale) for c in contributions]
        starts: dict[int, list[Pair]] = {}
        cuts: dict[int, int] = {}  # of those that D, cut to so many slots, does not cancel with their start
        for k, c in enumerate(contributions):
            cut = layout.rank if self.tail == "kept" else min(c.whole_rank, layout.rank)
            if cut <= c.rank and _from_now(model, c):
                continue  # D cut to its rank is what it started from: the two would cancel
            starts[k], cuts[k] = _scaled(layout, pairs(layout, c.start, c.rank), c.scale), cut
        return [
            _moved(m, i, now[i], ends, starts, cuts, shares[i], layout.rank) if shares[i] else None
            for i, m in enumerate(layout.modules)
        ]


def _moved(
    module: Module,
    at: int,
    now: Pair,
    ends: Sequence[Sequence[Pair]],
    starts: Mapping[int, Sequence[Pair]],
    cuts: Mapping[int, int],
    shares: Mapping[int, float],
    rank: int,
) -> Pair:
    """Return D + sum w_k (X_k - D) of the module at a place, as a stack."""
    terms: list[tuple[float, Pair]] = []
    weight_by_rank: dict[int, float] = {rank: 1.0 - sum(shares.values())}  # weight of D cut to so many slots
    for k, share in shares.items():
        terms.append((share, ends[k][at]))
        if k in cuts:
            terms.append((-share, starts[k][at]))
            weight_by_rank[cuts[k]] = weight_by_rank.get(cuts[k], 0.0) + share
    for cut, weight in weight_by_rank.items():
        if abs(weight) > ROUNDING:
            terms.append((weight, now.cut(cut)))
    return stacked(terms, *dense_shape(module))


def _from_now(model: ServerModel, c: Contribution) -> bool:
    """Return whether a client started from the model of now, and from no coded copy of it."""
    if c.staleness:
        return False
    start = model.adapter.above(model.adapter.cut(c.rank, c.scale), c.depth)
    return c.start is start or np.array_equal(c.start, start)


def _scaled(layout: Layout, factors: list[Pair], scale: float | None) -> list[Pair]:
    """Return s B and A of every module."""
    return [Pair(s * p.b, p.a) for s, p in zip(scales(layout, scale), factors, strict=True)]


def refactored(product: Pair, now: Pair, rank: int, scale: float, split: Split = "B") -> Pair:
    """Return the B and A of `rank` slots for which scale B A is closest to a product.

    Args:
        product: D as B A, of any width.
        now: the present factors: they stay if D = 0, and A's rows fill slots that D does not need.
        rank: slots.
        scale: s.
        split: where the singular values go: `B`, or their root to both.
    """
    decomposed = svd(product)
    size, rows = decomposed.s[:rank] / scale, decomposed.vt[:rank]
    if not np.any(size > 0):
        return now
    used = size > np.finfo(np.float32).eps * size[0]  # what float32 factors cannot tell from zero is zero
    size = np.where(used, size, 0.0)
    left = decomposed.u[:, :rank] * (size if split == "B" else np.sqrt(size))
    if split == "balanced":
        rows = rows * np.where(used, np.sqrt(size), 1.0)[:, None]
    spare = completed(decomposed.vt[:rank], min(rank, rows.shape[1]), now.a)[len(rows) :]
    return Pair(np.pad(left, ((0, 0), (0, len(spare)))), np.vstack([rows, spare]))
