"""The tables of a run: written, read, viewed, audited; uses settings and metrics, and no simulator."""
