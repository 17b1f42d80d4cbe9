"""What one visit costs: FLOPs, memory and bytes, from the size of the model alone.

The model that really trains may be tiny while the clock charges a large one (`charge_as`); both are
a `ModelShape` here. Rough by nature: with one calibration point per device and model, times are
good to 10-20 % and energies to 40 %; without one, times to a factor of 2-5.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fedsim.architecture import PRESETS, lora_params
from fedsim.charge_as import ChargeAs
from fedsim.energy import radio_j, training_j
from fedsim.layers import Layer, Map, token_flops
from fedsim.layers import forward_flops as forward_token_flops
from fedsim.operations import Operations

__all__ = [
    "PRESETS",
    "ChargeAs",
    "ModelShape",
    "Work",
    "adapter_bytes",
    "backbone_bytes",
    "charged",
    "declared",
    "forward_flops",
    "lora_params",
    "moved_bytes",
    "radio_j",
    "train_flops",
    "train_memory_bytes",
    "training_j",
    "with_rank",
    "with_rank_share",
]

CAUSAL = 0.5
"""kappa: a causal kernel computes half of the attention matrix."""
OPTIMIZER_BYTES = 16
"""Per trained parameter: float32 weight, gradient and two AdamW moments, 4 bytes each."""
ACTIVATION_BYTES = 24
"""Kept for the backward pass per layer, token and unit of width, bf16, frozen weights: 20-28 (assumption)."""
FULL_ACTIVATION_BYTES = 34
"""The same when all weights train (Korthikanti et al. 2022, arXiv 2205.05198, without the attention matrix)."""
CHECKPOINT_BYTES = 2
"""Kept per layer, token and unit of width with checkpointing: the layer's input in bf16; one layer is live."""
LOGIT_BYTES = 6
"""Per token and word: bf16 logits and their float32 gradient; between 4 (in place) and 8 (assumption)."""
RUNTIME_BYTES = 0.25e9
"""The app, the runtime and its buffers: 0.2-0.3 GB (assumption)."""
COPY_BYTES = 4
"""A quantised weight that is unpacked to bf16 in memory is written and read again, 2 bytes each."""
UPDATE_BYTES = 28
"""AdamW reads weight, gradient and two moments and writes all but the gradient: 7 float32 a trained number."""
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
        checkpoint: whether activations are recomputed instead of kept.
        lowest: index of the lowest adapted layer; those below keep no activations.
        resting: further adapters of that size in memory, in float32, while one is trained.
        blocks: the layers with their maps, lowest first, where they are known; else empty.
        operations: of one sequence, where they were counted on the model; they then replace all formulas.
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
    checkpoint: bool = False
    lowest: int = 0
    resting: int = 0
    blocks: tuple[Layer, ...] = field(default=(), compare=False, repr=False)
    operations: Operations | None = field(default=None, compare=False, repr=False)

    @property
    def head_params(self) -> int:
        """Weights of the output head."""
        return self.vocab * self.width

    @property
    def rank(self) -> int:
        """The largest rank of the adapters; 0 where the layers are not known or all weights train."""
        if self.operations is not None:
            return self.operations.rank
        return max((m.rank for block in self.blocks for m in block.maps), default=0)


@dataclass(frozen=True)
class Work:
    """Everything one visit moves, computes and holds, as the clock charges it.

    Attributes:
        down_bytes, up_bytes: payload charged each way.
        flops: floating-point operations of the training.
        memory_bytes: peak memory that training needs.
        tokens: tokens trained on.
        serialized_down_bytes, serialized_up_bytes: bytes of the tensors really serialised.
        steps: forward and backward passes, accumulated ones counted.
        moved_bytes: bytes through the device's memory that no cache saves.
        memory_plan: what was done so that it fits.
    """

    down_bytes: int
    up_bytes: int
    flops: float
    memory_bytes: float
    tokens: int
    serialized_down_bytes: int
    serialized_up_bytes: int
    steps: int = 1
    moved_bytes: float = 0.0
    memory_plan: str = "fits"


def declared(charge: Any, full: bool) -> ModelShape:
    """Return the shape of a task's `charge_as`: its own, or a transformer's."""
    own = getattr(charge, "shape", None)
    found: ModelShape = charged(charge, full) if own is None else own(full=full)
    return found


def charged(charge: ChargeAs, full: bool) -> ModelShape:
    """Return the shape that `charge_as` declares; `full` trains (and sends) all parameters."""
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
    )


def above_share(lowest: int, layers: int, matmul_params: int, head_params: int) -> float:
    """Return phi: the share of the network from the lowest adapted layer up, the head included."""
    return 1.0 - lowest * (matmul_params - head_params) / layers / matmul_params


def train_flops(shape: ModelShape, tokens: int, *, layered: bool = False) -> float:
    """Return the floating-point operations of training on `tokens` tokens.

    Adapters: T (2P + 2P phi + 6A + 12 L s d kappa): forward 2P, backward through the activations
    2P phi, no gradients for frozen weights; 4P against the 6P of full training, so LoRA saves at
    most a third. Attention is 4 L s d forward and twice that backward (Kaplan et al., arXiv
    2001.08361, appendix), halved by a causal kernel. Checkpointing computes the layers forward once more
    (not the head), as far down as the backward pass goes.

    With `layered` every matrix product of `shape.blocks` is counted instead: gradients of activations above
    the lowest adapter only, attention as wide as its heads (`fedsim.layers`).

    Raises:
        ValueError: `layered` without known layers.
    """
    if shape.operations is not None:
        return float(tokens) * shape.operations.flops(checkpoint=shape.checkpoint) / shape.sequence
    if layered:
        if not shape.blocks:
            raise ValueError(f"the layers of {shape.name} are not known")
        return float(tokens) * token_flops(
            shape.blocks,
            shape.head_params,
            shape.sequence,
            kappa=CAUSAL,
            full=shape.full,
            checkpoint=shape.checkpoint,
        )
    attention = 12 * shape.layers * shape.sequence * shape.width * CAUSAL
    if shape.full:
        each = 6 * shape.matmul_params + attention
    else:
        each = 2 * shape.matmul_params * (1 + shape.phi) + 6 * shape.adapter_params + attention
    if shape.checkpoint:
        again = 2 * max(shape.matmul_params - shape.head_params, 0) + attention / 3
        each += again * shape.phi if shape.full else (again + 2 * shape.adapter_params) * shape.phi
    return float(tokens) * each


def forward_flops(shape: ModelShape, tokens: int, *, layered: bool = False) -> float:
    """Return the floating-point operations of one forward pass over `tokens` tokens.

    T (2P + 2A + 4 L s d kappa), without A for a whole model; the forward part of `train_flops`.

    Raises:
        ValueError: `layered` without known layers.
    """
    if shape.operations is not None:
        return float(tokens) * shape.operations.forward / shape.sequence
    if layered:
        if not shape.blocks:
            raise ValueError(f"the layers of {shape.name} are not known")
        return tokens * forward_token_flops(shape.blocks, shape.head_params, shape.sequence, kappa=CAUSAL)
    adapters = 0 if shape.full else shape.adapter_params
    attention = 4 * shape.layers * shape.sequence * shape.width * CAUSAL
    return tokens * (2 * (shape.matmul_params + adapters) + attention)


def train_memory_bytes(shape: ModelShape) -> float:
    """Return the peak memory of training in bytes: weights, optimiser, activations, logits, runtime.

    Full training holds 16 bytes a parameter instead of the frozen weights and 16 A. Layers below the lowest
    adapter keep no activations. With checkpointing each of the others keeps its input, and one is live
    at a time.
    """
    tokens = shape.sequence * shape.batch
    if shape.full:
        held, kept = float(OPTIMIZER_BYTES * shape.params), FULL_ACTIVATION_BYTES
    else:
        held = shape.weight_bytes * shape.params + OPTIMIZER_BYTES * shape.adapter_params
        kept = ACTIVATION_BYTES
    held += 4.0 * shape.resting * shape.adapter_params
    if shape.operations is not None:
        each = shape.operations.activation_bytes(
            checkpoint=shape.checkpoint, number_bytes=min(4.0, shape.weight_bytes)
        )
        return held + shape.batch * each + RUNTIME_BYTES
    layers = shape.layers - shape.lowest
    activations = layers * tokens * shape.width * kept
    if shape.checkpoint:
        activations = (layers * CHECKPOINT_BYTES + kept) * tokens * shape.width
    return held + activations + tokens * shape.vocab * LOGIT_BYTES + RUNTIME_BYTES


def moved_bytes(shape: ModelShape, steps: int, updates: int, *, copied: bool = False) -> float:
    """Return a lower bound of the memory traffic of `steps` passes and `updates` optimiser steps [bytes].

    Each pass reads the weights once forward and, as far down as it goes, once backward (twice in
    full training, once more with checkpointing); each update goes over the trained numbers. Activations
    are left out: a bound below.

    Args:
        shape: the model; weights of less than 2 bytes are quantised.
        steps: forward and backward passes, accumulated ones counted.
        updates: optimiser steps.
        copied: whether quantised weights are unpacked to bf16 in memory (bitsandbytes) and not on the way
            into the product (llama.cpp).
    """
    weight = shape.weight_bytes + (COPY_BYTES if copied and shape.weight_bytes < 2 else 0)
    reads = 1 + shape.phi * (1 + int(shape.full) + int(shape.checkpoint))
    trained = shape.params if shape.full else shape.adapter_params
    return steps * weight * shape.matmul_params * reads + float(UPDATE_BYTES * updates) * trained


def with_rank(shape: ModelShape, rank: int) -> ModelShape:
    """Return the model with adapters of this rank where it had some.

    Raises:
        ValueError: the shape has no known adapters.
    """
    if not shape.rank:
        raise ValueError(f"{shape.name} has no adapters of known rank")
    if shape.operations is not None:
        adapters = shape.adapter_params * rank // shape.rank
        return replace(shape, adapter_params=adapters, operations=shape.operations.at_rank(rank))

    def ranked(m: Map) -> Map:
        return m._replace(rank=rank) if m.rank else m

    blocks = tuple(
        replace(
            b,
            qkv=tuple(map(ranked, b.qkv)),
            out=ranked(b.out),
            up=tuple(map(ranked, b.up)),
            down=ranked(b.down),
        )
        for b in shape.blocks
    )
    return replace(shape, blocks=blocks, adapter_params=sum(b.adapter_params for b in blocks))


def with_rank_share(shape: ModelShape, rank: int, of: int) -> ModelShape:
    """Return the model with adapters of rank/of their size: of that share of their rank, rounded, where it is known.

    A client of rank 4 where the server trains 8 is charged half the declared rank.
    """
    if rank == of or shape.full:
        return shape
    if shape.rank:
        return with_rank(shape, max(1, round(shape.rank * rank / of)))
    return replace(shape, adapter_params=round(shape.adapter_params * rank / of))


def adapter_bytes(shape: ModelShape, dtype: str = "float32") -> int:
    """Return the payload of one update: the adapters, or all parameters if `full`."""
    return ITEM_BYTES[dtype] * (shape.params if shape.full else shape.adapter_params)


def backbone_bytes(shape: ModelShape) -> int:
    """Return the bytes of the frozen weights, which a client without them downloads once."""
    return round(shape.weight_bytes * shape.params)
