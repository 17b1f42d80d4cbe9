"""Distances between two sets of feature vectors; uses NumPy only."""
