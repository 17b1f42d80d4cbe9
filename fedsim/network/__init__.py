"""From bytes to seconds, and the bytes themselves; uses settings and SimPy."""
