"""What one visit costs: FLOPs, memory, bytes and joules, from the size of the model alone.

The model that really trains may be tiny while the clock charges a large one (`charge_as`); both are
a `ModelShape` here. Rough by nature: with one calibration point per device and model, times are
good to 10-20 % and energies to 40 %; without one, times to a factor of 2-5.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.architecture import PRESETS, lora_params
from fedsim.charge_as import ChargeAs

__all__ = [
    "PRESETS",
    "ChargeAs",
    "ModelShape",
    "Work",
    "adapter_bytes",
    "backbone_bytes",
    "charged",
    "lora_params",
    "radio_j",
    "train_flops",
    "train_memory_bytes",
    "training_j",
]

CAUSAL = 0.5
"""kappa: a causal kernel computes half of the attention matrix."""
OPTIMIZER_BYTES = 16
"""Per trained parameter: float32 weight, gradient and two AdamW moments, 4 bytes each."""
ACTIVATION_BYTES = 24
"""Kept for the backward pass per layer, token and unit of width, bf16, frozen weights: 20-28 (assumption)."""
FULL_ACTIVATION_BYTES = 34
"""The same when all weights train (Korthikanti et al. 2022, arXiv 2205.05198, without the attention matrix)."""
LOGIT_BYTES = 6
"""Per token and word: bf16 logits and their float32 gradient; between 4 (in place) and 8 (assumption)."""
RUNTIME_BYTES = 0.25e9
"""The app, the runtime and its buffers: 0.2-0.3 GB (assumption)."""
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one number on the wire."""


@dataclass(frozen=True)
class ModelShape:
    """Size of a transformer as the cost model sees it.

    Attributes:
        name: for tables and messages.
        layers, width, vocab: dimensions.
        params: all parameters of the backbone, held in memory at `weight_bytes` each.
        matmul_params: those that multiply every token, the head included (P of the FLOP count).
        adapter_params: trained parameters of the adapters (A of the FLOP count).
        sequence, batch: tokens of a sequence, and sequences held in memory in one pass.
        phi: share of the network that the backward pass goes through.
        full: whether the whole model trains instead of adapters.
        weight_bytes: bytes of one frozen weight.
    """

    name: str
    layers: int
    width: int
    vocab: int
    params: int
    matmul_params: int
    adapter_params: int
    sequence: int
    batch: int
    phi: float = 1.0
    full: bool = False
    weight_bytes: float = 4.0


@dataclass(frozen=True)
class Work:
    """Everything one visit moves, computes and holds, as the clock charges it.

    Attributes:
        down_bytes, up_bytes: payload charged each way.
        flops: floating-point operations of the training.
        memory_bytes: peak memory that training needs.
        tokens: tokens trained on.
        serialized_down_bytes, serialized_up_bytes: bytes of the tensors really serialised.
    """

    down_bytes: int
    up_bytes: int
    flops: float
    memory_bytes: float
    tokens: int
    serialized_down_bytes: int
    serialized_up_bytes: int


def charged(charge: ChargeAs, full: bool) -> ModelShape:
    """Return the shape that `charge_as` declares; `full` trains (and sends) all parameters."""
    arch = charge.architecture
    params = arch.params if charge.params is None else charge.params
    matmul = charge.matmul_params
    if matmul is None:  # of a declared total, all but an untied look-up table multiply
        counted = params - (0 if arch.tied else arch.embedding_params)
        matmul = arch.matmul_params if charge.params is None else max(counted, 1)
    return ModelShape(
        name=charge.preset or "custom",
        layers=arch.layers,
        width=arch.width,
        vocab=arch.vocab,
        params=params,
        matmul_params=matmul,
        adapter_params=params if full else lora_params(arch.targeted(charge.targets), charge.r),
        sequence=arch.sequence,
        batch=charge.batch,
        phi=charge.phi,
        full=full,
        weight_bytes=4.0 if full else charge.weight_bytes,
    )


def train_flops(shape: ModelShape, tokens: int) -> float:
    """Return the floating-point operations of training on `tokens` tokens.

    Adapters: T (2P + 2P phi + 6A + 12 L s d kappa): forward 2P, backward through the activations
    2P phi, no gradients for frozen weights; 4P against the 6P of full training, so LoRA saves at
    most a third. Attention is 4 L s d forward and twice that backward (Kaplan et al., arXiv
    2001.08361, appendix), halved by a causal kernel.
    """
    attention = 12 * shape.layers * shape.sequence * shape.width * CAUSAL
    if shape.full:
        return float(tokens) * (6 * shape.matmul_params + attention)
    frozen = 2 * shape.matmul_params * (1 + shape.phi)
    return float(tokens) * (frozen + 6 * shape.adapter_params + attention)


def train_memory_bytes(shape: ModelShape) -> float:
    """Return the peak memory of training in bytes: weights, optimiser, activations, logits, runtime.

    Full training holds 16 bytes a parameter instead of the frozen weights and 16 A.
    """
    tokens = shape.sequence * shape.batch
    if shape.full:
        held, kept = float(OPTIMIZER_BYTES * shape.params), FULL_ACTIVATION_BYTES
    else:
        held = shape.weight_bytes * shape.params + OPTIMIZER_BYTES * shape.adapter_params
        kept = ACTIVATION_BYTES
    activations = shape.layers * tokens * shape.width * kept
    return held + activations + tokens * shape.vocab * LOGIT_BYTES + RUNTIME_BYTES


def adapter_bytes(shape: ModelShape, dtype: str = "float32") -> int:
    """Return the payload of one update: the adapters, or all parameters if `full`."""
    return ITEM_BYTES[dtype] * (shape.params if shape.full else shape.adapter_params)


def backbone_bytes(shape: ModelShape) -> int:
    """Return the bytes of the frozen weights, which a client without them downloads once."""
    return round(shape.weight_bytes * shape.params)


def training_j(train_w: float, idle_w: float, seconds: float) -> float:
    """Return the energy of training above an idle device [J]; with `idle_w=0`, the gross energy."""
    return (train_w - idle_w) * seconds


def radio_j(radio_w: float, j_per_byte: float, seconds: float, n_bytes: float) -> float:
    """Return the radio's energy above an idle device [J]: a base power while on, a price a byte.

    The form of Huang et al. (MobiSys 2012) for LTE; radio powers leave the idle draw out already.
    """
    return radio_w * seconds + j_per_byte * n_bytes
