"""Runs to their end, with their last model; and whether two runs are the same."""

from __future__ import annotations

import pandas as pd

from fedsim.clock.plan import Plan, prepare
from fedsim.executors.inline import Inline
from fedsim.records.writer import Writer
from fedsim.runs.simulation import course


def run_on(plan, executor, folder=None):
    """The run and the final model of a plan; the executor stays open, and without one nothing is trained."""
    return course(plan, executor, Writer(folder, plan.experiment), lambda *_: None)


def finished(work, executor=None, folder=None):
    """The run and the final model of a plan, or of an experiment; the executor is closed afterwards."""
    plan, executor = work if isinstance(work, Plan) else prepare(work), executor or Inline()
    try:
        return run_on(plan, executor, folder)
    finally:
        executor.close()


def assert_same(run, other, *but):
    """Every table is equal, to the bit; tables named in `but` are not compared."""
    for table in ("clients", "visits", "commits", "scores", "personal"):
        if table not in but:
            pd.testing.assert_frame_equal(getattr(run, table), getattr(other, table), check_exact=True)
