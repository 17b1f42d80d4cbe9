"""What a token costs, layer by layer: every matrix product of a transformer, forward and backward.

LoRA freezes the weights, so what the backward pass computes depends on where the adapters are: forward
everywhere, gradients of activations only above the lowest adapter, gradients of weights for adapters
alone. Counted as stock PEFT on eager attention performs it, product by product; softmax, norms,
activation functions and rotary tables are left out, as in Kaplan et al. (arXiv 2001.08361).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


class Map(NamedTuple):
    """One linear map: (inputs, outputs), the rank of its adapter (0: it has none), and what of the map itself trains."""

    inputs: int
    outputs: int
    rank: int = 0
    trains: Literal["", "bias", "weight"] = ""

    @property
    def forward(self) -> int:
        """FLOPs of a token forward: 2 i o of the weights, 2 r (i + o) of the adapter."""
        return 2 * self.inputs * self.outputs + 2 * self.rank * (self.inputs + self.outputs)

    def backward(self, *, enters: bool, full: bool) -> int:
        """FLOPs of a token backward.

        2 i o if the gradient `enters` below the map, as much for the weights if they train (`full`);
        of the adapter 2 r o for B, 2 r o through B, 2 r i for A, and 2 r i through A if it enters.
        """
        weights = full or self.trains == "weight"
        flops = 2 * self.inputs * self.outputs * (int(enters) + int(weights))
        return flops + 2 * self.rank * (2 * self.outputs + self.inputs * (1 + int(enters)))

    def leaves(self, *, enters: bool, full: bool) -> bool:
        """Whether what comes out of the map has a gradient."""
        return enters or full or self.rank > 0 or self.trains != ""


@dataclass(frozen=True)
class Layer:
    """One transformer block.

    Attributes:
        qkv: the maps into attention: q, k, v, or one that is all three (GPT-2).
        out: the map out of attention.
        up: the maps into the MLP (gate and up, or one).
        down: the map out of it.
        attention: heads x head size, the width over which scores are computed.
        window: how many of the last tokens a token sees, itself included; 0: all.
        parallel: whether the MLP reads what attention reads, and not what comes after it.
        norms_train: whether a normalisation before the maps trains, so that what enters them has a gradient.
    """

    qkv: tuple[Map, ...]
    out: Map
    up: tuple[Map, ...]
    down: Map
    attention: int
    window: int = 0
    parallel: bool = False
    norms_train: bool = False

    @property
    def maps(self) -> Iterator[Map]:
        """All linear maps of the layer."""
        yield from (*self.qkv, self.out, *self.up, self.down)

    @property
    def adapted(self) -> bool:
        """Whether any map carries an adapter."""
        return any(m.rank for m in self.maps)

    @property
    def adapter_params(self) -> int:
        """Parameters of the layer's adapters."""
        return sum(m.rank * (m.inputs + m.outputs) for m in self.maps)

    def forward(self, sequence: int, kappa: float) -> float:
        """FLOPs of a token forward; attention is two products of 2 s q each, times the share that is computed."""
        return sum(m.forward for m in self.maps) + 4 * self.attention * self.scores(sequence, kappa)

    def scores(self, sequence: int, kappa: float) -> float:
        """Return the scores of a token that are computed: s of eager attention, of a causal kernel those that it sees.

        A kernel that leaves half of the s x s scores out (kappa = 1/2) leaves out what lies beyond the window, too:
        a triangle of sides s - window.
        """
        if kappa == 1.0:
            return float(sequence)
        return sequence * kappa * seen_share(self.window, sequence)

    def backward(self, sequence: int, kappa: float, *, enters: bool, full: bool) -> tuple[float, bool]:
        """Return the FLOPs of a token backward, and whether the layer's output has a gradient.

        Of the four products of attention's backward pass, those towards q, k and v are computed for
        the ones that have a gradient, and the one towards the scores if q or k has.
        """
        enters = enters or self.norms_train
        have = [m.leaves(enters=enters, full=full) for m in self.qkv]
        q, k, v = have if len(have) == 3 else have * 3
        products = q + k + v + (q or k)
        flops = sum(m.backward(enters=enters, full=full) for m in self.qkv)
        flops += self.out.backward(enters=q or k or v, full=full)
        beside = self.out.leaves(enters=q or k or v, full=full)
        middle = enters or (beside and not self.parallel)
        flops += sum(m.backward(enters=middle, full=full) for m in self.up)
        inner = any(m.leaves(enters=middle, full=full) for m in self.up)
        flops += self.down.backward(enters=inner, full=full)
        after = middle or beside or self.down.leaves(enters=inner, full=full)
        return flops + 2 * self.attention * self.scores(sequence, kappa) * products, after


def seen_share(window: int, sequence: int) -> float:
    """Return the share of a causal triangle of scores that a window leaves (0: all).

    >>> seen_share(0, 8), seen_share(8, 8), seen_share(4, 8)
    (1.0, 1.0, 0.75)
    """
    if not 0 < window < sequence:
        return 1.0
    return 1.0 - (1.0 - window / sequence) ** 2


def token_flops(
    layers: Sequence[Layer], head: int, sequence: int, *, kappa: float, full: bool, checkpoint: bool
) -> float:
    """Return the FLOPs of training on one token.

    Args:
        layers: the blocks, lowest first.
        head: weights of the output head, which every token multiplies.
        sequence: tokens of a sequence, for attention's quadratic term.
        kappa: share of the attention matrix that is computed: 1, or 0.5 by a causal kernel.
        full: whether all weights train (the embedding then has a gradient too).
        checkpoint: whether layers with a gradient are computed forward once more.
    """
    total, enters = 0.0, full
    for layer in layers:
        forward = layer.forward(sequence, kappa)
        backward, leaves = layer.backward(sequence, kappa, enters=enters, full=full)
        total += forward + backward + (forward if checkpoint and leaves else 0.0)
        enters = leaves
    return total + 2 * head * (1 + int(enters) + int(full))


def forward_flops(layers: Sequence[Layer], head: int, sequence: int, *, kappa: float) -> float:
    """Return the FLOPs of one token forward; the arguments are those of `token_flops`."""
    return sum(layer.forward(sequence, kappa) for layer in layers) + 2 * head
