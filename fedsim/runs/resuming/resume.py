"""resume(folder) -> Run: go on with a run after any end, as if it had never ended.

The schedule does not depend on values. So it is made again from the settings, without training, up to the version of the
newest checkpoint; every row that it gives is held against the run's. There the values are put in, and the same clock goes on.
A run without a checkpoint begins again in its folder. Nothing is written before the comparison has come to its end.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedsim.blame import blaming
from fedsim.checks.gate import prepared
from fedsim.clock.plan import Plan
from fedsim.clock.plan_tables import clients_table
from fedsim.config.experiment import Experiment
from fedsim.config.loading import changed
from fedsim.errors import HostError, RunFolderError, message
from fedsim.executors import Executor
from fedsim.files.kept_again import KeptAgain
from fedsim.records import folder as run_folder
from fedsim.records.info import Resumption, RunInfo
from fedsim.records.integrity.seals import settings_sha256
from fedsim.records.integrity.soundness import unsound
from fedsim.records.run import Run, load, run_of
from fedsim.records.writer import Writer, installed_versions, now, portable, started
from fedsim.runs.course import (
    begun,
    concluded,
    course,
    run_to_the_end,
    tell_start,
    version_0,
    world,
)
from fedsim.runs.finish import write_report
from fedsim.runs.resuming import heads
from fedsim.runs.resuming.checkpoints import Checkpoints
from fedsim.runs.resuming.folder import cut_back, held, wall_lines
from fedsim.runs.resuming.heads import Stored
from fedsim.runs.resuming.machine import processor
from fedsim.runs.resuming.replayed import RepeatedRows, ReplayedRows, StoredRows
from fedsim.runs.resuming.settings import (
    grown,
    refuse_other_files,
    refuse_other_packages,
    refuse_other_settings,
)
from fedsim.runs.simulation import begin, executor_for
from fedsim.runs.stopping import Stop, stoppable
from fedsim.runs.stored import stored_experiment
from fedsim.server.ledger import OnEvent, quiet
from fedsim.server.server import Server
from fedsim.server.values.log import Log
from fedsim.server.values.saved import put_values


def resume(
    folder: Path | str,
    executor: Executor | None = None,
    *,
    budget: Mapping[str, float] | None = None,
    changes: Sequence[str] = (),
    experiment: Experiment | None = None,
    on_event: OnEvent | None = None,
    report: bool = True,
) -> Run:
    """Go on with a run after any end; its tables, adapter and samples become those of a run that never ended.

    Args:
        folder: of the run.
        executor: where to train; by default what `runtime` asks for, closed at the end.
        budget: limits in place of the run's, each at least as large: a run that came to its end is continued.
        changes: `key.path=value` as `-s` gives them, of `budget` and `runtime`.
        experiment: what the run must be of; None: what its folder says.
        on_event: called with (kind, facts) as things happen in virtual time; `resumed` when the run goes on.
        report: write `report.html`, too.

    Returns:
        The run with its tables; a run that came to its end, and whose budget has not grown, as it is.

    Raises:
        RunFolderError: the folder holds no run, one that still goes, or one that is not what its settings make here:
            says what differs. Nothing was written then.
        FedsimError: see `fedsim.simulate`.
    """
    folder, tell = Path(folder), on_event or quiet
    run_folder.read_head(folder)
    with held(folder):
        before = _ended_run(folder)
        typed = stored_experiment(before)
        wanted = [f"budget.{name}={value}" for name, value in (budget or {}).items()]
        after = changed(experiment or typed, [*wanted, *changes], str(folder))
        refuse_other_packages(folder, before.info.versions, installed_versions())
        plan = prepared(after, where=str(folder))
        settings = portable(plan.experiment)
        refuse_other_settings(folder, before.experiment, settings)
        if before.info.status == "done" and not grown(before.experiment, settings):
            return _as_it_is(folder, tell, report=report)
        return _gone_on(before, plan, executor, tell, report=report)


def _ended_run(folder: Path) -> Run:
    """Read a run as its end has left it, whatever that was."""
    info, experiment = run_folder.read_head(folder)
    if info.status == "running" and run_folder.may_be_alive(info):
        what = f"its run still goes (process {info.pid} on {info.host})"
        raise RunFolderError(message(str(folder), what, fix="wait for its end, or stop it"))
    columns = run_folder.read_tables(folder, torn=True)
    damage = next(unsound(columns), None)
    if damage is not None:
        raise RunFolderError(message(str(folder), f"is damaged: {damage}", fix="run the experiment again"))
    return run_of(folder, experiment, info, columns, wall_lines(folder))


def _as_it_is(folder: Path, tell: OnEvent, *, report: bool) -> Run:
    run = load(folder)
    tell("nothing_to_do", {"run": run})
    if report and not (folder / "report.html").exists():
        write_report(run)
    return run


def _gone_on(before: Run, plan: Plan, executor: Executor | None, tell: OnEvent, *, report: bool) -> Run:
    """Go on in the folder of a run, or begin again there."""
    assert before.folder is not None
    stored = None if before.info.timeline_only else _checkpoint(before, plan)
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
        if stored is None or worker is None:
            run = _begun_again(before, plan, worker, info, tell, stop)
        else:
            run = _GoingOn(before, plan, worker, stored, info, tell).run(stop)
        if report:
            write_report(run)
        tell("done", {"run": run})
        return run


def _checkpoint(before: Run, plan: Plan) -> Stored | None:
    """Return the checkpoint to go on from, None without one; raise if it is not of this experiment.

    Raises:
        RunFolderError: as said, or none of them can be read.
    """
    folder = before.folder
    assert folder is not None
    stored, _ = heads.newest(folder)
    if stored is None:
        if settings_sha256(before.experiment) != before.info.digest and not before.info.resumed:
            what = "is not the experiment that the run began with (SHA-256)"
            fix = "put the file back, or run it into another folder"
            raise RunFolderError(message(str(folder / "experiment.yaml"), what, fix=fix))
        return None
    refuse_other_settings(folder, stored.head.experiment, portable(plan.experiment))
    refuse_other_packages(folder, stored.head.versions, installed_versions())
    return stored


def _info_of(before: Run, plan: Plan) -> RunInfo:
    """Return `run.json` of a run that goes on; raise if its data, model or devices are others than when it began."""
    assert before.folder is not None
    old = before.info
    info = begun(started(plan.experiment), plan, timeline_only=old.timeline_only)
    refuse_other_files(before.folder, old.task, info.task, "task")
    refuse_other_files(before.folder, old.population, info.population, "population")
    return replace(info, started=old.started, resumed=old.resumed)


def _resumption(before: Run, version: int, visits: int, commits: int, seconds: float) -> Resumption:
    status = before.info.status
    after = "killed" if status == "running" else status
    return Resumption(now(), after, version, visits, commits, seconds, socket.gethostname(), processor())


def _begun_again(
    before: Run, plan: Plan, executor: Executor | None, info: RunInfo, tell: OnEvent, stop: Stop
) -> Run:
    """Run a plan from its beginning in the folder of a run of it, and compare with what was there."""
    folder = before.folder
    assert folder is not None
    parts = plan.parts
    reads_values = parts.sampler.reads_values or parts.protocol.reads_values or parts.aggregator.reads_values
    stored = StoredRows(str(folder), _columns(before))
    stored.compare_all("clients", clients_columns(plan))
    info = replace(info, resumed=(*info.resumed, _resumption(before, 0, 0, 0, 0.0)))
    heads.keep_only(folder, None)
    _cut(folder, plan, info, dict.fromkeys(run_folder.WRITTEN, b""), -1.0)
    KeptAgain(folder / "kept").go_on()
    writer = RepeatedRows(folder, plan, info, time.perf_counter(), None if reads_values else stored)
    tell("resumed", {"resumption": info.resumed[-1]})
    try:
        return course(plan, executor, writer, tell, stop=stop)[0]
    except BaseException as problem:
        close_early(writer, problem)
        raise


def clients_columns(plan: Plan) -> Any:
    """Return the table of clients of a plan."""
    from fedsim.records import tables

    return tables.joined("clients", [tables.fit("clients", clients_table(plan))])


def _columns(run: Run) -> dict[str, Any]:
    return {
        name: {str(column): values.to_numpy() for column, values in table.items()}
        for name, table in run.tables.items()
    }


def _cut(folder: Path, plan: Plan, info: RunInfo, lines: Mapping[str, bytes], wall_s: float) -> None:
    try:
        cut_back(folder, portable(plan.experiment), info, lines, wall_s)
    except OSError as problem:
        raise HostError(message(str(folder), f"cannot be written ({problem.strerror})")) from problem


def close_early(writer: Writer, problem: BaseException) -> None:
    """Close the tables of a run that something has ended."""
    if isinstance(problem, KeyboardInterrupt | SystemExit):
        writer.interrupt("interrupted by the user")
        return
    with suppress(Exception):
        writer.close(status="failed", reason=str(problem).splitlines()[0] if str(problem) else repr(problem))


@dataclass
class _GoingOn:
    """A run that goes on from a checkpoint.

    Attributes:
        before: as its end has left it.
        stored: the checkpoint.
        info: `run.json` from now on.
        writer: of the run; None as long as the schedule is replayed.
    """

    before: Run
    plan: Plan
    executor: Executor
    stored: Stored
    info: RunInfo
    tell: OnEvent
    writer: Writer | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        folder = self.before.folder
        assert folder is not None
        self._folder, self._began_s = folder, time.perf_counter()
        self._kept = KeptAgain(folder / "kept")
        self._values, self._views = heads.values(self.stored, self.plan, self._kept)
        self._rows = StoredRows(str(folder), _columns(self.before))
        self._replayed = ReplayedRows(self.plan, self._rows)

    def run(self, stop: Stop) -> Run:
        """Go on to the end of the budget.

        Raises:
            RunFolderError: the schedule is not that of the run.
        """
        self._replayed.clients(clients_table(self.plan))
        log = Log(replace(self.before, info=replace(self.before.info, status="killed")))
        server = world(self.plan, None, self._replayed, self._heard, log=log, vector=version_0(self.plan))
        server.versions.lent.replay(self._values["lent"])
        server.maker.on_version = lambda: self._at(server)
        tell_start(self.plan, self.executor, self.info, self.tell)
        server.evaluate()
        try:
            ended_s = run_to_the_end(server, self._heard, stop)
            if self.writer is None:
                raise self._refused("the schedule ends before its version")
            return concluded(server, self.executor, self.writer, ended_s)[0]
        except BaseException as problem:
            if self.writer is not None:
                close_early(self.writer, problem)
            raise

    def _heard(self, kind: str, facts: dict[str, Any]) -> None:
        """Tell what happens, from where the run goes on."""
        if self.writer is not None:
            self.tell(kind, facts)

    def _refused(self, what: str) -> RunFolderError:
        fix = "see `fedsim verify`; without the folder `checkpoints` the run begins again from version 0"
        return RunFolderError(message(str(self.stored.path), f"does not belong to this run: {what}", fix=fix))

    def _at(self, server: Server) -> None:
        """Put the values in if the schedule has come to their version."""
        head = self.stored.head
        if server.version != head.version:
            return
        if float(server.now_s) != head.time_s:
            raise self._refused(f"version {head.version} was made at {head.time_s!r} s")
        lines = self._rows.lines(head.rows)
        try:
            put_values(server, self._values, self.executor)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as problem:
            raise self._refused(str(problem)) from problem
        self._go_on(server, lines)

    def _go_on(self, server: Server, lines: Mapping[str, bytes]) -> None:
        """Let the server write into the run's folder, which is cut back to here."""
        head, counts = self.stored.head, self._replayed.counts
        seconds = time.perf_counter() - self._began_s
        resumption = _resumption(self.before, head.version, counts["visits"], counts["commits"], seconds)
        self.info = replace(self.info, resumed=(*self.info.resumed, resumption), refused=head.refused)
        heads.keep_only(self._folder, self.stored.path)
        _cut(self._folder, self.plan, self.info, lines, head.wall_s)
        self._kept.go_on()
        began_s = time.perf_counter() - head.wall_s
        writer = Writer(self._folder, self.plan.experiment, began_s, continues=self.info)
        writer.counts.update(head.rows)
        writer.clients(clients_table(self.plan))
        server.ledger.writer = self.writer = writer
        self._values = {}
        Checkpoints(server, writer, self.tell).begin(self._views)
        self.tell("resumed", {"resumption": resumption, "cpu": head.cpu})
