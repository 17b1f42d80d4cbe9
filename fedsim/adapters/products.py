"""Products of factors, B A, without ever forming them where the factors will do.

What a LoRA adapter means is the product: (B G)(G^-1 A) is the same update for every invertible G. Here
every pair of factors, of a Linear, of GPT-2's Conv1D or of a Conv2d, is a B (m, r) and an A (r, n) with
m = out and n = in (kh kw), so that B A is the update of the weight as (out, in kh kw). PEFT keeps both
factors of a Conv1D in the orientation of a Linear and transposes their product; a `Base` does the same.

All arithmetic is in float64, and each call of BLAS and LAPACK inside `one_thread`, because the last bit
of a matrix product depends on how many threads share it.

    <B1 A1, B2 A2> = tr((B1' B2)(A2 A1'))                      r x r matrices only
    sum_k w_k B_k A_k = [w_1 B_1 .. w_K B_K][A_1; ..; A_K]     weights on one side: on both they are w_k^2
    SVD of B A: B = Q_b R_b, A' = Q_a R_a, R_b R_a' = U S V', B A = (Q_b U) S (Q_a V)'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.moved_base import Base, dense_shape

Matrix = NDArray[np.float64]


class Pair(NamedTuple):
    """Factors of one matrix in canonical form: B (m, r) and A (r, n), float64."""

    b: Matrix
    a: Matrix

    @property
    def width(self) -> int:
        """Return r."""
        return int(self.b.shape[1])

    def cut(self, rank: int) -> Pair:
        """Return the first `rank` slots."""
        return Pair(self.b[:, :rank], self.a[:rank])

    def padded(self, rank: int) -> Pair:
        """Return the pair with slots of zeros up to `rank`; the product is the same."""
        more = max(0, rank - self.width)
        return Pair(np.pad(self.b, ((0, 0), (0, more))), np.pad(self.a, ((0, more), (0, 0))))


class SVD(NamedTuple):
    """U (m, p) diag(S) (p) Vt (p, n), S falling; in every row of Vt the entry largest in size is positive."""

    u: Matrix
    s: Matrix
    vt: Matrix


def one_thread() -> AbstractContextManager[Any]:
    """Return the context in which BLAS and LAPACK work on one thread, so that results are the same bits."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def pairs(layout: Layout, vector: Vector, rank: int | None = None) -> list[Pair]:
    """Return the factors of every module, in the layout's order; `rank` keeps the first slots."""
    arrays = layout.arrays(vector)
    all_pairs = []
    for m in layout.modules:
        a, b = arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
        pair = Pair(
            b.reshape(b.shape[0], -1).astype(np.float64), a.reshape(a.shape[0], -1).astype(np.float64)
        )
        all_pairs.append(pair if rank is None else pair.cut(rank))
    return all_pairs


def vector_of(layout: Layout, factors: Sequence[Pair]) -> Vector:
    """Return the float32 vector of a layout of modules that holds these factors; missing slots are zero."""
    vector = np.zeros(layout.size, np.float32)
    arrays = layout.arrays(vector)
    for m, pair in zip(layout.modules, factors, strict=True):
        b, a = pair.padded(m.rank)
        arrays[f"{m.name}.lora_A"][...] = a.reshape(m.a_shape)
        arrays[f"{m.name}.lora_B"][...] = b.reshape(m.b_shape)
    return vector


def scales(layout: Layout, scale: float | None = None) -> list[float]:
    """Return what each module multiplies B A with: `scale` if given, unless the modules differ in it."""
    of_layout = [m.scale for m in layout.modules]
    return of_layout if scale is None or len(set(of_layout)) > 1 else [scale] * len(of_layout)


def inner(left: Pair, right: Pair) -> float:
    """Return <B1 A1, B2 A2> = tr((B1' B2)(A2 A1')), the sum of the products' entries times each other."""
    return float(np.sum((left.b.T @ right.b) * (left.a @ right.a.T)))


def norm(pair: Pair) -> float:
    """Return the Frobenius norm of B A, to about 1e-8 of |B||A| (it is the root of a Gram trace)."""
    return math.sqrt(max(0.0, inner(pair, pair)))


def distance(left: Pair, right: Pair) -> float:
    """Return |B1 A1 - B2 A2|, as the norm of one stack."""
    return norm(stacked([(1.0, left), (-1.0, right)], *_shape(left)))


def stacked(terms: Iterable[tuple[float, Pair]], m: int, n: int) -> Pair:
    """Return the pair of sum_k w_k B_k A_k, (m, sum r_k) and (sum r_k, n), weighted in B alone."""
    pairs_by_weight = list(terms)
    b = [weight * pair.b for weight, pair in pairs_by_weight]
    a = [pair.a for _, pair in pairs_by_weight]
    return Pair(np.hstack([np.zeros((m, 0)), *b]), np.vstack([np.zeros((0, n)), *a]))


def svd(pair: Pair) -> SVD:
    """Return the singular value decomposition of B A, p = min(m, n, r) values, through its r x r core.

    Singular vectors of equal or vanishing values are determined up to a rotation only: compare products.
    """
    q_b, r_b = np.linalg.qr(pair.b)
    q_a, r_a = np.linalg.qr(pair.a.T)
    u, s, vt = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    u, vt = q_b @ u, vt @ q_a.T
    largest = vt[np.arange(len(s)), np.abs(vt).argmax(axis=1)] if len(s) else np.ones(0)
    signs = np.where(largest < 0, -1.0, 1.0)
    return SVD(u * signs, s, vt * signs[:, None])


def best(pair: Pair, rank: int) -> Pair:
    """Return the closest product of at most this rank, U S and Vt (Eckart and Young, 1936).

    Its distance from B A is the tail, (sum_{j >= rank} s_j^2)^1/2.
    """
    u, s, vt = svd(pair)
    return Pair((u * s)[:, :rank], vt[:rank])


def completed(rows: Matrix, rank: int, near: Matrix) -> Matrix:
    """Return orthonormal rows (p, n) with more of them, up to `rank` (at most n).

    The new ones are orthogonal to the others; they lie in the row space of `near` as far as that goes.
    """
    if len(rows) >= rank:
        return rows
    q = np.linalg.qr(np.vstack([rows, near]).T)[0].T
    return np.vstack([rows, q[len(rows) : rank]])


class Point(NamedTuple):
    """What a model is as a whole: its adapter, how many slots and which scale count, its base."""

    vector: Vector
    rank: int | None = None
    scale: float | None = None
    base: Base | None = None


def relative_change(layout: Layout, now: Point, then: Point) -> float:
    """Return |X_now - X_then| / max(|X_now|, |X_then|), between 0 and 2; 0 if both are zero.

    X is everything that was learned since the pretrained model: in adapted modules the base's change plus
    s B A, in whole tensors the tensor. Adapters alone cost Gram traces of 2r x 2r; a base is dense as it is.
    """
    with one_thread():
        change = now_ = then_ = 0.0
        pieces = zip(layout.modules, _pieces(layout, now), _pieces(layout, then), strict=True)
        for module, (pair, base), (old, old_base) in pieces:
            m, n = dense_shape(module)
            between = None if base is None and old_base is None else _dense(base) - _dense(old_base)
            change += _square(stacked([(1.0, pair), (-1.0, old)], m, n), between)
            now_ += _square(pair, base)
            then_ += _square(old, old_base)
        for name in (t.name for t in layout.tensors):
            place = layout.slices[name][0]
            x, y = now.vector[place].astype(np.float64), then.vector[place].astype(np.float64)
            change += float(np.sum((x - y) ** 2))
            now_ += float(np.sum(x * x))
            then_ += float(np.sum(y * y))
    largest = max(now_, then_)
    return math.sqrt(max(0.0, change) / largest) if largest > 0 else 0.0


def _pieces(layout: Layout, point: Point) -> list[tuple[Pair, Matrix | None]]:
    """Return (s B A as a pair, the base's change) of every module."""
    bases: list[Matrix | None] = [None] * len(layout.modules)
    if point.base is not None:
        bases = [change.astype(np.float64) for _, change in point.base.matrices()]
    factors = zip(scales(layout, point.scale), pairs(layout, point.vector, point.rank), bases, strict=True)
    return [(Pair(s * pair.b, pair.a), base) for s, pair, base in factors]


def _dense(base: Matrix | None) -> Matrix | float:
    return 0.0 if base is None else base


def _square(pair: Pair, dense: Any) -> float:
    """Return |D + B A|^2 = |D|^2 + 2 tr(A D' B) + |B A|^2."""
    square = inner(pair, pair)
    if dense is None:
        return square
    return square + float(np.sum(dense * dense)) + 2.0 * float(np.sum((pair.b.T @ dense) * pair.a))


def _shape(pair: Pair) -> tuple[int, int]:
    return pair.b.shape[0], pair.a.shape[1]
