"""FLOPs that torch's own counter finds in a step of stock PEFT whose lower adapters are frozen."""

from __future__ import annotations

ROWS, TOKENS = 3, 16


def stock_model(arch):
    """Return a model of an architecture (GPT-2 or Llama), from transformers, its weights drawn."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    ends = {"bos_token_id": 0, "eos_token_id": 1, "attn_implementation": "eager"}
    if arch.family == "gpt2":
        off = dict.fromkeys(["attn_pdrop", "resid_pdrop", "embd_pdrop"], 0.0)
        size = {"n_embd": arch.width, "n_layer": arch.layers, "n_head": arch.heads, "n_positions": 64}
        config = GPT2Config(vocab_size=arch.vocab, **size, **off, **ends)
    else:
        size = {"hidden_size": arch.width, "intermediate_size": arch.ffn, "num_hidden_layers": arch.layers}
        heads = {"num_attention_heads": arch.heads, "num_key_value_heads": arch.kv_heads}
        config = LlamaConfig(vocab_size=arch.vocab, tie_word_embeddings=True, **size, **heads, **ends)
    return AutoModelForCausalLM.from_config(config)


def stock_flops(arch, depth, *, rank, checkpoint=False):
    """Return the FLOPs of a forward and a backward pass over 3 x 16 tokens, adapters on every linear layer.

    Those below the last `depth` layers have `requires_grad` False. PEFT computes them forward all the same, and a device
    that does not have them does not: 2 r (in + out) a token each are taken off.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.checkpoint import set_checkpoint_early_stop
    from torch.utils.flop_counter import FlopCounterMode

    model = stock_model(arch)
    lora = LoraConfig(
        r=rank, target_modules="all-linear", fan_in_fan_out=arch.family == "gpt2", task_type="CAUSAL_LM"
    )
    wrapped, lower, extra = get_peft_model(model, lora).train(), arch.layers - depth, 0
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name and any(f".{at}." in name for at in range(lower)):
            parameter.requires_grad_(requires_grad=False)
            extra += 2 * parameter.numel()
    if checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # set by transformers for its reentrant variant only
    ids = torch.randint(0, arch.vocab, (ROWS, TOKENS))
    with FlopCounterMode(display=False) as counter, set_checkpoint_early_stop(enable=False):
        wrapped(input_ids=ids, use_cache=False).logits.float().sum().backward()
    return counter.get_total_flops() - ROWS * TOKENS * extra
