"""What the rules over the factors A and B share: cuts, scales, and averages slot by slot.

The server's factors have the layout's rank and scale s. A client of rank r_k and scale s_k gets the
first r_k slots, B times s / s_k, and what it sends back counts as B times s_k / s: both keep
s_k B_k A_k = s B A, whatever the scales, and cost nothing where they are equal.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Adapter, Layout, Vector
from fedsim.adapters.payload import Payload
from fedsim.adapters.sums import WeightedSum
from fedsim.adapters.units import in_server_units, server_units
from fedsim.aggregators._base import Contribution, Invitation, ServerModel
from fedsim.aggregators._staleness import discount
from fedsim.aggregators._steps import UnequalSteps
from fedsim.aggregators._weighting import Normalize, Weighting, counted, divisor
from fedsim.errors import RunError, message

Padding = Literal["zeros", "moves", "rows"]

SEED_FLOATS = 2
"""A 64-bit seed, from which a client draws the initial A itself, in floats of four bytes."""


class Averaging(Weighting):
    """Settings of the rules that move the model by an average of the clients' moves.

    Attributes:
        padding: what a client without a slot says about it: see `SlotMean`.
        unequal_steps: whether clients that make more steps count more (`ignore`, as FedAvg does), or all alike
            (`fednova`: `fedsim.aggregators._steps`).
    """

    padding: Padding = "zeros"
    unequal_steps: UnequalSteps = "ignore"

    @property
    def votes_zero(self) -> bool:
        """With `padding: zeros`."""
        return self.padding == "zeros"

    def mean_of(self, model: ServerModel) -> SlotMean:
        """Return an empty average with these settings."""
        return SlotMean(model.adapter.layout, self.padding, self.normalize, self.unequal_steps)

    def take(self, mean: SlotMean, model: ServerModel, c: Contribution, trains: str = "AB") -> None:
        """Add one client to an average; see `SlotMean.add`."""
        mean.add(self.discount(model, c), c, weight=counted(self.weight, c), trains=trains)

    def discount(self, model: ServerModel, c: Contribution) -> float:
        """Return s_i."""
        return discount(self.staleness, c, model)

    def moved(self, model: ServerModel, mean: SlotMean) -> ServerModel:
        """Return the model `server_lr` times the average away."""
        return moved(model, self.server_lr * mean.step(model.adapter.vector))


def moved(model: ServerModel, step: NDArray[np.float64]) -> ServerModel:
    """Return the model one step away; numbers whose step is 0 keep their bits."""
    before = model.adapter.vector
    after = np.where(step == 0, before, (before + step).astype(np.float32))
    return replace(model, adapter=model.adapter.replace(after))


def factor(layout: Layout, which: Literal["A", "B"]) -> tuple[str, ...]:
    """Return the names of all modules' A, or of all modules' B."""
    return tuple(f"{m.name}.lora_{which}" for m in layout.modules)


def shared(layout: Layout, which: Literal["A", "B"]) -> tuple[str, ...]:
    """Return the names of all modules' A, or B, and of what is trained beside the factors, which goes with either."""
    return (*factor(layout, which), *(tensor.name for tensor in layout.beside))


def payload(layout: Layout, invitation: Invitation, arrays: tuple[str, ...] | None = None) -> Payload:
    """Return the first `invitation.rank` slots of these arrays (None: of all)."""
    return _payload(arrays, invitation.rank if invitation.rank < layout.rank else None)


@lru_cache(maxsize=256)
def _payload(arrays: tuple[str, ...] | None, rank: int | None) -> Payload:
    """Return one object for equal payloads: they are looked up at every visit."""
    return Payload(arrays, rank)


def start(adapter: Adapter, invitation: Invitation) -> Vector:
    """Return what a client starts from, its slots in its own scale: one array for all clients of a kind."""
    same = server_units(adapter.layout, invitation.scale) is None
    return adapter.cut(invitation.rank, None if same else invitation.scale)


def refuse_moved(c: Contribution, layout: Layout, frozen: Literal["A", "B"]) -> None:
    """Check that a client left the frozen factor alone, to the bit.

    Raises:
        RunError: it did not: what it trained belongs to another product than the server's.
    """
    for name in factor(layout, frozen):
        place, _ = layout.slices[name]
        if not np.array_equal(c.start[place], c.end[place]):
            what = f"client {c.client}, visit {c.visit} moved {name}, which it was asked to freeze"
            raise RunError(message("aggregator", what, fix="let the task's training honour `Job.trains`"))


def kept_by(layout: Layout, c: Contribution, before: Vector | None) -> Vector:
    """Return what a client keeps of its end, in the layout's shape and the server's units.

    Slots and layers that it did not train this time stay as they were `before` (None: 0).
    """
    end = in_server_units(layout, c.end, c.scale)
    if c.rank >= layout.rank and not layout.below(c.depth):
        return end
    return np.where(layout.slots(c.rank, depth=c.depth), end, np.float32(0.0) if before is None else before)


class SlotMean:
    """The average of clients' moves, taken slot by slot, in one pass that keeps none of them.

    With D_i = end_i - start_i in the server's units, w_i = s_i n_i (normalize: weights) or s_i, and
    for every number of the vector the set O of clients that have its slot, the step is

        moves:  sum_{i in O} w_i D_i / W                      a client without the slot does not move it
        zeros:  (sum_{i in O} w_i D_i - x sum_{i in Z} w_i) / W    it says 0 where the server has x
        rows:   sum_{i in O} w_i D_i / W_O                    it has no say: row-normalised averaging

    W = sum w_i (weights), K = number of clients (K) or 1 (none); W_O is the same over O alone, and a
    slot that nobody has stays. Z are the clients whose own rank does not reach the slot. One that has the slot and
    was not asked for it this time (`Contribution.own_rank`) is in neither O nor Z: it does not move it. So a
    protocol or a lack of memory that cuts ranks takes nothing from the model. With nobody stale and normalize:
    weights, x + step is the mean of the clients' ends, padded with zeros (zeros) or over the owners (rows: RBLA,
    arXiv 2408.08699). All three agree for equal ranks.

    With `unequal_steps: fednova`, D_i is tau_eff D_i / |a_i|_1 (`fedsim.aggregators._steps`), tau_eff the mean of
    |a_i|_1 by w_i; with rows over the owners of each slot.

    A factor that a client did not train is a move of 0, whatever the padding.

    A layer below a client's depth (`Contribution.depth`) is none of its business, whatever the padding: W, K and tau_eff
    of a layer are over those that trained it, and a layer that nobody trained stays.
    """

    def __init__(
        self,
        layout: Layout,
        padding: Padding = "zeros",
        normalize: Normalize = "weights",
        unequal_steps: UnequalSteps = "ignore",
    ) -> None:
        self._layout, self._padding, self._normalize = layout, padding, normalize
        self._nova, self._by_count = unequal_steps == "fednova", normalize in ("K", "none")
        self._groups: dict[tuple[int, int, float, str, int | None], _Group] = {}
        self._weight, self._count = 0.0, 0

    def add(
        self, discount: float, c: Contribution, *, weight: float | None = None, trains: str = "AB"
    ) -> None:
        """Take one client.

        Args:
            discount: s_i.
            c: what landed.
            weight: n_i; None: the client's examples.
            trains: factors that may move; the others are not looked at.
        """
        share = discount if self._by_count else discount * (c.examples if weight is None else weight)
        key = (c.rank, c.whole_rank, c.scale, trains, c.depth if self._layout.below(c.depth) else None)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(self._layout, *key)
        steps = c.effective_steps if self._nova else 1.0
        group.sum.add(share / steps if steps > 0 else 0.0, c.end, c.start)
        group.weight += share
        group.steps += share * steps
        group.count += 1
        self._weight += share
        self._count += 1

    def step(self, before: Vector) -> NDArray[np.float64]:
        """Return the step away from `before`, the server's vector; exactly 0 where nobody moved anything.

        Raises:
            RunError: all weights are 0.
        """
        whole = divisor(self._normalize, self._weight, self._count)
        groups = list(self._groups.values())
        by_layer = any(group.depth is not None for group in groups)
        by_owners = self._padding == "rows" and not all(group.whole for group in groups)
        alone = by_owners or by_layer
        mean_steps = self._mean_steps(groups, by_owners=by_owners) if self._nova else None
        total = np.zeros(self._layout.size)
        for group in groups:
            moves = group.moves()
            total += moves if mean_steps is None else mean_steps * moves
            if self._padding == "zeros" and group.absent is not None:
                total -= np.where(group.absent, group.weight * before.astype(np.float64), 0.0)
        if self._normalize == "none":
            return total
        if not alone:
            return total / whole
        owners = np.zeros(self._layout.size)
        for group in groups:
            there = group.owned if by_owners else group.layers
            owners += there * (group.count if self._by_count else group.weight)
        return np.divide(total, owners, out=np.zeros_like(total), where=owners > 0)

    def _mean_steps(self, groups: list[_Group], *, by_owners: bool) -> NDArray[np.float64]:
        """Return tau_eff of every slot: of all clients that trained its layer, or of its owners."""
        steps, weight = np.zeros(self._layout.size), np.zeros(self._layout.size)
        for group in groups:
            there = group.owned if by_owners else group.layers
            steps += np.where(there, group.steps, 0.0)
            weight += np.where(there, group.weight, 0.0)
        return np.divide(steps, weight, out=np.zeros_like(steps), where=weight > 0)


class _Group:
    """Clients of one rank, own rank, scale, set of trained factors and depth: their sum, and what they have and lack."""

    def __init__(
        self, layout: Layout, rank: int, own_rank: int, scale: float, trains: str, depth: int | None
    ) -> None:
        self.sum = WeightedSum(layout.size)
        self.weight, self.steps, self.count, self.depth = 0.0, 0.0, 0, depth
        self._units = server_units(layout, scale)
        self.whole = rank >= layout.rank
        self.owned, self.layers = layout.slots(rank, depth=depth), layout.slots(depth=depth)
        lacks = own_rank < layout.rank
        self.absent = (
            layout.slots(None, trains, depth) & ~layout.slots(own_rank, depth=depth) if lacks else None
        )
        everything = self.whole and trains == "AB" and depth is None
        self._moving = None if everything else layout.slots(rank, trains, depth)

    def moves(self) -> NDArray[np.float64]:
        """Return the weighted sum of the moves in the server's units, 0 outside of what they train."""
        moves = self.sum.value()
        if self._units is not None:
            moves *= self._units
        return moves if self._moving is None else np.where(self._moving, moves, 0.0)
