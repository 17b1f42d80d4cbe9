"""The auditor: what must hold for the tables of a run, as a table of invariants; uses records only, no simulator."""

from fedsim.records.verify.audit import verify

__all__ = ["verify"]
