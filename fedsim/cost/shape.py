"""A model as far as costs go: its parameters, adapters and layers, at any rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fedsim.cost.layers import Layer, Map
from fedsim.cost.operations import Operations

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ModelShape:
    """Size of a transformer as the cost model sees it.

    Attributes:
        name: for tables and messages.
        layers, width, vocab: dimensions.
        params: all parameters of the backbone, held in memory at `weight_bytes` each, the quantised ones apart.
        matmul_params: those that multiply every token, the head included (P of the FLOP count).
        adapter_params: trained parameters of the adapters (A of the FLOP count).
        sequence, batch: tokens of a sequence (on average), and sequences held in memory in one pass.
        phi: share of the network that the backward pass goes through.
        full: whether the whole model trains instead of adapters.
        weight_bytes: bytes of one frozen weight that is not quantised.
        checkpoint: whether activations are recomputed instead of kept.
        lowest: index of the lowest adapted layer; those below keep no activations.
        longest: tokens of the longest sequence, which must fit the memory; None: all are equal.
        resting: further adapters of that size in memory, in float32, while one is trained.
        blocks: the layers with their maps, lowest first, where they are known; else empty.
        operations: of one sequence, where they were counted on the model; they then replace all formulas.
        beside_params: numbers that are trained beside the adapters, whatever their rank: magnitudes, biases, whole modules.
        beside_matmul: those of them that multiply every token and are in no known layer: the head, if it trains.
        pass_flops: operations of each pass through the model, however many tokens: DoRA's lengths of W + s B A.
        kept_numbers: what a token keeps for the backward pass besides: DoRA's two results of each adapted map.
        pass_numbers: float32 numbers that lie in memory for a while in each pass: of the widest adapted map under DoRA.
        quantised_params, quantised_bytes: of `params` those whose weights are quantised (`fedsim.cost.quantised`), all in
            the layers, and the bytes of their codes and scales.
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
    longest: int | None = None
    resting: int = 0
    blocks: tuple[Layer, ...] = field(default=(), compare=False, repr=False)
    operations: Operations | None = field(default=None, compare=False, repr=False)
    beside_params: int = 0
    beside_matmul: int = 0
    pass_flops: float = 0.0
    kept_numbers: int = 0
    pass_numbers: int = 0
    quantised_params: int = 0
    quantised_bytes: int = 0

    @property
    def trained_params(self) -> int:
        """Numbers that are trained and sent: of the adapters and beside them, or all of the model."""
        return self.params if self.full else self.adapter_params + self.beside_params

    @property
    def quantised_weight_bytes(self) -> float:
        """Bytes of a quantised weight, its share of the scales included; 0 where none is quantised."""
        return self.quantised_bytes / self.quantised_params if self.quantised_params else 0.0

    @property
    def multiplied_quantised(self) -> int:
        """Quantised weights that multiply a token: all, but of experts those that see it."""
        return min(self.quantised_params, self._layer_params)

    @property
    def quantised_above(self) -> float:
        """Share of the quantised weights that the backward pass goes through: of the layers, where `phi` counts the head, too."""
        below = (1.0 - self.phi) * self.matmul_params
        return max(0.0, 1.0 - below / self._layer_params) if self._layer_params else 1.0

    @property
    def _layer_params(self) -> int:
        """Weights that multiply a token, the head apart."""
        head = 0 if self.operations is not None else self.head_params
        return max(self.matmul_params - head, 0)

    @property
    def head_params(self) -> int:
        """Weights of the output head."""
        return self.vocab * self.width

    @property
    def held_tokens(self) -> int:
        """Tokens that are in memory in one pass, of the longest sequences."""
        return self.batch * (self.sequence if self.longest is None else self.longest)

    @property
    def rank(self) -> int:
        """The largest rank of the adapters; 0 where the layers are not known or all weights train."""
        if self.operations is not None:
            return self.operations.rank
        return max((m.rank for block in self.blocks for m in block.maps), default=0)


def above_share(lowest: int, layers: int, matmul_params: int, head_params: int) -> float:
    """Return phi: the share of the network from the lowest adapted layer up, the head included."""
    return 1.0 - lowest * (matmul_params - head_params) / layers / matmul_params


def with_rank(shape: ModelShape, rank: int) -> ModelShape:
    """Return the model with adapters of this rank where it had some.

    Raises:
        ValueError: the shape has no known adapters.
    """
    if not shape.rank:
        raise ValueError(f"{shape.name} has no adapters of known rank")
    if shape.operations is not None:
        adapters = shape.adapter_params * rank // shape.rank
        flops = shape.pass_flops * rank / shape.rank
        return replace(
            shape, adapter_params=adapters, operations=shape.operations.at_rank(rank), pass_flops=flops
        )

    def ranked(m: Map) -> Map:
        return m._replace(rank=rank) if m.rank else m

    blocks = tuple(_mapped(block, ranked) for block in shape.blocks)
    adapters = sum(b.adapter_params for b in blocks)
    return replace(
        shape, blocks=blocks, adapter_params=adapters, pass_flops=shape.pass_flops * rank / shape.rank
    )


def with_rank_share(shape: ModelShape, rank: int, of: int) -> ModelShape:
    """Return the model with adapters of rank/of their size: of that share of their rank, rounded, where it is known.

    A client of rank 4 where the server trains 8 is charged half the declared rank.
    """
    if rank == of or shape.full:
        return shape
    if shape.rank:
        return with_rank(shape, max(1, round(shape.rank * rank / of)))
    return replace(
        shape,
        adapter_params=round(shape.adapter_params * rank / of),
        pass_flops=shape.pass_flops * rank / of,
    )


def with_magnitudes(shape: ModelShape, adapted: Sequence[Map] | None = None) -> ModelShape:
    """Return the model with a trained length of each row of its adapted maps (DoRA, arXiv 2402.09353), as stock PEFT computes it.

    Each pass forms B A by a product with the unit matrix, 2 r i (i + o), and adds it to W; a token's W x and B A x are
    kept for the backward pass.

    Args:
        shape: the model.
        adapted: its adapted maps; None: those of its layers.

    Raises:
        ValueError: the adapted maps are not known.
    """
    of_layers = [m for block in shape.blocks for m in block.maps if m.rank]
    maps = of_layers if adapted is None else adapted
    if not maps:
        raise ValueError(f"the adapted layers of {shape.name} are not known")
    outputs = sum(m.outputs for m in maps)
    return replace(
        shape,
        beside_params=shape.beside_params + outputs,
        pass_flops=float(sum(2 * m.rank * m.inputs * (m.inputs + m.outputs) for m in maps)),
        kept_numbers=2 * outputs,
        pass_numbers=max(m.inputs * (m.inputs + 2 * m.outputs) for m in maps),
    )


def with_depth_share(shape: ModelShape, depth: int, of: int) -> ModelShape:
    """Return the model with adapters in the last depth/of of the layers that have some, rounded, and in one at least.

    What lies below is as it was pretrained: nothing goes backward there, and nothing is kept for it.

    Raises:
        ValueError: the model was counted as a whole.
    """
    if depth >= of or shape.full:
        return shape
    if shape.operations is not None:
        raise ValueError(f"the layers of {shape.name} are not known")
    carrying = [i for i, block in enumerate(shape.blocks) if block.adapted]
    carrying = carrying or list(range(shape.lowest, shape.layers))
    kept = max(1, round(len(carrying) * depth / of))
    lowest = carrying[-kept]
    blocks = tuple(
        _mapped(block, lambda m: m._replace(rank=0)) if i < lowest else block
        for i, block in enumerate(shape.blocks)
    )
    adapters = sum(block.adapter_params for block in blocks)
    if not blocks:
        adapters = round(shape.adapter_params * kept / len(carrying))
    phi = min(shape.phi, above_share(lowest, shape.layers, shape.matmul_params, shape.head_params))
    return replace(shape, blocks=blocks, adapter_params=adapters, lowest=lowest, phi=phi)


def _mapped(block: Layer, change: Callable[[Map], Map]) -> Layer:
    """Return a layer with every map changed."""
    return replace(
        block,
        qkv=tuple(map(change, block.qkv)),
        out=change(block.out),
        up=tuple(map(change, block.up)),
        down=change(block.down),
    )


def adapter_bytes(shape: ModelShape) -> int:
    """Return the payload of one update in float32: the adapters and what is trained beside them, or all if `full`."""
    return FLOAT32_BYTES * shape.trained_params


def backbone_bytes(shape: ModelShape) -> int:
    """Return the bytes of the frozen weights, which a client without them downloads once."""
    plain = shape.params - shape.quantised_params
    return round(shape.weight_bytes * plain) + shape.quantised_bytes
