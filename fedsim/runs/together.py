"""Experiments on one task and one population, one after the other: both are built once, and the workers start once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from fedsim.checks.gate import admit, prepared
from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.executors import Executor
from fedsim.records.run import Run
from fedsim.runs.simulation import begin, executor_for


def run_together(
    experiments: Sequence[Experiment], folder: Path, simulated: Callable[[Plan, Path, Executor], Run]
) -> list[Run]:
    """Run experiments that differ in nothing that a plan is built from.

    Args:
        experiments: what to run; the first one's `runtime` says where.
        folder: of all runs, each in one of its experiment's name.
        simulated: runs a plan into a folder.
    """
    for experiment in experiments:
        admit(experiment, experiment.name)
    with closing(executor_for(experiments[0])) as executor:
        begin(executor, experiments[0])
        first = prepared(experiments[0])
        plans = [first.alike(experiment) for experiment in experiments]
        return [simulated(plan, folder / plan.experiment.name, executor) for plan in plans]
