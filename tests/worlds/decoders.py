"""Small random decoders of every family that has a written-out one."""

from __future__ import annotations

import torch
import transformers
from oracles.fused_oracle import VOCAB
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.smollm3 import modeling_smollm3

GPT2_SIZES = {"n_embd": 24, "n_layer": 3, "n_head": 2, "n_positions": 48, "vocab_size": VOCAB}


def small_gpt2(**changes):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**{**GPT2_SIZES, "bos_token_id": 0, "eos_token_id": 0, **changes}))


LLAMA_SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def widen_norms(monkeypatch):
    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    for norm in (
        modeling_llama.LlamaRMSNorm,
        modeling_mistral.MistralRMSNorm,
        modeling_qwen2.Qwen2RMSNorm,
        modeling_qwen3.Qwen3RMSNorm,
        modeling_smollm3.SmolLM3RMSNorm,
    ):
        monkeypatch.setattr(norm, "forward", forward)

    def from_one(self, x):
        return (1.0 + self.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    monkeypatch.setattr(modeling_gemma3.Gemma3RMSNorm, "forward", from_one)


def small_llama(kind="Llama", **changes):
    torch.manual_seed(0)
    name = "Gemma3Text" if kind == "Gemma3" else kind
    config = getattr(transformers, f"{name}Config")(**{**LLAMA_SIZES, **changes})
    return getattr(transformers, f"{kind}ForCausalLM")(config)


FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA = {
    "kind": "Gemma3", "head_dim": 8, "query_pre_attn_scalar": 10, "sliding_window": 3,
    "layer_types": [SLIDING, FULL, SLIDING],
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 100.0},
        FULL: {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
WRITTEN_OUT = {
    "smollm2": {"tie_word_embeddings": True},
    "llama 3.2": {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "mistral": {"kind": "Mistral", "sliding_window": 3},
    "mistral without windows": {"kind": "Mistral", "sliding_window": None, "head_dim": 8},
    "qwen2": {"kind": "Qwen2", "tie_word_embeddings": True},
    "qwen2 with windows above": {
        "kind": "Qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1,
    },
    "qwen2 in yarn": {"kind": "Qwen2", "rope_parameters": YARN},
    "qwen3": {"kind": "Qwen3", "head_dim": 8, "tie_word_embeddings": True},
    "qwen3 with biases": {"kind": "Qwen3", "head_dim": 8, "attention_bias": True, "num_key_value_heads": 1},
    "smollm3": {"kind": "SmolLM3", "no_rope_layers": [1, 0, 1]},
    "smollm3 with all it can have": {
        "kind": "SmolLM3", "no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 3,
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False,
    },
    "gemma3": GEMMA,
    "gemma3 of one key-value head": {**GEMMA, "num_key_value_heads": 1, "sliding_window": 512},
    "gemma3 with all it can have": {
        **GEMMA, "attention_bias": True, "tie_word_embeddings": False,
        "rope_parameters": {
            **GEMMA["rope_parameters"], FULL: {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0},
        },
    },
}  # fmt: skip
"""Name -> what `small_llama` makes of each family that is written out, and of its variations."""
