"""The experiment that a run folder holds, as a typed object again."""

from __future__ import annotations

from contextlib import nullcontext

from pydantic import ValidationError

from fedsim.component import no_imports
from fedsim.config.experiment import Experiment
from fedsim.errors import Message, RunFolderError, message
from fedsim.records.run import Run
from fedsim.records.tables import first_line


def stored_experiment(run: Run, *, trust: bool = False) -> Experiment:
    """Return the settings of a run.

    A run folder may be somebody else's. Unless it is trusted, no module that its settings name is imported (one that
    this process has imported already is used), and no cluster that they name is joined.

    Args:
        run: as it was loaded.
        trust: whether whoever wrote the folder may run code here.

    Raises:
        RunFolderError: they are no experiment for this version of fedsim, or name a component that is not here.
    """
    try:
        with nullcontext() if trust else no_imports():
            experiment = Experiment.model_validate(run.experiment)
    except ValidationError as problem:
        first = problem.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg'].splitlines()[0]}"
        raise RunFolderError(_no_experiment(run, said)) from problem
    except (TypeError, RecursionError, AttributeError) as problem:
        raise RunFolderError(_no_experiment(run, first_line(problem))) from problem
    if not trust and experiment.runtime.address is not None:
        alone = experiment.runtime.model_copy(update={"address": None})
        return experiment.model_copy(update={"runtime": alone})
    return experiment


def _no_experiment(run: Run, said: str) -> Message:
    where = f"run {run.name}" if run.folder is None else str(run.folder / "experiment.yaml")
    fix = "type the command where the run's own components can be imported, or run the experiment again"
    return message(where, f"is no experiment here ({said[:200]})", fix=fix)
