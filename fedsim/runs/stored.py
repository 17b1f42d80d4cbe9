"""The experiment that a run folder holds, as a typed object again."""

from __future__ import annotations

from pydantic import ValidationError

from fedsim.config.experiment import Experiment
from fedsim.errors import Message, RunFolderError, message
from fedsim.records.run import Run
from fedsim.records.tables import first_line


def stored_experiment(run: Run) -> Experiment:
    """Return the settings of a run.

    Raises:
        RunFolderError: they are no experiment for this version of fedsim, or name a component that is not here.
    """
    try:
        return Experiment.model_validate(run.experiment)
    except ValidationError as problem:
        first = problem.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg'].splitlines()[0]}"
        raise RunFolderError(_no_experiment(run, said)) from problem
    except (TypeError, RecursionError, AttributeError) as problem:
        raise RunFolderError(_no_experiment(run, first_line(problem))) from problem


def _no_experiment(run: Run, said: str) -> Message:
    where = f"run {run.name}" if run.folder is None else str(run.folder / "experiment.yaml")
    fix = "type the command where the run's own components can be imported, or run the experiment again"
    return message(where, f"is no experiment here ({said[:200]})", fix=fix)
