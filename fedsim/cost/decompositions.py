"""Operations of what a server does to factors: products, thin QR, singular values; by the sizes of the matrices alone.

Golub and Van Loan, Matrix Computations, 4th edition: a thin QR decomposition with its Q formed (section 5.2) takes
4 n^2 (m - n/3) of m x n, m >= n; all singular vectors of a square n x n matrix 21 n^3 (section 8.6.3).
"""

from __future__ import annotations


def product_flops(m: int, k: int, n: int) -> float:
    """Return the operations of an (m, k) matrix times a (k, n) one: 2 m k n."""
    return 2.0 * m * k * n


def qr_flops(m: int, n: int) -> float:
    """Return the operations of Q (m, p) and R (p, n), p = min(m, n)."""
    long, short = max(m, n), min(m, n)
    return 4.0 * short * short * (long - short / 3.0)


def factored_svd_flops(m: int, n: int, width: int, kept: int) -> float:
    """Return the operations of the singular values of B A, (m, width) times (width, n), with `kept` vectors each side.

    Thin QR of both factors, the product of their R, its singular values, and Q times what is kept of their vectors.
    """
    left, right = min(m, width), min(n, width)
    core = max(left, right)
    kept = min(kept, left, right)
    return (
        qr_flops(m, width)
        + qr_flops(n, width)
        + product_flops(left, width, right)
        + 21.0 * core**3
        + product_flops(m, left, kept)
        + product_flops(n, right, kept)
    )
