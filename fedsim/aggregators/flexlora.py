"""FlexLoRA: average the products, hand out the best approximation of each rank (Bai et al., arXiv 2402.11505)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from fedsim.adapters.adapter import Layout
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

    Unequal ranks: yes. The first r_k slots of the model are the best approximation of rank r_k.

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

    Attributes:
        split: where the singular values go.
        tail: what a small client says about slots that it never had.
    """

    traits: ClassVar[Traits] = Traits(
        exact=False,
        unequal_ranks=True,
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
            products = self._products(model, received, self.shares(received, model))
            now = pairs(layout, model.adapter.vector)
            factors = [
                refactored(product, pair, m.rank, m.scale, self.split)
                for m, product, pair in zip(layout.modules, products, now, strict=True)
            ]
        return replace(model, adapter=model.adapter.replace(vector_of(layout, factors))), state

    def commit_flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return those of the singular values of the stacked products, sum_k r_k slots wide."""
        return sum(factored_svd_flops(m, n, sum(ranks), rank) for m, n in shapes)

    def _products(
        self, model: ServerModel, contributions: list[Contribution], shares: list[float]
    ) -> list[Pair]:
        """Return D + sum w_k (X_k - D) of every module, as stacks."""
        layout = model.adapter.layout
        terms: list[tuple[float, list[Pair]]] = []
        now = _scaled(layout, pairs(layout, model.adapter.vector), None)
        weight_by_rank: dict[int, float] = {
            layout.rank: 1.0 - sum(shares)
        }  # weight of D cut to so many slots
        for c, share in zip(contributions, shares, strict=True):
            terms.append((share, _scaled(layout, pairs(layout, c.end, c.rank), c.scale)))
            cut = layout.rank if self.tail == "kept" else min(c.whole_rank, layout.rank)
            if cut <= c.rank and _from_now(model, c):
                continue  # D cut to its rank is what it started from: the two would cancel
            terms.append((-share, _scaled(layout, pairs(layout, c.start, c.rank), c.scale)))
            weight_by_rank[cut] = weight_by_rank.get(cut, 0.0) + share
        for rank, weight in weight_by_rank.items():
            if abs(weight) > ROUNDING:
                terms.append((weight, [pair.cut(rank) for pair in now]))
        return [
            stacked([(weight, factors[i]) for weight, factors in terms], *dense_shape(m))
            for i, m in enumerate(layout.modules)
        ]


def _from_now(model: ServerModel, c: Contribution) -> bool:
    """Return whether a client started from the model of now, and from no coded copy of it."""
    if c.staleness:
        return False
    start = model.adapter.cut(c.rank, c.scale)
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
