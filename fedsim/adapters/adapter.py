"""An adapter: a layout (which matrices, which shapes) and one flat float32 vector.

Order of the vector: for each adapted module A then B, in the layout's order, then the whole
tensors: all of a model (full-model training), or what is trained beside the factors, which are DoRA's magnitudes,
biases, and modules that are trained whole. Everything the server does is arithmetic on that vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Trains = Literal["AB", "A", "B"]
"""Which factors a client moves; whole tensors it always does."""
TensorKind = Literal["weight", "magnitude", "bias", "saved"]
"""What a whole tensor is: of a model that trains in full; a length of each row of an adapted weight (DoRA); a bias; of a
module that is trained whole beside the adapters."""
MAGNITUDE = "lora_magnitude_vector"
"""What PEFT calls the magnitudes of a module."""


@dataclass(frozen=True)
class Module:
    """One adapted weight matrix.

    Attributes:
        name: module path inside the model (`model.layers.0.self_attn.q_proj`).
        rank: r.
        a_shape: (r, in) or (r, in, kh, kw).
        b_shape: (out, r) or (out, r, 1, 1).
        scale: alpha / r; the update of the weight is scale * B A (LoRA, arXiv 2106.09685).
    """

    name: str
    rank: int
    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]
    scale: float

    @property
    def size(self) -> int:
        """Number of floats in A and B."""
        return math.prod(self.a_shape) + math.prod(self.b_shape)

    def at_rank(self, rank: int, scale: float) -> Module:
        """Return the same matrix with another number of slots."""
        a, b = (rank, *self.a_shape[1:]), (self.b_shape[0], rank, *self.b_shape[2:])
        return Module(self.name, rank, a, b, scale)


@dataclass(frozen=True)
class Tensor:
    """One whole tensor trained and sent as it is.

    Attributes:
        name: path inside the model (`lm_head.weight`), or `MODULE.lora_magnitude_vector`.
        shape: its axes; magnitudes of a matrix (out,), of a convolution (1, out, 1, 1), as in PEFT.
        kind: what it is.
    """

    name: str
    shape: tuple[int, ...]
    kind: TensorKind = "weight"

    @property
    def size(self) -> int:
        """Number of floats."""
        return math.prod(self.shape)


def block_of(name: str) -> str:
    """Return the layer that a module or tensor is part of: its path up to the first number, all of it where there is none.

    >>> block_of("transformer.h.3.attn.c_attn"), block_of("embed")
    ('transformer.h.3', 'embed')
    """
    parts = name.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


@dataclass(frozen=True)
class Layout:
    """What a flat vector holds: adapted modules, then whole tensors."""

    modules: tuple[Module, ...] = ()
    tensors: tuple[Tensor, ...] = ()

    @cached_property
    def size(self) -> int:
        """Number of floats in the vector."""
        return sum(m.size for m in self.modules) + sum(t.size for t in self.tensors)

    @property
    def full(self) -> bool:
        """Whether whole tensors are trained instead of adapters."""
        return bool(self.tensors) and not self.modules

    @cached_property
    def beside(self) -> tuple[Tensor, ...]:
        """The whole tensors that are trained beside adapters."""
        return self.tensors if self.modules else ()

    @cached_property
    def slices(self) -> dict[str, tuple[slice, tuple[int, ...]]]:
        """Name of every array (`NAME.lora_A`, `NAME.lora_B`, or a tensor's name) -> place, shape."""
        places: dict[str, tuple[slice, tuple[int, ...]]] = {}
        at = 0
        shapes: list[tuple[str, tuple[int, ...]]] = []
        for m in self.modules:
            shapes += [(f"{m.name}.lora_A", m.a_shape), (f"{m.name}.lora_B", m.b_shape)]
        shapes += [(t.name, t.shape) for t in self.tensors]
        for name, shape in shapes:
            places[name] = (slice(at, at + math.prod(shape)), shape)
            at += math.prod(shape)
        return places

    @cached_property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """Names of the adapted modules, layer by layer in the network's order (see `block_of`)."""
        by_block: dict[str, list[str]] = {}
        for m in self.modules:
            by_block.setdefault(block_of(m.name), []).append(m.name)
        return tuple(map(tuple, by_block.values()))

    def below(self, depth: int | None) -> frozenset[str]:
        """Return the names of the arrays below the last `depth` layers that carry adapters; None: none is."""
        if depth is None or depth >= len(self.blocks):
            return frozenset()
        if depth not in self._below:
            lower = {name for names in self.blocks[: len(self.blocks) - depth] for name in names}
            layers = {block_of(name) for name in lower}
            factors = (f"{name}.lora_{factor}" for name in lower for factor in "AB")
            whole = (t.name for t in self.tensors if block_of(t.name) in layers)
            self._below[depth] = frozenset((*factors, *whole))
        return self._below[depth]

    def above(self, depth: int | None) -> tuple[str, ...]:
        """Return the names of the arrays in the last `depth` layers, in their order, and of those in no layer; None: of all."""
        if depth not in self._names:
            below = self.below(depth)
            self._names[depth] = tuple(name for name in self.slices if name not in below)
        return self._names[depth]

    @cached_property
    def _names(self) -> dict[int | None, tuple[str, ...]]:
        return {}

    @cached_property
    def _below(self) -> dict[int, frozenset[str]]:
        return {}

    def last(self, depth: int) -> Layout:
        """Return what the last `depth` layers hold: the numbers of `slots(depth=depth)`, in their order."""
        below = self.below(depth)
        modules = tuple(m for m in self.modules if f"{m.name}.lora_A" not in below)
        return Layout(modules, tuple(t for t in self.tensors if t.name not in below))

    @cached_property
    def slot_axes(self) -> dict[str, int | None]:
        """Name of every array -> the axis that counts its slots of rank; None for whole tensors."""
        factors = {f"{m.name}.lora_{f}": axis for m in self.modules for axis, f in enumerate("AB")}
        return {name: factors.get(name) for name in self.slices}

    @cached_property
    def rank(self) -> int:
        """Slots of each factor, the largest over the modules; 0 without any."""
        return max((m.rank for m in self.modules), default=0)

    @cached_property
    def scales(self) -> frozenset[float]:
        """What B A is multiplied with in the modules, each number once."""
        return frozenset(m.scale for m in self.modules)

    def slots(
        self, rank: int | None = None, factors: str = "AB", depth: int | None = None
    ) -> NDArray[np.bool_]:
        """Return, for every number of a vector, whether it lies in the first `rank` slots of `factors` in the last `depth` layers.

        Whole tensors of those layers, or of none, always do. None: all slots, all layers.
        """
        mask, below = np.zeros(self.size, dtype=bool), self.below(depth)
        for name, (place, shape) in self.slices.items():
            if name in below:
                continue
            axis = self.slot_axes[name]
            if axis is None:
                mask[place] = True
            elif name[-1] in factors:
                first = (slice(None),) * axis + (slice(None, rank),)
                mask[place].reshape(shape)[first] = True
        return mask

    def of_factor(self, factor: Literal["A", "B"]) -> NDArray[np.bool_]:
        """Return, for every number of a vector, whether it lies in that factor of a module."""
        mask = np.zeros(self.size, dtype=bool)
        for module in self.modules:
            mask[self.slices[f"{module.name}.lora_{factor}"][0]] = True
        return mask

    def arrays(self, vector: Vector) -> dict[str, Vector]:
        """Return every array by name, as views of `vector` (length `size`)."""
        if vector.shape != (self.size,):
            raise ValueError(f"vector has shape {vector.shape}, layout needs ({self.size},)")
        return {name: vector[place].reshape(shape) for name, (place, shape) in self.slices.items()}


@dataclass(frozen=True)
class Adapter:
    """A layout and its read-only vector of float32 values."""

    layout: Layout
    vector: Vector = field(repr=False)

    def __post_init__(self) -> None:
        """Check the length and make the values read-only."""
        vector = np.ascontiguousarray(self.vector, dtype=np.float32)
        if vector.shape != (self.layout.size,):
            raise ValueError(f"vector has shape {vector.shape}, layout needs ({self.layout.size},)")
        if vector.flags.writeable:
            vector = vector.view()
            vector.flags.writeable = False
        object.__setattr__(self, "vector", vector)

    def cut(self, rank: int, scale: float | None = None) -> Vector:
        """Return the vector with every slot from `rank` on zero: the same array at every call.

        It is the whole vector itself where no module has more slots and the scale is the layout's.

        Args:
            rank: slots of each factor that are kept.
            scale: what B A will be multiplied with; B is then module.scale / scale times as large, so that the
                product keeps its value. None: the layout's; so is any where the modules differ in it.
        """
        scales = self.layout.scales
        rescaled = scale is not None and len(scales) == 1 and scale not in scales
        if rank >= self.layout.rank and not rescaled:
            return self.vector
        key = (rank, scale if rescaled else None)
        if key not in self._cuts:
            cut = np.where(self.layout.slots(rank), self.vector, np.float32(0.0))
            arrays = self.layout.arrays(cut)
            for m in self.layout.modules:
                if rescaled and scale is not None:
                    arrays[f"{m.name}.lora_B"][...] *= np.float32(m.scale / scale)
            cut.flags.writeable = False
            self._cuts[key] = cut
        return self._cuts[key]

    def above(self, vector: Vector, depth: int | None) -> Vector:
        """Return a vector with zeros below the last `depth` layers; itself where nothing lies there (None: all layers).

        Of a vector that many clients start from it is the same array at every call.
        """
        if not self.layout.below(depth):
            return vector
        key, common = (id(vector), depth), self.holds(vector)
        if common and key in self._above:
            return self._above[key][1]
        upper = np.where(self.layout.slots(depth=depth), vector, np.float32(0.0))
        upper.flags.writeable = False
        if common:
            self._above[key] = vector, upper
        return upper

    def holds(self, vector: Vector) -> bool:
        """Return whether an array is this vector itself or one of its cuts, so that many clients start there."""
        return (
            vector is self.vector
            or any(vector is cut for cut in self._cuts.values())
            or any(vector is upper for _, upper in self._above.values())
        )

    @cached_property
    def _cuts(self) -> dict[tuple[int, float | None], Vector]:
        return {}

    @cached_property
    def _above(self) -> dict[tuple[int, int | None], tuple[Vector, Vector]]:
        return {}

    def replace(self, vector: Vector) -> Adapter:
        """Return an adapter of the same layout with other values."""
        return Adapter(self.layout, vector)
