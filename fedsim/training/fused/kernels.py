"""Activations and the loss, forward and backward, as operations of a program.

On a CPU torch's own tanh-GELU costs three times the arithmetic that it needs, and a composite of
plain operations reads memory once for each. Here an array is walked in blocks that fit the cache,
and the derivative is made while the block is there. On other devices, and in narrow types, the
library's kernels are used: same values, other last bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedsim.training.fused.program import Pass

BLOCK = 65_536
"""Numbers of one block of an element-wise walk: five such blocks fit a second-level cache."""
LOGITS = {"cpu": 1 << 17, "other": 1 << 26}
"""Logits held at once: what fits a second-level cache, or a small part of an accelerator's memory."""
ROWS = 128
"""Fewest tokens whose logits are computed at once, whatever the vocabulary."""
GAP = 16
"""Numbers between two rows that shall not be walked as one: a line of the cache."""
_C = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715
_TINY = 1e-30
"""Below this a probability has too few bits for its logarithm; the loss is then taken from the logits."""


def plain(x: Tensor) -> bool:
    """Tell whether `x` is where the written-out element-wise chains pay: on a CPU, float32 or float64."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def blocks(rows: int, width: int) -> list[slice]:
    """Return slices of consecutive rows of about `BLOCK` numbers each."""
    step = max(1, BLOCK // width)
    return [slice(at, min(at + step, rows)) for at in range(0, rows, step)]


def gelu(u: Tensor, bias: Tensor, out: Tensor, slope: Tensor | None, p: Pass) -> None:
    r"""Write GELU's tanh form of v = u + bias into `out`, and what `gelu_backward` needs into `slope`.

    With c = sqrt(2/pi), a = 0.044715: t = 2c(v + a v^3), s = 1/(1 + e^-t), g = v s, which is
    v/2 (1 + tanh(t/2)). Its derivative is g' = s + v s (1 - s) dt/dv with dt/dv = 2c + 6ca v^2.

    Args:
        u: (n, width), overwritten.
        bias: (width,).
        out: (n, width).
        slope: (n, width), gets g' (elsewhere than on a CPU: v); None if no backward follows.
        p: the program.
    """
    if not plain(u):
        p.do(u.add_, bias)
        p.do(torch.ops.aten.gelu.out, u, approximate="tanh", out=out)
        if slope is not None:
            p.do(slope.copy_, u)
        return
    two_c = torch.tensor(2 * _C, dtype=u.dtype)
    for part in blocks(*u.shape):
        v, g = u[part], out[part]
        s = p.ws("gelu.s", 0, *v.shape) if slope is None else slope[part]
        p.do(v.add_, bias)
        p.do(torch.addcmul, two_c, v, v, value=2 * _C * _CUBIC, out=g)
        p.do(g.mul_, v)
        p.do(torch.sigmoid, g, out=s)
        p.do(torch.mul, v, s, out=g)
        if slope is None:
            continue
        d = p.ws("gelu.d", 0, *v.shape)
        p.do(torch.addcmul, two_c, v, v, value=6 * _C * _CUBIC, out=d)
        p.do(d.mul_, v)
        p.do(torch.ops.aten.sigmoid_backward.grad_input, d, s, grad_input=d)
        p.do(s.add_, d)


def gelu_backward(grad: Tensor, slope: Tensor, p: Pass) -> None:
    """Turn the gradient by g into the gradient by u, in place."""
    if plain(grad):
        p.do(grad.mul_, slope)
    else:
        p.do(torch.ops.aten.gelu_backward.grad_input, grad, slope, approximate="tanh", grad_input=grad)


def swiglu(gate: Tensor, up: Tensor, out: Tensor, slopes: tuple[Tensor, Tensor] | None, p: Pass) -> None:
    r"""Write silu(gate) * up into `out` (n, width), silu(x) = x s(x), s the logistic function.

    `slopes` gets the two partial derivatives: by `up` silu(gate), by `gate` up (s + silu (1 - s)).
    """
    for part in blocks(*gate.shape):
        x, y = gate[part], up[part]
        silu = p.ws("swiglu.silu", 0, *x.shape) if slopes is None else slopes[0][part]
        s = p.ws("swiglu.s", 0, *x.shape) if slopes is None else slopes[1][part]
        p.do(torch.sigmoid, x, out=s)
        p.do(torch.mul, x, s, out=silu)
        p.do(torch.mul, silu, y, out=out[part])
        if slopes is not None:
            d = p.ws("swiglu.d", 0, *x.shape)
            p.do(torch.addcmul, s, silu, s, value=-1.0, out=d)
            p.do(torch.add, d, silu, out=s)
            p.do(s.mul_, y)


def geglu(gate: Tensor, up: Tensor, out: Tensor, slopes: tuple[Tensor, Tensor] | None, p: Pass) -> None:
    r"""Write gelu(gate) * up into `out` (n, width), in GELU's tanh form (see `gelu`).

    `slopes` gets the two partial derivatives: by `up` gelu(gate), by `gate` up gelu'(gate).
    """
    if not plain(gate):
        active = p.ws("geglu.active", 0, *gate.shape) if slopes is None else slopes[0]
        p.do(torch.ops.aten.gelu.out, gate, approximate="tanh", out=active)
        p.do(torch.mul, active, up, out=out)
        if slopes is not None:
            p.do(torch.ops.aten.gelu_backward.grad_input, up, gate, approximate="tanh", grad_input=slopes[1])
        return
    two_c = torch.tensor(2 * _C, dtype=gate.dtype)
    for part in blocks(*gate.shape):
        v, y, g = gate[part], up[part], out[part]
        active = p.ws("geglu.active", 0, *v.shape) if slopes is None else slopes[0][part]
        rows, width = v.shape
        # rows that do not join up: else the last numbers of all are computed one by one, with other bits than in company
        s = p.ws("geglu.s", 0, rows, width + GAP)[:, :width]
        p.do(torch.addcmul, two_c, v, v, value=2 * _C * _CUBIC, out=g)
        p.do(g.mul_, v)
        p.do(torch.sigmoid, g, out=s)
        p.do(torch.mul, v, s, out=active)
        p.do(torch.mul, active, y, out=g)
        if slopes is None:
            continue
        d = p.ws("geglu.d", 0, *v.shape)
        p.do(torch.addcmul, two_c, v, v, value=6 * _C * _CUBIC, out=d)
        p.do(d.mul_, v)
        p.do(torch.ops.aten.sigmoid_backward.grad_input, d, s, grad_input=d)
        p.do(s.add_, d)
        p.do(torch.mul, s, y, out=slopes[1][part])


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, grad: Tensor | None, p: Pass) -> None:
    r"""Write each token's negative log likelihood [nats], and optionally the gradient by `hidden`.

    With logits l = h E^T and q = softmax(l): nll = -log q[target]; the gradient of sum_n w_n nll_n
    is w (q E - E[target]), so neither the one-hot matrix nor the weights touch the logits.

    Args:
        hidden: (n, width).
        head: E, (vocabulary, width).
        targets: (n,) int64.
        grad: where the gradient goes, (n, width), or None.
        p: the program; its `nll` gets the losses, its `share` holds w.
    """
    n, vocab = hidden.shape[0], head.shape[0]
    step = max(ROWS, LOGITS["cpu" if hidden.device.type == "cpu" else "other"] // vocab)
    if p.shape.masked:
        logits = p.fine("logits", 0, min(step, n), vocab)
        p.do(_of_answers, hidden, head, targets, grad, p, logits)
        return
    for at in range(0, n, step):
        part = slice(at, min(at + step, n))
        h, target = hidden[part], targets[part]
        logits = p.fine("logits", 0, h.shape[0], vocab)
        p.do(_probabilities, h, head.t(), target[:, None], p.nll[part], logits)
        if grad is None:
            continue
        d, picked = grad[part], p.ws("picked", 0, *h.shape)
        p.do(_product, logits, head, d)
        p.do(torch.index_select, head, 0, target, out=picked)
        p.do(d.sub_, picked)
        p.do(d.mul_, p.share[part])


def _of_answers(
    hidden: Tensor, head: Tensor, targets: Tensor, grad: Tensor | None, p: Pass, logits: Tensor
) -> None:
    """Do the same of the tokens whose share is not 0 alone; the others have no loss, no gradient and no logits."""
    for output in (p.nll, grad, p.hits):
        if output is not None:
            output.zero_()
    for part in p.share[:, 0].nonzero()[:, 0].split(len(logits)):
        h, target, q = hidden[part], targets[part], logits[: len(part)]
        losses = p.nll.new_empty(len(part))
        _probabilities(h, head.t(), target[:, None], losses, q)
        p.nll[part] = losses
        if p.hits is not None:
            p.hits[part] = q.argmax(-1) == target
        if grad is not None:
            d = torch.empty_like(h)
            _product(q, head, d)
            grad[part] = d.sub_(head.index_select(0, target)).mul_(p.share[part])


def _product(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write x weight into `out`; x may be wider than both, or `out` than both."""
    if x.dtype == weight.dtype == out.dtype:
        torch.mm(x, weight, out=out)
    else:
        out.copy_(torch.mm(x.to(weight.dtype), weight))


def _probabilities(h: Tensor, head: Tensor, target: Tensor, losses: Tensor, logits: Tensor) -> None:
    """Write softmax(h E^T) into `logits`, and the losses."""
    _product(h, head, logits)
    if plain(logits):
        torch.softmax(logits, -1, out=logits)
        picked = logits.gather(1, target)[:, 0]
        torch.log(picked, out=losses).neg_()
        lost = (~(picked > _TINY)).nonzero()[:, 0]
        if len(lost):  # these rows alone: whoever has them does not change the others
            again = logits.new_empty(len(lost), logits.shape[1])
            _product(h[lost], head, again)
            log_q = torch.log_softmax(again, -1)
            losses[lost] = -log_q.gather(1, target[lost])[:, 0]
            logits[lost] = torch.exp(log_q)
        return
    log_q = torch.log_softmax(logits, -1)
    losses.copy_(log_q.gather(1, target)[:, 0]).neg_()
    torch.exp(log_q, out=logits)
