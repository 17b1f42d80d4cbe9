"""In how many of its last layers a client has adapters."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from fedsim.config.fields import Count
from fedsim.config.lora.practice import LoraPractice
from fedsim.errors import invalid


class LoraDepth(LoraPractice):
    """Depth by device: adapters in the last layers only.

    Attributes:
        depth: layers that clients adapt at most, counted from the output: a client of depth d has and trains the adapters of the
            last d layers that carry some, and what lies below stays as it was pretrained. None: all of them.
        depth_by: who adapts how many, as `rank_by`: `fixed` (everybody `depth`), `tier`, `memory`, `deadline`.
        depths: depth by tier (`tier`), or the choices, ascending (`memory`, `deadline`; without them 1, 2, 3, ... all).
        first: which of the two a device gets as much of as it can, where it may choose both: at the smallest rank the largest
            `depth`, and then the largest rank there; or the other way round (`rank`).
    """

    depth: Count | None = None
    depth_by: Literal["fixed", "tier", "memory", "deadline"] = "fixed"
    depths: dict[str, Count] | tuple[Count, ...] | None = None
    first: Literal["depth", "rank"] = "depth"

    __hash__ = LoraPractice.__hash__  # which a frozen model would replace

    @model_validator(mode="after")
    def _depths_of_a_kind(self) -> Self:
        by, depths = self.depth_by, self.depths
        if by == "fixed" and depths is not None:
            raise invalid(
                "has `depths` with `depth_by: fixed`",
                fix="remove it, or set depth_by: tier, memory or deadline",
            )
        if by == "tier" and (not isinstance(depths, dict) or not depths):
            fix = "add depths, as in {low: 4, high: 12}"
            raise invalid("has `depth_by: tier` without a depth for each tier", fix=fix)
        if by in ("memory", "deadline") and isinstance(depths, dict):
            fix = "give the choices, as in depths: [4, 8, 12], or set depth_by: tier"
            raise invalid(f"has depths by tier with `depth_by: {by}`", fix=fix)
        if isinstance(depths, tuple) and (not depths or list(depths) != sorted(set(depths))):
            raise invalid("has `depths` that do not rise", got=list(depths), fix="order them, each once")
        given = () if depths is None else tuple(depths.values() if isinstance(depths, dict) else depths)
        if self.depth is not None and given and max(given) != self.depth:
            fix = f"set depth: {max(given)}, or remove it"
            raise invalid(f"has depth = {self.depth}, and `depths` up to {max(given)}", fix=fix)
        return self

    @property
    def unequal(self) -> bool:
        """Whether some client may have fewer layers with adapters than the model."""
        return self.depth_by != "fixed" or self.depth is not None

    def depth_choices(self, layers: int) -> tuple[int, ...]:
        """Return the depths that a client may have, ascending, of a model with adapters in so many layers."""
        most = layers if self.depth is None else self.depth
        if self.depth_by == "fixed":
            return (most,)
        if self.depths is None:
            return tuple(range(1, most + 1))
        return tuple(sorted(set(self.depths.values() if isinstance(self.depths, dict) else self.depths)))
