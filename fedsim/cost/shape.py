"""A model as far as costs go: its parameters, adapters and layers, at any rank."""

from __future__ import annotations

from collections.abc import Callable
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
        return replace(shape, adapter_params=adapters, operations=shape.operations.at_rank(rank))

    def ranked(m: Map) -> Map:
        return m._replace(rank=rank) if m.rank else m

    blocks = tuple(_mapped(block, ranked) for block in shape.blocks)
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
    """Return the payload of one update in float32: the adapters, or all parameters if `full`."""
    return FLOAT32_BYTES * (shape.params if shape.full else shape.adapter_params)


def backbone_bytes(shape: ModelShape) -> int:
    """Return the bytes of the frozen weights, which a client without them downloads once."""
    return round(shape.weight_bytes * shape.params)
