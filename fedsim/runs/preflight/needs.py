"""What a run will take: bytes on the disks of its folder and of temporary files, and memory of the driver and the workers.

Every number is one of the experiment's own (clients, floats of a vector, rows) times a size that was measured; docs/long_runs.md
has the sizes. They are within a factor of 1.5 where a run takes 20 MB and more.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.adapters.moved_base import dense_size
from fedsim.clock.plan import Plan
from fedsim.errors import HostError, message
from fedsim.executors.host import free_memory_bytes
from fedsim.executors.ray_session import DAEMON_BYTES, Needs, fitting, wanted_store_bytes
from fedsim.protocols.tiers import Tiers
from fedsim.records.quantities import plural, said
from fedsim.records.tables import GROUP
from fedsim.runs.preflight.forecast import Forecast
from fedsim.server.after.personalize import chosen

VISIT_BYTES, COMMIT_BYTES, SCORE_BYTES, PERSONAL_BYTES = 720, 400, 130, 300
"""A row as a line, and once more packed: while a run is folded both are there."""
CLIENT_BYTES, REPORT_BYTES, HEAD_BYTES = 700, 5_000_000, 50_000
"""A client's row; the page, which holds the code that draws it; settings and facts."""
RECORD_BYTES = 20
"""Of a client's vector in a file, beside its values."""
SAMPLES_BYTES = 3_000_000
"""Pictures of a run that draws some."""
DRIVER_BYTES, LIBRARIES_BYTES = 235_000_000, 330_000_000
"""Memory of a driver that trains nothing itself; of torch, transformers and PEFT in it."""
TORCH_BYTES, WITHOUT_TRANSFORMERS = 180_000_000, "fedsim.training.direct.weights"
"""Of torch alone; the module that workers import where a model is read without transformers, and the driver without torch."""
VISIT_MEMORY_BYTES, CLIENT_MEMORY_BYTES = 1100, 6000
"""Of a row while tables are folded and drawn; of a client."""
LATER_VISIT_BYTES, LATER_VISIT_MEMORY_BYTES = 240, 300
"""Of each visit after the first `GROUP`, which are columns in parts, on the disk and in memory."""
LOGS_BYTES = 100_000_000
"""Ray's logs at most, see `fedsim.executors.ray_session`."""
NEAR = 0.8
"""Share of what is free from which a need is called near."""
SURE = 0.5
"""Share of an estimate that a run takes surely."""


@dataclass(frozen=True)
class Share:
    """What one thing takes."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Need:
    """What a run takes of one place, and what is free there (None: not known).

    Attributes:
        place: `disk`, `temporary files` or `memory`; where: its folder, empty for memory.
    """

    place: str
    where: str
    shares: tuple[Share, ...]
    free_bytes: int | None

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return sum(share.size_bytes for share in self.shares)

    def __str__(self) -> str:
        """Return it in a line: the whole, what is free, the largest shares."""
        large = sorted(
            (s for s in self.shares if s.size_bytes >= 0.05 * self.size_bytes), key=lambda s: -s.size_bytes
        )
        parts = ", ".join(f"{share.name} {said('bytes', share.size_bytes)}" for share in large)
        free = "" if self.free_bytes is None else f" of {said('bytes', self.free_bytes)} free"
        where = f" in {self.where}" if self.where else ""
        return f"{self.place}: about {said('bytes', self.size_bytes)}{free}{where} ({parts})"

    @property
    def near(self) -> bool:
        """Whether it may not fit."""
        return self.free_bytes is not None and self.size_bytes > NEAR * self.free_bytes


@dataclass(frozen=True)
class RunNeeds:
    """What a run takes of each place; `rows_known` is False where losses decide who is asked."""

    needs: tuple[Need, ...]
    rows_known: bool

    def lines(self) -> list[str]:
        """Return them, a line each."""
        unknown = [] if self.rows_known else ["disk: how many rows there will be is not known before the run"]
        return [*map(str, self.needs), *unknown]

    def cautions(self) -> list[str]:
        """Return those that may not fit, a sentence each."""
        return [f"note: little room: {need}" for need in self.needs if need.near]

    def check(self) -> None:
        """Refuse a run that cannot fit.

        Raises:
            HostError: half of what it is thought to take is more than there is.
        """
        for need in self.needs:
            if need.free_bytes is not None and SURE * need.size_bytes > need.free_bytes:
                fix = (
                    "use a machine with more memory, fewer workers (-s runtime.workers=1) or a smaller model"
                    if need.place == "memory"
                    else "free some space, give --out (or TMPDIR) on a larger disk, or ask for less"
                )
                raise HostError(message(need.place, f"the run does not fit: {need}", fix=fix))


def needs_of(plan: Plan, folder: Path, rows: Forecast | None, *, timeline_only: bool = False) -> RunNeeds:
    """Return what a run takes.

    Args:
        plan: of its experiment.
        folder: of the run, which need not be there yet.
        rows: how many there will be; None: not known, and none are counted.
        timeline_only: whether nothing is trained.
    """
    ray = not timeline_only and plan.experiment.runtime.executor == "ray"
    here = ray and plan.experiment.runtime.address is None
    disk = Need(
        "disk", str(folder), tuple(_on_disk(plan, rows, timeline_only=timeline_only)), free_in(folder)
    )
    needs = [disk]
    if here:
        place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        logs = (Share("logs of Ray at most", LOGS_BYTES),)
        needs.append(Need("temporary files", place, logs, free_in(Path(place))))
    if not timeline_only and plan.experiment.wire.error_feedback and not _keeps_residuals(plan):
        place = tempfile.gettempdir()
        owed = (Share("residuals", _kept_bytes(plan, rows, plan.task.layout.size)),)
        needs.append(Need("temporary files", place, owed, free_in(Path(place))))
    memory = (*_of_driver(plan, rows, timeline_only=timeline_only), *(_of_workers(plan) if here else ()))
    needs.append(Need("memory", "", memory, free_memory_bytes()))
    return RunNeeds(tuple(needs), rows is not None)


def free_in(folder: Path) -> int | None:
    """Return the free bytes of the disk that a folder is, or will be, on."""
    there = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir()), None)
    try:
        return None if there is None else shutil.disk_usage(there).free
    except OSError:
        return None


# disk -------------------------------------------------------------------------------------------


def _on_disk(plan: Plan, rows: Forecast | None, *, timeline_only: bool) -> Iterator[Share]:
    experiment = plan.experiment
    clients = experiment.population.clients
    lines_bytes = 0
    if rows is not None:
        scored = 1 + rows.commits // (experiment.evaluate.every_commits or max(1, rows.commits))
        after = 0 if timeline_only else len(chosen(experiment))
        lines_bytes = (
            _of_visits(rows.visits, VISIT_BYTES, LATER_VISIT_BYTES)
            + rows.commits * COMMIT_BYTES
            + 4 * scored * SCORE_BYTES
        )
        yield Share("rows", lines_bytes)
        yield Share("gains", after * PERSONAL_BYTES)
    yield Share("clients", clients * CLIENT_BYTES + HEAD_BYTES)
    yield Share("page", max(0, REPORT_BYTES - lines_bytes))  # written when the lines are gone
    if timeline_only:
        return
    for name, floats in _kept_floats(plan):
        yield Share(name, _kept_bytes(plan, rows, floats))
    if experiment.runtime.takes_checkpoints:
        yield Share("checkpoints", 2 * state_bytes(plan))
    yield Share("adapter", _adapter_bytes(plan, 0 if rows is None else rows.commits))
    if "samples" in experiment.evaluate.splits:
        yield Share("samples", SAMPLES_BYTES)


def _of_visits(visits: int, first_bytes: int, later_bytes: int) -> int:
    """Return what visits take of which the first row group's are whole in memory, or lines."""
    return min(visits, GROUP) * first_bytes + max(0, visits - GROUP) * later_bytes


def _kept_bytes(plan: Plan, rows: Forecast | None, floats: int) -> int:
    """Return what so many floats a client take, of all that are visited."""
    clients = plan.experiment.population.clients
    return min(clients, clients if rows is None else rows.visited) * (4 * floats + RECORD_BYTES)


def _keeps_residuals(plan: Plan) -> bool:
    """Whether what clients still owe lies in the run's folder, and not in a temporary file."""
    return plan.experiment.runtime.takes_checkpoints


def _kept_floats(plan: Plan) -> Iterator[tuple[str, int]]:
    """Yield what each client keeps on the disk: its name, and its floats."""
    experiment, layout = plan.experiment, plan.task.layout
    personal = plan.parts.personal
    private = sum(_size(layout.slices[name][1]) for name in personal.private(layout))
    if private:
        yield "private parts", private
    elif personal.alongside(experiment.local) is not None:
        yield "second models", layout.size
    if plan.parts.aggregator.traits.personal:
        yield "what clients keep", plan.parts.aggregator.kept_floats(layout)
    if experiment.wire.error_feedback and _keeps_residuals(plan):
        yield "residuals", layout.size


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def state_bytes(plan: Plan) -> int:
    """Return what a checkpoint holds at most: the model, moments, averages, and the starts and results of open visits."""
    experiment, layout = plan.experiment, plan.task.layout
    vector = 4 * layout.size
    base = 4 * dense_size(layout) if plan.parts.aggregator.traits.moves_base else 0
    state = plan.parts.server_optimizer.init(1) or ()
    moments = layout.size * sum(part.nbytes for part in state if isinstance(part, np.ndarray))
    average = 2 * vector if experiment.evaluate.ema else 0
    protocol = plan.parts.protocol
    blended = 8 * layout.size * protocol.tiers if isinstance(protocol, Tiers) and protocol.blends else 0
    return vector + base + moments + average + blended + 2 * protocol.clients_at_work * vector


def _adapter_bytes(plan: Plan, commits: int) -> int:
    layout, evaluate = plan.task.layout, plan.experiment.evaluate
    copies = 1 + ("samples" in evaluate.splits) + (evaluate.keep_best is not None)
    size = 4 * layout.size
    if (
        plan.parts.aggregator.traits.moves_base
    ):  # change and adapter in one, of the rank that they have together
        size = sum(
            4 * (out + inside) * min(out, inside, layout.rank * (1 + commits))
            for out, inside in ((m.b_shape[0], _size(m.a_shape[1:])) for m in layout.modules)
        )
    return copies * (size + 3000)


# memory -----------------------------------------------------------------------------------------


def _of_driver(plan: Plan, rows: Forecast | None, *, timeline_only: bool) -> Iterator[Share]:
    experiment, layout = plan.experiment, plan.task.layout
    yield Share("driver", DRIVER_BYTES + (0 if timeline_only else _libraries_bytes(plan)))
    yield Share("clients", experiment.population.clients * CLIENT_MEMORY_BYTES)
    if rows is not None:
        yield Share("rows", _of_visits(rows.visits, VISIT_MEMORY_BYTES, LATER_VISIT_MEMORY_BYTES))
    if timeline_only:
        return
    yield Share("versions", state_bytes(plan) + 8 * 4 * layout.size)
    if experiment.runtime.executor == "inline":
        yield Share("model", 2 * _model_bytes(plan))


def _libraries_bytes(plan: Plan) -> int:
    """Return what the libraries of the task take of the driver; what workers alone import is none of its."""
    experiment, task = plan.experiment, plan.parts.task
    modules = task.imported_by_workers(experiment.lora, experiment.numerics)
    loaded = "torch" in sys.modules
    if WITHOUT_TRANSFORMERS in modules:
        return TORCH_BYTES if loaded or experiment.runtime.executor == "inline" else 0
    return LIBRARIES_BYTES if loaded or modules else 0


def _of_workers(plan: Plan) -> Iterator[Share]:
    runtime = plan.experiment.runtime
    needs = Needs(runtime.workers, runtime.gpus_per_worker, _model_bytes(plan), 4 * plan.task.layout.size)
    workers = fitting(needs)[0] if runtime.workers == "auto" else int(runtime.workers)
    yield Share(plural(workers, "worker"), workers * needs.worker_bytes)
    yield Share("Ray", DAEMON_BYTES + wanted_store_bytes(needs, workers))


def _model_bytes(plan: Plan) -> int:
    shape = plan.task.shape
    return int(shape.params * shape.weight_bytes)
