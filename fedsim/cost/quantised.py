"""Frozen weights of 4 or 8 bits, in blocks that have a scale each: the setting, and the bytes that they take.

QLoRA (arXiv 2305.14314) holds the linear layers of a frozen model in 4-bit NormalFloat and unpacks them where they are
multiplied with; embeddings, norms and the head stay as they are. `fedsim.training.quantised` computes the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator

from fedsim.component import Config
from fedsim.errors import invalid

BITS = {"int8": 8, "nf4": 4}
"""Bits of a code."""
SCALE_BYTES = 4
"""A scale is a float32: the largest absolute value of its block."""
SCALES_BLOCK = 256
"""Scales that share a step where they are quantised themselves, as in QLoRA."""
ALL_LINEAR = "all-linear"


class Quantise(Config):
    """How frozen weights are held.

    Attributes:
        kind: `int8`: whole numbers of -127 to 127, times scale / 127; `nf4`: QLoRA's 16 values, times the scale.
        block: weights that have one scale, the largest absolute value among them: consecutive ones of a matrix
            (outputs, inputs), row after row; the last block may be shorter.
        double: whether the scales are quantised, too: what is left of them without their mean has 8 bits, and
            256 of them share a step.
        modules: which layers: `all-linear` (the output head apart), or names as in `lora.targets`.
    """

    kind: Literal["int8", "nf4"]
    block: Annotated[int, Field(ge=16, le=4096)] = 64
    double: bool = False
    modules: str | tuple[str, ...] = ALL_LINEAR

    @field_validator("modules")
    @classmethod
    def _some(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or not all(value if isinstance(value, tuple) else (value,)):
            raise invalid("is empty", fix="name some layers, or write all-linear", got=value)
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The names in `modules`; none where it is all linear layers."""
        names = (self.modules,) if isinstance(self.modules, str) else self.modules
        return () if ALL_LINEAR in names else names

    def bytes_of(self, weights: int) -> int:
        """Return the bytes of a matrix of so many weights: codes, and scales.

        >>> Quantise(kind="nf4").bytes_of(4096), Quantise(kind="nf4", double=True).bytes_of(4096)
        (2304, 2120)
        """
        codes = -(-weights * BITS[self.kind] // 8)
        blocks = -(-weights // self.block)
        if not self.double:
            return codes + SCALE_BYTES * blocks
        return codes + blocks + SCALE_BYTES * (-(-blocks // SCALES_BLOCK) + 1)

    def held(self, matrices: Iterable[int]) -> Held:
        """Return what matrices of so many weights each take."""
        sizes = list(matrices)
        return sum(sizes), sum(map(self.bytes_of, sizes))

    def __str__(self) -> str:
        """Return it in words: `nf4 in blocks of 64`, and whether scales are quantised."""
        return f"{self.kind} in blocks of {self.block}{', their scales in 8 bits' if self.double else ''}"


FEWEST_PLAIN_BYTES = 2.0
"""Bytes of a frozen weight that is not quantised, at least, where others are."""


def check_plain(weight_bytes: float, how: Quantise, where: str) -> None:
    """Refuse a charged model whose weights have so few bytes that they all count as quantised already.

    Args:
        weight_bytes: of a frozen weight.
        how: how some of them are held.
        where: the key of `weight_bytes`, seen from the block that is checked.

    Raises:
        ValueError: both say how many bytes a weight has.
    """
    if weight_bytes < FEWEST_PLAIN_BYTES:
        what = f"says how many bytes all weights have, and {how.kind} says it of those that are quantised"
        raise invalid(what, where=where, got=weight_bytes, fix="remove it, or quantise")


Held = tuple[int, int]
"""Weights that are held quantised, and the bytes of their codes and scales."""
NOT_HELD: Held = (0, 0)
Word = Literal["none", "int8", "nf4"]
"""A `Quantise` with its defaults; none."""


def quantise_of(value: Word | Quantise) -> Quantise | None:
    """Return the setting behind a word; None: weights stay as they are."""
    if isinstance(value, Quantise):
        return value
    return None if value == "none" else Quantise(kind=value)
