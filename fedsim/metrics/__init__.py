"""Distances between two sets of feature vectors, in NumPy: Frechet and kernel, with the sums they need."""

from fedsim.metrics.frechet import Moments, frechet
from fedsim.metrics.kernel import kernel_distance, within

__all__ = ["Moments", "frechet", "kernel_distance", "within"]
