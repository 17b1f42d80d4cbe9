"""The auditor: what must hold for the tables of a run, as a table of invariants; uses records only, no simulator."""

from fedsim.records.verify.audit import RULES, unsound_values, verify
from fedsim.records.verify.compared import COMPARED, Retraced, compared

__all__ = ["COMPARED", "RULES", "Retraced", "compared", "unsound_values", "verify"]
