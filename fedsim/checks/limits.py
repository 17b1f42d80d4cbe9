"""What does not go together, as one list of limits on facts: a rule's `traits`, and those of a protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedsim.aggregators._base import Traits
from fedsim.clock.protocol import ServerProtocol
from fedsim.personal._base import Personal

Path = tuple[str, ...]
Refusal = tuple[str, str]
"""A sentence, and a way out."""


@dataclass(frozen=True)
class Choice:
    """What of an experiment decides whether its parts go together.

    Attributes:
        rule, traits: kind and traits of the aggregation rule.
        protocol: kind of the protocol, with the setting that matters, if one does.
        stale: whether the protocol lets updates get stale; True where it does not say.
        blends: whether the protocol makes the shared model of several by itself.
        cuts_ranks: whether the protocol asks clients for fewer rank slots than they have.
        ranks: `lora.rank_by`.
        depths: whether clients may have adapters in their last layers only (`lora.depth_by`, `lora.depth`).
        optimizer: kind of the server optimiser.
        top_k: whether only the largest entries of an update are sent.
        feedback: whether clients add what one message left out to the next.
        average: whether an average of the versions is scored and kept (`evaluate.ema`).
        personal: the component; None for none.
        whole: whether whole models are trained, without factors.
    """

    rule: str
    traits: Traits
    protocol: str = "synchronous"
    stale: bool = False
    blends: bool = False
    cuts_ranks: bool = False
    ranks: str = "fixed"
    depths: bool = False
    optimizer: str = "none"
    top_k: bool = False
    feedback: bool = False
    average: bool = False
    personal: Personal | None = None
    whole: bool = False


@dataclass(frozen=True)
class Limit:
    """What does not go together: `asked` and not `able`.

    Attributes:
        path: the key that asks for it.
        asked: whether a choice asks for what is limited.
        able: whether the rest of that choice can do it.
        what: why not; may name fields of the choice in braces.
        fix: a way out.
    """

    path: Path
    asked: Callable[[Choice], bool]
    able: Callable[[Choice], bool]
    what: str
    fix: str


LIMITS: tuple[Limit, ...] = (
    Limit(
        ("lora", "full"),
        lambda c: c.whole,
        lambda c: c.traits.full_model,
        "the rule {rule} is about the factors A and B, and a whole model has none",
        "train adapters (remove lora.full, or task.layout: lora), or set aggregator.kind: fedit",
    ),
    Limit(
        ("protocol",),
        lambda c: c.stale,
        lambda c: c.traits.stale,
        "the rule {rule} has no meaning for updates of earlier versions, and {protocol} lets updates get stale",
        "set protocol.kind: synchronous, or another aggregator",
    ),
    Limit(
        ("protocol",),
        lambda c: c.blends,
        lambda c: c.traits.optimizer and not c.traits.refactors,
        "{protocol} mixes the tiers' adapters by factors, and those of the rule {rule} cannot be mixed across versions",
        "set protocol.across: turns, or aggregator.kind: fedit",
    ),
    Limit(
        ("protocol",),
        lambda c: c.cuts_ranks,
        lambda c: c.traits.unequal_ranks,
        "{protocol} asks slow clients for fewer rank slots, and the rule {rule} needs equal ranks",
        "set protocol.partial: steps, or aggregator.kind: flexlora",
    ),
    Limit(
        ("lora", "rank_by"),
        lambda c: c.ranks != "fixed",
        lambda c: c.traits.unequal_ranks,
        "the rule {rule} needs equal ranks",
        "set lora.rank_by: fixed, or aggregator.kind: flexlora",
    ),
    Limit(
        ("lora", "depth_by"),
        lambda c: c.depths,
        lambda c: c.traits.unequal_depths,
        "the rule {rule} needs everybody's adapters in all layers",
        "remove lora.depth_by, depth and depths, or set aggregator.kind: fedit",
    ),
    Limit(
        ("server_optimizer", "kind"),
        lambda c: c.optimizer != "none",
        lambda c: c.traits.optimizer,
        "{optimizer} steps along the move of the shared factors, and that of the rule {rule} is not one",
        "set server_optimizer.kind: none, or aggregator.kind: fedit",
    ),
    Limit(
        ("wire", "top_k"),
        lambda c: c.top_k,
        lambda c: c.traits.compressible,
        "leaving out small entries makes no sense for what the rule {rule} sends",
        "remove wire.top_k; every rule goes with wire.dtype: bfloat16, int8 and int4",
    ),
    Limit(
        ("wire", "error_feedback"),
        lambda c: c.feedback,
        lambda c: c.traits.compressible,
        "what one message of the rule {rule} left out means nothing in the next one",
        "remove wire.error_feedback",
    ),
    Limit(
        ("evaluate", "ema"),
        lambda c: c.average,
        lambda c: not (c.traits.moves_base or c.traits.refactors),
        "factors of different versions of the rule {rule} do not fit each other, so their average is no model",
        "remove evaluate.ema, or set aggregator.kind: fedit",
    ),
    Limit(
        ("evaluate", "ema"),
        lambda c: c.average,
        lambda c: not c.traits.personal,
        "clients keep a part under the rule {rule}, so there is no one model to average over versions",
        "remove evaluate.ema, or set aggregator.kind: fedit",
    ),
)

"""Limits of rules."""

EVER: tuple[Limit, ...] = (
    Limit(
        ("protocol",),
        lambda c: c.cuts_ranks,
        lambda c: not c.whole,
        "{protocol} asks slow clients for fewer rank slots, and a whole model has none",
        "set protocol.partial: steps",
    ),
    Limit(
        ("lora", "depth_by"),
        lambda c: c.depths,
        lambda c: not c.whole,
        "says which layers carry adapters, and a whole model has none",
        "remove lora.depth_by, depth and depths, or lora.full",
    ),
    Limit(
        ("lora", "depth_by"),
        lambda c: c.depths,
        lambda c: not c.blends,
        "{protocol} mixes the tiers' models whole, and with them layers that a tier has never trained",
        "set protocol.across: turns, or remove lora.depth_by, depth and depths",
    ),
    Limit(
        ("server_optimizer", "kind"),
        lambda c: c.optimizer != "none",
        lambda c: not c.blends,
        "{protocol} makes the shared model of the tiers' models by itself, so {optimizer} has no say",
        "set server_optimizer.kind: none, or protocol.across: turns",
    ),
    Limit(
        ("evaluate", "ema"),
        lambda c: c.average,
        lambda c: c.personal is None or not (c.personal.waits or c.personal.adds_products),
        "the part that clients keep was trained with the versions that they got, and not with an average of them",
        "remove evaluate.ema, or set personal.kind: fine-tune",
    ),
)
"""Limits whatever the rule."""


def words(limit: Limit, choice: Choice) -> Refusal:
    """Return a limit's sentence about a choice, and the way out."""
    return limit.what.format(**vars(choice)), limit.fix


def refusals(choice: Choice) -> list[tuple[Path, Refusal]]:
    """Return what does not go together in a choice: keys, sentence and fix each."""
    refused = [
        (limit.path, words(limit, choice))
        for limit in (*LIMITS, *EVER)
        if limit.asked(choice) and not limit.able(choice)
    ]
    misfit = None if choice.personal is None else choice.personal.misfit(choice.traits, full=choice.whole)
    return refused if misfit is None else [*refused, (("personal", "kind"), misfit)]


def facts(protocol: ServerProtocol) -> dict[str, Any]:
    """Return what a choice holds of a protocol; one that says nothing may let updates get stale."""
    return {
        "protocol": f"the protocol {protocol.kind}",
        "stale": protocol.stale,
        "blends": protocol.blends,
        "cuts_ranks": protocol.cuts_ranks,
    }
