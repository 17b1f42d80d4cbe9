"""Layers of a model that is not read by its family: where an adapter fits, and what its factors are like."""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.adapters.adapter import Module


@dataclass(frozen=True)
class Site:
    """A layer that can carry an adapter: a linear map, or a Conv2d of one group with its `kernel`."""

    name: str
    inputs: int
    outputs: int
    kernel: tuple[int, ...] = ()

    def module(self, r: int, scale: float) -> Module:
        """Return A (r, in, *kernel) and B (out, r, 1, 1), PEFT's shapes; no more axes than two for a linear map."""
        ones = (1,) * len(self.kernel)
        return Module(self.name, r, (r, self.inputs, *self.kernel), (self.outputs, r, *ones), scale)

    def ends_with(self, end: str) -> bool:
        """Tell whether this is the layer's whole path, or its end."""
        return self.name == end or self.name.endswith(f".{end}")
