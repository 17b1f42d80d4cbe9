"""Small random decoders of every family that has a written-out one."""

from __future__ import annotations

import torch
import transformers
from oracles.fused_oracle import VOCAB
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

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
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def widen_norms(monkeypatch):
    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    for norm in (modeling_llama.LlamaRMSNorm, modeling_qwen2.Qwen2RMSNorm, modeling_mistral.MistralRMSNorm):
        monkeypatch.setattr(norm, "forward", forward)


def small_llama(kind="Llama", **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**LLAMA_SIZES, **changes})
    return getattr(transformers, f"{kind}ForCausalLM")(config)
