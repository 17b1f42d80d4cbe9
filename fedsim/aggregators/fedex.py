"""FedEx-LoRA: average the factors, and put what that misses into the base (Singhal et al., arXiv 2410.09432)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import Base, dense_shape
from fedsim.adapters.payload import WHOLE, Payload
from fedsim.adapters.products import Pair, best, one_thread, pairs, stacked, vector_of
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._weighting import Weighting
from fedsim.config.fields import Count
from fedsim.cost.decompositions import factored_svd_flops, product_flops

ROUNDING = 1e-12
"""A weight that is zero but for the rounding of float64."""


class Point(NamedTuple):
    """A pair of factors for every module, and how much of it the new model has; the weights of all sum to 1."""

    weight: float
    factors: list[Pair]


class FedEx(Weighting):
    """A <- mean of A_k, B <- mean of B_k as in FedIT, and W <- W + s (mean of B_k A_k - mean B mean A).

    Source: arXiv 2410.09432, with the clients weighted (see `Weighting`). Exact: base and adapter together
    have moved by the weighted mean of the clients' products. Unlike FLoRA it goes on from warm factors.

    The residual is sum_k w_k (B_k - mean B)(A_k - mean A), of rank (K - 1) r at most, and is kept as
    [w_k (B_k - mean B)]_{k<K} [A_k - A_K]_{k<K}. It is the residual of the product as (out, in): a GPT-2
    Conv1D holds its weight transposed, and there (only there) so is what is added. `residual_rank` keeps its
    best approximation of that rank (Eckart and Young); the model is then off by the tail of its singular values.

    Unequal ranks: no.

    Up: r (in + out) floats a matrix. Down: as much, and the residuals since the client's last download:
    (K - 1) r (in + out) each (`residual_rank` instead of (K - 1) r), or the dense change if that is less.

    Under staleness: factors move by sum w_k (end_k - start_k), each against the client's own snapshot, and
    base and adapter together by sum w_k s (B_k A_k - B_v A_v). Both are affine combinations, with the same
    weights, of the ends (w_k), the snapshots (-w_k) and the model itself (1); so the residual is again the
    weighted covariance of those points, of rank (points - 1) r, whatever `normalize` and the discount s(tau),
    which multiplies moves in product space. Nobody stale and `normalize: weights`: the published rule.
    A client that started from a coded copy of a snapshot counts as if its move began at the snapshot itself.

    Attributes:
        residual_rank: rank that the residual is cut to; None: exact.
    """

    traits: ClassVar[Traits] = Traits(exact=True, unequal_ranks=False, moves_base=True, optimizer=False)
    one_pass: ClassVar[bool] = False
    kind: Literal["fedex"] = "fedex"
    residual_rank: Count | None = None

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def offer(self, state: Any, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the shared adapter, and what the base has moved by since the client's last download."""
        missed = 0 if model.base is None else model.base.catch_up_floats(invitation.last_seen)
        return Offer(model.adapter.vector, Payload(extra_floats=missed), WHOLE)

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the mean factors over the base with their residual."""
        received = list(contributions)
        layout = model.adapter.layout
        with one_thread():
            points = affine(layout, model.adapter.vector, received, self.shares(received, model))
            means, changes = [], []
            for i, module in enumerate(layout.modules):
                mean, residual = covariance([(p.weight, p.factors[i]) for p in points], *dense_shape(module))
                change = Pair(module.scale * residual.b, residual.a)
                changes.append(change if self.residual_rank is None else best(change, self.residual_rank))
                means.append(mean)
            base = (model.base or Base.pretrained(layout)).moved(changes)
        return replace(model, adapter=model.adapter.replace(vector_of(layout, means)), base=base), state

    def commit_flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return those of the residual, of K - 1 times r slots: cut by its singular values if asked, and added up dense."""
        width = max(0, len(ranks) - 1) * rank
        if self.residual_rank is None:
            return sum(product_flops(m, width, n) for m, n in shapes)
        kept = min(self.residual_rank, width)
        return sum(
            factored_svd_flops(m, n, width, kept) + product_flops(m, kept, n) for m, n in shapes if width
        )


def affine(
    layout: Layout, now: Vector, contributions: Sequence[Contribution], shares: Sequence[float]
) -> list[Point]:
    """Return now + sum_k w_k (end_k - start_k) as points whose weights sum to 1.

    Contributions of one version share one snapshot, that of this version is the model itself; which
    points there are follows from versions and weights, not from values.
    """
    current = pairs(layout, now)
    snapshots: dict[int, tuple[Vector, list[Pair]]] = {}
    present, taken, ends = 1.0, dict[int, float](), []
    for c, share in zip(contributions, shares, strict=True):
        end = pairs(layout, c.end)
        if c.staleness == 0:
            seen, shared = current, now
            present -= share
        else:
            shared, seen = snapshots.setdefault(c.version, (c.start, pairs(layout, c.start)))
            taken[c.version] = taken.get(c.version, 0.0) - share
        if (
            c.start is not shared
        ):  # a snapshot that was coded on its way: the move counts, from the shared one
            started = zip(seen, end, pairs(layout, c.start), strict=True)
            end = [Pair(s.b + (e.b - o.b), s.a + (e.a - o.a)) for s, e, o in started]
        ends.append(Point(share, end))
    points = [Point(present, current)] if abs(present) > ROUNDING else []
    return [*points, *(Point(w, snapshots[v][1]) for v, w in taken.items()), *ends]


def covariance(points: Sequence[tuple[float, Pair]], m: int, n: int) -> tuple[Pair, Pair]:
    """Return (mean B, mean A) and sum w B A - mean B mean A, for weights that sum to 1.

    The second is [w_i (B_i - mean B)]_{i<p} [A_i - A_p]_{i<p}, because sum w_i (B_i - mean B) = 0.
    """
    mean = Pair(
        sum((w * pair.b for w, pair in points[1:]), points[0][0] * points[0][1].b),
        sum((w * pair.a for w, pair in points[1:]), points[0][0] * points[0][1].a),
    )
    last = points[-1][1].a
    return mean, stacked([(w, Pair(pair.b - mean.b, pair.a - last)) for w, pair in points[:-1]], m, n)
