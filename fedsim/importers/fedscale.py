"""FedScale's two data sets (Lai et al., ICML 2022): capacity and behaviour, as its pickles or as tables.

Capacity: client -> {computation: ms of inference a sample, communication: kbit/s}. Behaviour: client ->
{active: [s], inactive: [s], finish_time: s, ...}. As tables: client, compute_ms, kbps (or dl_kbps, ul_kbps);
client, start_s, end_s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import Column, Rows, numbers, problems, read_rows
from fedsim.importers.capacity import Capacity, capacity_table
from fedsim.importers.entries import entries
from fedsim.importers.formats import Format
from fedsim.importers.numbers import number, shown
from fedsim.importers.options import SESSIONS, Options
from fedsim.importers.plain_pickle import read_plain
from fedsim.importers.sessions import windows
from fedsim.importers.table import Table

TABLES = (".csv", ".parquet")


def _capacity(files: Sequence[Path], options: Options) -> Table:
    path = files[0]
    rows = _capacity_rows(path) if path.suffix.lower() in TABLES else _capacity_pickle(path)
    return capacity_table(path, list(rows), options)


def _capacity_rows(path: Path) -> Iterator[Capacity]:
    rows = read_rows(path)
    both = "kbps" in rows.cells
    down, up = ("kbps", "kbps") if both else ("dl_kbps", "ul_kbps")
    columns = (
        Column("client", "key"),
        *(Column(name, positive=True) for name in ("compute_ms", *{down, up})),
    )
    _sound(rows, columns)
    for cell, ms, dl, ul in zip(
        rows.cells["client"],
        *(numbers(rows, name).tolist() for name in ("compute_ms", down, up)),
        strict=True,
    ):
        yield Capacity(str(cell), ms, dl, ul)


def _capacity_pickle(path: Path) -> Iterator[Capacity]:
    for where, client, value in _clients(path, ("computation", "communication")):
        ms = number(where, "computation", value["computation"], positive=True)
        kbps = number(where, "communication", value["communication"], positive=True)
        yield Capacity(client, ms, kbps, kbps)


def _behaviour(files: Sequence[Path], options: Options) -> Table:
    path = files[0]
    if path.suffix.lower() in TABLES:
        rows = read_rows(path)
        return windows(str(path), _sessions(rows), options, options.period_s)
    clients = {
        client: _client(where, value) for where, client, value in _clients(path, ("active", "inactive"))
    }
    ends = sorted({end for _, end, _ in clients.values()})
    period_s = options.period_s
    if period_s is None and len(ends) > 1:
        what = f"its clients' traces end at different times, from {ends[0]:g} to {ends[-1]:g} s"
        fix = "give --period-s SECONDS: shorter traces begin again until then, longer ones are cut"
        raise ProfileError(message(str(path), what, fix=fix))
    period_s = ends[0] if period_s is None else period_s
    tiled = {client: _tiled(read, end, period_s) for client, (read, end, _) in clients.items()}
    table = windows(str(path), tiled, options, period_s)
    odd = sum(unpaired for _, _, unpaired in clients.values())
    return Table(table.kind, table.columns, table.facts, table.figures | {"events without a partner": odd})


def _client(where: str, value: dict[str, Any]) -> tuple[list[tuple[float, float]], float, int]:
    """Return a client's sessions, the end of its trace, and how many events had no partner.

    A session runs from an `active` to the first `inactive` that follows; the lists of the data set are not
    strictly paired. A session that is open at the end of the trace ends there.
    """
    if "finish_time" not in value:
        raise ProfileError(
            message(f"{where}: finish_time", "is missing", fix="add it: the length of the trace [s]")
        )
    end_s = number(where, "finish_time", value["finish_time"], positive=True)
    events = sorted(
        [(time, 1) for time in _times(where, "active", value["active"])]
        + [(time, 0) for time in _times(where, "inactive", value["inactive"])]
    )
    sessions: list[tuple[float, float]] = []
    since_s, unpaired = None, 0
    for time, begins in events:
        if begins and since_s is None:
            since_s = time
        elif not begins and since_s is not None:
            sessions.append((since_s, min(time, end_s)))
            since_s = None
        else:
            unpaired += 1
    if since_s is not None and since_s < end_s:
        sessions.append((since_s, end_s))
    return [(start, stop) for start, stop in sessions if stop > start], end_s, unpaired


def _times(where: str, field: str, value: Any) -> list[float]:
    if not isinstance(value, list):
        raise ProfileError(
            message(f"{where}: {field}", "must be a list of seconds", got=shown(value), fix="correct it")
        )
    times: list[float] = []
    for k, item in enumerate(value, 1):
        times.append(number(where, f"{field} entry {k}", item))
        if len(times) > 1 and times[-1] < times[-2]:
            what = f"must not be before entry {k - 1} ({times[-2]:g})"
            raise ProfileError(
                message(f"{where}: {field} entry {k}", what, got=times[-1], fix="sort the list")
            )
    return times


def _tiled(sessions: list[tuple[float, float]], end_s: float, period_s: float) -> list[tuple[float, float]]:
    laps = int(-(-period_s // end_s))
    return [(start + lap * end_s, stop + lap * end_s) for lap in range(laps) for start, stop in sessions]


def _sessions(rows: Rows) -> dict[str, list[tuple[float, float]]]:
    _sound(rows, (Column("client", "text"), Column("start_s", low=0.0), Column("end_s", low=0.0)))
    starts, ends = numbers(rows, "start_s").tolist(), numbers(rows, "end_s").tolist()
    result: dict[str, list[tuple[float, float]]] = {}
    for row, (cell, start, end) in enumerate(zip(rows.cells["client"], starts, ends, strict=True)):
        if end <= start:
            what = f"must be after start_s = {start:g}"
            raise ProfileError(rows.say(row, "end_s", what, end, "give sessions a positive length"))
        result.setdefault(str(cell), []).append((start, end))
    return result


def _clients(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (place, name, value) of each client of a pickle."""
    fix = "give the pickle that FedScale names for this"
    return entries(read_plain(path), path, "client", fields, fix)


def _sound(rows: Rows, columns: tuple[Column, ...]) -> None:
    first = next(problems(rows, columns), None)
    if first is not None:
        raise ProfileError(first)


CAPACITY = Format(
    "FedScale client capacity: pickle, or table of client,compute_ms,kbps (or dl_kbps,ul_kbps); --table",
    _capacity,
    ("table", "gflop_per_sample"),
)
BEHAVIOUR = Format(
    "FedScale client behaviour: pickle, or table of client,start_s,end_s", _behaviour, SESSIONS
)
FORMATS = {"fedscale-capacity": CAPACITY, "fedscale-behaviour": BEHAVIOUR}
