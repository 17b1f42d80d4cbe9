"""From bytes to seconds, and the bytes themselves; uses settings, adapters and SimPy."""
