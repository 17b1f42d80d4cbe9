"""FedSA-LoRA: clients share A and keep B (Guo et al., arXiv 2410.01463)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal

from fedsim.adapters.adapter import Layout, Vector
from fedsim.aggregators._base import Contribution, Invitation, Offer, ServerModel, Traits
from fedsim.aggregators._factors import SEED_FLOATS, Averaging, kept_by, payload, shared, start


class FedSA(Averaging):
    """A <- A + server_lr sum_i p_i (A_i - A at its dispatch); client k keeps B_k and uses s B_k A.

    Source: arXiv 2410.01463, section 4; `personalization.local_param: ['lora_B']` of its code. There is no
    global product, so nothing to be exact about: the server's own B stays 0, and every client is scored
    with its B_k and the present A. A client that has not been asked yet has B = 0: its adapter does nothing.

    Unequal ranks: a client has the first r_k rows of A and as many columns of its B; rows of A that few
    have are diluted by `padding: zeros` and are not by `rows`.

    Up: A, r_k in floats a matrix. Down: the same; at the first visit, if nobody has moved A, a 64-bit seed.

    Under staleness: moves of A are discounted; B_k is the client's own and always its last one. It was
    trained with an A that the server has mixed with others since, also without staleness. A client whose
    visit has landed is asked again after its commit (its B is not known before), and one whose update is
    lost goes on from the B of its last commit.
    """

    traits: ClassVar[Traits] = Traits(
        exact=False,
        unequal_ranks=True,
        unequal_depths=True,
        personal=True,
        history=True,
        beside=True,
        unequal_modules=True,
        draws_a=True,
    )
    one_pass: ClassVar[bool] = True
    kind: Literal["fedsa"] = "fedsa"

    def kept_floats(self, layout: Layout) -> int:
        """Return the size of B."""
        return int(layout.of_factor("B").sum())

    def init(self, model: ServerModel) -> bool:
        """Return the state: whether A has been committed."""
        return False

    def offer(self, state: bool, model: ServerModel, invitation: Invitation) -> Offer:
        """Return the shared A and the client's own B to start from; A alone travels."""
        layout = model.adapter.layout
        up = down = payload(layout, invitation, shared(layout, "A"))
        if invitation.last_seen is None and not state:
            down = replace(payload(layout, invitation, ()), extra_floats=SEED_FLOATS)
        return Offer(self._start(model, invitation), down, up)

    def _start(self, model: ServerModel, invitation: Invitation) -> Vector:
        if invitation.client not in model.personal:
            return start(model.adapter, invitation)
        return start(model.adapter.replace(self.client_model(model, invitation.client)), invitation)

    def apply(
        self, state: bool, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, bool]:
        """Return the model with the next A, and every contributor's B as it ended."""
        mean, personal, layout = self.mean_of(model), model.personal, model.adapter.layout
        private = layout.of_factor("B")
        for c in contributions:
            self.take(mean, self._as_seen_by(c, model), c, "A")
            before = self.client_model(replace(model, personal=personal), c.client)
            personal = personal.including({c.client: kept_by(layout, c, before)[private]})
        return replace(self.moved(model, mean), personal=personal), True

    def _as_seen_by(self, c: Contribution, model: ServerModel) -> ServerModel:
        """Return the model with the client's own B, in whose product a `product` discount measures change."""
        if self.staleness.kind != "product" or c.staleness == 0:
            return model
        private = model.adapter.layout.of_factor("B")
        return _with_b(model, kept_by(model.adapter.layout, replace(c, end=c.start), None)[private])

    def client_model(self, model: ServerModel, client: int) -> Vector:
        """Return a client's model in the layout's rank and scale: the shared A, its own B (0 if it has none)."""
        b = model.personal.get(client)
        return (model if b is None else _with_b(model, b)).adapter.vector


def _with_b(model: ServerModel, b: Vector) -> ServerModel:
    """Return the model with other B, all of them one after the other."""
    vector = model.adapter.vector.copy()
    vector[model.adapter.layout.of_factor("B")] = b
    return replace(model, adapter=model.adapter.replace(vector))
