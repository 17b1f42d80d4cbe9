"""Distances between two sets of feature vectors; uses NumPy only."""

from fedsim.metrics.frechet import Moments, frechet
from fedsim.metrics.kernel import kernel_distance, within

__all__ = ["Moments", "frechet", "kernel_distance", "within"]
