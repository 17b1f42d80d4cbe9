"""A pass as a program: a list of operations on fixed memory, made once for a shape and then replayed.

Every tensor of a pass, its views included, is known when the program is made, so a replay is one
call into torch for each operation and nothing else: no views, no shapes, no allocation. (Fresh
memory costs page faults, a tenth of a step on a CPU; views and Python cost as much again, and more
than the arithmetic where a client's batch is small.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fedsim.adapters.adapter import Trains
from fedsim.training.backbone import Noise

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angles by which pairs of a head's numbers are turned at each place."""


class Workspace:
    """Named scratch tensors of one device and dtype; contents are undefined when taken.

    The same name and slot lie in the same storage, whatever the shape; storage grows to the largest
    shape asked of each name and never beyond.

    Attributes:
        generation: how often storage was replaced; programs made earlier hold the old one alive.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Remember where and of what type the tensors are; nothing is allocated yet."""
        self.device, self.dtype, self.generation = device, dtype, 0
        self._flat: dict[tuple[str, int], Tensor] = {}

    def __call__(self, name: str, slot: int, *shape: int) -> Tensor:
        """Return the tensor `name` of a slot (a layer's number; 0 if shared) in this shape, contiguous."""
        size = math.prod(shape)
        flat = self._flat.get((name, slot))
        if flat is None or flat.numel() < size:
            self.generation += flat is not None
            flat = self._flat[name, slot] = torch.empty(size, device=self.device, dtype=self.dtype)
        return flat[:size].view(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())


@dataclass(frozen=True)
class Shape:
    """What a program is made for.

    Attributes:
        k: clients.
        rows, length: sequences of a client, tokens of a sequence.
        train: which factors get a gradient; None: no backward.
        noise: whether the adapters' inputs are masked (LoRA dropout).
        entered: whether the first adapted layer's input is given (`hidden`).
        packed: whether rows are of several examples that are kept apart.
        graded: whether it is told which predicted tokens are the likeliest.
        masked: whether tokens whose share is 0 have no loss.
    """

    k: int
    rows: int
    length: int
    train: Trains | None
    noise: bool
    entered: bool
    packed: bool = False
    graded: bool = False
    masked: bool = False


@dataclass
class Masks:
    """What an operation asks for dropout masks; None between replays."""

    noise: Noise | None = None


@dataclass(frozen=True)
class Pass:
    """A program in the making, with its inputs and outputs.

    Attributes:
        shape: what it is made for.
        ws, fine: scratch in the backbone's type and in the factors' type.
        factors, scales: inputs, (k, size) and (k, modules).
        tokens: input, (k, rows, T + 1).
        share: input, each token's weight in its client's loss, (k rows T, 1).
        hidden: the embedded tokens, or, if entered, the first adapted layer's input (k rows T, width).
        nll: output, the tokens' losses (k rows T,).
        grads: output, (k, size).
        mask: (T, T): 0 where a token may see another, minus infinity elsewhere; (k rows, 1, T, T) where rows are packed.
        rotations: name -> RoPE's (cos, sin), each (T, head_dim / 2); (k rows, 1, T, head_dim / 2) where rows are packed.
        places: input where rows are packed, of each token in its example, (k, rows, T).
        hits: output, whether each predicted token is the likeliest (k rows T,), or None.
        windows: length of a window -> (T, T): minus infinity where a token is too far back for it, else 0.
        masks: dropout masks, while it is replayed.
        steps: the operations so far.
    """

    shape: Shape
    ws: Workspace
    fine: Workspace
    factors: Tensor
    scales: Tensor
    tokens: Tensor
    share: Tensor
    hidden: Tensor
    nll: Tensor
    grads: Tensor
    mask: Tensor
    rotations: Mapping[str, Rotation]
    places: Tensor
    hits: Tensor | None = None
    windows: Mapping[int, Tensor] = field(default_factory=dict)
    masks: Masks = field(default_factory=Masks)
    steps: list[Callable[[], Any]] = field(default_factory=list)

    @property
    def k(self) -> int:
        """Clients."""
        return self.shape.k

    @property
    def tokens_each(self) -> int:
        """Tokens of one client."""
        return self.shape.rows * self.shape.length

    @property
    def n(self) -> int:
        """Tokens of all clients."""
        return self.k * self.tokens_each

    @property
    def trains(self) -> str:
        """Which factors get a gradient."""
        return self.shape.train or ""

    def slot(self, layer: int) -> int:
        """Return where a layer's activations are kept: all in one place if no backward follows."""
        return layer if self.shape.train else 0

    def do(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Append an operation."""
        self.steps.append(partial(operation, *args, **kwargs))

    def replay(self, noise: Noise | None = None) -> None:
        """Run all operations, in order, with these dropout masks."""
        self.masks.noise = noise
        for step in self.steps:
            step()
        self.masks.noise = None
