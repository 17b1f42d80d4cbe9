"""HetLoRA's regulariser: it makes the last slots of a client's factors small, so that they can go.

lambda sum_m |B_m[:, t:]|_F |A_m[t:]|_F is added to the client's loss (Cho et al., arXiv 2401.06432,
section 3), with its own lambda and t. Where one of the two norms is 0, so at B = 0 where LoRA begins, its
direction is not defined, and 0 is taken, the subgradient of least size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsim.adapters.adapter import Layout


def gradient(layout: Layout, factors: Tensor, strength: Tensor, first: Sequence[int]) -> Tensor:
    """Return the gradient of the regulariser of k clients.

    With a = |A[t:]| and b = |B[:, t:]| of a module it is lambda (b / a) A[t:] and lambda (a / b) B[:, t:].

    Args:
        layout: where A and B of each module lie.
        factors: the clients' vectors, (k, size).
        strength: their lambda, (k, 1).
        first: their t: the first slot that the regulariser holds.

    Returns:
        (k, size), 0 below slot t.
    """
    gradients = torch.zeros_like(factors)
    begin = torch.tensor(list(first), device=factors.device)[:, None]
    for m in layout.modules:
        (place_a, shape_a), (place_b, shape_b) = (layout.slices[f"{m.name}.lora_{f}"] for f in "AB")
        held = (torch.arange(m.rank, device=factors.device) >= begin).to(factors.dtype)
        a = factors[:, place_a].unflatten(1, (shape_a[0], -1)) * held[:, :, None]
        b = factors[:, place_b].unflatten(1, (shape_b[0], -1)) * held[:, None, :]
        norm_a, norm_b = a.flatten(1).norm(dim=1, keepdim=True), b.flatten(1).norm(dim=1, keepdim=True)
        gradients[:, place_a] = a.flatten(1) * (strength * _ratio(norm_b, norm_a))
        gradients[:, place_b] = b.flatten(1) * (strength * _ratio(norm_a, norm_b))
    return gradients


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return one / other, 0 where `other` is 0."""
    return torch.where(whole > 0, part / whole, torch.zeros_like(part))
