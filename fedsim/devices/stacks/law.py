"""The time of training steps as hardware, software and batch give it: a roofline by layer, with a floor; pure.

    pass_s = ((a^4 + l^4)^(1/4)) + e + o
    a = max(FLOPs / (share x peak), bytes moved / (share x memory bandwidth))
    l = layers passed x launch
    e = bytes of quantised weights expanded / (share x memory bandwidth)
    o = fixed time of a pass

A layer takes the longer of its arithmetic and of the time that software needs to issue it: launches overlap arithmetic, so the two
do not add up but meet in a soft maximum (p = 4, fitted to 36 public measurements of 256 to 8,192 tokens). It is of
degree one, so the sum over L equal layers is that of the sums. With few tokens a pass the floor is all there is: time no longer
falls with the tokens, and efficiency is share x a / (a^4 + l^4)^(1/4).

Sums, products and square roots alone, which IEEE 754 rounds in one way: the same bits on every processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.cost.work import Work


@dataclass(frozen=True, slots=True)
class StepLaw:
    """What one client's software adds to its device.

    Attributes:
        stack: row of the table of stacks.
        launch_s: floor of a layer in one pass (forward, backward, or computed once more) [s].
        pass_overhead_s: fixed time of a forward and backward pass [s].
        moved_bytes_per_s: rate at which weights are read.
        expanded_bytes_per_s: rate at which quantised weights are unpacked to 16 bit; inf: on the way.
        memory: what it keeps in memory.
    """

    stack: str
    launch_s: float = 0.0
    pass_overhead_s: float = 0.0
    moved_bytes_per_s: float = math.inf
    expanded_bytes_per_s: float = math.inf
    memory: MemoryModel = PLAIN

    def seconds(self, work: Work, flops_per_s: float) -> float:
        """Return the seconds of a visit's training.

        Args:
            work: what is done; its passes are alike.
            flops_per_s: share of peak x peak: what the stack reaches with many tokens a pass.
        """
        arithmetic_s = max(work.flops / flops_per_s, work.moved_bytes / self.moved_bytes_per_s)
        floor_s = work.layer_passes * self.launch_s
        expanded_s = work.expanded_bytes / self.expanded_bytes_per_s
        return soft_maximum(arithmetic_s, floor_s) + expanded_s + work.steps * self.pass_overhead_s


def soft_maximum(a: float, b: float) -> float:
    """Return (a^4 + b^4)^(1/4) of two numbers of 0 or more.

    >>> soft_maximum(3.0, 0.0), soft_maximum(1.0, 1.0) == math.sqrt(math.sqrt(2.0))
    (3.0, True)
    """
    larger, smaller = max(a, b), min(a, b)
    if larger == 0.0:
        return 0.0
    square = (smaller / larger) * (smaller / larger)
    return larger * math.sqrt(math.sqrt(1.0 + square * square))
