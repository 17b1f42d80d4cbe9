"""When a run takes a checkpoint, and what goes into it.

A checkpoint is taken right after a commit, before anything of the new version is sent. Scores under way are waited for and
written; trainings under way are waited for and stored, never read earlier than without a checkpoint. So no result, no order
of rows and no client batch depends on whether or when there are checkpoints.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fedsim.adapters.adapter import Adapter
from fedsim.aggregators._base import ServerModel
from fedsim.callbacks.telling import OnEvent
from fedsim.clock.plan import Plan
from fedsim.errors import ExperimentError, FedsimError, RunError, message
from fedsim.files.checkpoint.plain_values import Held, UnholdableError
from fedsim.files.client_vectors import ClientVectors
from fedsim.records.integrity.versions import installed_versions
from fedsim.records.writer import Writer
from fedsim.runs.resuming.files import model_files
from fedsim.runs.resuming.heads import KEPT, Head, found, held_by, known, modules_of, write
from fedsim.runs.resuming.machine import processor
from fedsim.server.server import Server
from fedsim.server.values.saved import values_of

FIRST_S = 10.0
"""Real seconds before the first checkpoint and between two of them, at least, where nothing is asked for."""
SHARE = 1 / 20
"""Most of the time that they take then."""
RESIDUALS = Path("kept", "residuals.f32")
"""What clients owe with error feedback, in the folder of a run."""
TREE = "the checkpoint"
NO_FIX = "remove runtime.checkpoint_commits and checkpoint_s: the run then goes on without checkpoints, and says so"


def refuse_unholdable(plan: Plan) -> None:
    """Raise if checkpoints are asked for and a component's state cannot be held.

    Raises:
        ExperimentError: names the component.
    """
    if not plan.experiment.runtime.asks_for_checkpoints:
        return
    what = why_none(plan)
    if what:
        raise ExperimentError(message("runtime", f"there can be no checkpoints: {what}", fix=NO_FIX))


def why_none(plan: Plan) -> str:
    """Return why a run can have no checkpoints, as far as its first state tells; empty if it can."""
    parts, layout = plan.parts, plan.task.layout
    rule, optimizer = parts.aggregator, parts.server_optimizer
    if rule.reads_values:
        return f"the aggregator {rule.kind} decides by values that are in no table"
    held = Held(known(plan), modules_of(plan), Path("kept"))
    model = ServerModel(Adapter(layout, np.zeros(layout.size, np.float32)))
    try:
        held.tree(rule.dump(rule.init(model)), f"the state of the aggregator {rule.kind}")
        held.tree(
            optimizer.dump(optimizer.init(layout.size)), f"the state of the server optimizer {optimizer.kind}"
        )
    except UnholdableError as problem:
        return f"{problem} (define its `dump` and `load`)"
    return ""


def leave_no_residuals(folder: Path) -> None:
    """Remove what error feedback has left at the end of a run that has no checkpoint, to which it would belong."""
    if not found(folder):
        (folder / RESIDUALS).unlink(missing_ok=True)


class Checkpoints:
    """Takes the checkpoints of a run; of one that lives in memory there are none."""

    def __init__(self, server: Server, writer: Writer, tell: OnEvent) -> None:
        """Take a run that begins now, or goes on."""
        self._server, self._writer, self._tell = server, writer, tell
        self._runtime = server.experiment.runtime
        self._began_s = self._last_s = time.perf_counter()
        self._cost_s = 0.0
        self._views: deque[Sequence[ClientVectors]] = deque(maxlen=KEPT)
        self._told: set[str] = set()

    def begin(self, views: Sequence[ClientVectors] = ()) -> None:
        """Take some from now on.

        Args:
            views: of what clients kept at the checkpoint that the run went on from: nothing overwrites it.
        """
        folder, runtime = self._writer.folder, self._runtime
        if folder is None or not runtime.takes_checkpoints:
            return
        self._views.append(views)
        coder = self._server.versions.coder
        if self._server.experiment.wire.error_feedback and coder.residuals.path is None:
            coder.residuals = ClientVectors(folder / RESIDUALS)
        self._server.maker.on_version = self._after_commit

    def _after_commit(self) -> None:
        if self._is_due(self._server.version):
            self._take()

    def _is_due(self, version: int) -> bool:
        runtime, now_s = self._runtime, time.perf_counter()
        last, since_s = self._server.maker.is_last(), now_s - self._last_s
        every = runtime.checkpoint_commits
        if every is not None and (version % every == 0 or last):
            return True
        if not isinstance(runtime.checkpoint_s, str):
            return since_s >= runtime.checkpoint_s
        if runtime.checkpoint_s == "off" or every is not None:
            return False
        pays = since_s >= self._cost_s * (1 / SHARE - 1)
        return pays and (since_s >= FIRST_S or (last and now_s - self._began_s >= FIRST_S))

    def _take(self) -> None:
        """Take a checkpoint; what goes wrong with it alone does not end the run."""
        began_s = time.perf_counter()
        self._server.trainer.evaluations.hand_over(all_of_them=True)
        try:
            self._write(began_s)
        except UnholdableError as problem:
            self._give_up(f"{self._named(str(problem))} (define its `dump` and `load`)")
        except FedsimError:
            pass  # a training that nobody may ever need has failed: it is told when somebody does
        except OSError as problem:
            self._say_once(f"a checkpoint could not be written ({problem.strerror}): the last one stays")
        self._last_s = time.perf_counter()
        self._cost_s = max(self._last_s - began_s, self._cost_s / 2)

    def _write(self, began_s: float) -> None:
        server, writer = self._server, self._writer
        assert writer.folder is not None
        kind = server.plan.parts.protocol.kind
        if server.maker.forgets:
            raise UnholdableError(
                f"the protocol {kind} blends models, and its blends do not say what they remember"
            )
        if server.versions.rule.reads_values:
            raise UnholdableError(
                f"the aggregator {server.versions.rule.kind} decides by values that are in no table"
            )
        held = held_by(server.plan, writer.folder)
        tree = held.tree(values_of(server), TREE)
        for view in held.views:
            if view.file is not None:
                view.file.sync()
        writer.sync()
        path, size = write(writer.folder, self._head(), tree, held.arrays)
        self._views.append(held.views)
        facts = {"version": server.version, "seconds": time.perf_counter() - began_s, "bytes": size}
        writer.wall({"checkpoint": server.version, "seconds": facts["seconds"], "bytes": size})
        self._tell("checkpoint", {**facts, "path": path})

    def _named(self, problem: str) -> str:
        """Return what cannot be held with the name of the component that it belongs to."""
        parts = self._server.plan.parts
        names = {
            "['versions']['rule']": f"the state of the aggregator {parts.aggregator.kind}",
            "['versions']['optimizer']": f"the state of the server optimizer {parts.server_optimizer.kind}",
            "['memory']": f"what the protocol {parts.protocol.kind} remembers",
        }
        for path, name in names.items():
            problem = problem.replace(f"{TREE}{path}", name)
        return problem

    @cached_property
    def _files(self) -> Mapping[str, str]:
        return model_files(self._writer.experiment)

    def _head(self) -> Head:
        server, writer = self._server, self._writer
        return Head(
            version=server.version,
            time_s=float(server.now_s),
            wall_s=writer.wall_s,
            rows=dict(writer.counts),
            refused=writer.info.refused,
            experiment=writer.experiment,
            versions=installed_versions(),
            cpu=processor(),
            task=writer.info.task,
            population=writer.info.population,
            files=self._files,
        )

    def _give_up(self, why: str) -> None:
        """Go on without checkpoints, unless they were asked for.

        Raises:
            RunError: they were.
        """
        if self._runtime.asks_for_checkpoints:
            raise RunError(message("runtime", f"there can be no checkpoints: {why}", fix=NO_FIX))
        self._server.maker.on_version = lambda: None
        self._say_once(f"no checkpoints: {why}")

    def _say_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._writer.note(replace(self._writer.info, no_checkpoints=what))
            self._tell("no_checkpoint", {"reason": what})
