"""The model that the clock charges: the one that is trained, or the one that is declared."""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.cost.architecture import lora_params
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.quantised import NOT_HELD, Held, Quantise, quantise_of
from fedsim.cost.shape import ModelShape, above_share


@dataclass(frozen=True)
class Charge:
    """What the clock charges instead of the model that trains.

    Attributes:
        shape: size of the declared model.
        visit_tokens: tokens of a whole visit; None: those really trained on.
    """

    shape: ModelShape
    visit_tokens: int | None = None


def charge_of(charge_as: ChargeAs | None, *, full: bool, quantise: Quantise | None = None) -> Charge | None:
    """Return what a task's `charge_as` declares; None without it. `quantise` is the task's own."""
    if charge_as is None:
        return None
    return Charge(charged(charge_as, full, quantise), charge_as.tokens_per_visit)


def charged(charge: ChargeAs, full: bool, quantise: Quantise | None = None) -> ModelShape:
    """Return the shape that `charge_as` declares; `full` trains (and sends) all parameters.

    Args:
        charge: what is declared.
        full: whether the whole model trains.
        quantise: how frozen weights are held where `charge` does not say it itself.
    """
    arch = charge.architecture
    params = arch.params if charge.params is None else charge.params
    matmul = charge.matmul_params
    if matmul is None:  # of a declared total, all but an untied look-up table multiply
        counted = params - (0 if arch.tied else arch.embedding_params)
        matmul = arch.matmul_params if charge.params is None else max(counted, 1)
    adapted = charge.adapted
    lowest = 0 if full else adapted[0]
    above = above_share(lowest, arch.layers, arch.matmul_params, arch.embedding_params)
    adapters = lora_params(arch.targeted(charge.targets), charge.r) * len(adapted) // arch.layers
    declared = charge.params is not None or charge.matmul_params is not None
    how = quantise if charge.quantise is None else quantise_of(charge.quantise)
    held = NOT_HELD if how is None or full else _held(charge, how, max(0, matmul - arch.embedding_params))
    return ModelShape(
        name=charge.preset or "custom",
        layers=arch.layers,
        width=arch.width,
        vocab=arch.vocab,
        params=params,
        matmul_params=matmul,
        adapter_params=params if full else adapters,
        sequence=arch.sequence,
        batch=charge.batch,
        phi=above if charge.phi is None else charge.phi,
        full=full,
        weight_bytes=4.0 if full else charge.weight_bytes,
        checkpoint=charge.checkpoint,
        lowest=lowest,
        blocks=() if declared else arch.blocks(charge.targets, 0 if full else charge.r, adapted),
        quantised_params=held[0],
        quantised_bytes=held[1],
    )


def _held(charge: ChargeAs, how: Quantise, most: int) -> Held:
    """Return the weights of the charged model that are quantised, and their bytes; `most` weights lie in its layers."""
    params, n_bytes = how.held(i * o for i, o in charge.architecture.targeted(how.modules))
    return (params, n_bytes) if params <= most else (most, how.bytes_of(most))
