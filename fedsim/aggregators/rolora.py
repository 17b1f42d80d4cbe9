"""RoLoRA: clients train B in one commit and A in the next (Chen et al., arXiv 2502.01755)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import SEED_FLOATS, Averaging, payload, refuse_moved, shared, start
from fedsim.config.fields import Count

Phase = Literal["A", "B"]


@dataclass(frozen=True)
class Phases:
    """What the rule remembers.

    Attributes:
        version: commits so far.
        changed_a, changed_b: the last version that moved A, and B; 0: still as it began.
    """

    version: int = 0
    changed_a: int = 0
    changed_b: int = 0


class RoLoRA(Averaging):
    """Even versions train B with A frozen, odd ones A with B frozen; B first.

        phase B:  B <- B + server_lr sum_i p_i (B_i - B at its dispatch)
        phase A:  A <- A + server_lr sum_i p_i (A_i - A at its dispatch)

    Source: arXiv 2502.01755, algorithm 1 (phases by parity of the round); B comes first because an A-phase
    from B = 0 has no gradient. `period` commits make a phase. Exact in every commit whose contributions are
    all of its phase and fresh: sum_i p_i B_i A = (sum_i p_i B_i) A, and likewise for A. In such a commit
    `server_lr` is a step of the product, too; where both factors move it multiplies dB dA twice.

    Unequal ranks (nested): a client has the first r_k slots of both factors; padding with zeros is exact
    phase by phase. It pulls the last rows of A towards 0, as it does to B: see `padding`.

    Up: the factor of the phase, r_k out or r_k in floats a matrix. Down: what the client does not have. It
    keeps the adapter that its last visit ended with, so it downloads the factor that it trained then and the
    other one if that has changed since, or if it had fewer slots then: one factor a round under full participation. While nobody has moved
    A it is drawn from a 64-bit seed (8 bytes), and B is 0 and not sent, to clients that come for the first time.

    Under staleness: every contribution carries its phase, and moves the factor that it trained, discounted by
    s(tau), also when it lands in a commit of the other phase (`other_phase: apply`); then both factors move
    in one commit, each by its clients' share of that commit, and the cross term dB dA appears: exactness ends.
    With `wire.down_dtype` a factor that came down rounded stays rounded for that client until it is sent again.
    `other_phase: drop` leaves them out; a commit of nothing else then makes a version that moved nothing.

    Attributes:
        period: commits of a phase.
        other_phase: what an update that lands in the other phase does.
    """

    traits: ClassVar[Traits] = Traits(
        exact=True,
        unequal_ranks=True,
        unequal_depths=True,
        optimizer=False,
        history=True,
        beside=True,
        unequal_modules=True,
        draws_a=True,
    )
    one_pass: ClassVar[bool] = True
    kind: Literal["rolora"] = "rolora"
    period: Count = 1
    other_phase: Literal["apply", "drop"] = "apply"

    @property
    def drops_updates(self) -> bool:
        """With `other_phase: drop`, those of the other phase."""
        return self.other_phase == "drop"

    def phase(self, version: int) -> Phase:
        """Return the factor that clients of a version train.

        >>> [RoLoRA().phase(v) for v in range(4)], [RoLoRA(period=2).phase(v) for v in range(4)]
        (['B', 'A', 'B', 'A'], ['B', 'B', 'A', 'A'])
        """
        return "A" if version // self.period % 2 else "B"

    def init(self, model: ServerModel) -> Phases:
        """Return the state: nothing has moved."""
        return Phases()

    def offer(self, state: Phases, model: ServerModel, invitation: Invitation) -> Offer:
        """Return both factors to start from, the one to train, and what of them travels."""
        layout, phase = model.adapter.layout, self.phase(state.version)
        up = payload(layout, invitation, shared(layout, phase))
        return Offer(
            start(model.adapter, invitation),
            self._down(state, model, invitation),
            up,
            trains=phase,
            phase=phase,
        )

    def _down(self, state: Phases, model: ServerModel, invitation: Invitation) -> Payload:
        layout, seen = model.adapter.layout, invitation.last_seen
        if seen is None:
            missing = [f for f, changed in (("A", state.changed_a), ("B", state.changed_b)) if changed]
            extra = 0 if state.changed_a else SEED_FLOATS
        else:
            trained, fewer = self.phase(seen), (invitation.last_rank or invitation.rank) < invitation.rank
            changes = (("A", state.changed_a), ("B", state.changed_b))
            missing = [f for f, changed in changes if changed > seen or f == trained or (fewer and changed)]
            extra = 0
        names = [name for name, axis in layout.slot_axes.items() if axis is not None and name[-1] in missing]
        if state.version or seen is not None:  # what is trained beside the factors moves in every phase
            names += [tensor.name for tensor in layout.beside]
        return replace(payload(layout, invitation, tuple(names)), extra_floats=extra)

    def apply(
        self, state: Phases, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Phases]:
        """Return the model with the next B or A.

        Raises:
            RunError: a client moved the factor that its phase freezes.
        """
        mean, now, taken = self.mean_of(model), self.phase(state.version), set[str]()
        for c in contributions:
            refuse_moved(c, model.adapter.layout, "A" if c.phase == "B" else "B")
            if c.phase == now or self.other_phase == "apply":
                self.take(mean, model, c, c.phase)
                taken.add(c.phase)
        version = state.version + 1
        after = Phases(
            version,
            version if "A" in taken else state.changed_a,
            version if "B" in taken else state.changed_b,
        )
        return (self.moved(model, mean) if taken else model), after
