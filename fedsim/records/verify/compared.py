"""The tables of a run beside those of its replay: every column that does not depend on training, to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Bools, Ints, Values
from fedsim.records.info import RunInfo, json_values
from fedsim.records.run import Run
from fedsim.records.tables import TABLES, Arrays, count
from fedsim.records.verify.books import repeated

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
        written: `order` of the visits, as they were written, (visits,).
        evaluated: version and time of its commit [virtual s] of each evaluation, in order.
        seen: visits of each client that are in the model.
        unseen: clients that are held out.
        info: `run.json` as far as it follows from the schedule.
        whole: whether it came to the end of the run's budget.
    """

    tables: Mapping[str, Arrays]
    written: Ints
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
        stored, right = run.columns(table), retraced.tables[table]
        there = np.ones(count(right), dtype=np.bool_)
        if unfinished and table != "clients":
            order, name = (retraced.written, "order") if table == "visits" else (right["version"], "version")
            there = np.isin(right[name], order[: run.count(table)])
        yield from _rows(table, run, stored, right, there)
    yield from _scores(run, retraced, unfinished=unfinished)
    yield from _personal(run, retraced)
    yield from _facts(run.info, retraced, FACTS)
    if retraced.whole:
        yield from _facts(run.info, retraced, FACTS_AT_THE_END)
        yield from _refusals(run.info, retraced.info)


def _rows(table: str, run: Run, stored: Arrays, right: Arrays, there: Bools) -> Iterator[str]:
    """Compare two tables by their keys; of the right one the rows that are `there`."""
    keys = tuple(stored[name] for name in KEYS[table])
    right_keys = tuple(right[name][there] for name in KEYS[table])
    twice = repeated(*keys)
    for at in np.flatnonzero(twice)[:1].tolist():
        yield f"{table}: {_named(table, keys, at)} is there twice"
    mine, others = _paired(keys, right_keys, ~twice)
    for rows, paired, what in ((keys, mine, "is in no replay"), (right_keys, others, "is missing")):
        alone = np.ones(len(rows[0]), dtype=np.bool_)
        alone[paired] = False
        if rows is keys:
            alone &= ~twice
        yield from _alone(table, rows, alone, what)
    others = np.flatnonzero(there)[others]
    for column in COLUMNS[table]:
        one, other = stored[column][mine], right[column][others]
        at = np.flatnonzero(~_same(one, other))
        if at.size:
            first = int(at[np.lexsort([key[mine[at]] for key in keys[::-1]])[0]])
            place = _label(run, table, int(mine[first]))
            where = f"{table}, row {place} ({_named(table, keys, int(mine[first]))}), column {column}"
            more = f" (and {at.size - 1} more rows)" if at.size > 1 else ""
            yield f"{where}: is {_shown(one[first])}, the replay gives {_shown(other[first])}{more}"


def _alone(table: str, rows: Sequence[Values], alone: Bools, what: str) -> Iterator[str]:
    """Say of the first row by its keys that it is in one table only, and how many more are."""
    at = np.flatnonzero(alone)
    if at.size:
        first = at[np.lexsort([key[at] for key in rows[::-1]])[0]]
        more = f" (and {at.size - 1} more)" if at.size > 1 else ""
        yield f"{table}: {_named(table, rows, int(first))} {what}{more}"


def _paired(keys: Sequence[Values], others: Sequence[Values], wanted: Bools) -> tuple[Ints, Ints]:
    """Return which rows have equal keys: numbers of wanted rows, ascending, and of their twins, (pairs,) each."""
    if wanted.all() and all(np.array_equal(key, other) for key, other in zip(keys, others, strict=True)):
        return np.arange(len(keys[0])), np.arange(len(keys[0]))
    rows = np.flatnonzero(wanted)
    both = [np.concatenate([key[rows], other]) for key, other in zip(keys, others, strict=True)]
    order = np.lexsort(both[::-1])  # stable: of two equal ones the first table's comes first
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for key in both:
        same &= key[order][1:] == key[order][:-1]
    first, second = order[:-1][same], order[1:][same] - len(rows)
    ascending = np.argsort(first)
    return rows[first[ascending]], second[ascending]


def _same(one: Values, other: Values) -> Bools:
    if one.dtype.kind == "f":
        return np.asarray((one == other) | (np.isnan(one) & np.isnan(other)))
    return np.asarray(one == other, dtype=np.bool_)


def _label(run: Run, table: str, at: int) -> object:
    """Return what a row of a run's table is called in its data frame."""
    return run.row(table, at).index[0] if run.is_in_memory(table) else at


def _named(table: str, keys: Sequence[Values], at: int) -> str:
    if table == "visits":
        return f"visit {keys[1][at]} of client {keys[0][at]}"
    return f"{KEYS[table][0]} {keys[0][at]}"


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
    known, scored = set(due), set(stored)
    for row, mine in zip(blocks.index.tolist(), stored, strict=True):
        if mine not in known:
            version, time_s, split = mine
            told = f"version {version} on {split!r} at {time_s!r} s"
            yield f"scores, row {row}, columns version, time_s and split: {told} is in no replay"
            return
    lacking = [] if unfinished or not retraced.whole else [block for block in due if block not in scored]
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
    unseen = set(retraced.unseen)
    right = {
        "seen": [retraced.seen[client] for client in clients],
        "unseen": [client in unseen for client in clients],
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
