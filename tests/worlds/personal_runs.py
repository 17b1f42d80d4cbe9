"""Runs to their end, and whether two are the same."""

from __future__ import annotations

import pandas as pd

from fedsim.clock.plan import prepare
from fedsim.executors.inline import Inline
from fedsim.records.writer import Writer
from fedsim.runs.simulation import course


def finished(experiment, executor=None, folder=None):
    """The run and the final model."""
    plan, executor = prepare(experiment), executor or Inline()
    try:
        return course(plan, executor, Writer(folder, plan.experiment), lambda *_: None)
    finally:
        executor.close()


def assert_same(one, other, *but):
    for table in ("clients", "visits", "commits", "scores", "personal"):
        if table not in but:
            pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table), check_exact=True)
