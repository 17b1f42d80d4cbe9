"""Rules with one bug each, most of them read in published codes; the contract suite must catch them."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from fedsim.adapters.payload import WHOLE, Payload
from fedsim.aggregators._base import Offer, Traits
from fedsim.component import Component


class Plain(Component):
    """The uniform mean of moves, right."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, history=False)
    one_pass: ClassVar[bool] = False

    def init(self, model):
        return [1.0]

    def offer(self, state, model, ask):
        return Offer(model.adapter.vector, WHOLE, WHOLE)

    def apply(self, state, model, contributions):
        moves = [c.end.astype(np.float64) - c.start for c in contributions]
        return self.to(model, model.adapter.vector + np.mean(moves, axis=0)), state

    def to(self, model, vector):
        return replace(model, adapter=model.adapter.replace(vector.astype(np.float32)))


class WearsOut(Plain):
    """Plato's FedAsync: the mixing rate is multiplied by every discount, for good."""

    def apply(self, state, model, contributions):
        state[0] *= 0.9
        moves = [c.end.astype(np.float64) - c.start for c in contributions]
        return self.to(model, model.adapter.vector + state[0] * np.mean(moves, axis=0)), state


class FirstOnly(Plain):
    """FederatedLLM's FedIT: by a slip of the name, the average is the first client's weights times p_1."""

    def apply(self, state, model, contributions):
        return super().apply(state, model, list(contributions)[:1])


class NeverMovesTheBase(Plain):
    """Says that it moves the base, so clients would be charged a catch-up, and leaves it."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, moves_base=True)


class Forgets(Plain):
    """Weights that do not sum to one, over the clients' weights instead of their moves (FedSmoothLoRA)."""

    def apply(self, state, model, contributions):
        return self.to(model, 0.8 * np.mean([c.end for c in contributions], axis=0)), state


class ClaimsToBeExact(Plain):
    """Averages factors and calls it the average of the updates."""

    traits: ClassVar[Traits] = Traits(exact=True, unequal_ranks=False, history=False)


class GivesTooMuch(Plain):
    """Sends all slots to clients of any rank."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=True, history=False)


class SendsWhatMoved(Plain):
    """Its bytes depend on values: a timeline without training could not know them."""

    def offer(self, state, model, ask):
        extra = int(np.count_nonzero(model.adapter.vector > 0.5))
        return Offer(model.adapter.vector, Payload(extra_floats=extra), WHOLE)


class Peeks(Plain):
    """Says that only A travels, and averages B too."""

    def offer(self, state, model, ask):
        names = tuple(name for name in model.adapter.layout.slices if name.endswith("lora_A"))
        return Offer(model.adapter.vector, WHOLE, Payload(arrays=names))
