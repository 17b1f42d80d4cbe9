"""What software keeps in memory while it trains, in a few numbers; `fedsim.cost.formulas.train_memory_bytes` adds it up.

Two programs that train the same model on the same device differ by a factor of ten: one has all weights in float32 and all
logits at once, another maps 4-bit weights from flash, unpacks one layer at a time and never has more than a few rows of
logits. `hetero_profiles/memory_models.csv` has the programs that were measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """What a program keeps in memory.

    Attributes:
        name: row of the table of memory models.
        least_weight_bytes: bytes of a frozen weight, where the program has none of fewer; 0: as the experiment says.
        resident_bytes: most bytes of frozen weights in memory; inf: all of them; 0: they are mapped from flash, and the
            system drops their pages whenever it needs them.
        unpacked_bytes: bytes of a weight of the one layer that is unpacked at a time; 0: none is.
        embedding_bytes: least bytes of a weight of the token table and the head, which quantisers leave alone.
        trained_bytes: bytes of a trained number: weight, gradient, moments of the optimiser.
        kept_bytes: kept for the backward pass per layer, token and unit of width.
        recomputes: whether it computes activations again, whatever the experiment says.
        boundary_bytes: kept per layer, token and unit of width when it does: the layer's input.
        live_bytes: of the one layer that is computed again, per token and unit of width.
        logit_bytes: per token and word: logits and their gradient.
        chunk_tokens: most tokens whose logits are in memory at once; inf: all.
        runtime_bytes: the app, the runtime, its buffers.
    """

    name: str = "plain"
    least_weight_bytes: float = 0.0
    resident_bytes: float = math.inf
    unpacked_bytes: float = 0.0
    embedding_bytes: float = 0.0
    trained_bytes: float = 16.0
    kept_bytes: float = 24.0
    recomputes: bool = False
    boundary_bytes: float = 2.0
    live_bytes: float = 24.0
    logit_bytes: float = 6.0
    chunk_tokens: float = math.inf
    runtime_bytes: float = 0.25e9


PLAIN = MemoryModel()
"""A program that has everything in memory at once, in 16 bit: what is charged where nothing is known of the software.

Trained numbers have 16 bytes: float32 weight, gradient and two AdamW moments. Activations 20-28 bytes a layer, token and unit
of width, frozen weights (assumption); 2 of each layer's input with checkpointing, one layer live. Logits 4 (in place) to 8
(assumption). App and buffers 0.2-0.3 GB (assumption).
"""
