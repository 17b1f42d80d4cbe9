"""Families of causal language models, tiny and random, and the path that trains each; `python tests/worlds/families.py` writes docs/families.md.

Configurations only: no weights are needed to say which path trains a model, and why not a faster one.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from worlds import causal_models

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
BEGIN, END = "<!-- families: written by `python tests/worlds/families.py` -->", "<!-- end of families -->"

FAMILIES = (
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3_text",
    "gemma", "gemma2", "phi", "phi3", "olmo", "olmo2", "stablelm", "starcoder2", "granite", "cohere", "cohere2", "glm", "glm4",
    "helium", "nemotron", "exaone4", "ernie4_5", "hunyuan_v1_dense", "arcee", "lfm2",
    "gpt_neo", "gpt_neox", "gptj", "codegen", "gpt_bigcode", "opt", "bloom", "falcon", "mpt", "biogpt", "xglm", "persimmon",
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "mamba", "mamba2", "falcon_h1", "recurrent_gemma",
)  # fmt: skip
"""Types as configurations call them: first those that are written out."""
OWN_WAYS = {
    "gemma": "GELU gate, scaled embeddings",
    "gemma2": "capped logits",
    "phi": "attention beside the MLP, part of a head turned",
    "phi3": "q, k and v in one matrix, positions that hang on the length",
    "olmo": "norms without weights, clipped q, k and v",
    "olmo2": "norms of all heads at once, none before attention",
    "stablelm": "LayerNorm, part of a head turned",
    "starcoder2": "LayerNorm, an MLP without a gate",
    "granite": "multipliers of embeddings, residuals and logits",
    "cohere": "attention beside the MLP, pairs turned that lie side by side",
    "cohere2": "attention beside the MLP, windows, layers without positions",
    "glm": "gate and up in one matrix, pairs turned that lie side by side",
    "glm4": "norms behind, pairs turned that lie side by side",
    "helium": "pairs turned that lie side by side",
    "nemotron": "LayerNorm that counts from 1, squared ReLU",
    "exaone4": "norms behind only, norms of heads",
    "ernie4_5": "pairs turned that lie side by side",
    "hunyuan_v1_dense": "norms of heads behind the turn",
    "arcee": "squared ReLU without a gate",
    "lfm2": "convolutions in place of attention",
    "gpt_neo": "windows, scores that are not scaled",
    "gpt_neox": "attention beside the MLP, q, k and v in one matrix",
    "gptj": "attention beside the MLP",
    "codegen": "attention beside the MLP, q, k and v in one matrix",
    "gpt_bigcode": "one head of keys and values, Linear in place of Conv1D",
    "opt": "ReLU, positions that count from 2",
    "bloom": "biases of scores in place of positions (ALiBi)",
    "falcon": "a Linear of its own",
    "mpt": "biases of scores in place of positions (ALiBi)",
    "biogpt": "positions that count from 2",
    "xglm": "sines in place of positions",
    "persimmon": "norms of heads, squared ReLU",
    "mixtral": "experts",
    "qwen2_moe": "experts",
    "qwen3_moe": "experts",
    "olmoe": "experts",
    "granitemoe": "experts",
    "phimoe": "experts",
    "mamba": "a state space",
    "mamba2": "a state space",
    "falcon_h1": "a state space beside attention",
    "recurrent_gemma": "recurrence",
}
"""What families that are not written out have beside or in place of Llama's parts, in a few words."""
LORA_R = 2


@dataclass(frozen=True)
class Trained:
    """How a family is trained.

    Attributes:
        path: `fused`, `swapped` or `sequential`; `refused`.
        why: not a faster one; of what is refused, the sentence.
        layered: whether FLOPs are counted layer by layer.
    """

    path: str
    why: str
    layered: bool


def hollow(kind, **changes):
    """A tiny model of a type without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(causal_models.configuration(kind, **changes))


@contextlib.contextmanager
def quiet():
    """Without what transformers warns of."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def counted_flops(model, targets, sequence):
    """FLOPs of a token that torch counts in a forward and a backward pass of stock PEFT over two sequences, attention eager."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers.pytorch_utils import Conv1D

    model.set_attn_implementation("eager")
    names = targets if isinstance(targets, str) else list(targets)
    turned = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM", fan_in_fan_out=turned)
    wrapped = get_peft_model(model, config).train()
    ids = torch.randint(0, 53, (2, sequence))
    with FlopCounterMode(display=False) as counter:
        wrapped(input_ids=ids, use_cache=False).logits.float().sum().backward()
    return counter.get_total_flops() / ids.numel()


def trained(kind):
    """How a type is trained, with adapters on all linear layers."""
    from fedsim.config.learning import LoraConfig
    from fedsim.errors import FedsimError
    from fedsim.training import fused, lora, paths, text_shape
    from fedsim.training.stacked import swapped

    model = hollow(kind)
    try:
        with quiet():
            layout = lora.layout(model, LoraConfig(r=LORA_R))
            path = paths.resolved(model, layout, "auto")
    except FedsimError as problem:
        return Trained("refused", problem.message.headline, layered=False)
    reasons = {
        "fused": "",
        "swapped": fused.refusal(model, layout),
        "sequential": swapped.refusal(model, layout),
    }
    layered = bool(text_shape.shape(model, kind, layout, 16, 2).blocks)
    return Trained(path, reasons[path] or "", layered)


WORDS = {"fused": "written out", "swapped": "swapped", "sequential": "stock PEFT", "refused": "refused"}


def row(kind):
    """A line of the table."""
    found, own = trained(kind), OWN_WAYS.get(kind, "")
    why = f"{own}; {found.why}" if found.path in ("sequential", "refused") else own
    return f"| `{kind}` | {WORDS[found.path]} | {why} | {'layers' if found.layered else 'parameters'} |"


def table(kinds=FAMILIES):
    """The lines of the table."""
    head = ["| `model_type` | trained | not written out: it has | FLOPs by |", "|---|---|---|---|"]
    return head + [row(kind) for kind in dict.fromkeys(kinds)]


def rewritten(text):
    """The page with its table as the models say."""
    before, rest = text.split(BEGIN)
    return "\n".join([before + BEGIN, "", *table(), "", END]) + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
