"""One pre-norm decoder layer, forward and backward: h + Attention(Norm(h)), then h + MLP(Norm(h)).

Backward stops at the lowest adapter: no gradient is computed that no adapter needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.errors import ExperimentError, message
from fedsim.training.fused.attention import Attention
from fedsim.training.fused.kernels import gelu, gelu_backward, swiglu
from fedsim.training.fused.lora import Matrix
from fedsim.training.fused.program import Pass


class Norm(Protocol):
    """A normalisation with frozen parameters."""

    def forward(self, x: Tensor, y: Tensor, p: Pass) -> Tensor:
        """Write y; return what backward needs."""
        ...

    def backward(self, dy: Tensor, dx: Tensor, saved: Any, p: Pass, *, add: bool) -> None:
        """Write or add the gradient by x."""
        ...


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
class Swiglu:
    """g = silu(gate) * up of the product u = (gate, up) side by side, Llama's."""

    bias: Tensor | None

    def forward(self, u: Tensor, slot: int, p: Pass) -> tuple[Tensor, Tensor]:
        """Return g (n, width) and its partial derivatives."""
        if self.bias is not None:
            p.do(u.add_, self.bias)
        n, width = u.shape[0], u.shape[1] // 2
        out = p.ws("g", slot, n, width)
        slopes = (p.ws("by_up", slot, n, width), p.ws("by_gate", slot, n, width)) if p.shape.train else None
        swiglu(u[:, :width], u[:, width:], out, slopes, p)
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
    """A decoder layer; the output biases of attention and MLP may be missing."""

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
        _start(h, self.attention_bias, middle, p)
        attention_out = self.attention_out.forward(attended, middle, p, add=True)
        x = p.ws("x_2", slot, *h.shape)
        norm_2 = self.norm_2.forward(middle, x, p)
        u = p.ws("u", 0, p.n, self.mlp_in.outputs)
        mlp_in = self.mlp_in.forward(x, u, p)
        g, activation = self.activation.forward(u, slot, p)
        out = p.ws("hidden", p.slot(self.layer + 1), *h.shape)
        _start(middle, self.mlp_bias, out, p)
        mlp_out = self.mlp_out.forward(g, out, p, add=True)
        return out, (norm_1, attention_in, attention, attention_out, norm_2, mlp_in, activation, mlp_out)

    def backward(self, dh: Tensor, saved: Any, p: Pass, *, lowest: bool) -> None:
        """Turn `dh`, the gradient by the layer's output, into that by its input, in place.

        In the `lowest` adapted layer it stops after its lowest adapter, and `dh` is then of no use.
        """
        norm_1, attention_in, attention, attention_out, norm_2, mlp_in, activation, mlp_out = saved
        first = next(i for i, m in enumerate(self.matrices) if m.parts) if lowest else -1
        dg = p.ws("dg", 0, p.n, self.mlp_out.inputs) if first < 3 else None
        self.mlp_out.backward(dh, dg, mlp_out, p)
        if dg is None:
            return
        dx = p.ws("dx", 0, *dh.shape) if first < 2 else None
        self.mlp_in.backward(self.activation.backward(dg, activation, p), dx, mlp_in, p)
        if dx is None:
            return
        self.norm_2.backward(dx, dh, norm_2, p, add=True)
        dout = p.ws("dout", 0, p.n, self.attention.width) if first < 1 else None
        self.attention_out.backward(dh, dout, attention_out, p)
        if dout is None:
            return
        dqkv = p.ws("qkv", 0, p.n, self.attention.total)
        self.attention.backward(dout, dqkv, attention, p)
        dx = dx if first < 0 else None
        self.attention_in.backward(dqkv, dx, attention_in, p)
        if dx is not None:
            self.norm_1.backward(dx, dh, norm_1, p, add=True)


def _start(h: Tensor, bias: Tensor | None, out: Tensor, p: Pass) -> None:
    """Write h + bias, to which a product is then added."""
    if bias is None:
        p.do(out.copy_, h)
    else:
        p.do(torch.add, h, bias, out=out)


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
