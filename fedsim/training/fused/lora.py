r"""A frozen matrix that carries the stacked LoRA factors of k clients: y = x (W + s A^T B^T).

W is (in, out). One matrix may serve several adapted modules that read the same x (q, k and v, or
gate and up): their outputs lie side by side, their ranks add up to R, and with A stacked to (R, in)
and s B^T arranged block-diagonally to U (R, out) they are one adapter:

    forward    y = x W + (x A^T) U          backward   dz = dy U^T        (n, R)
                                                       dA = dz^T x,  dU = (x A^T)^T dy
                                                       dx = dy W^T + dz A

Two ways, chosen by the shapes of one client alone (`merges`), so that its numbers never depend on
its company:

* merged: W' = W + A^T U once a step and client, then y = x W' and dx = dy W'^T. Touches 2 in out
  numbers, where the other way goes once more over y and dx, n (in + out) numbers.
* stacked: one product with W for the tokens of all clients, and batched products with the factors.

Skinny products are laid out rank first (z^T = A x^T): on a CPU up to twice as fast as n x R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout
from fedsim.training.fused.kernels import plain
from fedsim.training.fused.program import Pass
from fedsim.training.rebase import added


@dataclass(frozen=True)
class Part:
    """One adapted module inside a matrix.

    Attributes:
        index: place in the layout.
        rank: r.
        a, b: places of the factors in the vector.
        columns: its outputs among the matrix's.
        rows: its place among the ranks of the matrix.
    """

    index: int
    rank: int
    a: slice
    b: slice
    columns: slice
    rows: slice


class Activations(NamedTuple):
    """What a matrix's backward needs: x (k, n, in), A (k, R, in), U (k, R, out), z^T (k, R, n), W'."""

    x: Tensor
    a: Tensor
    u: Tensor
    z: Tensor
    merged: Tensor


class Matrix:
    """A frozen (in, out) matrix and the adapters on it.

    Attributes:
        inputs, outputs: its shape.
        parts: the adapters, none if it is only frozen.
        rank: R, of all parts together.
        weight, frozen: what is multiplied with, and the pretrained W0; the same unless a base has moved.
    """

    def __init__(self, name: str, layer: int, weight: Tensor, parts: tuple[Part, ...]) -> None:
        """Hold `weight` (in, out), any strides; `name` keeps a layer's matrices apart in memory."""
        self.name, self.layer, self.weight, self.parts = name, layer, weight, parts
        self.frozen = weight
        self.inputs, self.outputs = weight.shape
        self.rank = sum(part.rank for part in parts)

    def within(self, whole: Layout, part: Layout) -> Matrix:
        """Return the same frozen matrix with those of its adapters that a part of their layout has; the weight is shared."""
        places, parts, rank = {m.name: i for i, m in enumerate(part.modules)}, list[Part](), 0
        for held in self.parts:
            name = whole.modules[held.index].name
            if name in places:
                a, b = (part.slices[f"{name}.lora_{factor}"][0] for factor in "AB")
                rows = slice(rank, rank + held.rank)
                parts.append(Part(places[name], held.rank, a, b, held.columns, rows))
                rank += held.rank
        return Matrix(self.name, self.layer, self.frozen, tuple(parts))

    def rebase(self, changes: Sequence[Tensor] | None) -> bool:
        """Make the weight W0 + the change of each part's columns, or W0 again (None).

        The first change moves the weight to memory of its own: W0 may be shared with the model.

        Args:
            changes: (out, in) of every module of the layout, in its order.

        Returns:
            Whether the weight lies in other memory now, so that programs made before must not be used.
        """
        if not self.parts or (changes is None and self.weight is self.frozen):
            return False
        moved = self.weight is self.frozen
        if moved:
            self.weight = self.frozen.clone()
        self.weight.copy_(self.frozen)
        if changes is not None:
            for part in self.parts:
                columns = self.weight[:, part.columns]
                columns.copy_(added(columns, changes[part.index].t()))
        return moved

    def merges(self, tokens: int) -> bool:
        """Tell whether a client with so many tokens merges its factors into its own copy of W."""
        cheaper = tokens * (self.inputs + self.outputs) > 2 * self.inputs * self.outputs
        return bool(self.parts) and plain(self.weight) and cheaper

    def forward(self, x: Tensor, out: Tensor, p: Pass, *, add: bool = False) -> Activations | None:
        """Write x W' into `out` (k n, out), or add it; x is (k n, in)."""
        if not self.parts:
            _product(x, self.weight, out, p, add)
            return None
        slot, fine, n = p.slot(self.layer), x.view(p.k, p.tokens_each, self.inputs), p.tokens_each
        a, u = self._factors(p, slot)
        if p.k == 1 and self.merges(n) and not p.shape.noise:
            merged = p.ws(f"{self.name}.merged", slot, self.inputs, self.outputs)
            p.do(torch.addmm, self.weight, a[0].t(), u[0], out=merged)
            _product(x, merged, out, p, add)
            return Activations(fine, a, u, None, merged)
        _product(x, self.weight, out, p, add)
        if x.dtype != p.fine.dtype:
            fine = p.fine(f"{self.name}.x", slot, *fine.shape)
            p.do(fine.copy_, x.view(fine.shape))
        z = p.fine(f"{self.name}.z", slot, p.k, self.rank, n)
        if not p.shape.noise:
            p.do(torch.bmm, a, fine.transpose(1, 2), out=z)
        for part in self.parts if p.shape.noise else ():
            p.do(self._noisy_forward, part, p, fine, a[:, part.rows], z[:, part.rows])
        _add(out.view(p.k, n, self.outputs), z.transpose(1, 2), u, p)
        return Activations(fine, a, u, z, None)

    def backward(self, dy: Tensor, dx: Tensor | None, saved: Activations | None, p: Pass) -> None:
        """Write the factors' gradients into the program's, and the gradient by x into `dx` unless None.

        Args:
            dy: (k n, out).
            dx: (k n, in) or None.
            saved: what forward returned.
            p: the same program.
        """
        if saved is None:
            if dx is not None:
                p.do(torch.mm, dy, self.weight.t(), out=dx)
            return
        n, stacked = p.tokens_each, saved.merged is None
        fine = dy
        if dy.dtype != p.fine.dtype:
            fine = p.fine("dy", 0, *dy.shape)
            p.do(fine.copy_, dy)
        fine = fine.view(p.k, n, self.outputs)
        dz = p.fine("dz", 0, p.k, self.rank, n)
        if "A" in p.trains or (dx is not None and stacked):
            p.do(torch.bmm, saved.u, fine.transpose(1, 2), out=dz)
        if "B" in p.trains:
            z = p.fine("z", 0, p.k, self.rank, n) if saved.z is None else saved.z
            if saved.z is None:
                p.do(torch.bmm, saved.a, saved.x.transpose(1, 2), out=z)
            du = p.fine("du", 0, p.k, self.rank, self.outputs)
            p.do(torch.bmm, z, fine, out=du)
            self._give_b(du, p)
        if "A" in p.trains and not p.shape.noise:
            da = p.fine("da", 0, p.k, self.rank, self.inputs)
            p.do(torch.bmm, dz, saved.x, out=da)
            for part in self.parts:
                p.do(self._a(p.grads, part).copy_, da[:, part.rows])
        if dx is not None:
            p.do(torch.mm, dy, (self.weight if stacked else saved.merged).t(), out=dx)
            dx = dx.view(p.k, n, self.inputs)
        if p.shape.noise:
            for part in self.parts:
                p.do(self._noisy_backward, part, p, saved, dz[:, part.rows], dx)
        elif stacked and dx is not None:
            _add(dx, dz.transpose(1, 2), saved.a, p)

    def _factors(self, p: Pass, slot: int) -> tuple[Tensor, Tensor]:
        """Return A (k, R, in) and U (k, R, out)."""
        u = p.fine(f"{self.name}.u", slot, p.k, self.rank, self.outputs)
        whole = (
            len(self.parts) == 1 and self.rank * self.outputs == self._b(p.factors, self.parts[0])[0].numel()
        )
        if not whole:
            p.do(u.zero_)
        for part in self.parts:
            b = self._b(p.factors, part).transpose(1, 2)
            p.do(torch.mul, b, self._scale(p, part), out=u[:, part.rows, part.columns])
        if whole:
            return self._a(p.factors, self.parts[0]), u
        a = p.fine(f"{self.name}.a", slot, p.k, self.rank, self.inputs)
        for part in self.parts:
            p.do(a[:, part.rows].copy_, self._a(p.factors, part))
        return a, u

    def _give_b(self, du: Tensor, p: Pass) -> None:
        for part in self.parts:
            mine = du[:, part.rows, part.columns].transpose(1, 2)
            p.do(torch.mul, mine, self._scale(p, part), out=self._b(p.grads, part))

    def _a(self, vectors: Tensor, part: Part) -> Tensor:
        return vectors[:, part.a].unflatten(1, (part.rank, self.inputs))

    def _b(self, vectors: Tensor, part: Part) -> Tensor:
        return vectors[:, part.b].unflatten(1, (-1, part.rank))

    def _scale(self, p: Pass, part: Part) -> Tensor:
        return p.scales[:, part.index, None, None]

    def _mask(self, part: Part, p: Pass) -> Tensor:
        noise = p.masks.noise
        assert noise is not None, "a program with dropout was replayed without masks"
        mask = noise(part.index, (p.k, p.shape.rows, p.shape.length, self.inputs))
        return mask.view(p.k, p.tokens_each, self.inputs)

    def _noisy_forward(self, part: Part, p: Pass, x: Tensor, a: Tensor, z: Tensor) -> None:
        """Write z^T of one part, which sees its own x * mask."""
        z.copy_(torch.bmm(a, (x * self._mask(part, p)).transpose(1, 2)))

    def _noisy_backward(self, part: Part, p: Pass, saved: Activations, dz: Tensor, dx: Tensor | None) -> None:
        """Finish the backward of one part, which saw its own x * mask."""
        mask = self._mask(part, p)
        if "A" in p.trains:
            self._a(p.grads, part).copy_(torch.bmm(dz, saved.x * mask))
        if dx is not None:
            dx.add_(torch.bmm(dz.transpose(1, 2), saved.a[:, part.rows]).mul_(mask))


def _product(x: Tensor, weight: Tensor, out: Tensor, p: Pass, add: bool) -> None:
    if add:
        p.do(out.addmm_, x, weight)
    else:
        p.do(torch.mm, x, weight, out=out)


def _add(out: Tensor, left: Tensor, right: Tensor, p: Pass) -> None:
    """Add left @ right (k, n, m) to `out`, whose type may be narrower."""
    if out.dtype == left.dtype:
        p.do(out.baddbmm_, left, right)
        return
    both = p.fine("sum", 0, *out.shape)
    p.do(torch.bmm, left, right, out=both)
    p.do(out.add_, both)
