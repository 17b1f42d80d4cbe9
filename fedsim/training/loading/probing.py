"""What a causal language model does with a few tokens: whether it looks ahead, and how many it reads at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fedsim.blame import described
from fedsim.errors import DataError, message
from fedsim.training.loading.configuration import number, of_text, text_config, vocabulary

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

TOKENS = 8
"""Length of the windows that are compared."""
CLOSE = 1e-5
"""Difference of logits, as a share of the largest, that rounding explains in float32."""
CLOSE_HALF = 1e-2
"""The same in 16 bits."""
CAUSAL = (
    "give a causal model; BERT and its kind need is_decoder: true in config.json and weights trained with it"
)
NO_TEXT = re.compile(r"vision|visual|image|audio|speech|relative|distance|patch|token_type")
"""Parts of names of tables that are not of places in a text."""
PLACES = re.compile(r"position|^wpe$|pos_emb")
LIMITS = ("max_position_embeddings", "max_seq_len", "n_positions", "max_target_positions")
"""What configurations call the most tokens that their model reads."""
EXACT = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3_text")
"""Types of models whose configuration says it all: nothing is tried."""


class _EnoughError(Exception):
    """The first layer has been run."""


def check_causal(model: PreTrainedModel, name: str) -> None:
    """Refuse a model whose logits of a token depend on later ones; one forward pass of two windows of `TOKENS` tokens.

    They differ in the last token, so the logits before it are equal up to rounding. Being in transformers' list of
    causal models does not say so: BERT without `is_decoder` is in it, and has a perplexity near 1 when it is trained.

    Raises:
        DataError: it looks ahead, cannot be run on tokens alone, or gives no finite logits for each token.
    """
    import torch

    windows = _windows(model)
    try:
        with torch.no_grad():
            logits = model(input_ids=windows, use_cache=False).logits
        if tuple(logits.shape[:2]) != tuple(windows.shape):
            raise ValueError(
                f"logits of shape {tuple(logits.shape)} for tokens of shape {tuple(windows.shape)}"
            )
    except Exception as problem:  # whatever a model of others raises
        what = f"it cannot be run on tokens alone ({described(problem)})"
        raise DataError(message("task.model", what, got=name, fix="give a model of text")) from problem
    logits = logits.float()
    if not logits.isfinite().all():
        raise no_numbers(name)
    moved = float((logits[0, :-1] - logits[1, :-1]).abs().max())
    narrow = next(iter(model.parameters())).dtype in (torch.float16, torch.bfloat16)
    if moved > (CLOSE_HALF if narrow else CLOSE) * float(logits.abs().max()):
        what = "it looks ahead: another last token changes what it predicts before it"
        raise DataError(message("task.model", what, got=name, fix=CAUSAL))


def no_numbers(name: str) -> DataError:
    """Return the error of a model whose predictions are infinite or NaN."""
    what, fix = "its predictions are not finite numbers", "set numerics.dtype: float32, or give sound weights"
    return DataError(message("task.model", what, got=name, fix=fix))


def _windows(model: PreTrainedModel) -> Tensor:
    """Return two windows (2, TOKENS) of ordinary tokens that differ in the last one."""
    import torch

    rows = vocabulary(model)
    text = text_config(model)
    special = {number(text, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    plain = [i for i in range(min(rows, 64 * TOKENS)) if i not in special] or list(range(rows))
    spread = plain[:: max(1, len(plain) // (TOKENS + 1))]
    ids = [spread[i % len(spread)] for i in range(TOKENS + 1)]
    return torch.tensor([ids[:TOKENS], [*ids[: TOKENS - 1], ids[TOKENS]]])


def longest(model: PreTrainedModel) -> int | None:
    """Return the most tokens that a model reads at once, as its configuration and its tables of places say; None: any.

    A table with a padding row counts places from after it: RoBERTa's 514 rows are 512 tokens.
    """
    import torch

    text = text_config(model)
    limits = [most for key in LIMITS if (most := number(text, key)) is not None and most > 0]
    for name, module in of_text(model):
        leaf = name.rpartition(".")[2]
        if isinstance(module, torch.nn.Embedding) and PLACES.search(leaf) and not NO_TEXT.search(name):
            rows, padding = module.num_embeddings, module.padding_idx
            limits.append(rows if padding is None else rows - padding - 1)
    return min(limits, default=None)


def readable(model: PreTrainedModel, sequence: int) -> int:
    """Return how many of `sequence` tokens a model reads at once, by trying its first layer on them.

    The model is built without numbers in its weights, which cost neither time nor memory. What cannot be run at all is
    not judged here: its weights are, when they are loaded (`check_causal`).

    Args:
        model: without weights (meta device).
        sequence: tokens.
    """
    if model.config.model_type in EXACT:
        return sequence
    hollow = _hollow(model.config)
    if hollow is None or _runs(hollow, sequence) or not _runs(hollow, 1):
        return sequence
    low, high = 1, sequence  # reads `low`, does not read `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _runs(hollow, middle) else (low, middle)
    return low


def _hollow(config: PretrainedConfig) -> PreTrainedModel | None:
    """Return the model with buffers as they are and weights that are all 0, of one number each; None if it cannot be."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    try:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
        for module in model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                zeros = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
                setattr(module, name, torch.nn.Parameter(zeros, requires_grad=False))
    except Exception:  # the architecture's own, which are told where it is built
        return None
    _stops_early(model)
    return model


def _stops_early(model: PreTrainedModel) -> None:
    """Let a model stop after its first layer."""
    import torch

    stacks = [m for _, m in of_text(model) if isinstance(m, torch.nn.ModuleList) and len(m)]
    if stacks:
        first = max(stacks, key=len)[0]

        def enough(*_: object) -> None:
            raise _EnoughError

        first.register_forward_hook(enough)


def _runs(model: PreTrainedModel, tokens: int) -> bool:
    import torch

    ids = torch.full((1, tokens), min(2, vocabulary(model) - 1))
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    except _EnoughError:
        return True
    except Exception:
        return False
    return True
