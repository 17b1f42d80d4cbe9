"""The tables of a run beside those of its replay: every column that does not depend on training, to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedsim.arrays import Bools
from fedsim.records.info import RunInfo, json_values
from fedsim.records.run import Run
from fedsim.records.tables import TABLES, Columns, frame

TRAINED = {"commits": ("update_norm", "mean_cosine")}
"""Columns that the replay does not have; losses it has from the run, where they were read."""
KEYS = {"clients": ("client",), "visits": ("client", "visit"), "commits": ("version",)}
SCORED, PERSONAL = ("version", "time_s", "split"), ("client", "unseen", "seen")
FACTS = ("timeline_only", "task", "charged", "population", "resolved")
"""What `run.json` says from the start."""
FACTS_AT_THE_END = ("end_time_s", "totals", "never_equipped", "away_share", "batteries")

COLUMNS = {
    table: tuple(column for column in TABLES[table] if column not in TRAINED.get(table, ())) for table in KEYS
}
COMPARED = sum(map(len, COLUMNS.values())) + len(SCORED) + len(PERSONAL)
"""Columns that are compared."""


@dataclass(frozen=True)
class Retraced:
    """A schedule as it must have been.

    Attributes:
        tables: `clients`, `visits` and `commits`; losses are those of the run, where they were read.
        written: `order` of the visits, as they were written.
        evaluated: version and time of its commit [virtual s] of each evaluation, in order.
        seen: visits of each client that are in the model.
        unseen: clients that are held out.
        info: `run.json` as far as it follows from the schedule.
        whole: whether it came to the end of the run's budget.
    """

    tables: Mapping[str, Columns]
    written: Sequence[int]
    evaluated: Sequence[tuple[int, float]]
    seen: Sequence[int]
    unseen: Sequence[int]
    info: RunInfo
    whole: bool


def compared(run: Run, retraced: Retraced, *, unfinished: bool) -> Iterator[str]:
    """Yield where a run differs from its replay: table, row, column, the stored value and the right one.

    Args:
        run: its tables.
        retraced: what they must be.
        unfinished: whether the run was killed or still goes: its last rows may lack.
    """
    for table in KEYS:
        stored, right = run.tables[table], frame(table, retraced.tables[table])
        if unfinished and table != "clients":
            order = retraced.written if table == "visits" else right["version"].tolist()
            name = "order" if table == "visits" else "version"
            right = right[right[name].isin(order[: len(stored)])]
        yield from _rows(table, stored, right)
    yield from _scores(run, retraced, unfinished=unfinished)
    yield from _personal(run, retraced)
    yield from _facts(run.info, retraced, FACTS)
    if retraced.whole:
        yield from _facts(run.info, retraced, FACTS_AT_THE_END)
        yield from _refusals(run.info, retraced.info)


def _rows(table: str, stored: pd.DataFrame, right: pd.DataFrame) -> Iterator[str]:
    """Compare two tables by their keys."""
    keys = list(KEYS[table])
    twice = stored[stored.duplicated(keys)]
    for _, row in twice.head(1).iterrows():
        yield f"{table}: {_named(table, row)} is there twice"
    stored = stored.drop_duplicates(keys)
    both = (
        stored[keys]
        .assign(row=range(len(stored)))
        .merge(right[keys].assign(twin=range(len(right))), on=keys, how="outer", indicator="found")
    )
    for found, what in (("left_only", "is in no replay"), ("right_only", "is missing")):
        only = both[both["found"] == found]
        if len(only):
            more = f" (and {len(only) - 1} more)" if len(only) > 1 else ""
            yield f"{table}: {_named(table, only.iloc[0])} {what}{more}"
    shared = both[both["found"] == "both"]
    mine = stored.iloc[shared["row"].astype("int64")]
    others = right.iloc[shared["twin"].astype("int64")]
    for column in COLUMNS[table]:
        differs = ~_same(mine[column], others[column])
        yield from _first(table, column, mine, others, differs)


def _same(mine: pd.Series[Any], others: pd.Series[Any]) -> Bools:
    one, other = mine.to_numpy(), others.to_numpy()
    if one.dtype.kind == "f":
        return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))
    return np.asarray(one == other, dtype=np.bool_)


def _first(
    table: str,
    column: str,
    mine: pd.DataFrame,
    others: pd.DataFrame,
    differs: Bools,
) -> Iterator[str]:
    at = np.flatnonzero(differs)
    if at.size:
        first = int(at[0])
        row, stored, right = mine.iloc[first], mine[column].iloc[first], others[column].iloc[first]
        where = f"{table}, row {mine.index[first]} ({_named(table, row)}), column {column}"
        more = f" (and {at.size - 1} more rows)" if at.size > 1 else ""
        yield f"{where}: is {_shown(stored)}, the replay gives {_shown(right)}{more}"


def _named(table: str, row: pd.Series[Any]) -> str:
    names = {"clients": "client", "commits": "version"}
    if table == "visits":
        return f"visit {row['visit']} of client {row['client']}"
    return f"{names[table]} {row[names[table]]}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return repr(value.item()) if isinstance(value, np.generic) else repr(value)


def _scores(run: Run, retraced: Retraced, *, unfinished: bool) -> Iterator[str]:
    """Compare which version was scored on which split, and when."""
    splits = _splits(run)
    due = [] if run.info.timeline_only else [(v, t, split) for v, t in retraced.evaluated for split in splits]
    blocks = run.scores[list(SCORED)].drop_duplicates()
    stored = [tuple(row) for row in blocks.itertuples(index=False)]
    for row, mine in zip(blocks.index.tolist(), stored, strict=True):
        if mine not in due:
            version, time_s, split = mine
            told = f"version {version} on {split!r} at {time_s!r} s"
            yield f"scores, row {row}, columns version, time_s and split: {told} is in no replay"
            return
    lacking = [] if unfinished or not retraced.whole else [block for block in due if block not in stored]
    if lacking:
        version, _, split = lacking[0]
        yield f"scores: version {version} has no row of the split {split!r}"


def _splits(run: Run) -> list[str]:
    evaluate = run.experiment.get("evaluate")
    splits = evaluate.get("splits") if isinstance(evaluate, dict) else None
    return [str(split) for split in splits] if isinstance(splits, list) else []


def _personal(run: Run, retraced: Retraced) -> Iterator[str]:
    """Compare who was held out, and how many visits of each client are in the model, of those that the table has."""
    personal = run.personal
    clients = personal["client"].tolist()
    right = {
        "seen": [retraced.seen[client] for client in clients],
        "unseen": [client in set(retraced.unseen) for client in clients],
    }
    for column, values in right.items():
        wrong = np.flatnonzero(np.array(personal[column].tolist()) != np.array(values))
        if wrong.size:
            row = int(wrong[0])
            where = f"personal, row {personal.index[row]} (client {clients[row]}), column {column}"
            yield f"{where}: is {personal[column].iloc[row]}, the replay gives {values[row]}"


def _facts(info: RunInfo, retraced: Retraced, names: tuple[str, ...]) -> Iterator[str]:
    stored, right = info.plain(), retraced.info.plain()
    for name in names:
        yield from _unequal(name, stored.get(name), json_values(right.get(name)))


def _unequal(path: str, stored: object, right: object) -> Iterator[str]:
    if isinstance(stored, Mapping) and isinstance(right, Mapping):
        for key in sorted({*stored, *right}, key=str):
            yield from _unequal(f"{path}.{key}", stored.get(key), right.get(key))
    elif isinstance(stored, list) and isinstance(right, list) and len(stored) == len(right):
        for at, (one, other) in enumerate(zip(stored, right, strict=True)):
            yield from _unequal(f"{path}.{at}", one, other)
    elif stored != right and not (_is_nan(stored) and _is_nan(right)):
        yield f"run.json, {path}: is {_shown(stored)}, the replay gives {_shown(right)}"


def _is_nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _refusals(info: RunInfo, right: RunInfo) -> Iterator[str]:
    stored = [(refusal.client, refusal.visit) for refusal in info.refused]
    expected = [(refusal.client, refusal.visit) for refusal in right.refused]
    if stored != expected:
        yield f"run.json, refused: names {len(stored)} updates, the replay {len(expected)}, and they differ"
