"""resume(folder) -> Run: go on with a run after any end, as if it had never ended.

The schedule does not depend on values. So it is made again from the settings, without training, up to the version of the
newest checkpoint; every row that it gives is held against the run's. There the values are put in, and the same clock goes on.
A run without a checkpoint begins again in its folder. Nothing is written before the comparison has come to its end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

from fedsim.blame import blaming
from fedsim.callbacks import Callback
from fedsim.callbacks.notebook import with_bar
from fedsim.callbacks.telling import OnEvent, Telling
from fedsim.checks.gate import prepared
from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.config.loading import changed
from fedsim.errors import RunFolderError, message
from fedsim.executors import Executor
from fedsim.files.checkpoint.kept_again import KeptAgain
from fedsim.records import folder as run_folder
from fedsim.records.info import RunInfo
from fedsim.records.integrity.seals import settings_sha256
from fedsim.records.integrity.soundness import unsound
from fedsim.records.integrity.versions import installed_versions
from fedsim.records.liveness.standing import standing
from fedsim.records.run import Run, load, run_of
from fedsim.records.writer import portable, started
from fedsim.runs.course import begun, course
from fedsim.runs.ending import closed_whatever_happens, end_told
from fedsim.runs.finish import write_report
from fedsim.runs.resuming import heads
from fedsim.runs.resuming.common import clients_columns, columns_of, cut, resumption
from fedsim.runs.resuming.files import model_files
from fedsim.runs.resuming.folder import held, no_rows, tidy, wall_lines
from fedsim.runs.resuming.going_on import GoingOn
from fedsim.runs.resuming.heads import Head, Stored, Values
from fedsim.runs.resuming.replayed import RepeatedRows, StoredRows
from fedsim.runs.resuming.settings import (
    grown,
    refuse_foreign_cluster,
    refuse_other_files,
    refuse_other_packages,
    refuse_other_settings,
)
from fedsim.runs.simulation import begin, executor_for
from fedsim.runs.stopping import Stop, stoppable
from fedsim.runs.stored import stored_experiment


def resume(
    folder: Path | str,
    executor: Executor | None = None,
    *,
    budget: Mapping[str, float | None] | None = None,
    changes: Sequence[str] = (),
    experiment: Experiment | None = None,
    callbacks: Sequence[Callback] = (),
    on_event: OnEvent | None = None,
    report: bool = True,
    progress: bool = True,
    trust: bool = False,
) -> Run:
    """Go on with a run after any end; its tables, adapter and samples become those of a run that never ended.

    Args:
        folder: of the run.
        executor: where to train; by default what `runtime` asks for, closed at the end.
        budget: limits in place of the run's, each at least as large: a run that came to its end is continued.
        changes: `key.path=value` as `-s` gives them, of `budget` and `runtime`.
        experiment: what the run must be of; None: what its folder says.
        callbacks: told of the run as it goes on (`fedsim.Callback`); what was told before the checkpoint is not told again.
        on_event: called with (kind, facts) as things happen in virtual time; `resumed` when the run goes on.
        report: write `report.html`, too.
        progress: in a notebook, show a bar under the cell.
        trust: whether modules that its settings name are imported, and the cluster that they name is joined
            (`fedsim.runs.stored`); an `experiment` that is given is trusted as far as it goes.

    Returns:
        The run with its tables; a run that came to its end, and whose budget has not grown, as it is.

    Raises:
        RunFolderError: the folder holds no run, one that still goes, or one that is not what its settings make here:
            says what differs. Nothing was written then.
        FedsimError: see `fedsim.simulate`.
    """
    folder, tell = Path(folder), Telling(with_bar(callbacks, progress=progress), on_event)
    if run_folder.holds_run(folder) and not run_folder.has_begun(folder):
        what = "its run was killed before it had written anything"
        fix = "type `fedsim run` with --out and --resume, or remove the folder"
        raise RunFolderError(message(str(folder), what, fix=fix))
    _refuse_one_that_goes(folder)
    with held(folder):
        before = _ended_run(folder)
        typed = stored_experiment(before, trust=trust)
        if not trust and executor is None and experiment is None:
            refuse_foreign_cluster(folder, before.experiment, changes)
        limits = (budget or {}).items()
        wanted = [f"budget.{name}={'null' if value is None else value}" for name, value in limits]
        after = changed(experiment or typed, [*wanted, *changes], str(folder))
        refuse_other_packages(folder, before.info.versions, installed_versions())
        plan = prepared(after, where=str(folder))
        settings = portable(plan.experiment)
        refuse_other_settings(folder, before.experiment, settings)
        if before.info.status == "done" and not grown(before.experiment, settings):
            return _as_it_is(folder, tell, report=report)
        with end_told(tell, lambda: run_folder.read_head(folder)[0], folder):
            return _gone_on(before, plan, executor, tell, report=report)


def _refuse_one_that_goes(folder: Path) -> None:
    info, _ = run_folder.read_head(folder)
    stands = standing(folder, info)
    if info.status == "running" and stands.alive:
        what, fix = f"its run still goes: {stands.words}", "wait for its end, or stop it"
        raise RunFolderError(message(str(folder), what, fix=fix))


def _ended_run(folder: Path) -> Run:
    """Read a run as its end has left it, whatever that was."""
    info, experiment = run_folder.read_head(folder)
    columns = run_folder.read_tables(folder, torn=True)
    damage = next(unsound(columns), None)
    if damage is not None:
        raise RunFolderError(message(str(folder), f"is damaged: {damage}", fix="run the experiment again"))
    return run_of(folder, experiment, info, columns, wall_lines(folder))


def _as_it_is(folder: Path, tell: OnEvent, *, report: bool) -> Run:
    with suppress(OSError):  # a disk that takes nothing keeps it; the run is the same
        tidy(folder)
    run = load(folder)
    tell("nothing_to_do", {"run": run})
    if report and not (folder / "report.html").exists():
        write_report(run)
    return run


def _gone_on(before: Run, plan: Plan, executor: Executor | None, tell: OnEvent, *, report: bool) -> Run:
    """Go on in the folder of a run, or begin again there."""
    assert before.folder is not None
    found = None if before.info.timeline_only else _checkpoint(before, plan)
    info = _info_of(before, plan)
    with ExitStack() as stack:
        stop = stack.enter_context(stoppable())
        stack.enter_context(blaming(plan.parts.everything))
        worker = None if before.info.timeline_only else executor
        if executor is None and not before.info.timeline_only:
            worker = stack.enter_context(closing(executor_for(plan.experiment)))
            tell("starting", {"executor": plan.experiment.runtime.executor})
            begin(worker, plan.experiment)
        if worker is not None:
            worker.open(plan.task)
        if found is None or worker is None:
            run = _begun_again(before, plan, worker, info, tell, stop)
        else:
            stored, values, damaged = found
            for what in damaged:
                tell("no_checkpoint", {"reason": what})
            run = GoingOn(before, plan, worker, stored, values, info, tell).run(stop)
        if report:
            write_report(run)
        tell("done", {"run": run})
        return run


def _checkpoint(before: Run, plan: Plan) -> tuple[Stored, Values, list[str]] | None:
    """Return what `heads.newest` does; raise if it is not of this experiment.

    Raises:
        RunFolderError: as said, or none of them can be read.
    """
    folder = before.folder
    assert folder is not None

    def check(head: Head) -> None:
        refuse_other_settings(folder, head.experiment, portable(plan.experiment))
        refuse_other_packages(folder, head.versions, installed_versions())
        refuse_other_files(folder, head.files, model_files(head.experiment), "files")

    found = heads.newest(folder, check, plan)
    changed_since = settings_sha256(before.experiment) != before.info.digest
    if found is None and changed_since and not before.info.resumed:
        what = "is not the experiment that the run began with (SHA-256)"
        fix = "put the file back, or run it into another folder"
        raise RunFolderError(message(str(folder / "experiment.yaml"), what, fix=fix))
    return found


def _info_of(before: Run, plan: Plan) -> RunInfo:
    """Return `run.json` of a run that goes on; raise if its data, model or devices are others than when it began."""
    assert before.folder is not None
    old = before.info
    first = replace(started(plan.experiment), resolved=old.resolved)  # in its file nothing is open any more
    info = begun(first, plan, timeline_only=old.timeline_only)
    if old.task:  # a run that was killed before it knew has nothing yet
        refuse_other_files(before.folder, old.task, info.task, "task")
        refuse_other_files(before.folder, old.population, info.population, "population")
    return replace(info, started=old.started, resumed=old.resumed)


def _begun_again(
    before: Run, plan: Plan, executor: Executor | None, info: RunInfo, tell: OnEvent, stop: Stop
) -> Run:
    """Run a plan from its beginning in the folder of a run of it, and compare with what was there."""
    folder = before.folder
    assert folder is not None
    parts = plan.parts
    reads_values = parts.sampler.reads_values or parts.protocol.reads_values or parts.aggregator.reads_values
    stored = StoredRows(str(folder), columns_of(before))
    stored.compare_clients(clients_columns(plan))
    info = replace(info, resumed=(*info.resumed, resumption(before, 0, 0, 0, 0.0)))
    heads.keep_only(folder, None)
    cut(folder, plan, info, no_rows(), -1.0)
    KeptAgain(folder / "kept").go_on()
    writer = RepeatedRows(folder, plan, info, time.perf_counter(), None if reads_values else stored)
    tell("resumed", {"resumption": info.resumed[-1]})
    with closed_whatever_happens(writer):
        return course(plan, executor, writer, tell, stop=stop)[0]
