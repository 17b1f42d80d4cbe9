"""The frozen weights of the adapted modules, once a rule has moved them: what changed since pretraining.

Rules that fold a residual or a stack into the base (FedEx-LoRA, arXiv 2410.09432; FLoRA, arXiv
2409.05976) make every version a little different. A `Base` is that difference, dense and in one
orientation for every kind of layer: (out, in) of a Linear, the transpose of GPT-2's Conv1D weight,
(out, in kh kw) of a Conv2d. The weight that a client uses is always W0 + change, from W0 anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Module, Vector

Change = tuple[NDArray[np.floating], NDArray[np.floating]]
"""(U, V) of one module: its weight changes by U V, (out, q) times (q, in kh kw)."""


def dense_shape(module: Module) -> tuple[int, int]:
    """Return (out, in kh kw), the shape of a module's product B A.

    >>> dense_shape(Module("conv", 2, (2, 3, 5, 5), (8, 2, 1, 1), 1.0))
    (8, 75)
    """
    return module.b_shape[0], math.prod(module.a_shape[1:])


def dense_size(layout: Layout) -> int:
    """Return the number of weights in the adapted modules."""
    return sum(math.prod(dense_shape(m)) for m in layout.modules)


@dataclass(frozen=True)
class Base:
    """The change of the adapted modules' frozen weights since the pretrained model.

    Attributes:
        layout: which modules.
        version: how often the base has moved; the server moves it once a commit.
        vector: float32, read-only: each module's (out, in kh kw) change, row by row, in the layout's order.
        ranks: entry j is the rank of the step from version j to j + 1, the largest over the modules.
    """

    layout: Layout
    version: int
    vector: Vector = field(repr=False)
    ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the length and make the values read-only."""
        vector = np.ascontiguousarray(self.vector, dtype=np.float32)
        if vector.shape != (dense_size(self.layout),):
            raise ValueError(f"base has shape {vector.shape}, layout needs ({dense_size(self.layout)},)")
        if len(self.ranks) != self.version:
            raise ValueError(f"base of version {self.version} has {len(self.ranks)} ranks of steps")
        if vector.flags.writeable:
            vector = vector.view()
            vector.flags.writeable = False
        object.__setattr__(self, "vector", vector)

    @classmethod
    def pretrained(cls, layout: Layout) -> Base:
        """Return version 0: nothing has changed."""
        return cls(layout, 0, np.zeros(dense_size(layout), np.float32))

    def matrices(self) -> Iterator[tuple[Module, Vector]]:
        """Yield (module, its change (out, in kh kw)) as views."""
        yield from split(self.layout, self.vector)

    def moved(self, changes: Sequence[Change]) -> Base:
        """Return the next version: W + U V in float64, stored in float32; the same array where nothing changes.

        Args:
            changes: (U (out, q), V (q, in kh kw)) of every module, in the layout's order; q may
                differ between modules and be 0.
        """
        parts, rank, same = [], 0, True
        for (module, change), (u, v) in zip(self.matrices(), changes, strict=True):
            out, width = change.shape
            if u.shape != (out, v.shape[0]) or v.shape[1:] != (width,):
                what = f"change of {module.name} has shapes {u.shape} and {v.shape}"
                raise ValueError(f"{what}, its weight needs ({out}, q) and (q, {width})")
            rank = max(rank, v.shape[0])
            if not (np.any(u) and np.any(v)):
                parts.append(change.ravel())
                continue
            same = False
            moved = change.astype(np.float64)
            moved += u.astype(np.float64) @ v.astype(np.float64)
            parts.append(moved.ravel().astype(np.float32))
        vector = self.vector if same else np.concatenate(parts)
        return Base(self.layout, self.version + 1, vector, (*self.ranks, rank))

    def catch_up_floats(self, since: int | None) -> int:
        """Return the floats that a client of version `since` downloads to have this base.

        The shorter of two forms: the factors of every step it missed, sum_j q_j (out + in) a module, or
        the dense change, out x in a module. None: it has the pretrained weights only.
        """
        steps = sum(self.ranks[0 if since is None else since :])
        factors = steps * sum(sum(dense_shape(m)) for m in self.layout.modules)
        return min(factors, dense_size(self.layout))


def split(layout: Layout, vector: Vector) -> Iterator[tuple[Module, Vector]]:
    """Yield (module, (out, in kh kw)) as views of a base's vector."""
    at = 0
    for module in layout.modules:
        shape = dense_shape(module)
        yield module, vector[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
