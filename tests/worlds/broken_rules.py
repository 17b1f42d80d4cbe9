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


class Dilutes(Plain):
    """Pads ends of fewer slots with zeros, also those of clients that were only not asked for the others."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=True, history=False)

    def offer(self, state, model, ask):
        slots = Payload(rank=ask.rank)
        return Offer(model.adapter.cut(ask.rank), slots, slots)

    def apply(self, state, model, contributions):
        return self.to(model, np.mean([c.end.astype(np.float64) for c in contributions], axis=0)), state


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


class SpoilsWholeModels(Plain):
    """Right for factors; adds one to everything that is trained whole."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, history=False, full_model=True)

    def apply(self, state, model, contributions):
        after, state = super().apply(state, model, contributions)
        return (after if model.adapter.layout.modules else self.to(after, after.adapter.vector + 1.0)), state


class OwnModelsForAll(Plain):
    """Gives a client a model of its own and does not say so."""

    def client_model(self, model, client):
        return model.adapter.vector


class SendsDoubles(Plain):
    """Starts clients from numbers that no message of float32 can carry."""

    def offer(self, state, model, ask):
        return Offer(model.adapter.vector.astype(np.float64) / 3.0, WHOLE, WHOLE)


BROKEN = [
    ("WearsOut", "changes_nothing_and_answers_alike", "two models for the same contributions"),
    ("FirstOnly", "does_not_depend_on_the_order", "depends on the order"),
    ("NeverMovesTheBase", "keeps_the_shape", "has a base of version 0 after 1 commits, its traits say 1"),
    ("Forgets", "leaves_the_model_if_nobody_moved", "although nobody moved"),
    ("Dilutes", "takes_nothing_for_slots_that_were_not_asked_for", r"when clients train \[4, 2, 3, 1\]"),
    ("ClaimsToBeExact", "is_exact_if_it_says_so", "says that it is exact, and is .* off"),
    ("GivesTooMuch", "offers_are_pure", "slots that a client of rank 2 does not have"),
    ("SendsWhatMoved", "bytes_do_not_depend_on_values", "values of the model decide what travels"),
    ("Peeks", "what_stays_at_home_is_not_used", "uses what its clients do not send"),
    ("OwnModelsForAll", "keeps_parts_for_clients_if_it_says_so", "keeps models for its clients"),
    ("SpoilsWholeModels", "whole_models_are_averaged_if_it_says_so", "a whole model although nobody moved"),
    ("SendsDoubles", "payloads_are_the_bytes_they_count", "is not what was sent"),
]
"""Each rule, the property that it breaks, and what is said of it."""
