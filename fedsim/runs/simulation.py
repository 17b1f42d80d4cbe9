"""simulate(experiment) -> Run: build everything, step the clock, write the tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from fedsim.blame import blaming
from fedsim.callbacks import Callback
from fedsim.callbacks.notebook import with_bar
from fedsim.callbacks.telling import OnEvent, Telling
from fedsim.checks.gate import admit, given, prepared
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, Shown, message
from fedsim.executors import Executor
from fedsim.records.folder import check_free
from fedsim.records.run import Run
from fedsim.records.writer import Writer, started
from fedsim.runs.course import begun, course
from fedsim.runs.ending import closed_whatever_happens, end_told
from fedsim.runs.finish import write_report
from fedsim.runs.resuming.checkpoints import refuse_unholdable
from fedsim.runs.stopping import stoppable

NO_TARGET = (
    "budget.target has no effect without training: the timeline goes to the other limits of the budget"
)
"""What is said where nothing is scored."""


def executor_for(experiment: Experiment) -> Executor:
    """Return the executor that `runtime` asks for, not opened yet."""
    runtime = experiment.runtime
    if runtime.executor == "inline":
        from fedsim.executors.inline import Inline

        return Inline()
    from fedsim.executors.ray import RayExecutor

    return RayExecutor(
        workers=runtime.workers,
        address=runtime.address,
        gpus_per_worker=runtime.gpus_per_worker,
        watchdog_s=runtime.watchdog_s,
        ship=runtime.ship,
    )


def begin(executor: Executor, experiment: Experiment) -> None:
    """Let the workers start while the task is prepared.

    Vectors must be small for it: the room for them is set aside before their size is known.
    """
    if not experiment.lora.full:
        task = parts_of(experiment).task
        executor.prestart(task.imported_by_workers(experiment.lora, experiment.numerics))


def simulate(
    experiment: Experiment | Plan | Mapping[str, object] | Path | str,
    executor: Executor | None = None,
    *,
    out: Path | str | None = None,
    timeline_only: bool = False,
    callbacks: Sequence[Callback] = (),
    on_event: OnEvent | None = None,
    report: bool = True,
    progress: bool = True,
) -> Run:
    """Run an experiment to the end of its budget.

    Args:
        experiment: the configuration, as an object, plain values or a YAML file, or its plan; checked here
            (`fedsim.checks.gate`).
        executor: where to train; by default what `runtime` asks for, closed at the end. One that is passed in
            belongs to the caller: it is opened on this experiment's task, and open afterwards.
        out: run folder to write as the run goes; None keeps the tables in memory.
        timeline_only: the same schedule without weights or training.
        callbacks: told of the run as it goes (`fedsim.Callback`, docs/callbacks.md); no result depends on them.
        on_event: called with (kind, facts) as things happen in virtual time: what callbacks are told, untyped.
        report: write `report.html` into the run folder, too.
        progress: in a notebook, show a bar under the cell; elsewhere nothing is shown.

    Returns:
        The run with its tables.

    Raises:
        FedsimError: see `fedsim.errors`; the tables written so far are kept.
        KeyboardInterrupt: as raised; the tables written so far are kept, as when SIGTERM ends the run.
    """
    tell = Telling(with_bar(callbacks, progress=progress), on_event)
    experiment = given(experiment)
    settings = admit(experiment)
    _refuse_other_executors(executor)
    if timeline_only:
        _refuse_values(settings)
        if settings.budget.target is not None:
            tell("note", {"text": NO_TARGET})
    with ExitStack() as stack:
        stop = stack.enter_context(stoppable())
        worker = None if timeline_only else executor
        if executor is None and not timeline_only:
            worker = stack.enter_context(closing(executor_for(settings)))
            tell("starting", {"executor": settings.runtime.executor})
            begin(worker, settings)
        plan = experiment if isinstance(experiment, Plan) else prepared(settings)
        folder, began_s = None if out is None else Path(out), time.perf_counter()
        if worker is not None:
            check_free(folder)
            worker.open(plan.task)  # a model that is refused leaves no run folder
        if worker is not None and folder is not None:
            refuse_unholdable(plan)
        info = begun(started(plan.experiment), plan, timeline_only=worker is None)
        writer = Writer(folder, plan.experiment, began_s, info)
        told = end_told(tell, lambda: writer.info, folder)
        with told, closed_whatever_happens(writer), blaming(plan.parts.everything):
            run, _ = course(plan, worker, writer, tell, stop=stop)
            if report:
                write_report(run)
            tell("done", {"run": run})
            return run


def _refuse_other_executors(executor: object) -> None:
    if executor is not None and not isinstance(executor, Executor):
        fix = f"write fedsim.simulate(experiment, out={str(executor)!r})"
        fix = (
            fix
            if isinstance(executor, str | Path)
            else "give an executor, as fedsim.executors.inline.Inline()"
        )
        what = "executor must be an Executor"
        raise ExperimentError(message("fedsim.simulate", what, got=Shown(repr(executor)), fix=fix))


def _refuse_values(experiment: Experiment) -> None:
    """Raise if losses decide whom the server asks or when: there is no schedule without training then."""
    parts = parts_of(experiment)
    deciding = (
        ("sampler", parts.sampler, parts.sampler.reads_values),
        ("protocol", parts.protocol, parts.protocol.reads_values),
        ("aggregator", parts.aggregator, parts.aggregator.reads_values),
    )
    for block, component, reads_values in deciding:
        if reads_values:
            what = "decides by what training has computed, so there is no timeline without it"
            fix = f"run with training, or choose another {block}"
            raise ExperimentError(message(f"{block}.kind", what, got=component.kind, fix=fix))
