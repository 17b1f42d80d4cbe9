"""simulate(experiment) -> Run: build everything, step the clock, write the tables."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import simpy

from fedsim.adapters.adapter import Adapter
from fedsim.aggregators._base import ServerModel
from fedsim.blame import blaming
from fedsim.checks.gate import admit, prepared
from fedsim.checks.resolved import resolved
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan
from fedsim.clock.plan_tables import charged_facts, clients_table
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, Shown, message
from fedsim.executors import Executor
from fedsim.files.client_vectors import ClientVectors
from fedsim.instants import Closing, Instant
from fedsim.network.build import network_of
from fedsim.records.folder import check_free
from fedsim.records.info import RunInfo
from fedsim.records.run import Run
from fedsim.records.writer import Writer
from fedsim.runs.finish import ended, finish, write_report
from fedsim.runs.stopping import Stop, stoppable
from fedsim.server import returned
from fedsim.server.after.personalize import visits_after
from fedsim.server.ledger import Ledger, OnEvent, quiet
from fedsim.server.server import OnDispatch, Server
from fedsim.server.stall import Standstill, nothing_left
from fedsim.server.values.log import Log
from fedsim.server.values.private_parts import PrivateParts
from fedsim.server.values.trainer import Trainer


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
    """Let the workers start while the task is prepared.

    Vectors must be small for it: the room for them is set aside before their size is known.
    """
    if not experiment.lora.full:
        executor.prestart(parts_of(experiment).task.worker_modules)


def simulate(
    experiment: Experiment | Plan,
    executor: Executor | None = None,
    *,
    out: Path | str | None = None,
    timeline_only: bool = False,
    on_event: OnEvent | None = None,
    report: bool = True,
) -> Run:
    """Run an experiment to the end of its budget.

    Args:
        experiment: the configuration, or its plan; either is checked here (`fedsim.checks.gate`).
        executor: where to train; by default what `runtime` asks for, closed at the end. One that is passed in
            belongs to the caller: it is opened on this experiment's task, and open afterwards.
        out: run folder to write as the run goes; None keeps the tables in memory.
        timeline_only: the same schedule without weights or training.
        on_event: called with (kind, facts) as things happen in virtual time.
        report: write `report.html` into the run folder, too.

    Returns:
        The run with its tables.

    Raises:
        FedsimError: see `fedsim.errors`; the tables written so far are kept.
        KeyboardInterrupt: as raised; the tables written so far are kept, as when SIGTERM ends the run.
    """
    tell = on_event or quiet
    settings = admit(experiment)
    _refuse_other_executors(executor)
    if timeline_only:
        _refuse_values(settings)
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
        writer = Writer(folder, plan.experiment, began_s)
        with _closed_whatever_happens(writer), blaming(plan.parts.everything):
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


@contextmanager
def _closed_whatever_happens(writer: Writer) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        writer.interrupt("interrupted by the user")
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
    log: Log | None = None,
) -> Server:
    """Return the server of a plan at time 0, its protocol about to begin; without an executor nothing trains.

    With a `log` it goes as the run of these tables went, where values decide.
    """
    experiment, task = plan.experiment, plan.task
    if executor is not None:
        executor.open(task)
    vector = (
        np.zeros(task.layout.size, np.float32)
        if executor is None
        else returned.version_0(task, task.initial())
    )
    ledger = Ledger(writer, task, tell)
    trainer = Trainer(experiment, task, executor, ledger.score, tell, log)
    env = simpy.Environment()
    kept_by_rule = None if writer.folder is None else writer.folder / "kept" / "rule.f32"
    server = Server(
        env,
        plan,
        network=network_of(experiment.network, plan.population, env),
        model=ServerModel(Adapter(task.layout, vector), personal=ClientVectors(kept_by_rule)),
        trainer=trainer,
        ledger=ledger,
        on_dispatch=on_dispatch,
        private_parts=PrivateParts(experiment, task.layout, vector, executor, writer.folder),
    )
    protocol = plan.parts.protocol
    server.process(returned.begun(protocol, protocol.run(server)))
    return server


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
    writer.note(begun(writer.info, plan, timeline_only=executor is None))
    server = world(plan, executor, writer, tell, on_dispatch)
    workers = 0 if executor is None else executor.workers
    budget = plan.experiment.budget.model_dump()
    facts = {"workers": workers, "clients": len(plan.population), "budget": budget}
    tell("start", {**facts, "resolved": writer.info.resolved, "visits_after": writer.info.visits_after})
    server.evaluate()
    ended_s = run_to_the_end(server, tell, stop)
    evaluate_the_end(server)
    server.trainer.evaluations.hand_over(all_of_them=True)
    server.private_parts.finish()
    if executor is not None:
        finish(server, executor, writer)
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
        resolved=resolved(plan),
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
    while not server.over:
        if math.isinf(env.peek()):
            raise nothing_left(server)
        env.step()
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
