"""A decoder of a known folder: its tensors read from the one file, held against what is refused of any model, put together."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.cost.quantised import Quantise
from fedsim.training.backbone import Stack
from fedsim.training.direct.architecture import Architecture
from fedsim.training.direct.folder import WEIGHTS
from fedsim.training.fused import gpt2, llama
from fedsim.training.fused.decoder import Decoder
from fedsim.training.fused.families import Numbers
from fedsim.training.fused.rotary import plain_angles
from fedsim.training.loading.checkpoint import check_finite
from fedsim.training.loading.probing import TOKENS, no_numbers
from fedsim.training.local import one_thread
from fedsim.training.quantised.base import of_tensors
from fedsim.training.quantised.chosen import of_matrices


def decoder(
    name: str,
    made: Architecture,
    layout: Layout,
    device: str = "cpu",
    dtype: str = "float32",
    quantise: Quantise | None = None,
) -> Decoder | None:
    """Return the decoder of a folder; None if its file cannot be read, which loading it through transformers says.

    Args:
        name: of the folder.
        made: its architecture, as `fedsim.training.direct.folder.known` gives it.
        layout: of the adapters.
        device: where the frozen weights are, by torch's name.
        dtype: of them, by torch's name.
        quantise: how they are held; None: as the file has them.

    Raises:
        DataError: weights, or what they predict, are no numbers.
    """
    tensors = _read(Path(name) / WEIGHTS, getattr(torch, dtype))
    if tensors is None:
        return None
    check_finite(tensors.items(), name)
    frozen = of_tensors(tensors.items(), of_matrices(made.matrices), quantise)
    tensors = {key: tensor.to(device) for key, tensor in frozen.items()}
    tensors.setdefault("lm_head.weight", tensors[made.embedding])
    ready = _assembled(tensors, made, layout)
    if not _predicts_numbers(ready, made):
        raise no_numbers(name)
    return ready


def _read(file: Path, dtype: torch.dtype) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            return {key: stored.get_tensor(key).to(dtype) for key in stored.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError):
        return None


def _assembled(tensors: dict[str, Tensor], made: Architecture, layout: Layout) -> Decoder:
    if made.family == "gpt2":
        numbers = gpt2.Numbers(made.layers, made.heads, made.head_dim, made.scale, made.eps)
        return gpt2.assembled(tensors, numbers, layout)
    words, gemma = tensors[made.embedding], made.family == "gemma3_text"
    sizes = Numbers(
        made.heads,
        made.kv_heads,
        made.head_dim,
        made.eps,
        made.scale,
        made.reaches,
        gemma,
        torch.tensor(made.width**0.5, dtype=words.dtype, device=words.device) if gemma else None,
    )
    asked = {reach.rotation for reach in made.reaches}
    angles = {
        name: plain_angles(words, made.head_dim, rope.theta, rope.stretch)
        for name, rope in made.ropes
        if name in asked
    }
    return llama.assembled(tensors, sizes, angles, layout)


def _predicts_numbers(ready: Decoder, made: Architecture) -> bool:
    """Tell whether the losses of a few ordinary tokens are numbers, without any adapter."""
    count = min(TOKENS, made.positions) + 1
    ids = (torch.arange(count, device=ready.device) + 1) % made.vocabulary
    factors = torch.zeros(1, ready.layout.size, device=ready.device, dtype=ready.dtype)
    scales = factors.new_ones(1, len(ready.layout.modules))
    with one_thread():
        return bool(ready.losses(Stack(factors, scales), ids[None, None]).isfinite().all())
