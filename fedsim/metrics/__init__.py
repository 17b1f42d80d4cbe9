"""Distances between two sets of feature vectors, and what the pieces of a score add up to; uses NumPy only."""
