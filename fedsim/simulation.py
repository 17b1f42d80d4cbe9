"""simulate(experiment) -> Run: build everything, step the clock, write the tables."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import simpy

from fedsim import personalize
from fedsim.adapter import Adapter
from fedsim.aggregators import ServerModel
from fedsim.cost import (
    ModelShape,
    Work,
    adapter_bytes,
    backbone_bytes,
    declared,
    moved_bytes,
    train_flops,
    train_memory_bytes,
)
from fedsim.errors import ExperimentError, RunError, message
from fedsim.executors import Executor
from fedsim.experiment import Experiment
from fedsim.gallery import hang
from fedsim.jobs import Task, TaskContext
from fedsim.ledger import Ledger, OnEvent
from fedsim.memory import MemoryPlan, plan_memory
from fedsim.network import Network, PrivateLinks
from fedsim.profiles import Population, draw
from fedsim.run import Run, Writer
from fedsim.server import Charges, Server
from fedsim.shared_links import SharedLinks
from fedsim.speeds import with_speeds
from fedsim.trainer import Trainer

BYTES_PER_S = 1e6 / 8  # of one Mbit/s
FEW, MANY = 8, 64
"""Clients of one call where the task suggests nothing, in a small round and in a large one."""
CALLS = 64
"""Calls that a large round is cut into, as far as `MANY` allows."""
CALL_BYTES = 4 * 2**20
"""Most bytes of results in one call: several calls lie in memory at a time."""


@dataclass(frozen=True)
class Way:
    """How a device trains the model, and the FLOPs of a token then."""

    memory: MemoryPlan
    flops_per_token: float

    def flops(self, tokens: int) -> float:
        """Return the FLOPs of training on so many tokens."""
        return float(tokens) * self.flops_per_token


@dataclass(frozen=True)
class Plan:
    """An experiment with everything that can be refused already built: nothing has started.

    Attributes:
        experiment: `auto` settings resolved.
        population, task: as drawn and split.
        shape: the model that the clock charges (the declared one under `charge_as`).
    """

    experiment: Experiment
    population: Population
    task: Task
    shape: ModelShape

    def alike(self, experiment: Experiment) -> Plan:
        """Return the plan of an experiment with the same seed, population, task, `lora`, `local`, `compute`."""
        return replace(self, experiment=resolved(experiment, self.task))

    def tokens(self, client: int) -> int:
        """Tokens charged for one visit of a client."""
        charge = getattr(self.experiment.task, "charge_as", None)
        given = getattr(charge, "tokens_per_visit", None)
        images = getattr(charge, "images_per_visit", None)
        if isinstance(images, int):
            given = images * self.shape.sequence
        return given if isinstance(given, int) else self.task.tokens(client, self.experiment.local)

    def work(self, client: int) -> Work:
        """What one visit of a client is charged, adapter both ways."""
        tokens = self.tokens(client)
        size, floats = self.adapter_bytes, 4 * self.task.layout.size
        way = self.way(self.population.profile(client).usable_memory_bytes)
        shape = way.memory.shape
        steps = math.ceil(tokens / (shape.sequence * shape.batch))
        updates = math.ceil(tokens / (self.shape.sequence * self.shape.batch))
        copied = self.experiment.compute.dequantisation == "copy"
        return Work(
            size,
            size,
            way.flops(tokens),
            way.memory.memory_bytes,
            tokens,
            floats,
            floats,
            steps=steps,
            moved_bytes=moved_bytes(shape, steps, updates, copied=copied),
            memory_plan=way.memory.words,
        )

    def way(self, usable_bytes: float) -> Way:
        """How a device with so much memory trains the model: as asked, by `memory.when_short`, or not at all."""
        if usable_bytes not in self._ways:
            memory = plan_memory(self.shape, usable_bytes, self.experiment.memory.measures)
            layered = self.experiment.compute.flops == "layers"
            self._ways[usable_bytes] = Way(memory, train_flops(memory.shape, 1, layered=layered))
        return self._ways[usable_bytes]

    @cached_property
    def _ways(self) -> dict[float, Way]:
        """Ways by usable memory: devices of one row share theirs."""
        return {}

    @property
    def charged(self) -> bool:
        """Whether the clock charges a declared model instead of the one that trains."""
        return getattr(self.experiment.task, "charge_as", None) is not None

    @property
    def adapter_bytes(self) -> int:
        """Bytes of one whole adapter as charged."""
        return adapter_bytes(self.shape) if self.charged else 4 * self.task.layout.size


def prepare(experiment: Experiment) -> Plan:
    """Read tables and data, split, and size the work; loads no weights, starts nothing.

    Raises:
        ProfileError, DataError, ExperimentError: whatever is wrong with the input.
    """
    population = draw(experiment.population, experiment.seed)
    component: Any = experiment.task
    task: Task = component.build(context_of(experiment))
    experiment = resolved(experiment, task)
    charge = getattr(component, "charge_as", None)
    shape = task.shape if charge is None else declared(charge, full=experiment.lora.full)
    if experiment.compute.flops == "layers" and not shape.blocks and shape.operations is None:
        fix = "set compute.flops: parameters, or charge_as without params and matmul_params"
        what = f"the layers of {shape.name} are not known"
        raise ExperimentError(message("compute.flops", what, got="layers", fix=fix))
    population = with_speeds(population, experiment.compute, shape.name, experiment.seed)
    _refuse_an_endless_budget(experiment, task)
    for split in experiment.evaluate.splits:
        task.probes(split, experiment.evaluate.windows)  # refuses a split that the data do not have
    return Plan(experiment, population, task, shape)


def _refuse_an_endless_budget(experiment: Experiment, task: Task) -> None:
    budget = experiment.budget
    rule: Any = experiment.aggregator
    nothing = ServerModel(Adapter(task.layout, np.zeros(task.layout.size, np.float32)))
    if budget.time_s is None and budget.commits is None and rule.upload(nothing, 0) == 0:
        what = f"is never reached: the aggregator {rule.kind} uploads nothing"
        fix = "give budget.time_s or budget.commits"
        raise ExperimentError(message("budget.up_bytes", what, got=budget.up_bytes, fix=fix))


def context_of(experiment: Experiment) -> TaskContext:
    """Return what a task component is built from."""
    return TaskContext(
        experiment.population.clients,
        experiment.seed,
        experiment.lora,
        experiment.local,
        experiment.numerics,
        1e6 * experiment.runtime.cache_mb,
        experiment.runtime.gpus_per_worker,
    )


def resolved(experiment: Experiment, task: Task) -> Experiment:
    """Return the experiment with `auto` numerics replaced by what will be used.

    The task says what suits it. A client batch is also at most a quarter of a round or buffer, so that
    four workers have something to do, and at most what makes results of `CALL_BYTES`; the number of
    workers of this machine is never looked at. On a GPU it is what its memory holds, up to the round.
    """
    asked, found = experiment.numerics, {}
    if asked.client_batch == "auto":
        protocol: Any = experiment.protocol
        at_once = int(getattr(protocol, "cohort", getattr(protocol, "buffer", FEW)))
        suggest = getattr(task, "suggested_client_batch", None)
        size = max(FEW, min(MANY, at_once // CALLS)) if suggest is None else int(suggest())
        room = CALL_BYTES // (4 * max(1, task.layout.size))
        most = at_once if _on_gpu(experiment) else min(math.ceil(at_once / 4), room)
        found["client_batch"] = max(1, min(size, most))
    if asked.training == "auto" and hasattr(task, "suggested_training"):
        found["training"] = task.suggested_training()
    return experiment.model_copy(update={"numerics": asked.model_copy(update=found)})


def _on_gpu(experiment: Experiment) -> bool:
    from fedsim.training.room import on_gpu

    return on_gpu(experiment.runtime.gpus_per_worker)


def resolved_like(experiment: Experiment, stored: Mapping[str, Any]) -> Experiment:
    """Return the experiment with `auto` numerics as a stored configuration resolved them."""
    asked, known = experiment.numerics, stored.get("numerics", {})
    found = {name: known[name] for name, value in asked if value == "auto" and name in known}
    return experiment.model_copy(update={"numerics": asked.model_copy(update=found)})


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
        start(getattr(experiment.task, "worker_modules", ()))


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
    if executor is not None:
        executor.open(task)
    vector = np.zeros(task.layout.size, np.float32) if executor is None else task.initial()
    ledger = Ledger(writer, task, tell)
    trainer = Trainer(experiment, task, executor, ledger.score)
    env = simpy.Environment()
    network = network_of(plan, env)
    first_visit = experiment.network.backbone == "first_visit"
    server = Server(
        env,
        experiment,
        population=plan.population,
        network=network,
        charges=Charges(plan.work, plan.adapter_bytes, backbone_bytes(plan.shape) if first_visit else 0),
        model=ServerModel(Adapter(task.layout, vector)),
        trainer=trainer,
        ledger=ledger,
    )
    workers = executor.workers if executor is not None else 0
    tell(
        "start",
        {"workers": workers, "clients": len(plan.population), "budget": experiment.budget.model_dump()},
    )
    trainer.evaluate(0, 0.0, server.model)
    protocol: Any = experiment.protocol
    server.process(protocol.run(server))
    try:
        with _no_garbage_pauses():
            ended_s = _step(env, server, tell)
    except BaseException:
        server.close(float(env.now))
        raise
    server.close(ended_s)
    if server.version and server.version % experiment.evaluate.every_commits:
        trainer.evaluate(server.version, server.last_commit_s, server.average.model)
    trainer.finish()
    if executor is not None:
        kept = server.average.model
        for row in personalize.rows(experiment, task, executor, kept):
            writer.personal(row)
        if writer.folder is not None and not kept.personal:
            task.save_adapter(kept.adapter.vector, writer.folder / "adapter")
        if writer.folder is not None:
            hang(experiment, task, executor, kept, writer.folder / "samples")
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
        },
        "saved_share": 1.0 - trainer.trained / trainer.dispatched if trainer.dispatched else 0.0,
    }
    run = writer.close(status="done", facts=facts)
    if run.folder is not None:
        from fedsim.report import write

        write([run], run.folder / "report.html")
    tell("done", {"run": run})
    return run, server.model


def network_of(plan: Plan, env: simpy.Environment) -> Network:
    """Return the network of an experiment on a clock."""
    asked, population = plan.experiment.network, plan.population
    up, down = asked.server_up_mbps * BYTES_PER_S, asked.server_down_mbps * BYTES_PER_S
    private = asked.sharing == "private"
    if asked.model == "size-over-rate" or (private and not population.varying):
        return PrivateLinks(env, population, up, down, loss=asked.loss, naive=asked.model != "tcp")
    return SharedLinks(env, population, up, down, loss=asked.loss, isolated=private)


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


def clients_table(plan: Plan) -> dict[str, Any]:
    """Return the columns of clients.parquet."""
    n = len(plan.population)
    columns = dict(plan.population.columns())
    modules = plan.task.layout.modules
    columns["rank"] = np.full(n, modules[0].rank if modules else 0, dtype=np.int64)
    memory = [plan.way(usable).memory for usable in columns["usable_memory_bytes"].tolist()]
    columns["needed_memory_bytes"] = np.array([m.memory_bytes for m in memory])
    columns["memory_plan"] = np.array([m.words for m in memory], dtype=object)
    columns["online_share"] = plan.population.availability.share()
    columns["examples"] = np.array([plan.task.examples(c) for c in range(n)], dtype=np.int64)
    columns["tokens"] = np.array([plan.tokens(c) for c in range(n)], dtype=np.int64)
    return columns


def charged_facts(plan: Plan) -> dict[str, Any]:
    """Return what the clock charged: the model's size, an adapter's bytes, a full model's bytes."""
    full = replace(plan.shape, full=True, adapter_params=plan.shape.params)
    usable = plan.population.columns()["usable_memory_bytes"].tolist()
    return {
        "declared": plan.charged,
        "model": plan.shape.name,
        "params": plan.shape.params,
        "adapter_params": plan.shape.adapter_params,
        "adapter_bytes": plan.adapter_bytes,
        "serialized_adapter_bytes": 4 * plan.task.layout.size,
        "full_model_bytes": adapter_bytes(full),
        "memory_bytes": train_memory_bytes(plan.shape),
        "mean_flops_per_visit": float(
            np.mean([plan.way(bytes_).flops(plan.tokens(c)) for c, bytes_ in enumerate(usable)])
        ),
    }
