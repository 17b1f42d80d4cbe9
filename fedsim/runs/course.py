"""One run from its first event to its last table: the world of a plan, stepped until its budget is used up."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import simpy

from fedsim.adapters.adapter import Adapter, Vector
from fedsim.aggregators._base import ServerModel
from fedsim.callbacks.telling import OnEvent
from fedsim.checks.resolved import resolved
from fedsim.clock.plan import Plan
from fedsim.clock.plan_tables import charged_facts, clients_table
from fedsim.executors import Executor
from fedsim.files.client_vectors import ClientVectors
from fedsim.instants import Clock, Closing, Instant
from fedsim.network.build import network_of
from fedsim.records.info import RunInfo
from fedsim.records.run import Run
from fedsim.records.watching.pace import USED
from fedsim.records.writer import Writer, portable
from fedsim.runs.finish import ended, finish, on_processors
from fedsim.runs.resuming.checkpoints import Checkpoints, leave_no_residuals
from fedsim.runs.stopping import Stop
from fedsim.server import returned
from fedsim.server.after.personalize import visits_after
from fedsim.server.ledger import Ledger
from fedsim.server.server import OnDispatch, Server
from fedsim.server.stall import Standstill, nothing_left
from fedsim.server.values.log import Log
from fedsim.server.values.private_parts import PrivateParts
from fedsim.server.values.trainer import Trainer


def world(
    plan: Plan,
    executor: Executor | None,
    writer: Writer,
    tell: OnEvent,
    on_dispatch: OnDispatch | None = None,
    log: Log | None = None,
    vector: Vector | None = None,
) -> Server:
    """Return the server of a plan at time 0, its protocol about to begin; without an executor nothing trains.

    With a `log` it goes as the run of these tables went, where values decide. `vector` is version 0; None: the task's
    where it trains, else zeros.
    """
    experiment, task = plan.experiment, plan.task
    if executor is not None:
        executor.open(task)
    if vector is None:
        vector = np.zeros(task.layout.size, np.float32) if executor is None else version_0(plan)
    ledger = Ledger(writer, task, tell)
    trainer = Trainer(experiment, task, executor, ledger.score, tell, log)
    env = Clock()
    kept_by_rule = None if writer.folder is None else writer.folder / "kept" / "rule.f32"
    server = Server(
        env,
        plan,
        network=network_of(
            experiment.network,
            plan.population,
            env,
            groups=plan.population.groups,
            seed=experiment.population_seed,
        ),
        model=ServerModel(Adapter(task.layout, vector), personal=ClientVectors(kept_by_rule)),
        trainer=trainer,
        ledger=ledger,
        on_dispatch=on_dispatch,
        private_parts=PrivateParts(experiment, task.layout, vector, executor, writer.folder),
    )
    protocol = plan.parts.protocol
    server.process(returned.begun(protocol, protocol.run(server)))
    return server


def version_0(plan: Plan) -> Vector:
    """Return the adapter before any commit."""
    return returned.version_0(plan.task, plan.task.initial())


def course(
    plan: Plan,
    executor: Executor | None,
    writer: Writer,
    tell: OnEvent,
    on_dispatch: OnDispatch | None = None,
    *,
    stop: Stop | None = None,
) -> tuple[Run, ServerModel]:
    """Run a plan from its first dispatch to its last table; returns the run and the final model."""
    writer.clients(clients_table(plan))
    info = writer.info
    if info.resolved is None:  # whoever made the writer has not said what is known before the first dispatch
        info = begun(info, plan, timeline_only=executor is None)
    writer.note(on_processors(info, executor))
    server = world(plan, executor, writer, tell, on_dispatch)
    if executor is not None:
        Checkpoints(server, writer, tell).begin()
    tell_start(plan, executor, writer.info, tell, writer.folder)
    server.evaluate()
    ended_s = run_to_the_end(server, tell, stop)
    return concluded(server, executor, writer, ended_s)


def tell_start(
    plan: Plan, executor: Executor | None, info: RunInfo, tell: OnEvent, folder: Path | None
) -> None:
    """Tell what begins."""
    workers = 0 if executor is None else executor.workers
    settings = portable(plan.experiment)
    facts = {
        "workers": workers,
        "clients": len(plan.population),
        "budget": {limit: settings["budget"][limit] for limit in USED},
    }
    about = {"name": info.name, "folder": None if folder is None else str(folder), "settings": settings}
    tell("start", {**facts, **about, "resolved": info.resolved, "visits_after": info.visits_after})


def concluded(
    server: Server, executor: Executor | None, writer: Writer, ended_s: float
) -> tuple[Run, ServerModel]:
    """Leave what comes after the last event, at virtual time `ended_s`; returns the run and the final model."""
    evaluate_the_end(server)
    server.trainer.evaluations.hand_over(all_of_them=True)
    server.private_parts.finish()
    if executor is not None:
        finish(server, executor, writer)
    if writer.folder is not None:
        leave_no_residuals(writer.folder)
    run = writer.close(
        status="done", reason=server.why_over, ended=ended(writer.info, server, executor, ended_s)
    )
    return run, server.model


def evaluate_the_end(server: Server) -> None:
    """Score the last version, if it was not its turn anyway."""
    server.evaluate()


def begun(info: RunInfo, plan: Plan, *, timeline_only: bool) -> RunInfo:
    """Complete `run.json` with what is known before the first dispatch."""
    return replace(
        info,
        timeline_only=timeline_only,
        task=plan.task.describe(),
        charged=charged_facts(plan),
        population=plan.population.sources,
        resolved=resolved(plan) if info.resolved is None else info.resolved,
        visits_after=0.0 if timeline_only else visits_after(plan),
    )


def run_to_the_end(server: Server, tell: OnEvent, stop: Stop | None = None) -> float:
    """Step the clock until the budget is used up and close the books; returns the virtual time then [s]."""
    try:
        with no_garbage_pauses():
            ended_s = _step(server.env, server, tell, stop or Stop())
    except BaseException:
        with suppress(Exception):  # what ended the run must be what is said, whatever it left half done
            server.close(float(server.env.now))
        raise
    server.close(ended_s)
    return ended_s


def _step(env: simpy.Environment, server: Server, tell: OnEvent, stop: Stop) -> float:
    """Step to the end of the budget; returns the virtual time of the end [s].

    What lands or is committed at `budget.time_s` still counts, as at a deadline; then it is over.
    """
    horizon_s, told_s, standstill = server.experiment.budget.time_s, -math.inf, Standstill(server)
    if horizon_s is not None:
        end = Closing(env, horizon_s - env.now, Instant.EVALUATE, server.next_landing_s)
        end.callbacks.append(lambda _event: server.end())
    step, peek = env.step, env.peek
    while not server.over:
        if peek() == math.inf:
            raise nothing_left(server)
        step()
        if stop.asked:
            stop.heed()
        now_s = float(env.now)
        standstill.count(now_s)
        if now_s - told_s >= 60.0:
            told_s = now_s
            tell("time", {"time_s": told_s})
            if horizon_s is None:
                standstill.refuse_to_spin()
    return float(env.now)


@contextmanager
def no_garbage_pauses() -> Iterator[None]:
    """SimPy makes no cycles that matter; the collector doubles the cost of a million events."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
