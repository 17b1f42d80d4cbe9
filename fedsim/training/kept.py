"""What autograd keeps for the backward pass, counted as it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class Kept:
    """Counts the bytes that autograd keeps for the backward pass, each memory once, parameters not.

    Attributes:
        ignored: memory that is there anyway.
        total: bytes kept.
        boundaries: bytes of the inputs of the watched blocks.
        largest: most bytes that one of them keeps.
    """

    ignored: set[int]
    total: int = 0
    boundaries: int = 0
    largest: int = 0
    _seen: dict[int, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, blocks: Iterable[nn.Module]) -> Iterator[None]:
        """Count while a model runs; its blocks are watched one by one."""
        handles, before = [], [0]

        def enters(module: nn.Module, args: tuple[object, ...]) -> None:
            before[0] = self.total
            self.boundaries += _bytes(args[0]) if args else 0

        def leaves(module: nn.Module, args: tuple[object, ...], out: object) -> None:
            self.largest = max(self.largest, self.total - before[0])

        for block in blocks:
            handles += [block.register_forward_pre_hook(enters), block.register_forward_hook(leaves)]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _pack(self, tensor: Tensor) -> Tensor:
        key = storage(tensor)
        if key not in self.ignored and key not in self._seen:
            self._seen[key] = tensor  # held, so that the memory's address is not given to another one
            self.total += tensor.untyped_storage().nbytes()
        return tensor


def storage(tensor: Tensor) -> int:
    """Return what tells one memory from another."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  # the address of the storage object


def _bytes(value: object) -> int:
    return int(value.numel() * value.element_size()) if isinstance(value, Tensor) else 0
