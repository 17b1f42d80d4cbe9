"""FedSVD: clients train B; now and then the server makes A orthonormal (Lee et al., arXiv 2505.12805)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from fedsim.adapters.adapter import Layout
from fedsim.adapters.payload import Payload
from fedsim.adapters.products import Matrix, Pair, completed, one_thread, pairs, svd, vector_of
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import SEED_FLOATS, factor, refuse_moved
from fedsim.aggregators._weighting import Weighting
from fedsim.config.fields import Count
from fedsim.cost.decompositions import factored_svd_flops


@dataclass(frozen=True)
class Turns:
    """What the rule remembers.

    Attributes:
        version: commits so far.
        changed_a: the last version that changed A; 0: A is as it began.
    """

    version: int = 0
    changed_a: int = 0


class FedSVD(Weighting):
    """B <- B + sum_k w_k (B_k - B_v); every `period` commits B A = U S V', then A <- V', B <- U S.

    Source: arXiv 2505.12805. Between refactorisations A is frozen, as in FFA-LoRA, and the rule is exact:
    sum_k w_k B_k A = (sum_k w_k B_k) A. A refactorisation keeps the product, whose rank is at most r, and
    gives A orthonormal rows, A A' = I: B's gradient, G A', is then no longer stretched along some directions.
    It does not widen the search: the row space of A, in which all updates lie, stays that of the first A.

    Unequal ranks: no. Unequal depths: w_k of a layer is over those that trained it.

    Up: B, r out floats a matrix. Down: B, and A, r in floats, to a client that has not downloaded since A
    last changed; the first A is drawn from a seed (8 bytes, at the first visit).

    Under staleness: exactly linear. Between refactorisations a move of B means the same whichever version it
    comes from. Across one, (B_k - B_v) A_v is the same move as (B_k - B_v)(A_v A^+) A, because both A have one
    row space (A^+ is the pseudo-inverse); s(tau) multiplies that product.

    With `wire.down_dtype` below float32 it is neither linear nor exact: the A that comes down is rounded out of the row
    space of the server's, and of what a client learned with it (A_v above) the server keeps the part in that space. A
    client has the rounded A until the next refactorisation.

    Attributes:
        period: commits between two refactorisations.
    """

    traits: ClassVar[Traits] = Traits(
        exact=True,
        unequal_ranks=False,
        unequal_depths=True,
        refactors=True,
        optimizer=False,
        compressible=False,
        unequal_modules=True,
        draws_a=True,
    )
    one_pass: ClassVar[bool] = True
    kind: Literal["fedsvd"] = "fedsvd"
    period: Count = 1

    def init(self, model: ServerModel) -> Turns:
        """Return the state: A is as it began."""
        return Turns()

    def offer(self, state: Turns, model: ServerModel, invitation: Invitation) -> Offer:
        """Return both factors to start from, B to train, and what of them travels."""
        layout = model.adapter.layout
        only_b = Payload(factor(layout, "B"))
        down, seen = only_b, invitation.last_seen
        if state.changed_a and (seen is None or seen < state.changed_a):
            down = Payload()
        elif seen is None:
            down = replace(only_b, extra_floats=SEED_FLOATS)
        return Offer(model.adapter.vector, down, only_b, trains="B")

    def apply(
        self, state: Turns, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Turns]:
        """Return the model with the next B, in new factors if it is time.

        Raises:
            RunError: a client moved A, which it was asked to freeze.
        """
        layout = model.adapter.layout
        with one_thread():
            now = pairs(layout, model.adapter.vector)
            sums = [_Moves(np.zeros_like(pair.b)) for pair in now]
            for c in contributions:
                refuse_moved(c, layout, "A")
                weight, below = self.raw(c, model), layout.below(c.depth)
                for module, so_far, move in zip(
                    layout.modules, sums, moves_of_b(layout, c, model, now), strict=True
                ):
                    if f"{module.name}.lora_B" not in below:
                        so_far.add(weight, move)
            after = [self._moved(pair, so_far) for pair, so_far in zip(now, sums, strict=True)]
            version = state.version + 1
            turn = version % self.period == 0
            if turn:
                after = [orthonormal(pair) for pair in after]
        turns = Turns(version, version if turn else state.changed_a)
        return replace(model, adapter=model.adapter.replace(vector_of(layout, after))), turns

    def _moved(self, pair: Pair, moves: _Moves) -> Pair:
        """Return a module's factors with B moved; as they are where nobody trained it."""
        if not moves.count:
            return pair
        rate = self.server_lr / self.whole(moves.weight, moves.count)
        return Pair(pair.b + rate * moves.sum, pair.a)

    def commit_flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return those of new factors, spread over the commits of a period."""
        return sum(factored_svd_flops(m, n, rank, rank) for m, n in shapes) / self.period


@dataclass
class _Moves:
    """Moves of one module's B: their weighted sum, the weight and the number of those that trained it."""

    sum: Matrix
    weight: float = 0.0
    count: int = 0

    def add(self, weight: float, move: Matrix) -> None:
        """Take one client's."""
        np.add(self.sum, weight * move, out=self.sum)
        self.weight, self.count = self.weight + weight, self.count + 1


def moves_of_b(layout: Layout, c: Contribution, model: ServerModel, now: list[Pair]) -> list[Matrix]:
    """Return how far a client moved B of every module, in terms of the present A."""
    started, ended = pairs(layout, c.start), pairs(layout, c.end)
    moves = []
    for old, new, pair in zip(started, ended, now, strict=True):
        move = new.b - old.b
        same = c.start is model.adapter.vector or np.array_equal(old.a, pair.a)
        moves.append(move if same else move @ (old.a @ np.linalg.pinv(pair.a)))
    return moves


def orthonormal(pair: Pair) -> Pair:
    """Return U S and V' of B A = U S V', in as many slots: the same product, and A A' = I.

    If there are more slots than inputs, those beyond are zero.
    """
    u, s, vt = svd(pair)
    rows = completed(vt, min(pair.width, vt.shape[1]), pair.a)
    return Pair(np.pad(u * s, ((0, 0), (0, len(rows) - len(s)))), rows).padded(pair.width)
