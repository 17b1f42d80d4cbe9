"""Decoders written out, forward and backward, for K clients with stacked LoRA.

`fused` gives the fast path for the families it implements exactly (GPT-2, Llama) and None for any
other model, setting or target; the caller then swaps modules instead. A model's dropout is off, as
in evaluation mode.
"""

from __future__ import annotations

from typing import Any

from fedsim.adapters.adapter import Layout
from fedsim.training.fused import gpt2, llama
from fedsim.training.fused.decoder import Decoder
from fedsim.training.fused.parts import fits


def supports(model: Any, layout: Layout) -> bool:
    """Tell whether the written-out path computes exactly this model with exactly these adapters.

    Args:
        model: a Hugging Face causal language model, possibly without weights (meta device).
        layout: the adapters.
    """
    return any(fits(layout, family.matrices(model)) for family in (gpt2, llama))


def fused(model: Any, layout: Layout) -> Decoder | None:
    """Return a `Backbone` that computes this model, or None if no written-out path does so exactly.

    Weights are shared with the model where they can be; the model is not changed and not kept.
    Factors are float64 for a float64 model, else float32.
    """
    if fits(layout, gpt2.matrices(model)):
        return gpt2.build(model, layout)
    if fits(layout, llama.matrices(model)):
        return llama.build(model, layout)
    return None
