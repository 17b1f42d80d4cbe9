"""LayerNorm and RMSNorm with frozen weights: forward, and the gradient by their input alone."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fedsim.training.fused.kernels import plain
from fedsim.training.fused.program import Pass


class Norm(Protocol):
    """A normalisation with frozen parameters."""

    def forward(self, x: Tensor, y: Tensor, p: Pass) -> Tensor:
        """Write y; return what backward needs."""
        ...

    def backward(self, dy: Tensor, dx: Tensor, saved: object, p: Pass, *, add: bool) -> None:
        """Write or add the gradient by x; `dy` is overwritten, and may be `dx`."""
        ...


class LayerNorm:
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        """Hold the frozen parameters (width,)."""
        self.weight, self.bias, self.eps = weight, bias, eps

    def forward(self, x: Tensor, y: Tensor, p: Pass) -> Tensor:
        """Write y (n, width); return what backward needs."""
        moments: list[Tensor] = []
        p.do(self._forward, x, y, moments)
        return x, moments

    def backward(self, dy: Tensor, dx: Tensor, saved: Any, p: Pass, *, add: bool) -> None:
        """Write or add the gradient by x; `dy` may be overwritten."""
        p.do(self._backward, dy, dx.add_ if add else dx.copy_, *saved)

    def _forward(self, x: Tensor, y: Tensor, moments: list[Tensor]) -> None:
        out, *moments[:] = torch.native_layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        y.copy_(out)

    def _backward(self, dy: Tensor, give: Tensor, x: Tensor, moments: list[Tensor]) -> None:
        back = torch.ops.aten.native_layer_norm_backward
        give(back(dy, x, self.weight.shape, *moments, self.weight, self.bias, [True, False, False])[0])


class RMSNorm:
    """y = x / sqrt(mean x^2 + eps) * weight over the last dimension (arXiv 1910.07467).

    With r = 1 / sqrt(mean x^2 + eps) and g = dy * weight: dx = r (g - x r^2 mean(g x)).
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        """Hold the frozen weight (width,); one of float32 on narrower activations is multiplied before these are rounded."""
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor, y: Tensor, p: Pass) -> Tensor:
        """Write y (n, width); return what backward needs."""
        r: list[Tensor] = []
        p.do(self._forward, x, y, r)
        return x, r

    def backward(self, dy: Tensor, dx: Tensor, saved: Any, p: Pass, *, add: bool) -> None:
        """Write or add the gradient by x; `dy` is overwritten."""
        scratch = p.ws("norm", 0, *dy.shape)
        p.do(self._backward, dy, dx.add_ if add else dx.copy_, scratch, *saved)

    def _forward(self, x: Tensor, y: Tensor, saved: list[Any]) -> None:
        wide = x if plain(x) else x.float()
        r = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        r.mul_(1 / x.shape[-1]).add_(self.eps).rsqrt_()
        saved[:] = [r]
        if plain(x):
            torch.mul(x, r, out=y).mul_(self.weight)
        elif self.weight.dtype == y.dtype:
            y.copy_(wide * r).mul_(self.weight)
        else:
            y.copy_(wide * r * self.weight)

    def _backward(self, dy: Tensor, give: Tensor, scratch: Tensor, x: Tensor, saved: list[Any]) -> None:
        r = saved[0]
        g = dy.mul_(self.weight)
        if plain(x):
            product = torch.mul(g, x, out=scratch)
        else:
            g, x = g.float(), x.float()
            product = g * x
        c = product.sum(-1, keepdim=True).mul_(r).mul_(r).mul_(-1 / x.shape[-1])
        give(g.addcmul_(x, c).mul_(r))
