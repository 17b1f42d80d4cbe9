"""`run.json`: what a run was, where it ran, how it ended and what it took, as typed facts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from fedsim.errors import RunFolderError, message
from fedsim.files.opened import FACTS_BYTES, bytes_of
from fedsim.records.liveness.process import Process
from fedsim.records.liveness.resumption import Resumption
from fedsim.records.resolved import DeviceLaw, PassWork, Resolved
from fedsim.records.rows import OUTCOMES, Cause
from fedsim.records.tables import UNREADABLE, Arrays, first_line, plain
from fedsim.records.watching.score import BestVersion, LastScore
from fedsim.redaction import redactor

Status = Literal["running", "done", "failed", "interrupted", "killed"]
"""How a run stands; `killed`: its process ended without closing it."""
UNFINISHED: tuple[Status, ...] = ("running", "killed")
"""Statuses of runs whose last visits have no row: sums over all visits are not those of the simulation."""


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that JSON writes as null when it is NaN."""


@dataclass(frozen=True, slots=True)
class Charged:
    """What the clock charged.

    Attributes:
        declared: whether the charged model is one that `charge_as` declares; model: its name.
        params, adapter_params: of the charged model and its adapter.
        adapter_bytes, serialized_adapter_bytes, full_model_bytes: of a message: the charged adapter, the tensors
            really serialised, and all parameters of the charged model in float32.
        memory_bytes: that training needs without a plan for smaller memories.
        mean_flops_per_visit: over the clients.
        clients_by_rank: rank -> clients that have it.
        clients_by_depth: layers with adapters -> clients that have so many; empty where all have all.
        laws, passes: where devices and their software are told apart: of their steps, and what a pass is.
    """

    declared: bool
    model: str
    params: int
    adapter_params: int
    adapter_bytes: int
    serialized_adapter_bytes: int
    full_model_bytes: int
    memory_bytes: Number = math.nan
    mean_flops_per_visit: Number = math.nan
    clients_by_rank: Mapping[str, int] = field(default_factory=dict)
    clients_by_depth: Mapping[str, int] = field(default_factory=dict)
    laws: tuple[DeviceLaw, ...] = ()
    passes: tuple[PassWork, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts and sums over a whole run.

    Attributes:
        clients, visits, commits: how many; outcomes: ending -> visits.
        up_bytes, down_bytes: charged to the links; serialized_*: of the tensors really serialised.
        joules, gross_joules: of the devices, above idle and with it.
        refused: updates that arrived and were not taken; None if the run did not come to its end.
        handed_over: visits whose training was needed by the clock, also where nothing is trained
            (`timeline_only`); None if the run did not come to its end.
    """

    clients: int = 0
    visits: int = 0
    commits: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    up_bytes: int = 0
    down_bytes: int = 0
    serialized_up_bytes: int = 0
    serialized_down_bytes: int = 0
    joules: float = 0.0
    gross_joules: Number = math.nan
    refused: int | None = None
    handed_over: int | None = None


@dataclass(frozen=True, slots=True)
class Batteries:
    """The balance of all batteries [J]: what was in them at the start and the end, what came and what went."""

    devices: int
    start_j: float
    received_j: float
    supplied_j: float
    end_j: float
    mean_level: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """An update that arrived and was not taken, and why."""

    client: int
    visit: int
    reason: str


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """What the saved adapter holds where the frozen weights have changed, too: its rank, and of which version."""

    rank: int
    base_version: int
    holds: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Everything about a run that is not in its tables; what is not known yet is None, empty or 0.

    Attributes:
            name, seed, digest: of the experiment.
            status, reason: how it ended, and why in one sentence.
            started, ended, wall_s, host, pid, versions: by the wall clock, where, and with which packages.
            process: which process `pid` was, of all that have had this number; None in runs of before.
            timeline_only: whether nothing was trained.
            task: facts about model and data, as the task describes them.
            charged: what the clock charged.
            population: what the devices were drawn from, with the SHA-256 of each table.
            resolved: who was drawn, and which settings follow from others; None in runs of before.
            refused: the first updates that were not taken; `totals.refused` counts all.
            saved_adapter: about the folder `adapter`, where it is not the plain adapter.
            best: the version in the folder `best`; None: none was asked for, or had a score.
            executor, workers: what trained; processors: kinds, with torch's instruction set -> nodes; mixed: a word on several.
        visits_after: trainings that follow the last version, in visits.
        end_time_s: virtual time of the end [s]; totals: counts and sums.
            never_equipped: clients that were given up, because their downloads of the frozen model failed again and again.
            faulty_personal: trainings for clients' own models that gave no finite numbers.
            away_share: why devices were away -> share of the time of all devices; None where none is watched.
            batteries: their balance; None without batteries.
            saved_share: share of the visits asked to train whose training was never computed.
            last_score: the last one; None: nothing was scored, or in a run of before.
            resumed: each time that it went on after an end.
            no_checkpoints: why it has none, in words; empty if that was not tried or it has some.
            files: file of the run folder -> SHA-256, of those that the run has written; empty before its end.
            numbers: `table.column`, `run.json` -> SHA-256 of what no replay gives: columns that training computes, facts.
    """

    name: str
    status: Status
    seed: int
    digest: str
    reason: str = ""
    started: str = ""
    ended: str | None = None
    wall_s: float | None = None
    host: str = ""
    pid: int | None = None
    process: Process | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    timeline_only: bool = False
    task: Mapping[str, Any] = field(default_factory=dict)
    charged: Charged | None = None
    population: Mapping[str, str] = field(default_factory=dict)
    resolved: Resolved | None = None
    refused: tuple[Refusal, ...] = ()
    saved_adapter: SavedAdapter | None = None
    best: BestVersion | None = None
    executor: str = ""
    workers: int = 0
    visits_after: float = 0.0
    processors: Mapping[str, int] = field(default_factory=dict)
    mixed: str = ""
    end_time_s: float = 0.0
    totals: Totals = Totals()
    never_equipped: int = 0
    faulty_personal: int = 0
    away_share: Mapping[Cause, float] | None = None
    batteries: Batteries | None = None
    saved_share: float = 0.0
    last_score: LastScore | None = None
    resumed: tuple[Resumption, ...] = ()
    no_checkpoints: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return what `run.json` holds: plain JSON values, without what is None."""
        values: dict[str, Any] = json_values(self)
        return values

    def text(self) -> str:
        """Return `run.json`."""
        return json.dumps(self.plain(), indent=2, allow_nan=False) + "\n"


@cache
def _reader() -> TypeAdapter[RunInfo]:
    return TypeAdapter(RunInfo)


def read_info(path: Path) -> RunInfo:
    """Read a `run.json`; keys that this version does not know are left out.

    Raises:
        RunFolderError: it cannot be read, or lacks something.
    """
    try:
        return _reader().validate_python(json.loads(bytes_of(path, FACTS_BYTES, folder=path.parent)))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        what = (
            f"is damaged: it has no {key}"
            if first["type"] == "missing"
            else f"is damaged: {key} {first['msg']}"
        )
        raise RunFolderError(message(str(path), what, fix="run the experiment again")) from problem
    except UNREADABLE as problem:
        what = f"cannot be read ({first_line(problem)})"
        raise RunFolderError(message(str(path), what)) from problem


def json_values(value: Any) -> Any:
    """Return the values that JSON has: facts as mappings without what is None; NaN and infinity become null; texts without secrets."""
    return _json_values(value, redactor())


def _json_values(value: Any, redact: Callable[[str], str]) -> Any:
    if is_dataclass(value):
        pairs = ((item.name, getattr(value, item.name)) for item in fields(value))
        return {name: _json_values(part, redact) for name, part in pairs if part is not None}
    if isinstance(value, Mapping):
        return {redact(str(key)): _json_values(item, redact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(item, redact) for item in value]
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and not isinstance(value, np.generic):
        return value if math.isfinite(value) else None
    return _json_values(plain(value), redact)


def summed(info: RunInfo, columns: Mapping[str, Arrays]) -> RunInfo:
    """Complete what is known of a run that did not come to its end with what its tables add up to."""
    return replace(
        info,
        end_time_s=last_instant_s(columns),
        totals=totals_of(columns),
        saved_share=saved_share(columns),
    )


def totals_of(columns: Mapping[str, Arrays]) -> Totals:
    """Return what the tables of a run add up to."""
    visits = columns["visits"]
    ended = Counter(visits["outcome"])
    outcomes: dict[str, int] = {name: ended[name] for name in OUTCOMES if ended[name]}
    return Totals(
        clients=len(columns["clients"]["client"]),
        visits=len(visits["order"]),
        commits=len(columns["commits"]["version"]),
        outcomes=outcomes,
        up_bytes=int(visits["up_bytes"].sum()),
        down_bytes=int(visits["down_bytes"].sum()),
        serialized_up_bytes=int(visits["serialized_up_bytes"].sum()),
        serialized_down_bytes=int(visits["serialized_down_bytes"].sum()),
        joules=float(visits["joules"].sum()),
        gross_joules=float(visits["gross_joules"].sum()),
    )


def last_instant_s(columns: Mapping[str, Arrays]) -> float:
    """Return the latest virtual time in the tables of a run [s]; 0 of one in which nothing happened."""
    parts = [columns["visits"]["ended_s"], columns["commits"]["time_s"], columns["scores"]["time_s"]]
    return float(np.nanmax(np.concatenate([*parts, np.zeros(1)])))


def saved_share(columns: Mapping[str, Arrays]) -> float:
    """Return the share of the visits asked to train whose training was never computed; 0 if there is none.

    Visits that answered a poll were not asked to train. A visit that was cut short after its training had been
    computed, and computed again, is one visit that was computed.
    """
    visits = columns["visits"]
    computed = visits["computed"][visits["outcome"] != "polled"]
    return 1.0 - float(computed.mean()) if len(computed) else 0.0
