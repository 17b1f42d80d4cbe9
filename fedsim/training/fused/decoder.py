"""K clients through one written-out decoder: a `Backbone` without autograd.

A call is cut into passes, by shapes of one client alone: clients whose factors are merged go one by
one, smaller ones together, up to `TOKENS` tokens a pass; a larger client's rows are split and their
gradients added in order. On other devices, or with dropout, a call is one pass.

On one thread a client's numbers then depend on its company only where a row of the library's matrix
product has other bits when there are other rows beside it. MKL's has not (AVX-512) for 16 tokens a
client and more, up to an inner size of 768 or a width of 128; the vocabulary is an inner size too.
Elsewhere gradients differ by rounding: 1e-6 of the largest at width 256, 3e-6 was the most seen (width
512, 13 tokens). SGD leaves it at that; AdamW lifts it where a gradient is as small as rounding is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout, Trains, Vector
from fedsim.training.backbone import Backbone, Noise, Stack
from fedsim.training.chats.batch import Batch
from fedsim.training.fused.block import Block, Frozen, lowest_adapted
from fedsim.training.fused.kernels import cross_entropy
from fedsim.training.fused.program import Pass, Shape, Workspace
from fedsim.training.fused.reading import Reading, add_places, kept_apart
from fedsim.training.rebase import Bases, of_part

TOKENS = 1024
"""Tokens of one pass on a CPU: the activations of a small model then stay near the cache."""
PROGRAMS = 8
"""Shapes whose programs are kept."""
Program = tuple[Shape, tuple[int, int]]
"""What a program is made for: a shape, and the generations of both workspaces."""


class Decoder(Backbone):
    """A frozen decoder with stacked LoRA, gradients written by hand.

    Its calls share scratch memory: one at a time.

    Attributes:
        layout: of the factors.
        device, dtype: of the factors; the frozen weights may be narrower.
        prefix_layers: layers below the first that carries an adapter: what comes out of them depends
            on the tokens alone (`frozen_prefix`).
    """

    def __init__(self, layout: Layout, blocks: Sequence[Block], frozen: Frozen) -> None:
        """Take the layers and the rest of a model; nothing is allocated before the first call."""
        weight = frozen.head
        self.layout = layout
        self.device = weight.device
        self.dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self.prefix_layers = lowest_adapted(blocks)
        self._blocks, self._frozen = tuple(blocks), frozen
        self._width = weight.shape[1]
        self._ws = Workspace(weight.device, weight.dtype)
        alike = weight.dtype == self.dtype  # then both are one and the same
        self._fine = self._ws if alike else Workspace(weight.device, self.dtype)
        self._programs: dict[Program, Pass] = {}
        self._bases = Bases(layout, self._write)
        self._upper: dict[int, Decoder] = {}

    def at_depth(self, depth: int) -> Decoder:
        """Return the decoder with the adapters of its last `depth` layers only; weights and scratch memory are shared."""
        if depth not in self._upper:
            part = self.layout.last(depth)
            blocks = [block.within(self.layout, part) for block in self._blocks]
            upper = self._upper[depth] = Decoder(part, blocks, self._frozen)
            upper._ws, upper._fine = self._ws, self._fine
            upper._bases = Bases(self.layout, of_part(self.layout, part, upper._write))
        return self._upper[depth]

    def rebase(self, base: Vector | None) -> None:
        """Make the adapted modules' frozen weights W0 + change (`Base.vector`), or W0 again (None)."""
        self._bases.to(base)

    def _write(self, changes: Sequence[Tensor] | None) -> None:
        with torch.no_grad():
            moved = [matrix.rebase(changes) for block in self._blocks for matrix in block.matrices]
        if any(moved):
            self._programs.clear()

    def gradients(
        self, stack: Stack, tokens: Tensor | Batch, weights: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each client's loss and gradient, as `Backbone.gradients` says.

        Args:
            stack: the clients' adapters.
            tokens: int64 (k, rows, T + 1), or chats.
            weights: (k, rows), 0 for rows that only fill the shape.
            hidden: what `frozen_prefix` returned for these tokens (k, rows, T, width), or None.
        """
        grads = torch.empty_like(stack.factors)
        read = Reading.of(tokens)
        shares = read.shares(weights)
        nll = torch.empty(*self._predicted(read.tokens), device=self.device, dtype=self.dtype)
        for k, rows, first in self._passes(read.tokens, stack.noise):
            p = self._run(stack, read.part(k, rows), k, stack.trains, _at(hidden, k, rows), shares[k, rows])
            if first:
                grads[k].copy_(p.grads)
            else:
                grads[k].add_(p.grads)
            nll[k, rows] = p.nll.view(nll[k, rows].shape)
        return read.loss(nll, weights), grads

    def losses(self, stack: Stack, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the negative log likelihood [nats] of every predicted token, (k, rows, T)."""
        nll = torch.empty(*self._predicted(tokens), device=self.device, dtype=self.dtype)
        for k, rows, _ in self._passes(tokens, stack.noise):
            p = self._run(stack, Reading(tokens[k, rows]), k, None, _at(hidden, k, rows))
            nll[k, rows] = p.nll.view(nll[k, rows].shape)
        return nll

    def graded(self, stack: Stack, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return each predicted token's negative log likelihood [nats], and whether it is the likeliest, (k, rows, T)."""
        read = Reading.of(batch)
        nll = torch.empty(*self._predicted(read.tokens), device=self.device, dtype=self.dtype)
        hits = torch.empty(nll.shape, device=self.device, dtype=torch.bool)
        for k, rows, _ in self._passes(read.tokens, stack.noise):
            p = self._run(stack, read.part(k, rows), k, None, None, batch.learned[k, rows], graded=True)
            assert p.hits is not None
            nll[k, rows], hits[k, rows] = p.nll.view(nll[k, rows].shape), p.hits.view(nll[k, rows].shape)
        return nll, hits

    def frozen_prefix(self, tokens: Tensor) -> Tensor:
        """Return the hidden states before the first adapted layer, (n, T, width) for windows (n, T + 1).

        No client's factors enter, so they may be kept with the data and handed to `gradients` and
        `losses`. The same windows in the same order give the same bits on one thread; in other
        groups a row may differ in its last bits, as a client's numbers may in other company.
        """
        length = tokens.shape[1] - 1
        out = torch.empty(len(tokens), length, self._width, device=self.device, dtype=self._ws.dtype)
        step = max(1, TOKENS // length)
        for at in range(0, len(tokens), step):
            part = tokens[at : at + step]
            p = self._pass(Shape(1, len(part), length, None, noise=False, entered=False))
            h = self._enter(p)
            p.tokens.copy_(part[None])
            with torch.no_grad():
                p.replay()
            out[at : at + step] = h.view(len(part), length, self._width)
        return out

    def _run(
        self,
        stack: Stack,
        read: Reading,
        k: slice,
        train: Trains | None,
        hidden: Tensor | None,
        shares: Tensor | None = None,
        *,
        graded: bool = False,
    ) -> Pass:
        """Replay the program of this shape on these inputs."""
        count, rows, length = self._predicted(read.tokens)
        about = (stack.noise is not None, hidden is not None, read.places is not None, graded, read.masked)
        shape = Shape(count, rows, length, train, *about)
        with torch.no_grad():
            p = self._program(shape)
            p.factors.copy_(stack.factors[k])
            p.scales.copy_(stack.scales[k])
            p.tokens.copy_(read.tokens)
            if read.places is not None:
                p.places.copy_(read.places)
            if hidden is not None:
                p.hidden.copy_(hidden.reshape(p.hidden.shape))
            if shares is not None:
                p.share.view(count, rows, length).copy_(shares)
            p.replay(stack.noise)
        return p

    def _program(self, shape: Shape) -> Pass:
        p = self._programs.pop((shape, self._memory), None)
        if p is None:
            p = self._make(shape)  # which may replace memory that other programs use
            fresh = [(key, other) for key, other in self._programs.items() if key[1] == self._memory]
            self._programs = dict(fresh[max(0, len(fresh) + 1 - PROGRAMS) :])
        self._programs[shape, self._memory] = p
        return p

    @property
    def _memory(self) -> tuple[int, int]:
        """Generations of the workspaces: programs of others hold memory that is no longer theirs."""
        return self._ws.generation, self._fine.generation

    def _make(self, shape: Shape) -> Pass:
        """Write the program of a shape."""
        p = self._pass(shape)
        h = p.hidden if shape.entered else self._enter(p)
        states = []
        for block in self._blocks[self.prefix_layers :]:
            h, state = block.forward(h, p)
            states.append(state)
        norm, head = self._frozen.norm, self._frozen.head
        y = p.ws("y", 0, *h.shape)
        state = norm.forward(h, y, p)
        targets = torch.empty(p.n, dtype=torch.int64, device=self.device)
        p.do(targets.view(shape.k, shape.rows, shape.length).copy_, p.tokens[..., 1:])
        dy = p.ws("dy", 0, *y.shape) if shape.train else None
        cross_entropy(y, head, targets, dy, p)
        if dy is not None:
            dh = p.ws("dh", 0, *y.shape)
            norm.backward(dy, dh, state, p, add=False)
            for block in reversed(self._blocks[self.prefix_layers :]):
                block.backward(dh, states.pop(), p, lowest=block.layer == self.prefix_layers)
        return p

    def _enter(self, p: Pass) -> Tensor:
        """Embed the tokens and go through the layers below the first adapter; return what comes out."""
        ids = torch.empty(p.n, dtype=torch.int64, device=self.device)
        batch, length = p.k * p.shape.rows, p.shape.length
        p.do(ids.view(p.k, p.shape.rows, length).copy_, p.tokens[..., :-1])
        p.do(torch.index_select, self._frozen.words, 0, ids, out=p.hidden)
        if self._frozen.words_scale is not None:
            p.do(p.hidden.mul_, self._frozen.words_scale)
        if self._frozen.places is not None and p.shape.packed:
            p.do(add_places, p.hidden, self._frozen.places, p.places)
        elif self._frozen.places is not None:
            p.do(p.hidden.view(batch, length, -1).add_, self._frozen.places[:length])
        h = p.hidden
        below = replace(p, shape=replace(p.shape, train=None))
        for block in self._blocks[: self.prefix_layers]:
            h, _ = block.forward(h, below)
        return h

    def _pass(self, shape: Shape) -> Pass:
        k, length, n = shape.k, shape.length, shape.k * shape.rows * shape.length

        def new(make: Any, *size: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return make(size, device=self.device, dtype=dtype)

        hidden = torch.full((length, length), -torch.inf, device=self.device, dtype=self._ws.dtype)
        windows = {block.attention.reach.window for block in self._blocks}
        p = Pass(
            shape=shape,
            ws=self._ws,
            fine=self._fine,
            factors=new(torch.empty, k, self.layout.size),
            scales=new(torch.empty, k, len(self.layout.modules)),
            tokens=new(torch.empty, k, shape.rows, length + 1, dtype=torch.int64),
            share=new(torch.empty, n, 1, dtype=self._ws.dtype),
            hidden=self._ws("entry", 0, n, self._width),
            nll=new(torch.empty, n),
            grads=new(torch.zeros, k, self.layout.size),
            mask=hidden.triu(1),
            rotations={name: angles(length) for name, angles in self._frozen.rotations.items()},
            places=new(torch.zeros, k, shape.rows, length, dtype=torch.int64),
            hits=new(torch.empty, n, dtype=torch.bool) if shape.graded else None,
            windows={window: hidden.tril(-window) for window in windows if 0 < window < length},
        )
        return kept_apart(p) if shape.packed else p

    def _passes(self, tokens: Tensor, noise: Noise | None) -> Iterator[tuple[slice, slice, bool]]:
        """Yield clients, rows, and whether these rows are the clients' first."""
        k, rows, length = self._predicted(tokens)
        if self.device.type != "cpu" or noise is not None:
            yield slice(0, k), slice(0, rows), True
            return
        step = max(1, min(rows, TOKENS // length))
        alone = any(m.merges(step * length) for block in self._blocks for m in block.matrices)
        together = 1 if alone else max(1, TOKENS // (step * length))
        for at in range(0, k, together):
            for row in range(0, rows, step):
                yield slice(at, min(at + together, k)), slice(row, min(row + step, rows)), row == 0

    @staticmethod
    def _predicted(tokens: Tensor) -> tuple[int, int, int]:
        k, rows, length = tokens.shape
        return k, rows, length - 1


def _at(hidden: Tensor | None, k: slice, rows: slice) -> Tensor | None:
    return None if hidden is None else hidden[k, rows]
