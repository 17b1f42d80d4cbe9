"""A run that goes on from a checkpoint: its schedule is replayed and compared, then the values are put in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedsim.callbacks.telling import OnEvent
from fedsim.clock.plan import Plan
from fedsim.clock.plan_tables import clients_table
from fedsim.errors import RunFolderError, message
from fedsim.executors import Executor
from fedsim.records.info import RunInfo
from fedsim.records.run import Run
from fedsim.records.writer import Writer
from fedsim.runs.course import concluded, run_to_the_end, tell_start, version_0, world
from fedsim.runs.ending import closed_whatever_happens
from fedsim.runs.resuming import heads
from fedsim.runs.resuming.checkpoints import Checkpoints
from fedsim.runs.resuming.common import columns_of, cut, resumption
from fedsim.runs.resuming.folder import WrittenRows
from fedsim.runs.resuming.heads import Stored, Values
from fedsim.runs.resuming.replayed import ReplayedRows, StoredRows
from fedsim.runs.stopping import Stop
from fedsim.server.server import Server
from fedsim.server.values.log import Log
from fedsim.server.values.saved import put_values


@dataclass
class GoingOn:
    """A run that goes on from a checkpoint.

    Attributes:
        before: as its end has left it.
        stored, values: the checkpoint.
        info: `run.json` from now on.
        writer: of the run; None as long as the schedule is replayed.
    """

    before: Run
    plan: Plan
    executor: Executor
    stored: Stored
    values: Values
    info: RunInfo
    tell: OnEvent
    writer: Writer | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        folder = self.before.folder
        assert folder is not None
        self._folder, self._began_s = folder, time.perf_counter()
        self._rows = StoredRows(str(folder), columns_of(self.before))
        self._replayed = ReplayedRows(self.plan, self._rows)

    def run(self, stop: Stop) -> Run:
        """Go on to the end of the budget.

        Raises:
            RunFolderError: the schedule is not that of the run.
        """
        self._replayed.clients(clients_table(self.plan))
        log = Log(self.before.with_info(replace(self.before.info, status="killed")))
        server = world(self.plan, None, self._replayed, self._heard, log=log, vector=version_0(self.plan))
        server.versions.lent.replay(self.values.data["lent"])
        server.versions.coder.idle = True
        server.maker.on_version = lambda: self._at(server)
        tell_start(self.plan, self.executor, self.info, self.tell, self._folder)
        server.evaluate()
        try:
            ended_s = run_to_the_end(server, self._heard, stop)
            if self.writer is None:
                self._replayed.compare()
                raise self._refused("the schedule ends before its version")
            return concluded(server, self.executor, self.writer, ended_s)[0]
        except BaseException:
            if self.writer is None:
                raise
            with closed_whatever_happens(self.writer):
                raise

    def _heard(self, kind: str, facts: dict[str, object]) -> None:
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
        self._replayed.compare()
        rows = self._rows.written(head.rows)
        try:
            put_values(server, self.values.data, self.executor)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as problem:
            raise self._refused(str(problem)) from problem
        self._go_on(server, rows)

    def _go_on(self, server: Server, rows: Mapping[str, WrittenRows]) -> None:
        """Let the server write into the run's folder, which is cut back to here."""
        head, counts = self.stored.head, self._replayed.counts
        seconds = time.perf_counter() - self._began_s
        again = resumption(self.before, head.version, counts["visits"], counts["commits"], seconds)
        self.info = replace(self.info, resumed=(*self.info.resumed, again), refused=head.refused)
        heads.keep_only(self._folder, self.stored.path)
        cut(self._folder, self.plan, self.info, rows, head.wall_s)
        self.values.kept.go_on()
        began_s = time.perf_counter() - head.wall_s
        writer = Writer(self._folder, self.plan.experiment, began_s, self.info, continues=True)
        writer.counts.update(head.rows)
        writer.clients(clients_table(self.plan))
        server.ledger.writer = self.writer = writer
        Checkpoints(server, writer, self.tell).begin(self.values.views)
        del self.stored, self.values
        self.tell("resumed", {"resumption": again, "cpu": head.cpu})
