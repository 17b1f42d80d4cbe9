"""`memory_models.csv`: what programs keep in memory while they train, one program a row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import hetero_profiles
from fedsim.cost.memory.model import MemoryModel
from fedsim.errors import Message, ProfileError
from fedsim.files.user_tables import Column, Rows, filled, numbers, problems, read_rows

BYTES = (
    *("least_weight_bytes", "unpacked_bytes", "embedding_bytes", "trained_bytes", "kept_bytes"),
    *("boundary_bytes", "live_bytes", "logit_bytes"),
)
"""Columns that are fields of `MemoryModel` as they stand."""
MEMORY_COLUMNS = (
    Column("memory", "key"),
    Column("software", "text"),
    *(Column(name, low=0.0, high=1000.0) for name in BYTES),
    Column("recomputes", "text", choices=("yes", "no")),
    Column("runtime_gb", low=0.0, high=1000.0),
    Column("kind", "text", choices=("fitted", "derived", "assumed")),
    Column("source", "text"),
)
OPEN_COLUMNS = (Column("resident_gb", low=0.0), Column("chunk_tokens", low=1.0))
"""Limits whose cells may be empty: there is none."""


@cache
def memory_models() -> dict[str, MemoryModel]:
    """Return the shipped memory models by name.

    Raises:
        ProfileError: the first problem of the table, with its row and column.
    """
    return read_memory_models(_shipped())


def memory_models_sha256() -> str:
    """Return the SHA-256 of the shipped table."""
    return _shipped().sha256


@cache
def _shipped() -> Rows:
    return read_rows(hetero_profiles.locate("memory_models.csv"))


def read_memory_models(rows: Rows) -> dict[str, MemoryModel]:
    """Return the memory models of a table by name.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    problem = next(memory_problems(rows), None)
    if problem is not None:
        raise ProfileError(problem)
    figures = {name: numbers(rows, name).tolist() for name in (*BYTES, "runtime_gb")}
    limits = {column.name: _limits(rows, column.name) for column in OPEN_COLUMNS}
    return {
        name: MemoryModel(
            name=name,
            **{field: figures[field][k] for field in BYTES},
            recomputes=rows.cells["recomputes"][k] == "yes",
            resident_bytes=1e9 * limits["resident_gb"][k],
            chunk_tokens=limits["chunk_tokens"][k],
            runtime_bytes=1e9 * figures["runtime_gb"][k],
        )
        for k, name in enumerate(map(str, rows.cells["memory"]))
    }


def memory_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of memory models."""
    yield from problems(rows, MEMORY_COLUMNS)
    for column in OPEN_COLUMNS:
        if column.name not in rows.cells:
            yield rows.say(None, column.name, "the column is missing", fix="add it; an empty cell: no limit")
        else:
            yield from problems(filled(rows, column.name), (column,))


def _limits(rows: Rows, name: str) -> list[float]:
    """Return the numbers of a column whose empty cells mean that there is no limit."""
    return [math.inf if math.isnan(value) else value for value in numbers(rows, name).tolist()]
