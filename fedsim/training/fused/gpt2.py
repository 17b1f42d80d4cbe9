"""GPT-2 (Radford et al., 2019) as Hugging Face's `GPT2LMHeadModel` computes it, taken apart."""

from __future__ import annotations

from typing import Any

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.block import Block, Gelu
from fedsim.training.fused.decoder import Decoder, Frozen
from fedsim.training.fused.norms import LayerNorm
from fedsim.training.fused.parts import Adapters

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def matrices(model: Any) -> dict[str, tuple[int, int]]:
    """Return the matrices that may carry an adapter, name -> (in, out); empty if not exactly GPT-2."""
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    config = model.config
    known = (
        type(model) is GPT2LMHeadModel
        and config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        and not config.scale_attn_by_inverse_layer_idx
        and not config.reorder_and_upcast_attn
        and not config.add_cross_attention
        and model.lm_head.bias is None
    )
    if not known:
        return {}
    shapes = {}
    for i, layer in enumerate(model.transformer.h):
        for target in TARGETS:
            module = layer.get_submodule(target)
            if type(module) is not Conv1D:
                return {}
            shapes[f"transformer.h.{i}.{target}"] = tuple(module.weight.shape)
    return shapes


def build(model: Any, layout: Layout) -> Decoder:
    """Take the model apart; its tensors are shared, the model itself is not kept."""
    config, body = model.config, model.transformer
    adapters = Adapters(layout)
    heads = config.num_attention_heads
    head_dim = config.hidden_size // heads
    scale = head_dim**-0.5 if config.scale_attn_weights else 1.0
    blocks = []
    for i, layer in enumerate(body.h):
        at, attention, mlp = f"transformer.h.{i}", layer.attn, layer.mlp
        blocks.append(
            Block(
                layer=i,
                norm_1=_norm(layer.ln_1),
                attention_in=adapters.matrix(i, [(f"{at}.attn.c_attn", attention.c_attn.weight.detach())]),
                attention=Attention(i, heads, heads, head_dim, scale, attention.c_attn.bias.detach()),
                attention_out=adapters.matrix(i, [(f"{at}.attn.c_proj", attention.c_proj.weight.detach())]),
                attention_bias=attention.c_proj.bias.detach(),
                norm_2=_norm(layer.ln_2),
                mlp_in=adapters.matrix(i, [(f"{at}.mlp.c_fc", mlp.c_fc.weight.detach())]),
                activation=Gelu(mlp.c_fc.bias.detach()),
                mlp_out=adapters.matrix(i, [(f"{at}.mlp.c_proj", mlp.c_proj.weight.detach())]),
                mlp_bias=mlp.c_proj.bias.detach(),
            )
        )
    words, places = body.wte.weight.detach(), body.wpe.weight.detach()
    frozen = Frozen(words, places, None, _norm(body.ln_f), model.lm_head.weight.detach())
    return Decoder(layout, blocks, frozen)


def _norm(module: Any) -> LayerNorm:
    return LayerNorm(module.weight.detach(), module.bias.detach(), module.eps)
