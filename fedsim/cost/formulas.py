"""What one visit costs: FLOPs, memory and bytes, from the size of the model alone.

The model that really trains may be tiny while the clock charges a large one (`charge_as`); both are
a `ModelShape` here. Rough by nature: with one calibration point per device and model, times of that batch and
sequence are good to 10-20 % and energies to 40 %; without one, times to a factor of 2-5 and more.
"""

from __future__ import annotations

from fedsim.cost.layers import forward_flops as forward_token_flops
from fedsim.cost.layers import seen_share, token_flops
from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.cost.shape import ModelShape

CAUSAL = 0.5
"""kappa: a causal kernel computes half of the attention matrix."""
OPTIMIZER_BYTES = 16
"""Per trained parameter: float32 weight, gradient and two AdamW moments, 4 bytes each."""
FULL_ACTIVATION_BYTES, ACTIVATION_BYTES = 34, 24
"""Kept for the backward pass per layer, token and unit of width in 16 bit when all weights train (Korthikanti et al. 2022,
arXiv 2205.05198, without the attention matrix), and with frozen weights: a program keeps more or less of both alike."""
KEPT_BYTES = 2
"""Of each number that DoRA keeps for the backward pass, in 16 bit as the other activations."""
COPY_BYTES = 4
"""A quantised weight that is unpacked to bf16 in memory is written and read again, 2 bytes each."""
UPDATE_BYTES = 28
"""AdamW reads weight, gradient and two moments and writes all but the gradient: 7 float32 a trained number."""


def train_flops(shape: ModelShape, tokens: int, *, layered: bool = False) -> float:
    """Return the floating-point operations of training on `tokens` tokens.

    Adapters: T (2P + 2P phi + 6A + 4 s d kappa (L + 2 L')): forward 2P, backward through the activations
    2P phi, no gradients for frozen weights; 4P against the 6P of full training, so LoRA saves at
    most a third. Attention is 4 s d a layer forward and twice that backward (Kaplan et al., arXiv
    2001.08361, appendix) in the L' layers from the lowest adapted one up, halved by a causal kernel, less what windows leave out. Checkpointing computes the layers forward once more
    (not the head), as far down as the backward pass goes.

    With `layered` every matrix product of `shape.blocks` is counted instead: gradients of activations above
    the lowest adapter only, attention as wide as its heads (`fedsim.cost.layers`).

    Raises:
        ValueError: `layered` without known layers.
    """
    if shape.operations is not None:
        return float(tokens) * shape.operations.flops(checkpoint=shape.checkpoint) / shape.sequence
    if layered:
        if not shape.blocks:
            raise ValueError(f"the layers of {shape.name} are not known")
        each = token_flops(
            shape.blocks,
            shape.head_params,
            shape.sequence,
            kappa=CAUSAL,
            full=shape.full,
            checkpoint=shape.checkpoint,
        )
        return float(tokens) * (each + 2 * shape.beside_matmul)
    layer = 4 * shape.sequence * shape.width * CAUSAL * _seen_share(shape)
    if shape.full:
        each = 6 * shape.matmul_params + 3 * layer * shape.layers
    else:
        attention = layer * (shape.layers + 2 * (shape.layers - shape.lowest))
        adapters = 6 * shape.adapter_params + 2 * shape.beside_matmul
        each = 2 * shape.matmul_params * (1 + shape.phi) + adapters + attention
    if shape.checkpoint:
        again = 2 * max(shape.matmul_params - shape.head_params, 0) + layer * shape.layers
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
    attention = 4 * shape.layers * shape.sequence * shape.width * CAUSAL * _seen_share(shape)
    return tokens * (2 * (shape.matmul_params + adapters) + attention)


def _seen_share(shape: ModelShape) -> float:
    """Return the share of causal attention that the windows of the layers leave, where the layers are known."""
    shares = [seen_share(block.window, shape.sequence) for block in shape.blocks]
    return sum(shares) / len(shares) if shares else 1.0


def train_memory_bytes(shape: ModelShape, model: MemoryModel = PLAIN) -> float:
    """Return the peak memory of training in bytes: weights, optimiser, activations, logits, runtime.

    Full training holds 16 bytes a parameter instead of the frozen weights and the adapters. Layers below the lowest
    adapter keep no activations. With checkpointing each of the others keeps its input, and one is live
    at a time.

    Args:
        shape: the model as it is trained.
        model: what the program keeps.
    """
    held = _held_bytes(shape, model) + 4.0 * shape.pass_numbers
    if shape.operations is not None:
        number_bytes = min(4.0, max(shape.weight_bytes, model.least_weight_bytes))
        again = shape.checkpoint or model.recomputes
        each = shape.operations.activation_bytes(checkpoint=again, number_bytes=number_bytes)
        return held + shape.batch * each + model.runtime_bytes
    tokens = shape.held_tokens
    layers = shape.layers - shape.lowest
    kept, live = model.kept_bytes, model.live_bytes
    if shape.full:
        kept, live = (n * FULL_ACTIVATION_BYTES / ACTIVATION_BYTES for n in (kept, live))
    activations = layers * tokens * shape.width * kept
    if shape.checkpoint or model.recomputes:
        activations = (layers * model.boundary_bytes + live) * tokens * shape.width
        activations += tokens * KEPT_BYTES * shape.kept_numbers / max(layers, 1)
    else:
        activations += tokens * KEPT_BYTES * shape.kept_numbers
    logits = min(float(tokens), model.chunk_tokens) * shape.vocab * model.logit_bytes
    return held + activations + logits + model.runtime_bytes


def resting_memory_bytes(shape: ModelShape, model: MemoryModel = PLAIN) -> float:
    """Return what a program holds between two steps: frozen weights, trained numbers, runtime; no activations, no logits.

    Args:
        shape: the model as it is trained.
        model: what the program keeps.
    """
    return _held_bytes(shape, model) + model.runtime_bytes


def _held_bytes(shape: ModelShape, model: MemoryModel) -> float:
    """Return the bytes of weights and of trained numbers with their gradients and moments."""
    if shape.full:
        held = float(OPTIMIZER_BYTES * shape.params)
    else:
        held = _frozen_bytes(shape, model) + model.trained_bytes * shape.trained_params
    beside = 0 if shape.full else shape.beside_params
    return held + 4.0 * shape.resting * (shape.adapter_params + beside)


def _frozen_bytes(shape: ModelShape, model: MemoryModel) -> float:
    """Return the bytes of frozen weights in memory: those that are resident, and the layer that is unpacked."""
    each = max(shape.weight_bytes, model.least_weight_bytes)
    coded = max(shape.quantised_weight_bytes, model.least_weight_bytes)
    untied = shape.params - shape.matmul_params >= shape.head_params
    tables = shape.head_params * (1 + int(untied))
    whole = each * (shape.params - shape.quantised_params) + coded * shape.quantised_params
    whole += max(0.0, model.embedding_bytes - each) * tables
    layer = max(shape.matmul_params - shape.head_params, 0) / max(shape.layers, 1)
    return min(whole, model.resident_bytes) + model.unpacked_bytes * layer


def moved_bytes(shape: ModelShape, steps: int, updates: int, *, copied: bool = False) -> float:
    """Return a lower bound of the memory traffic of `steps` passes and `updates` optimiser steps [bytes].

    Each pass reads the weights once forward and, as far down as it goes, once backward (twice in
    full training, once more with checkpointing); each update goes over the trained numbers. Activations
    are left out: a bound below.

    Args:
        shape: the model; weights of less than 2 bytes count as quantised, too.
        steps: forward and backward passes, accumulated ones counted.
        updates: optimiser steps.
        copied: whether quantised weights are unpacked to bf16 in memory (bitsandbytes) and not on the way
            into the product (llama.cpp).
    """
    weight = shape.weight_bytes + (COPY_BYTES if copied and shape.weight_bytes < 2 else 0)
    backward = 1 + int(shape.full) + int(shape.checkpoint)
    read = steps * weight * shape.matmul_params * (1 + shape.phi * backward)
    narrower = shape.quantised_weight_bytes + (COPY_BYTES if copied else 0) - weight
    read += steps * narrower * shape.multiplied_quantised * (1 + shape.quantised_above * backward)
    return read + float(UPDATE_BYTES * updates) * shape.trained_params


def pass_flops(shape: ModelShape) -> float:
    """Return the operations of each pass whatever its tokens: those of the forward pass, and once more with checkpointing."""
    return shape.pass_flops * (1 + int(shape.checkpoint))


def layer_passes(shape: ModelShape) -> float:
    """Return how many layers one pass goes through: all forward, those from the lowest adapted one up backward.

    With checkpointing the latter are computed once more.
    """
    backward = shape.layers if shape.full else shape.layers - shape.lowest
    return float(shape.layers + backward * (1 + int(shape.checkpoint)))


def expanded_bytes(shape: ModelShape) -> float:
    """Return the bytes that are read and written to unpack quantised weights to 16 bit in one pass; 0 where none are.

    Forward, backward as far down as it goes, and once more with checkpointing: bitsandbytes keeps nothing unpacked.
    """
    passes = 1 + int(shape.checkpoint)
    all_alike = shape.matmul_params if shape.weight_bytes < 2 else 0
    unpacked = all_alike * (shape.weight_bytes + 2) * (1 + shape.phi * passes)
    each = shape.quantised_weight_bytes + 2
    return unpacked + shape.multiplied_quantised * each * (1 + shape.quantised_above * passes)
