"""How a training's tokens are cut into optimiser steps, and those into forward and backward passes.

A step never shares a pass with another one: ten epochs over one example are ten steps of one pass each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Batches:
    """What a training goes through.

    Attributes:
        tokens: of all of it.
        steps: (how many, examples of each) of its optimiser steps; none where only tokens are declared, which are then
            cut as one stream.
        by_tokens: whether another model is charged than the one that trains: examples are then worth their tokens, in
            sequences of that model's length.
    """

    tokens: int
    steps: Sequence[tuple[int, int]] = ()
    by_tokens: bool = False

    def cut(self, sequence: int, batch: int) -> int:
        """Return the passes, of at most `batch` sequences of `sequence` tokens each.

        >>> Batches(40, ((10, 1),)).cut(4, 8), Batches(40).cut(4, 8)
        (10, 2)
        """
        if not self.steps:
            return math.ceil(self.tokens / (sequence * batch))
        if not self.by_tokens:
            return sum(n * -(-examples // batch) for n, examples in self.steps)
        room = sum(n * examples for n, examples in self.steps) * sequence * batch
        return sum(n * -(-examples * self.tokens // room) for n, examples in self.steps)

    def updates(self, sequence: int, batch: int) -> int:
        """Return the optimiser steps; `sequence` and `batch` are of one where they are not known."""
        return sum(n for n, _ in self.steps) if self.steps else self.cut(sequence, batch)
