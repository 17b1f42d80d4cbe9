"""Decoders written out, forward and backward, for K clients with stacked LoRA.

`fused` gives the fast path for the families it implements exactly (GPT-2; Llama, SmolLM2 and 3, Qwen 2, 2.5 and 3, Mistral,
Gemma 3) and None for any other model, setting or target; the caller then swaps modules instead. A model's dropout is off, as
in evaluation mode.
"""

from __future__ import annotations

from typing import Any

from fedsim.adapters.adapter import Layout
from fedsim.training.fused import families, gpt2, llama
from fedsim.training.fused.decoder import Decoder
from fedsim.training.fused.parts import fits


def refusal(model: Any, layout: Layout) -> str | None:
    """Return why the written-out path does not compute exactly this model with exactly these adapters; None: it does.

    Args:
        model: a Hugging Face causal language model, possibly without weights (meta device).
        layout: the adapters.
    """
    if gpt2.is_gpt2(model):
        matrices = gpt2.matrices(model)
        reason = None if matrices else "it has settings or layers that OpenAI's GPT-2 does not have"
    else:
        reason = families.unlike(model)
        matrices = {} if reason else llama.matrices(model)
    if reason is not None:
        return reason
    return None if fits(layout, matrices) else "what is trained is not LoRA on its linear layers"


def supports(model: Any, layout: Layout) -> bool:
    """Tell whether the written-out path computes exactly this model with exactly these adapters (`refusal`)."""
    return refusal(model, layout) is None


def fused(model: Any, layout: Layout) -> Decoder | None:
    """Return a `Backbone` that computes this model, or None if no written-out path does so exactly.

    Weights are shared with the model where they can be; the model is not changed and not kept.
    Factors are float64 for a float64 model, else float32.
    """
    if refusal(model, layout) is not None:
        return None
    return llama.build(model, layout) if families.family(model) else gpt2.build(model, layout)
