"""The one gate on the way to a run: whatever refuses an experiment is asked here, from wherever it starts.

`fedsim.read`, `fedsim.simulate`, sweeps, demos, replays, dry runs and the command line all pass through it: from a file by
`read`, from settings by `admit`, from settings to a plan by `prepared`. What the settings alone say is refused before anything
is loaded or started, what needs the model's layers as soon as they are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsim.blame import blaming
from fedsim.checks.blocks import check
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan, prepare, refuse
from fedsim.config.experiment import Experiment
from fedsim.config.loading import load
from fedsim.errors import ExperimentError, Message, Shown, message
from fedsim.server.commit_time import CommitTime

_ONE_FIX = 'write fedsim.read("my.yaml", ["seed=1", "protocol.kind=buffered"])'


def read(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file and check that its parts go together.

    Args:
        path: the YAML file.
        overrides: `key.path=value` each, the value in YAML; the last of two equal paths wins.

    Returns:
        The experiment, which every start accepts as far as its settings tell.

    Raises:
        ExperimentError: everything that is wrong with it, all at once.
    """
    _refuse_other_arguments(path, overrides)
    experiment = load(path, overrides)
    _check(experiment, str(path))
    return experiment


def _refuse_other_arguments(path: object, overrides: object) -> None:
    if not isinstance(path, str | Path):
        got = Shown(f"a {type(path).__name__}")
        fix = "give its path; of blocks in Python make fedsim.Experiment.model_validate({...})"
        raise ExperimentError(message("fedsim.read", "takes the name of a YAML file", got=got, fix=fix))
    listed = isinstance(overrides, Sequence) and not isinstance(overrides, str)
    texts = overrides if isinstance(overrides, Sequence) else ()
    if not listed or not all(isinstance(text, str) for text in texts):
        what = "overrides must be a list of texts, key.path=value each"
        raise ExperimentError(message("fedsim.read", what, got=overrides, fix=_ONE_FIX))


def admit(experiment: object, where: str = "experiment") -> Experiment:
    """Return what is about to start, an `Experiment` or the one of a `Plan`, if its parts go together.

    Raises:
        ExperimentError: it is neither, or something does not fit together.
    """
    if isinstance(experiment, Plan):
        _check(experiment.experiment, where)
        with blaming(experiment.parts.everything):
            refuse(experiment)
            CommitTime(experiment)
        return experiment.experiment
    if not isinstance(experiment, Experiment):
        raise ExperimentError(_no_experiment(experiment))
    _check(experiment, where)
    return experiment


def _check(experiment: Experiment, where: str) -> None:
    """Check that the parts of an experiment go together; what a user's own class raises is blamed on it."""
    with blaming(parts_of(experiment).everything):
        check(experiment, where)


def prepared(experiment: Experiment, like: Plan | None = None, where: str = "experiment") -> Plan:
    """Return the plan of an experiment: checked, tables and data read, work sized; nothing has started.

    Args:
        experiment: the configuration.
        like: a plan of equal `fedsim.clock.plan.ground`, whose population and data are taken over.
        where: the file, or another name of the experiment, for errors.

    Raises:
        ProfileError, DataError, ExperimentError: whatever is wrong with the input.
    """
    admitted = admit(experiment, where)
    with blaming(parts_of(admitted).everything):
        plan = prepare(admitted, like)
        CommitTime(plan)  # refuses to charge the server for layers that are not known
    return plan


def given(experiment: Experiment | Plan | Mapping[str, object] | Path | str) -> Experiment | Plan:
    """Return an experiment or a plan as it is; that of a file, or of plain values, read as files are.

    Raises:
        ExperimentError: whatever is wrong with it.
    """
    if isinstance(experiment, str | Path):
        return read(Path(experiment))
    if isinstance(experiment, Mapping):
        return Experiment.model_validate(experiment)
    return experiment


def _no_experiment(value: object) -> Message:
    """Return the message about what is no experiment, with the call that makes one of it."""
    what = "takes an experiment, a plan, plain values or the name of a file"
    got = Shown(f"a {type(value).__name__}")
    fix = 'give fedsim.read("my.yaml"), or fedsim.Experiment(...)'
    return message("fedsim.simulate", what, got=got, fix=fix)
