"""A tiny random model of every type in transformers' list of causal language models, where its configuration allows one."""

from __future__ import annotations

import contextlib
import io
import warnings

import torch

WORDS = 320
SMALL = {
    "vocab_size": WORDS, "hidden_size": 32, "d_model": 32, "n_embd": 32, "emb_dim": 32, "embedding_size": 32,
    "intermediate_size": 48, "ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_ffn_dim": 48, "d_inner": 48, "dff": 48,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "ffn_hidden_size": 48, "n_inner": 48,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2, "encoder_layers": 2,
    "num_decoder_layers": 2, "num_encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8,
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_topk": 2, "moe_k": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "max_position_embeddings": 64, "n_positions": 64, "max_seq_len": 64, "pad_token_id": 0, "bos_token_id": 0,
    "eos_token_id": 1, "sliding_window": 16, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
    "mamba_d_state": 8, "mamba_n_groups": 1, "state_size": 8, "layer_types": None,
}  # fmt: skip
"""Values for whichever of these names a configuration has."""
LARGEST = 20_000_000
"""Parameters of what is still built."""
OWN = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "falcon_mamba": {"intermediate_size": 64},
    "reformer": {"axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16), "attention_head_size": 8},
    "rwkv": {"intermediate_size": 64, "attention_hidden_size": 32},
}
"""What some types need besides."""


def types():
    """All types of models in the list, sorted."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def configuration(kind, **changes):
    """A small configuration of a type, its parts for text and pictures too; what it refuses, it raises."""
    from transformers import CONFIG_MAPPING

    whole = CONFIG_MAPPING[kind]
    parts = {
        part: _small(default_type(whole, part), {})
        for part in ("text_config", "vision_config")
        if hasattr(whole(), part)
    }
    return whole(**_small(whole, {**OWN.get(kind, {}), **parts, **changes}, build=False))


def default_type(whole, part):
    return type(getattr(whole(), part))


def _small(kind, changes, *, build=True):
    there = kind().to_dict()
    fields = {name: value for name, value in SMALL.items() if name in there and value is not None}
    return kind(**{**fields, **changes}) if build else {**fields, **changes}


def folder(path, kind, tokenizer, **changes):
    """Write a tiny model of a type with a tokenizer; None if its own configuration cannot be made so small."""
    from transformers import AutoModelForCausalLM

    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            settings = configuration(kind, **changes)
            with torch.device("meta"):
                hollow = AutoModelForCausalLM.from_config(settings)
            if sum(p.numel() for p in hollow.parameters()) > LARGEST:
                return None
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(settings).save_pretrained(path)
    except Exception:
        return None
    tokenizer.save_pretrained(path)
    return str(path)
