"""placeholder: replaced by the cost helper"""

from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """Size of a transformer as the cost model sees it."""

    name: str
    layers: int
    width: int
    vocab: int
    params: int
    matmul_params: int
    adapter_params: int
    sequence: int
    batch: int
    phi: float = 1.0
    full: bool = False
    weight_bytes: float = 4.0
