"""FLoRA: stack the clients' factors and fold the stack into the base (Wang et al., arXiv 2409.05976)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import Base
from fedsim.adapters.payload import Payload
from fedsim.adapters.products import Pair, one_thread, pairs, scales, stacked
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import SEED_FLOATS, payload
from fedsim.aggregators._weighting import Weighting
from fedsim.cost.decompositions import product_flops
from fedsim.rng import stream


@dataclass(frozen=True)
class Origin:
    """What the rule remembers of version 0.

    Attributes:
        vector: the adapter as LoRA began it.
        seed: taken from its bytes, so that experiments of different seeds draw different factors.
    """

    vector: Vector = field(repr=False)
    seed: int


class FLoRA(Weighting):
    """W <- W + [w_1 s_1 B_1 .. w_K s_K B_K] [A_1; ..; A_K]; then every adapter begins anew, with B = 0.

    Source: arXiv 2409.05976. The weights w_k (see `Weighting`) stand on one side of the stack only: on both
    it would be sum w_k^2 s_k B_k A_k.

    Exact: the base moves by the weighted mean of the clients' products, whatever their ranks and scales.
    What it costs is a cold start: after B = 0 the first local step of every round moves B alone.

    `reinit`: the A that clients begin with is drawn anew at every version (`fresh`, as published), or is
    that of version 0 again (`first`). Fresh is the default because that first step stays in the row space
    of the initial A: with one A for all rounds it would be the same r directions every time.

    Unequal ranks: yes. A client of rank r_k begins with the first r_k rows of A.

    Up: r_k (in + out) floats a matrix. Down: no factor at all, since B = 0 and A is drawn from a seed (8
    bytes, at the first visit); but everything that was folded into the base since the client's last download:
    (in + out) sum r_k of every stack that it missed, or the dense change, in x out, if that is less.

    Under staleness: a client's product was learned over the base of its own version v, and is folded into
    the base of now. s(tau) multiplies that product: it is exactly linear in product space, and nothing but
    the age of the gradient is lost. Should a snapshot have a B that is not 0, what counts is the product's
    move, s_k (B_k A_k - B_v A_v), and the model's own adapter is folded with the stack.

    Attributes:
        reinit: the A that clients begin with: drawn anew (`fresh`), or that of version 0 (`first`).
    """

    traits: ClassVar[Traits] = Traits(
        exact=True,
        unequal_ranks=True,
        moves_base=True,
        refactors=True,
        optimizer=False,
        compressible=False,
        draws_a=True,
    )
    one_pass: ClassVar[bool] = False
    kind: Literal["flora"] = "flora"
    reinit: Literal["fresh", "first"] = "fresh"

    def init(self, model: ServerModel) -> Origin:
        """Return the adapter of version 0 and the seed of the later ones."""
        vector = model.adapter.vector
        digest = hashlib.sha256(vector.tobytes()).digest()
        return Origin(vector, int.from_bytes(digest[:8], "little") >> 1)

    def offer(self, state: Origin, model: ServerModel, invitation: Invitation) -> Offer:
        """Return an adapter that does nothing yet; the missed stacks travel instead of it."""
        seed = SEED_FLOATS if invitation.last_seen is None else 0
        missed = 0 if model.base is None else model.base.catch_up_floats(invitation.last_seen)
        down = Payload(arrays=(), extra_floats=seed + missed)
        return Offer(model.adapter.cut(invitation.rank), down, payload(model.adapter.layout, invitation))

    def apply(
        self, state: Origin, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Origin]:
        """Return the model over the moved base."""
        received = list(contributions)
        layout = model.adapter.layout
        before = model.base or Base.pretrained(layout)
        with one_thread():
            terms = _products(layout, model.adapter.vector, None, None, 1.0)
            for c, w in zip(received, self.shares(received, model), strict=True):
                terms += _products(layout, c.end, c.rank, c.scale, w, always=True)
                terms += _products(layout, c.start, c.rank, c.scale, -w)
            base = before.moved([_stack(terms, i) for i in range(len(layout.modules))])
        adapter = model.adapter.replace(self._begun(state, layout, base))
        return replace(model, adapter=adapter, base=base), state

    def commit_flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return those of the stack of all updates, sum_k r_k slots wide, added up dense."""
        return sum(product_flops(m, sum(ranks), n) for m, n in shapes)

    def _begun(self, state: Origin, layout: Layout, base: Base) -> Vector:
        """Return the adapter of a version: B = 0, A uniform in +-1/sqrt(in), LoRA's own initialisation."""
        vector = np.where(layout.slots(None, "A"), state.vector, np.float32(0.0))
        if self.reinit == "fresh":
            arrays = layout.arrays(vector)
            for m in layout.modules:
                unit = stream(state.seed, "flora", base.version, m.name).random(m.a_shape, dtype=np.float32)
                bound = np.float32(1.0 / math.sqrt(math.prod(m.a_shape[1:])))
                arrays[f"{m.name}.lora_A"][...] = (2 * unit - 1) * bound
        return vector


Term = tuple[float, list[Pair], list[float]]
"""A weight, the factors of every module, and the scale of every module."""


def _products(
    layout: Layout,
    vector: Vector,
    rank: int | None,
    scale: float | None,
    weight: float,
    *,
    always: bool = False,
) -> list[Term]:
    """Return the term of one vector's products; none if they are all zero because B is (unless `always`)."""
    factors = pairs(layout, vector, rank)
    if not always and not any(np.any(pair.b) for pair in factors):
        return []
    return [(weight, factors, scales(layout, scale))]


def _stack(terms: list[Term], module: int) -> Pair:
    """Return sum w s B A of one module, as one pair."""
    m, n = terms[0][1][module].b.shape[0], terms[0][1][module].a.shape[1]
    return stacked([(weight * scale[module], factors[module]) for weight, factors, scale in terms], m, n)
