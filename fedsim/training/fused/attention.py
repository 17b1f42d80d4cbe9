r"""Causal attention, forward and backward, with grouped key-value heads, rotary positions, windows and normalised heads.

Per head, with queries Q, keys K, values V of T tokens:

    P = softmax(c Q K^T + mask),  O = P V
    dV = P^T dO,  dP = dO V^T,  dS = P * (dP - rowsum(dP * P)),  dQ = c dS K,  dK = c dS^T Q

P is kept. That beats the flash kernel on a CPU at every length tried (T = 32..256), and takes
T numbers a head and token; longer sequences and other devices use torch's own kernel and autograd.
The g query heads of a key-value head are laid one after the other, (g T, T) scores, so that shared
keys and values are neither repeated nor summed apart. A window takes more of the mask away; its T x T scores are
computed all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedsim.training.direct.architecture import Reach
from fedsim.training.fused.kernels import plain
from fedsim.training.fused.norms import Norm
from fedsim.training.fused.program import Pass, Rotation

EXPLICIT = 1024
"""Longest sequence whose probabilities are kept."""


ANYWHERE = Reach()
"""A layer that sees all tokens before, and knows no places."""


class Attention:
    """Heads of one layer over a product (n, (heads + 2 kv) head_dim): queries, then keys, then values."""

    def __init__(
        self,
        layer: int,
        heads: int,
        kv: int,
        head_dim: int,
        scale: float,
        bias: Tensor | None,
        reach: Reach = ANYWHERE,
        norms: tuple[Norm, Norm] | None = None,
    ) -> None:
        """Remember the shape; `bias` of the product, or None, is added here, then `norms` of queries and of keys are taken."""
        self.layer, self.heads, self.kv, self.head_dim, self.scale = layer, heads, kv, head_dim, scale
        self.reach = reach
        of_queries, of_keys = (None, None) if norms is None else norms
        self.norms: tuple[Norm | None, ...] = of_queries, of_keys, None
        self.bias = None if bias is None else bias.view(heads + 2 * kv, 1, head_dim)
        self.width = heads * head_dim
        self.total = (heads + 2 * kv) * head_dim
        self.places = slice(0, heads), slice(heads, heads + kv), slice(heads + kv, heads + 2 * kv)

    def forward(self, qkv: Tensor, out: Tensor, p: Pass) -> Tensor:
        """Write the attended values into `out` (n, heads head_dim); return what backward needs."""
        batch, t, d = p.k * p.shape.rows, p.shape.length, self.head_dim
        source = qkv.view(batch, t, -1, d).transpose(1, 2)
        slot, g = p.slot(self.layer), self.heads // self.kv
        heads: list[Tensor] = []
        norms: list[object] = []
        for name, at, norm in zip("qkv", self.places, self.norms, strict=True):
            to = p.ws(name, slot, batch, at.stop - at.start, t, d)
            bias = None if self.bias is None else self.bias[at]
            if norm is None:
                _bring(source[:, at], bias, self._rotation(name, p), to, p)
            else:
                raw = p.ws(f"raw_{name}", slot, *to.shape)
                _bring(source[:, at], bias, None, raw, p)
                norms.append(_normed(norm, raw, self._rotation(name, p), to, p))
            heads.append(to)
        goal = out.view(batch, t, self.heads, d).transpose(1, 2)
        if not plain(qkv) or t > EXPLICIT:
            saved: list[Any] = []
            window, masks = self._window(p), [p.mask] if p.shape.packed else []
            if window is not None:
                masks = [p.mask, window]
            p.do(self._library, heads, goal, saved, bool(p.shape.train), masks)
            return saved, norms
        q, k, v = heads[0].view(-1, g * t, d), heads[1].view(-1, t, d), heads[2].view(-1, t, d)
        scores = p.ws("probabilities", slot, batch * self.kv, g * t, t)
        attended = p.ws("attended", 0, batch * self.kv, g * t, d)
        p.do(torch.baddbmm, scores, q, k.transpose(1, 2), beta=0, alpha=self.scale, out=scores)
        p.do(scores.view(batch, -1, t, t).add_, p.mask)
        if self._window(p) is not None:
            p.do(scores.view(batch, -1, t, t).add_, self._window(p))
        p.do(torch.softmax, scores, -1, out=scores)
        p.do(torch.bmm, scores, v, out=attended)
        p.do(goal.copy_, attended.view(batch, self.heads, t, d))
        return (q, k, v, scores), norms

    def backward(self, dout: Tensor, dqkv: Tensor, saved: Any, p: Pass) -> None:
        """Write the gradient by the product into `dqkv`, given `dout` (n, heads head_dim)."""
        batch, t, d = p.k * p.shape.rows, p.shape.length, self.head_dim
        goal = dqkv.view(batch, t, -1, d).transpose(1, 2)
        source = dout.view(batch, t, self.heads, d).transpose(1, 2)
        counts = (at.stop - at.start for at in self.places)
        grads = [p.ws(f"d{name}", 0, batch, h, t, d) for name, h in zip("qkv", counts, strict=True)]
        attended, norms = saved
        if isinstance(attended, list):
            p.do(self._library_backward, source, attended, grads)
        else:
            self._explicit(source, attended, grads, p)
        states = iter(norms)
        for name, at, grad, norm in zip("qkv", self.places, grads, self.norms, strict=True):
            if norm is None:
                _send(grad, goal[:, at], self._rotation(name, p), p)
            else:
                turned = grad
                if self._rotation(name, p) is not None:
                    turned = p.ws("unturned", 0, *grad.shape)
                    _send(grad, turned, self._rotation(name, p), p)
                norm.backward(turned, goal[:, at], next(states), p, add=False)

    def _rotation(self, name: str, p: Pass) -> Rotation | None:
        """Return the angles of queries and keys."""
        return None if name == "v" or self.reach.rotation is None else p.rotations[self.reach.rotation]

    def _window(self, p: Pass) -> Tensor | None:
        """Return what a window takes away of the mask; None: these sequences are no longer than it."""
        return p.windows[self.reach.window] if 0 < self.reach.window < p.shape.length else None

    def _explicit(self, source: Tensor, saved: Any, grads: list[Tensor], p: Pass) -> None:
        q, k, v, probabilities = saved
        dq, dk, dv = (grad.view(x.shape) for grad, x in zip(grads, (q, k, v), strict=True))
        do = p.ws("attended", 0, *source.shape)
        ds = p.ws("dscores", 0, *probabilities.shape)
        p.do(do.copy_, source)
        do = do.view(q.shape)
        p.do(torch.bmm, probabilities.transpose(1, 2), do, out=dv)
        p.do(torch.bmm, do, v.transpose(1, 2), out=ds)
        back = torch.ops.aten._softmax_backward_data.out  # noqa: SLF001  # the public way is autograd
        p.do(back, ds, probabilities, -1, ds.dtype, grad_input=ds)
        p.do(torch.baddbmm, dq, ds, k, beta=0, alpha=self.scale, out=dq)
        p.do(torch.baddbmm, dk, ds.transpose(1, 2), q, beta=0, alpha=self.scale, out=dk)

    def _library(
        self, heads: list[Tensor], goal: Tensor, saved: list[Any], train: bool, masks: list[Tensor]
    ) -> None:
        inputs = [x.detach().requires_grad_(train) for x in heads]
        mask = sum(masks[1:], masks[0]) if masks else None  # none: the causal one alone
        with torch.set_grad_enabled(train):
            out = torch.nn.functional.scaled_dot_product_attention(
                *inputs,
                attn_mask=mask,
                is_causal=mask is None,
                scale=self.scale,
                enable_gqa=self.kv != self.heads,
            )
        goal.copy_(out.detach())
        saved[:] = [inputs, out]

    def _library_backward(self, source: Tensor, saved: list[Any], grads: list[Tensor]) -> None:
        inputs, out = saved
        for to, grad in zip(grads, torch.autograd.grad(out, inputs, source), strict=True):
            to.copy_(grad)
        saved.clear()


def _bring(source: Tensor, bias: Tensor | None, rotation: Rotation | None, to: Tensor, p: Pass) -> None:
    """Copy heads (batch, heads, T, d) into contiguous memory, biased and rotated."""
    if rotation is not None:
        if bias is not None:
            p.do(source.add_, bias)
        _turn(source, *rotation, to, 1.0, p)
    elif bias is None:
        p.do(to.copy_, source)
    else:
        p.do(torch.add, source, bias, out=to)


def _normed(norm: Norm, raw: Tensor, rotation: Rotation | None, to: Tensor, p: Pass) -> object:
    """Write normalised and turned heads; return what the norm's backward needs."""
    if rotation is None:
        return norm.forward(raw, to, p)
    level = p.ws("level", 0, *raw.shape)
    state = norm.forward(raw, level, p)
    _turn(level, *rotation, to, 1.0, p)
    return state


def _send(grad: Tensor, to: Tensor, rotation: Rotation | None, p: Pass) -> None:
    """Copy a gradient back into its place of the product, turned the other way."""
    if rotation is None:
        p.do(to.copy_, grad)
    else:
        _turn(grad, *rotation, to, -1.0, p)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, to: Tensor, direction: float, p: Pass) -> None:
    """Rotate the halves x1, x2 of each head: (x1 cos - x2 sin, x2 cos + x1 sin); RoPE, arXiv 2104.09864."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    low, high = to[..., :half], to[..., half:]
    p.do(torch.mul, first, cos, out=low)
    p.do(low.addcmul_, second, sin, value=-direction)
    p.do(torch.mul, second, cos, out=high)
    p.do(high.addcmul_, first, sin, value=direction)
