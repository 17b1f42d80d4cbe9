"""The tables of a run: written, read, viewed, audited; uses no simulator."""
