"""One pre-norm decoder layer, forward and backward: h + Attention(Norm(h)), then h + MLP(Norm(h)).

What attention and MLP give may be normalised once more before it is added (Gemma's sandwich).
Backward stops at the lowest adapter: no gradient is computed that no adapter needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.errors import ExperimentError, message
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.kernels import gelu, gelu_backward
from fedsim.training.fused.lora import Activations, Matrix
from fedsim.training.fused.norms import Norm
from fedsim.training.fused.program import Pass
from fedsim.training.fused.rotary import Angles


class Activation(Protocol):
    """What stands between the two matrices of the MLP."""

    def forward(self, u: Tensor, slot: int, p: Pass) -> tuple[Tensor, Tensor]:
        """Return the activation (n, width) and what backward needs; `u` may be overwritten."""
        ...

    def backward(self, grad: Tensor, saved: Any, p: Pass) -> Tensor:
        """Return the gradient by u; `grad` may be overwritten."""
        ...


@dataclass(frozen=True)
class Gelu:
    """g = gelu(u + bias), GPT-2's."""

    bias: Tensor

    def forward(self, u: Tensor, slot: int, p: Pass) -> tuple[Tensor, Tensor]:
        """Return g (n, width) and its derivative."""
        out = p.ws("g", slot, *u.shape)
        slope = p.ws("slope", slot, *u.shape) if p.shape.train else None
        gelu(u, self.bias, out, slope, p)
        return out, slope

    def backward(self, grad: Tensor, saved: Any, p: Pass) -> Tensor:
        """Return the gradient by u, in place of `grad`."""
        gelu_backward(grad, saved, p)
        return grad


@dataclass(frozen=True)
class Gated:
    """g = act(gate) * up of the product u = (gate, up) side by side.

    Attributes:
        kernel: `swiglu` (Llama) or `geglu` (Gemma) of `fedsim.training.fused.kernels`.
        bias: of the product, or None.
    """

    kernel: Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor] | None, Pass], None]
    bias: Tensor | None

    def forward(self, u: Tensor, slot: int, p: Pass) -> tuple[Tensor, Tensor]:
        """Return g (n, width) and its partial derivatives."""
        if self.bias is not None:
            p.do(u.add_, self.bias)
        n, width = u.shape[0], u.shape[1] // 2
        out = p.ws("g", slot, n, width)
        slopes = (p.ws("by_up", slot, n, width), p.ws("by_gate", slot, n, width)) if p.shape.train else None
        self.kernel(u[:, :width], u[:, width:], out, slopes, p)
        return out, slopes

    def backward(self, grad: Tensor, saved: Any, p: Pass) -> Tensor:
        """Return the gradient by u (n, 2 width)."""
        n, width = grad.shape
        du = p.ws("u", 0, n, 2 * width)
        p.do(torch.mul, grad, saved[1], out=du[:, :width])
        p.do(torch.mul, grad, saved[0], out=du[:, width:])
        return du


@dataclass(frozen=True)
class Block:
    """A decoder layer; the output biases of attention and MLP may be missing, and so may the norms after them."""

    layer: int
    norm_1: Norm
    attention_in: Matrix
    attention: Attention
    attention_out: Matrix
    attention_bias: Tensor | None
    norm_2: Norm
    mlp_in: Matrix
    activation: Activation
    mlp_out: Matrix
    mlp_bias: Tensor | None
    after_attention: Norm | None = None
    after_mlp: Norm | None = None

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The four matrices, from input to output."""
        return self.attention_in, self.attention_out, self.mlp_in, self.mlp_out

    @property
    def adapted(self) -> bool:
        """Whether any of them carries an adapter."""
        return any(matrix.parts for matrix in self.matrices)

    def within(self, whole: Layout, part: Layout) -> Block:
        """Return the same layer with the adapters that a part of their layout has."""
        return replace(
            self,
            attention_in=self.attention_in.within(whole, part),
            attention_out=self.attention_out.within(whole, part),
            mlp_in=self.mlp_in.within(whole, part),
            mlp_out=self.mlp_out.within(whole, part),
        )

    def forward(self, h: Tensor, p: Pass) -> tuple[Tensor, Tensor]:
        """Return the next hidden states (n, width) and what backward needs."""
        slot = p.slot(self.layer)
        x = p.ws("x_1", slot, *h.shape)
        norm_1 = self.norm_1.forward(h, x, p)
        qkv = p.ws("qkv", 0, p.n, self.attention.total)
        attention_in = self.attention_in.forward(x, qkv, p)
        attended = p.ws("attention", slot, p.n, self.attention.width)
        attention = self.attention.forward(qkv, attended, p)
        middle = p.ws("middle", slot, *h.shape)
        leave = _Way(self.attention_out, self.attention_bias, self.after_attention)
        attention_out = leave.forward(attended, h, middle, p)
        x = p.ws("x_2", slot, *h.shape)
        norm_2 = self.norm_2.forward(middle, x, p)
        u = p.ws("u", 0, p.n, self.mlp_in.outputs)
        mlp_in = self.mlp_in.forward(x, u, p)
        g, activation = self.activation.forward(u, slot, p)
        out = p.ws("hidden", p.slot(self.layer + 1), *h.shape)
        mlp_out = _Way(self.mlp_out, self.mlp_bias, self.after_mlp).forward(g, middle, out, p)
        return out, (norm_1, attention_in, attention, attention_out, norm_2, mlp_in, activation, mlp_out)

    def backward(self, dh: Tensor, saved: Any, p: Pass, *, lowest: bool) -> None:
        """Turn `dh`, the gradient by the layer's output, into that by its input, in place.

        In the `lowest` adapted layer it stops after its lowest adapter, and `dh` is then of no use.
        """
        norm_1, attention_in, attention, attention_out, norm_2, mlp_in, activation, mlp_out = saved
        first = next(i for i, m in enumerate(self.matrices) if m.parts) if lowest else -1
        dg = p.ws("dg", 0, p.n, self.mlp_out.inputs) if first < 3 else None
        _Way(self.mlp_out, self.mlp_bias, self.after_mlp).backward(dh, dg, mlp_out, p)
        if dg is None:
            return
        dx = p.ws("dx", 0, *dh.shape) if first < 2 else None
        self.mlp_in.backward(self.activation.backward(dg, activation, p), dx, mlp_in, p)
        if dx is None:
            return
        self.norm_2.backward(dx, dh, norm_2, p, add=True)
        dout = p.ws("dout", 0, p.n, self.attention.width) if first < 1 else None
        leave = _Way(self.attention_out, self.attention_bias, self.after_attention)
        leave.backward(dh, dout, attention_out, p)
        if dout is None:
            return
        dqkv = p.ws("qkv", 0, p.n, self.attention.total)
        self.attention.backward(dout, dqkv, attention, p)
        dx = dx if first < 0 else None
        self.attention_in.backward(dqkv, dx, attention_in, p)
        if dx is not None:
            self.norm_1.backward(dx, dh, norm_1, p, add=True)


class _Way(NamedTuple):
    """The way out of attention or of the MLP, onto the residual stream: a matrix, its bias, and a norm of both."""

    matrix: Matrix
    bias: Tensor | None
    norm: Norm | None

    def forward(self, x: Tensor, h: Tensor, out: Tensor, p: Pass) -> tuple[Activations | None, object]:
        """Write h + Norm(x W + bias) into `out`; return what backward needs."""
        if self.norm is None:
            if self.bias is None:
                p.do(out.copy_, h)
            else:
                p.do(torch.add, h, self.bias, out=out)
            return self.matrix.forward(x, out, p, add=True), None
        y = p.ws(f"{self.matrix.name}.y", p.slot(self.matrix.layer), *h.shape)
        state = self.matrix.forward(x, y, p)
        if self.bias is not None:
            p.do(y.add_, self.bias)
        level = self.norm.forward(y, out, p)
        p.do(out.add_, h)
        return state, level

    def backward(
        self, dh: Tensor, dx: Tensor | None, saved: tuple[Activations | None, object], p: Pass
    ) -> None:
        """Write the factors' gradients, and the gradient by x into `dx` unless None; `dh` stays."""
        state, level = saved
        dy = dh
        if self.norm is not None:
            dy = p.ws("dy_way", 0, *dh.shape)
            p.do(dy.copy_, dh)
            self.norm.backward(dy, dy, level, p, add=False)
        self.matrix.backward(dy, dx, state, p)


def lowest_adapted(blocks: Sequence[Block]) -> int:
    """Return the number of the first layer that carries an adapter.

    Raises:
        ExperimentError: none does.
    """
    for block in blocks:
        if block.adapted:
            return block.layer
    what, fix = "no layer of the decoder carries an adapter", "name some of its linear layers"
    raise ExperimentError(message("lora.targets", what, fix=fix))


@dataclass(frozen=True)
class Frozen:
    """What of a model is not a layer.

    Attributes:
        words: (vocabulary, width), the embedding.
        places: (positions, width), learned positions, or None.
        rotations: name -> RoPE's angles, which layers ask for by name.
        norm: the last normalisation.
        head: (vocabulary, width).
        words_scale: a number that embedded tokens are multiplied with, as a tensor of their type; None: 1.
    """

    words: Tensor
    places: Tensor | None
    rotations: Mapping[str, Angles]
    norm: Norm
    head: Tensor
    words_scale: Tensor | None = None
