"""The work of one visit: operations, steps, bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Everything one visit moves, computes and holds, as the clock charges it.

    Attributes:
        down_bytes, up_bytes: payload charged each way.
        flops: floating-point operations of the training.
        memory_bytes: peak memory that training needs.
        tokens: tokens trained on.
        serialized_down_bytes, serialized_up_bytes: bytes of the tensors really serialised.
        steps: forward and backward passes, accumulated ones counted.
        moved_bytes: bytes through the device's memory that no cache saves.
        layer_passes: layers times how often each is passed, over all passes: forward, backward, computed once more.
        expanded_bytes: bytes written and read to unpack quantised weights to 16 bit, where a stack does so in memory.
        coded_bytes: bytes through the device's memory for decoding what comes down and coding what goes up.
        memory_plan: what was done so that it fits.
        cdn_bytes: of `down_bytes`, the first ones: those that a CDN sends.
    """

    down_bytes: int
    up_bytes: int
    flops: float
    memory_bytes: float
    tokens: int
    serialized_down_bytes: int
    serialized_up_bytes: int
    steps: int = 1
    moved_bytes: float = 0.0
    layer_passes: float = 0.0
    expanded_bytes: float = 0.0
    coded_bytes: float = 0.0
    memory_plan: str = "fits"
    cdn_bytes: int = 0
