"""What does not go together, as one list of limits on facts: a rule's `traits`, and those of a protocol."""

from __future__ import annotations

from typing import Any

from fedsim.checks.choice import Choice, Limit, Path, Refusal
from fedsim.clock.protocol import ServerProtocol

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
        ("task", "quantise"),
        lambda c: c.quantised,
        lambda c: not c.traits.moves_base,
        "the rule {rule} adds to the frozen weights at every commit, which quantised ones cannot take up",
        "set task.quantise: none, or aggregator.kind: fedit",
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
    Limit(
        ("evaluate", "keep_best"),
        lambda c: c.best,
        lambda c: not c.traits.personal,
        "clients keep a part under the rule {rule}, so no one adapter is what was scored",
        "remove evaluate.keep_best, or set aggregator.kind: fedit",
    ),
    Limit(
        ("lora", "dora"),
        lambda c: c.dora,
        lambda c: c.traits.beside,
        "the rule {rule} works with products B A alone, and DoRA's weight is W + s B A with another length of each row",
        "remove lora.dora, or set aggregator.kind: fedit",
    ),
    Limit(
        ("lora", "bias"),
        lambda c: c.bias != "none",
        lambda c: c.traits.beside,
        "the rule {rule} works with the factors A and B alone, and biases are none",
        "set lora.bias: none, or aggregator.kind: fedit",
    ),
    Limit(
        ("lora", "modules_to_save"),
        lambda c: bool(c.saved),
        lambda c: c.traits.beside,
        "the rule {rule} works with the factors A and B alone, and a module that is trained whole has none",
        "remove lora.modules_to_save, or set aggregator.kind: fedit",
    ),
    Limit(
        ("lora",),
        lambda c: c.patterned,
        lambda c: c.traits.unequal_modules,
        "the rule {rule} needs modules of one rank and one alpha, and rank_pattern and alpha_pattern make them differ",
        "remove both patterns, or set aggregator.kind: fedit",
    ),
    Limit(
        ("lora", "start_from"),
        lambda c: c.started,
        lambda c: not c.traits.draws_a,
        "clients of the rule {rule} draw the first A from a seed, and that of a saved adapter comes from a file",
        "remove lora.start_from, or set aggregator.kind: fedit",
    ),
)

"""Limits of rules."""

EVER: tuple[Limit, ...] = (
    Limit(
        ("task", "quantise"),
        lambda c: c.quantised,
        lambda c: not c.whole,
        "quantised weights are frozen, and a whole model trains all of its weights",
        "set task.quantise: none, or remove lora.full",
    ),
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
        ("lora", "depth_by"),
        lambda c: c.depths,
        lambda c: not c.beside,
        "gives clients the factors of their last layers, and here more than the factors is trained",
        "remove lora.depth_by, depth and depths, or lora.dora, bias and modules_to_save",
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
    Limit(
        ("evaluate", "keep_best"),
        lambda c: c.best,
        lambda c: c.personal is None or not c.personal.waits,
        "clients keep a part of the model that never travels, so no one adapter is what was scored",
        "remove evaluate.keep_best, or set personal.kind: fine-tune",
    ),
    Limit(
        ("protocol",),
        lambda c: c.cuts_ranks,
        lambda c: not c.patterned,
        "{protocol} asks slow clients for fewer rank slots, and rank_pattern and alpha_pattern give them by module",
        "set protocol.partial: steps, or remove both patterns",
    ),
    Limit(
        ("lora", "rank_by"),
        lambda c: c.ranks != "fixed",
        lambda c: not c.patterned,
        "gives ranks by device, and rank_pattern and alpha_pattern give them by module, to everybody",
        "set lora.rank_by: fixed, or remove both patterns",
    ),
    Limit(
        ("personal", "kind"),
        lambda c: c.personal is not None and c.personal.adds_products,
        lambda c: not c.patterned and not c.beside,
        "adds two products B A of one scale, and here modules differ in it or more than the factors is trained",
        "remove lora.dora, bias, modules_to_save, rank_pattern and alpha_pattern, or choose another personal.kind",
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
