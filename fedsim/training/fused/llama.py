"""Llama (arXiv 2302.13971) and its kind (`fedsim.training.fused.families`) as Hugging Face computes them, taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.block import Block, Frozen, Gated
from fedsim.training.fused.decoder import Decoder
from fedsim.training.fused.families import ATTENTION, MLP, Numbers, angles_by_name, numbers_of
from fedsim.training.fused.kernels import geglu, plain, swiglu
from fedsim.training.fused.lora import Matrix
from fedsim.training.fused.norms import RMSNorm
from fedsim.training.fused.parts import Adapters, tensors_of
from fedsim.training.fused.rotary import Angles

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def matrices(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Return the matrices that may carry an adapter, name -> (in, out), of a model of one of the families."""
    shapes = {}
    for i, layer in enumerate(model.model.layers):
        for target in (*ATTENTION, *MLP):
            outputs, inputs = layer.get_submodule(target).weight.shape
            shapes[f"model.layers.{i}.{target}"] = (inputs, outputs)
    return shapes


def build(model: PreTrainedModel, layout: Layout) -> Decoder:
    """Take the model apart; q, k, v and gate, up are copied side by side, the rest is shared."""
    return assembled(tensors_of(model), numbers_of(model), angles_by_name(model), layout)


def assembled(
    tensors: Mapping[str, Tensor], numbers: Numbers, angles: Mapping[str, Angles], layout: Layout
) -> Decoder:
    """Put a decoder together of a model's tensors, by their names in transformers; they are shared."""
    parts = _Parts(tensors, numbers, Adapters(layout))
    blocks = [parts.block(i) for i in range(len(numbers.reaches))]
    words, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    frozen = Frozen(words, None, angles, parts.norm("model.norm"), head, numbers.words_scale)
    return Decoder(layout, blocks, frozen)


class _Parts:
    """A model's tensors, made into the parts of layers."""

    def __init__(self, tensors: Mapping[str, Tensor], numbers: Numbers, adapters: Adapters) -> None:
        self.tensors, self.numbers, self.adapters = tensors, numbers, adapters

    def block(self, layer: int) -> Block:
        """Return a layer; norms after attention and MLP if there are any."""
        at, numbers = f"model.layers.{layer}", self.numbers
        *qkv, out = (f"{at}.{name}" for name in ATTENTION)
        *gate_up, down = (f"{at}.{name}" for name in MLP)
        sandwich = f"{at}.pre_feedforward_layernorm.weight" in self.tensors
        before_mlp = "pre_feedforward_layernorm" if sandwich else "post_attention_layernorm"
        return Block(
            layer=layer,
            norm_1=self.norm(f"{at}.input_layernorm"),
            attention_in=self.matrix(layer, qkv),
            attention=self.attention(layer, qkv),
            attention_out=self.matrix(layer, [out]),
            attention_bias=self.biases([out]),
            norm_2=self.norm(f"{at}.{before_mlp}"),
            mlp_in=self.matrix(layer, gate_up),
            activation=Gated(geglu if numbers.gemma else swiglu, self.biases(gate_up)),
            mlp_out=self.matrix(layer, [down]),
            mlp_bias=self.biases([down]),
            after_attention=self.norm(f"{at}.post_attention_layernorm") if sandwich else None,
            after_mlp=self.norm(f"{at}.post_feedforward_layernorm") if sandwich else None,
        )

    def attention(self, layer: int, qkv: Sequence[str]) -> Attention:
        """Return a layer's attention; its heads are normalised if there are norms of them."""
        numbers, at = self.numbers, f"model.layers.{layer}.self_attn"
        normed = f"{at}.q_norm.weight" in self.tensors
        return Attention(
            layer,
            numbers.heads,
            numbers.kv_heads,
            numbers.head_dim,
            numbers.scale,
            self.biases(qkv),
            numbers.reaches[layer],
            (self.norm(f"{at}.q_norm"), self.norm(f"{at}.k_norm")) if normed else None,
        )

    def norm(self, name: str) -> RMSNorm:
        """Return a norm; Gemma's weights count from 1, and are multiplied in float32 at least."""
        weight = self.tensors[f"{name}.weight"]
        if self.numbers.gemma:
            weight = 1.0 + (weight if plain(weight) else weight.float())
        return RMSNorm(weight, self.numbers.eps)

    def matrix(self, layer: int, names: Sequence[str]) -> Matrix:
        """Return the matrices that read the same input, side by side."""
        return self.adapters.matrix(layer, [(name, self.tensors[f"{name}.weight"].t()) for name in names])

    def biases(self, names: Sequence[str]) -> Tensor | None:
        """Return the biases side by side; None if there are none. A missing one among others is zero."""
        biases = [self.tensors.get(f"{name}.bias") for name in names]
        if all(bias is None for bias in biases):
            return None
        weights = [self.tensors[f"{name}.weight"] for name in names]
        return torch.cat(
            [w.new_zeros(len(w)) if bias is None else bias for w, bias in zip(weights, biases, strict=True)]
        )
