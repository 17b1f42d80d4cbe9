"""`measurements/*.csv`: public measurements of fine-tuning on single devices, one a row."""

from __future__ import annotations

from collections.abc import Iterator

from fedsim.devices.stacks.memory_models import memory_models
from fedsim.errors import Message, nearest
from fedsim.files.user_tables import Column, Rows, filled, problems

QUALITIES = ("read", "readme", "second-hand", "own")
"""Read at its source, rounded in a README, quoted by others, or measured with `fedsim profiles contribute`."""
YES_OR_NO = ("yes", "no")
MEMORY_KINDS = ("peak", "allocated", "footprint", "between steps", "host only")
"""What `memory_bytes` is of: the largest resident set, the largest that the framework allocated, Apple's physical footprint;
the resident set after a step, when nothing of it is left; or that of the host beside a GPU in the same memory."""
MEASUREMENT_COLUMNS = (
    Column("hardware", "text"),
    Column("unit", "text", choices=("cpu", "gpu", "npu", "unknown")),
    Column("os", "text"),
    Column("software", "text"),
    Column("model", "text"),
    Column("all_weights", "text", choices=YES_OR_NO),
    Column("checkpointing", "text", choices=(*YES_OR_NO, "unknown")),
    Column("fit", "text", choices=YES_OR_NO),
    Column("source", "text"),
    Column("url", "text"),
    Column("date", "text"),
    Column("quality", "text", choices=QUALITIES),
)
NUMBERS = (
    *(Column(name, positive=True) for name in ("trained_layers", "rank", "batch", "sequence", "accumulate")),
    *(Column(name, positive=True) for name in ("tokens_a_pass", "tokens_per_s", "s_per_step", "s_per_pass")),
    *(Column(name, positive=True) for name in ("memory_bytes", "memory_tokens", "watts")),
    Column("weight_bytes", positive=True, high=8.0),
)
"""Columns whose cells may be empty: what a source does not say."""
MEMORY = ("memory_kind", "memory_model")
"""What a row with a memory figure must have: what it is of, and the row of `memory_models.csv` that its program is."""
FITTED = ("device", "stack", "trained_layers", "accumulate", "tokens_a_pass", "s_per_pass", "weight_bytes")
"""What a row must have to be fitted to."""
SAME = (
    *("hardware", "unit_id", "unit", "os", "software", "software_version", "model", "trained_layers", "rank"),
    *("targets", "batch", "sequence", "accumulate", "checkpointing", "precision", "source", "tokens_per_s"),
    *("s_per_step", "memory_bytes", "notes"),
)
"""Two rows that are alike in these are one measurement written twice."""


def measurement_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of measurements."""
    yield from problems(rows, MEASUREMENT_COLUMNS)
    for column in (c for c in NUMBERS if c.name in rows.cells):
        yield from problems(filled(rows, column.name), (column,))
    seen: dict[tuple[str, ...], int] = {}
    for row in range(len(rows.numbers)):
        yield from _row_problems(rows, row)
        key = tuple(str(rows.cells[name][row]) for name in SAME if name in rows.cells)
        if key in seen:
            yield rows.say(row, "", f"is row {rows.numbers[seen[key]]} once more", fix="keep one of them")
        seen.setdefault(key, row)


def _row_problems(rows: Rows, row: int) -> Iterator[Message]:
    def cell(name: str) -> str:
        return str(rows.cells[name][row]) if name in rows.cells else ""

    if cell("memory_bytes"):
        for name in MEMORY:
            if not cell(name):
                fix = "say what the figure is of, and which program's it is"
                yield rows.say(row, name, "is empty in a row with memory_bytes", fix=fix)
    if cell("memory_kind") and cell("memory_kind") not in MEMORY_KINDS:
        fix = f"choose from: {', '.join(MEMORY_KINDS)}"
        yield rows.say(row, "memory_kind", "no such kind", cell("memory_kind"), fix)
    if cell("memory_model") and cell("memory_model") not in memory_models():
        fix = nearest(cell("memory_model"), memory_models())
        yield rows.say(row, "memory_model", "no such memory model", cell("memory_model"), fix)
    if cell("fit") == "no" and not cell("why_not"):
        yield rows.say(row, "why_not", "is empty", fix="say why the row is not fitted to")
    if cell("fit") == "yes":
        for name in FITTED:
            if not cell(name):
                yield rows.say(
                    row, name, "is empty in a row that is fitted to", fix="fill it, or set fit: no"
                )
        if cell("quality") == "second-hand":
            yield rows.say(row, "fit", "is yes for what others quote", fix="read its source, or set fit: no")
