"""simulate(experiment) -> Run: build everything, step the clock, write the tables."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from fedsim.adapters.adapter import Adapter
from fedsim.aggregators._base import ServerModel
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan, prepare
from fedsim.clock.plan_tables import charged_facts, clients_table
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, RunError, message
from fedsim.executors import Executor
from fedsim.files.client_vectors import Kept
from fedsim.network.build import network_of
from fedsim.records.run import Run
from fedsim.records.writer import Writer
from fedsim.server import personalize
from fedsim.server.gallery import hang
from fedsim.server.ledger import Ledger, OnEvent
from fedsim.server.private_parts import PrivateParts
from fedsim.server.server import OnDispatch, Server
from fedsim.server.trainer import Trainer


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
    )


def begin(executor: Executor, experiment: Experiment) -> None:
    """Let the workers start while the task is prepared, if the executor can do that.

    Vectors must be small for it: the room for them is set aside before their size is known.
    """
    start = getattr(executor, "begin", None)
    if start is not None and not experiment.lora.full:
        start(experiment.task.worker_modules)


def simulate(
    experiment: Experiment | Plan,
    executor: Executor | None = None,
    *,
    out: Path | str | None = None,
    timeline_only: bool = False,
    on_event: OnEvent | None = None,
) -> Run:
    """Run an experiment to the end of its budget.

    Args:
        experiment: the configuration, or what `prepare` made of it.
        executor: where to train; by default what `runtime` asks for. One that is passed in is
            opened on this experiment's task but not closed.
        out: run folder to write as the run goes; None keeps the tables in memory.
        timeline_only: the same schedule without weights or training.
        on_event: called with (kind, facts) as things happen in virtual time.

    Returns:
        The run with its tables.

    Raises:
        FedsimError: see `fedsim.errors`; the tables written so far are kept.
        KeyboardInterrupt: as raised; the tables written so far are kept.
    """
    tell = on_event or (lambda _kind, _facts: None)
    if timeline_only:
        _refuse_values(experiment.experiment if isinstance(experiment, Plan) else experiment)
    with ExitStack() as stack:
        worker = None if timeline_only else executor
        if executor is None and not timeline_only:
            asked = experiment.experiment if isinstance(experiment, Plan) else experiment
            worker = stack.enter_context(closing(executor_for(asked)))
            begin(worker, asked)
        plan = experiment if isinstance(experiment, Plan) else prepare(experiment)
        writer = Writer(None if out is None else Path(out), plan.experiment)
        with _closed_whatever_happens(writer):
            return course(plan, worker, writer, tell)[0]


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


@contextmanager
def _closed_whatever_happens(writer: Writer) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        writer.close(status="interrupted", reason="interrupted by the user")
        raise
    except BaseException as problem:
        with suppress(Exception):
            reason = str(problem).splitlines()[0] if str(problem) else repr(problem)
            writer.close(status="failed", reason=reason)
        raise


def world(
    plan: Plan,
    executor: Executor | None,
    writer: Writer,
    tell: OnEvent,
    on_dispatch: OnDispatch | None = None,
) -> Server:
    """Return the server of a plan at time 0, its protocol about to begin; without an executor nothing trains."""
    experiment, task = plan.experiment, plan.task
    if executor is not None:
        executor.open(task)
    vector = np.zeros(task.layout.size, np.float32) if executor is None else task.initial()
    ledger = Ledger(writer, task, tell)
    trainer = Trainer(experiment, task, executor, ledger.score, tell)
    env = simpy.Environment()
    kept_by_rule = None if writer.folder is None else writer.folder / "kept" / "rule.f32"
    server = Server(
        env,
        plan,
        network=network_of(plan, env),
        model=ServerModel(Adapter(task.layout, vector), personal=Kept(kept_by_rule)),
        trainer=trainer,
        ledger=ledger,
        on_dispatch=on_dispatch,
        private_parts=PrivateParts(experiment, task.layout, vector, executor, writer.folder),
    )
    server.process(plan.parts.protocol.run(server))
    return server


def course(plan: Plan, executor: Executor | None, writer: Writer, tell: OnEvent) -> tuple[Run, ServerModel]:
    """Run a plan from its first dispatch to its last table; returns the run and the final model."""
    experiment, task = plan.experiment, plan.task
    writer.clients(clients_table(plan))
    writer.note(
        {
            "timeline_only": executor is None,
            "task": task.describe(),
            "charged": charged_facts(plan),
            "population": plan.population.sources,
        }
    )
    server = world(plan, executor, writer, tell)
    ledger, trainer = server.ledger, server.trainer
    workers = executor.workers if executor is not None else 0
    tell(
        "start",
        {"workers": workers, "clients": len(plan.population), "budget": experiment.budget.model_dump()},
    )
    server.evaluate()
    ended_s = run_to_the_end(server, tell)
    if server.version and server.version % experiment.evaluate.every_commits:
        server.evaluate()
    trainer.evaluations.hand_over(all_of_them=True)
    server.private_parts.finish()
    if executor is not None:
        model = server.average.model
        for row in personalize.rows(plan, executor, model, server.state, server.private_parts):
            writer.personal(row)
        if writer.folder is not None:
            if not server.private_parts.waits:
                writer.note(_saved(plan, model, writer.folder / "adapter"))
            hang(plan, executor, model, server.state, server.private_parts, writer.folder / "samples")
    facts = {
        "executor": type(executor).__name__ if executor is not None else "none (timeline only)",
        "workers": workers,
        "end_time_s": ended_s,
        "totals": {
            "visits": ledger.visits,
            "commits": server.version,
            "up_bytes": ledger.up_bytes,
            "down_bytes": ledger.down_bytes,
            "joules": ledger.joules,
            "gross_joules": ledger.gross_joules,
            "outcomes": dict(sorted(ledger.outcomes.items())),
            "refused": ledger.refused,
        },
        "faulty_personal": server.private_parts.faulty,
        **server.attendance.facts(ended_s),
        "saved_share": 1.0 - trainer.trained / trainer.dispatched if trainer.dispatched else 0.0,
    }
    run = writer.close(status="done", facts=facts)
    if run.folder is not None:
        from fedsim.report import write

        write([run], run.folder / "report.html")
    tell("done", {"run": run})
    return run, server.model


def _saved(plan: Plan, model: ServerModel, folder: Path) -> dict[str, Any]:
    """Write the final model for stock libraries; returns what `run.json` says about it."""
    if model.base is None or not model.base.version:
        plan.task.save_adapter(model.adapter.vector, folder)
        return {}
    rank = plan.task.save_adapter(model.adapter.vector, folder, model.base.vector)
    about = "the change of the frozen weights and the adapter in one exact adapter"
    return {"saved_adapter": {"rank": rank, "base_version": model.base.version, "holds": about}}


def run_to_the_end(server: Server, tell: OnEvent) -> float:
    """Step the clock until the budget is used up and close the books; returns the virtual time then [s]."""
    try:
        with _no_garbage_pauses():
            ended_s = _step(server.env, server, tell)
    except BaseException:
        server.close(float(server.env.now))
        raise
    server.close(ended_s)
    return ended_s


def _step(env: simpy.Environment, server: Server, tell: OnEvent) -> float:
    """Step to the end of the budget; returns the virtual time of the end [s]."""
    horizon_s = server.experiment.budget.time_s or math.inf
    told_s = -math.inf
    # env.run(until=...) would half-process its last instant
    while not server.over and env.peek() < horizon_s:
        env.step()
        if env.now - told_s >= 60.0:
            told_s = float(env.now)
            tell("time", {"time_s": told_s})
            if math.isinf(horizon_s):
                server.refuse_to_spin()
    if not server.over and math.isinf(env.peek()) and math.isinf(horizon_s):
        fix = "give budget.time_s, or a budget.commits that these clients can reach"
        raise RunError(message("run", "nothing is left to happen, and the budget is not used up", fix=fix))
    return float(env.now) if server.over or math.isinf(horizon_s) else horizon_s


@contextmanager
def _no_garbage_pauses() -> Iterator[None]:
    """SimPy makes no cycles that matter; the collector doubles the cost of a million events."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
