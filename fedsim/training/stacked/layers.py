"""One frozen layer with k adapters: y = W x + b + scale_k B_k A_k x, each client on its own examples.

LoRA (arXiv 2106.09685) as PEFT lays it out: A (r, in) and B (out, r) for a matrix; for a convolution
A is a convolution of r filters with the layer's stride, padding and dilation, and B one of 1 x 1
(out, r, 1, 1). The examples of client 0 come first, then those of client 1, ...
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedsim.errors import ExperimentError, message


class _Affine(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """The matrix case, with no pass over the activations that the arithmetic does not need."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, mask: Tensor
    ) -> Tensor:
        """`weight` is (in, out); `mask` multiplies what A sees."""
        k, _, inputs = a.shape
        rows = x.reshape(-1, inputs)
        y = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
        seen = rows.view(k, -1, inputs)
        if mask is not None:
            seen = seen * mask.reshape(seen.shape)
        low = torch.bmm(seen, a.transpose(1, 2)).mul_(scale)
        y.view(k, -1, y.shape[1]).baddbmm_(low, b.transpose(1, 2))
        ctx.save_for_backward(seen, low, a, b, scale, weight, mask)
        return y.view(*x.shape[:-1], y.shape[1])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Return gradients of x, A and B, each only if somebody needs it."""
        seen, low, a, b, scale, weight, mask = ctx.saved_tensors
        for_x, for_a, for_b = ctx.needs_input_grad[:3]
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_y = rows.view(a.shape[0], -1, rows.shape[1])
        of_x = of_a = of_b = None
        if for_b:
            of_b = torch.bmm(of_y.transpose(1, 2), low)
        if for_x or for_a:
            of_low = torch.bmm(of_y, b).mul_(scale)
        if for_a:
            of_a = torch.bmm(of_low.transpose(1, 2), seen)
        if for_x:
            of_x = rows @ weight.t()
            of_seen = of_x.view(seen.shape)
            if mask is None:
                of_seen.baddbmm_(of_low, a)
            else:
                of_seen.addcmul_(torch.bmm(of_low, a), mask.reshape(seen.shape))
            of_x = of_x.view(*gradient.shape[:-1], of_x.shape[1])
        return of_x, of_a, of_b, None, None, None, None


def affine(
    x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor, scale: Tensor, mask: Tensor = None
) -> Tensor:
    """Return W x + b + scale_k B_k A_k x.

    Args:
        x: (k * rows, ..., in).
        weight: (in, out), a view for a Linear.
        bias: (out,) or None.
        a: (k, r, in).
        b: (k, out, r).
        scale: (k,).
        mask: factors of A's input (k, rows, ..., in), or None.
    """
    return _Affine.apply(x, a, b, scale.view(-1, 1, 1), weight, bias, mask)


def convolution(
    x: Tensor, layer: Any, a: Tensor, b: Tensor, scale: Tensor, mask: Tensor = None, *, biased: bool = True
) -> Tensor:
    """Return the Conv2d `layer` of x plus each client's own adapter.

    One grouped convolution, a group a client, is faster here than unfolding or a loop over clients.

    Args:
        x: (k * rows, in, height, width).
        layer: the frozen convolution, of one group.
        a: (k, r, in, kh, kw).
        b: (k, out, r, 1, 1).
        scale: (k,).
        mask: factors of A's input (k, rows, in, height, width), or None.
        biased: whether the layer's own bias is added.
    """
    k, r = a.shape[:2]
    rows = x.shape[0] // k
    conv = torch.nn.functional.conv2d
    how = (layer.stride, layer.padding, layer.dilation)
    seen = x.view(k, rows, *x.shape[1:])
    if mask is not None:
        seen = seen * mask
    side_by_side = seen.transpose(0, 1).reshape(rows, k * x.shape[1], *x.shape[2:])
    low = conv(side_by_side, a.reshape(k * r, *a.shape[2:]), None, *how, k)
    low = low.view(rows, k, r, -1).transpose(0, 1)
    up = (b.flatten(2) * scale.view(-1, 1, 1))[:, None]
    y = conv(x, layer.weight, layer.bias if biased else None, *how)
    return y + torch.matmul(up, low).reshape(y.shape)


def lengths(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Return the length of each row of W + scale_k B_k A_k, (k, out), without a gradient; no product B A is formed.

    |W_o + s B_o A|^2 = |W_o|^2 + 2 s B_o (W_o A')' + s^2 B_o (A A') B_o'.

    Args:
        weight: (out, in), a view for a Conv1D.
        a: (k, r, in).
        b: (k, out, r).
        scale: (k,).
    """
    with torch.no_grad():
        s = scale[:, None]
        across = (torch.matmul(weight, a.transpose(1, 2)) * b).sum(-1)
        square = (torch.bmm(b, torch.bmm(a, a.transpose(1, 2))) * b).sum(-1)
        return (weight.square().sum(1) + 2 * s * across + s.square() * square).sqrt()


def spread(values: Tensor, y: Tensor, *, channels_first: bool) -> Tensor:
    """Return numbers of each client's outputs (k, out) as they meet y (k * rows, ...), viewed as (k, rows, ...)."""
    ones = (1,) * (y.dim() - 2)
    return (
        values.view(len(values), 1, -1, *ones) if channels_first else values.view(len(values), 1, *ones, -1)
    )


def rows_of(x: Tensor, k: int, name: str) -> tuple[int, ...]:
    """Return (k, rows, ...), the shape in which x (k * rows, ...) is apart by client.

    Raises:
        ExperimentError: its rows cannot be told apart.
    """
    if x.shape[0] % k:
        what = f"this layer gets {x.shape[0]} inputs for {k} clients, so they cannot be told apart"
        fix = "leave it out of lora.targets, or set numerics.training: sequential"
        raise ExperimentError(message(name, what, fix=fix))
    return k, x.shape[0] // k, *x.shape[1:]


class BiasSite:
    """A layer that carries no adapter and adds each client's own bias, while there is one, in the place of its own."""

    def __init__(self, name: str, layer: torch.nn.Module) -> None:
        """Take over `layer.forward`; without a bias of the clients it does what it did."""
        self.name, self.layer = name, layer
        self.bias: Tensor = None
        self.magnitude: Tensor = None
        self._plain = layer.forward
        self._first = isinstance(layer, torch.nn.Conv2d | torch.nn.GroupNorm)
        layer.forward = self.forward

    def clear(self) -> None:
        """Be as the pretrained model again."""
        self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for (k * rows, ...)."""
        y = self._plain(x)
        if self.bias is None:
            return y
        moved = self.bias - self.layer.bias.detach()
        seen = y.reshape(rows_of(y, len(moved), self.name))
        return (seen + spread(moved, y, channels_first=self._first)).reshape(y.shape)


class Site:
    """One target layer of a model: its forward, and the adapters it adds while there are any.

    Attributes:
        adapter: A (k, r, ...), B (k, out, r, ...) and scales (k,), or None.
        magnitude: DoRA's length of each row, (k, out), or None.
        bias: the clients' own (k, out), in the place of the layer's, or None.
        noise: LoRA dropout, or None.
    """

    def __init__(self, name: str, layer: Any, index: int) -> None:
        """Take over `layer.forward`; without an adapter it does what it did."""
        self.name, self.layer, self.index = name, layer, index
        self.adapter: tuple[Tensor, Tensor, Tensor] | None = None
        self.noise: Tensor = None
        self.magnitude: Tensor = None
        self.bias: Tensor = None
        self._plain = layer.forward
        self._conv = isinstance(layer, torch.nn.Conv2d)
        self._turned = isinstance(layer, torch.nn.Linear)
        layer.forward = self.forward

    def clear(self) -> None:
        """Be as the pretrained model again."""
        self.adapter = self.noise = self.magnitude = self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for (k * rows, ...)."""
        if self.adapter is None:
            return self._plain(x)
        a, b, scale = self.adapter
        mask, shape = None, rows_of(x, len(a), self.name)
        if self.noise is not None:
            mask = self.noise(self.index, shape).to(x.dtype)
        beside = self.magnitude is not None or self.bias is not None
        if self._conv:
            y = convolution(x, self.layer, a, b, scale, mask, biased=not beside)
        else:
            weight = self.layer.weight.t() if self._turned else self.layer.weight
            y = affine(x, weight, None if beside else self.layer.bias, a, b, scale, mask)
        return self._with_beside(y, a, b, scale) if beside else y

    def _with_beside(self, y: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        """Return the rows brought to their length, and the bias added."""
        seen = y.view(rows_of(y, len(a), self.name))
        if self.magnitude is not None:
            weight = self.layer.weight.flatten(1) if self._conv or self._turned else self.layer.weight.t()
            ratio = self.magnitude / lengths(weight, a.flatten(2), b.flatten(2), scale)
            seen = seen * spread(ratio, y, channels_first=self._conv)
        if self.bias is not None:
            seen = seen + spread(self.bias, y, channels_first=self._conv)
        elif self.layer.bias is not None:
            frozen = self.layer.bias.detach().expand(len(a), -1)
            seen = seen + spread(frozen, y, channels_first=self._conv)
        return seen.view(y.shape)
