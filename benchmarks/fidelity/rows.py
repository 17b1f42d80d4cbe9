"""Measured rows: JSON lines of uploads, shared links, rate traces and CPU quotas, checked one by one.

`README.md` of this folder says what the fields mean. Units of the files are kept there (bit/s,
milliseconds); everything returned here is in bytes and seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from benchmarks.fidelity.steps import Steps
from fedsim.errors import DataError, message

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

FRAMING = {"tun": 1500 / 1448, "tuntbf": 1500 / 1448, "tbf": 1514 / 1448, "htb": 1514 / 1448}
"""Bytes on the link for a byte of payload: TUN devices carry bare IP packets, the others Ethernet frames."""


@dataclass(frozen=True)
class Flow:
    """One upload: by whom, how much, when it really started, how long it took until its last byte arrived."""

    client: int
    size_bytes: int
    start_s: float
    took_s: float


@dataclass(frozen=True)
class Scenario:
    """Uploads over the clients' links into the server's.

    Attributes:
        name: for messages.
        up: each client's uplink.
        rtt_s: each client's round-trip time.
        server: the server's ingress; None: no limit.
        framing: bytes on the link per byte of payload.
        fair: whether the server's queue is fair (or nothing is shared), else drop-tail FIFO.
        flows: what was uploaded, and how long it took.
    """

    name: str
    up: tuple[Steps, ...]
    rtt_s: tuple[float, ...]
    server: Steps | None
    framing: float
    fair: bool
    flows: tuple[Flow, ...]

    @property
    def calm(self) -> bool:
        """Whether all round trips are equal and nobody starts later than the others."""
        starts = [flow.start_s for flow in self.flows]
        return len(set(self.rtt_s)) == 1 and max(starts) - min(starts) < min(self.rtt_s) + 0.01


@dataclass(frozen=True)
class Quota:
    """CPU-bound work under a quota: `share` of a core per `period_s`."""

    work: str
    share: float
    period_s: float
    wall_s: float
    cpu_s: float


class _Upload(BaseModel):
    mode: Literal["tun", "tuntbf", "tbf"]
    rate: Positive
    rtt: NonNegative
    size: Count
    start: NonNegative
    lag: NonNegative
    t_rx: Positive


class _Client(BaseModel):
    up: Positive
    rtt: NonNegative


class _Ingress(BaseModel):
    rate: Annotated[float, Field(gt=0, alias="in")]
    fq: bool


class _Job(BaseModel):
    client: Annotated[int, Field(ge=0)]
    size: Count
    start: NonNegative
    lag: NonNegative
    t_rx: Positive


class _Shared(BaseModel):
    name: str
    mode: Literal["tun", "tuntbf", "tbf", "htb"]
    clients: Annotated[list[_Client], Field(min_length=1)]
    server: _Ingress
    rows: Annotated[list[_Job], Field(min_length=1)]


class _Trace(BaseModel):
    t: Annotated[list[NonNegative], Field(min_length=1)]
    r: Annotated[list[NonNegative], Field(min_length=1)]

    @model_validator(mode="after")
    def _steps(self) -> _Trace:
        if (
            len(self.t) != len(self.r)
            or self.t[0] != 0
            or any(b <= a for a, b in zip(self.t, self.t[1:], strict=False))
        ):
            raise ValueError("needs as many rates `r` as increasing times `t` from 0")
        return self


class _Traced(BaseModel):
    name: str
    up: Annotated[list[Positive | _Trace], Field(min_length=1)]
    ingress: Annotated[Positive | _Trace | None, Field(alias="C")]
    rtt: NonNegative
    rows: Annotated[list[_Job], Field(min_length=1)]


class _Quota(BaseModel):
    k: Literal["spin", "torch"]
    q: Annotated[float, Field(gt=0, le=1)]
    per: Positive
    wall: Positive
    cpu: Positive


Row = TypeVar("Row", bound=BaseModel)
Kind = Literal["single", "shared", "traced", "quota"]
"""What a row is about."""
_FIELDS: dict[Kind, set[str]] = {
    "quota": {"k", "q", "per", "wall", "cpu"},
    "shared": {"name", "mode", "clients", "server", "rows"},
    "traced": {"name", "up", "C", "rtt", "rows"},
    "single": {"mode", "rate", "rtt", "size", "start", "lag", "t_rx"},
}


def kind_of(plain: object) -> Kind | None:
    """Return what a row is about, by its fields; None: nothing that is known here."""
    if not isinstance(plain, dict):
        return None
    return next((kind for kind, fields in _FIELDS.items() if fields <= plain.keys()), None)


def single_upload(where: str, plain: object) -> tuple[str, Scenario]:
    """Return the mode (`tun`, `tuntbf`, `tbf`) of an upload over one link, and the upload.

    Raises:
        DataError: names the row and the field.
    """
    row = _row(where, plain, _Upload)
    flow = Flow(0, row.size, row.start + row.lag, row.t_rx)
    up = (Steps.constant(row.rate / 8),)
    one = Scenario(where, up, (row.rtt / 1e3,), None, FRAMING[row.mode], fair=True, flows=(flow,))
    return row.mode, one


def shared_link(where: str, plain: object) -> Scenario:
    """Return a scenario of several clients into one server link.

    Raises:
        DataError: names the row and the field.
    """
    row = _row(where, plain, _Shared)
    return Scenario(
        f"{where} {row.name}",
        tuple(Steps.constant(client.up / 8) for client in row.clients),
        tuple(client.rtt / 1e3 for client in row.clients),
        Steps.constant(row.server.rate / 8),
        FRAMING[row.mode],
        fair=row.server.fq,
        flows=_flows(where, row.rows, len(row.clients)),
    )


def rate_trace(where: str, plain: object) -> Scenario:
    """Return a scenario in which a link's rate changes.

    Raises:
        DataError: names the row and the field.
    """
    row = _row(where, plain, _Traced)
    return Scenario(
        f"{where} {row.name}",
        tuple(_steps(rate) for rate in row.up),
        (row.rtt / 1e3,) * len(row.up),
        None if row.ingress is None else _steps(row.ingress),
        FRAMING["tun"],
        fair=True,
        flows=_flows(where, row.rows, len(row.up)),
    )


def cpu_quota(where: str, plain: object) -> Quota:
    """Return a run under a CPU quota.

    Raises:
        DataError: names the row and the field.
    """
    row = _row(where, plain, _Quota)
    return Quota(row.k, row.q, row.per / 1e3, row.wall, row.cpu)


def _steps(rate: float | _Trace) -> Steps:
    if isinstance(rate, _Trace):
        return Steps(tuple(rate.t), tuple(bits / 8 for bits in rate.r))
    return Steps.constant(rate / 8)


def _flows(where: str, jobs: list[_Job], clients: int) -> tuple[Flow, ...]:
    for job in jobs:
        if job.client >= clients:
            what = f"a row is of a client that is not there ({clients} clients, counted from 0)"
            raise DataError(message(where, what, got=job.client, fix="correct `client`, or add its link"))
    return tuple(Flow(job.client, job.size, job.start + job.lag, job.t_rx) for job in jobs)


def parsed(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the place and the content of every line of a file.

    Raises:
        DataError: a line that is not JSON, or a file that is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{path.name}: line {number}"
                try:
                    plain: object = json.loads(line)
                except (ValueError, RecursionError) as problem:
                    fix = "one JSON object a line"
                    raise DataError(message(where, f"is not JSON ({problem})", fix=fix)) from problem
                yield where, plain
    except UnicodeDecodeError as problem:
        raise DataError(message(path.name, "is not UTF-8 text", fix="one JSON object a line")) from problem


def _row(where: str, plain: object, kind: type[Row]) -> Row:
    try:
        return kind.model_validate(plain)
    except ValidationError as problem:
        found = problem.errors()  # of a field that may be a number or a trace: what is wrong with either
        first = next((e for e in found if e["type"] not in ("float_type", "model_type")), found[0])
        field = ".".join(str(part) for part in first["loc"]) or "the row"
        what, fix = f"{field}: {first['msg']}", "see benchmarks/fidelity/README.md for the fields"
        raise DataError(message(where, what, got=first["input"], fix=fix)) from problem
