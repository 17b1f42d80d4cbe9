"""`measurements/*.csv`: public measurements of fine-tuning on single devices, one a row."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fedsim.devices.stacks.memory_models import memory_models
from fedsim.errors import Message, nearest
from fedsim.files.user_tables import Column, Rows, explaining, filled, problems

QUALITIES = ("read", "readme", "second-hand", "own")
"""Read at its source, rounded in a README, quoted by others, or measured with `fedsim profiles contribute`."""
YES_OR_NO = ("yes", "no")
MEMORY_KINDS = ("peak", "allocated", "footprint", "between steps", "host only")
"""What `memory_bytes` is of: the largest resident set, the largest that the framework allocated, Apple's physical footprint;
the resident set after a step, when nothing of it is left; or that of the host beside a GPU in the same memory."""
MEASUREMENT_COLUMNS = (
    Column("hardware", "text", meaning="the device as its source names it", usual="Raspberry Pi 5 8 GB"),
    Column(
        "unit",
        "text",
        choices=("cpu", "gpu", "npu", "unknown"),
        meaning="which unit of it trained",
        usual="cpu",
    ),
    Column("os", "text", meaning="its operating system, with the version if it is known", usual="linux"),
    Column("software", "text", meaning="which program trained", usual="PyTorch, peft"),
    Column("model", "text", meaning="which model, with its size", usual="SmolLM2-135M"),
    Column(
        "all_weights", "text", choices=YES_OR_NO, meaning="yes: all weights trained, no adapter", usual="no"
    ),
    Column(
        "checkpointing",
        "text",
        choices=(*YES_OR_NO, "unknown"),
        meaning="whether activations were computed again",
        usual="no",
    ),
    Column("fit", "text", choices=YES_OR_NO, meaning="whether stacks are fitted to the row", usual="no"),
    Column("source", "text", meaning="who measured it", usual="own"),
    Column("url", "text", meaning="where it was read", usual="own"),
    Column("date", "text", meaning="of the source, as in 2026-11-28", usual="2026-11-28"),
    Column("quality", "text", choices=QUALITIES, meaning="how it was read", usual="own"),
)


def _number(name: str, meaning: str, unit: str = "", high: float = math.inf) -> Column:
    return Column(name, positive=True, high=high, unit=unit, meaning=meaning)


NUMBERS = (
    _number(
        "trained_layers", "layers from the lowest one that trained to the top; 28 to 32 of 1B to 8B models"
    ),
    _number("rank", "of the adapters; 8 to 64"),
    _number("batch", "examples a step; 1 to 16 on devices"),
    _number("sequence", "tokens an example; 64 to 2,048"),
    _number("accumulate", "passes a step"),
    _number("tokens_a_pass", "tokens of one forward and backward pass: batch x sequence / accumulate"),
    _number("tokens_per_s", "while training; 3 of plain C++ on a phone, 1,000s of a card", "1/s"),
    _number("s_per_step", "one step of the optimiser", "s"),
    _number("s_per_pass", "one forward and backward pass", "s"),
    _number("memory_bytes", "most memory that training took; 10^8 to 10^11", "bytes"),
    _number("memory_tokens", "tokens of the pass that took it"),
    _number("watts", "of the whole device while training; 3 to 6 of phones, 20 to 60 of laptops", "W"),
    _number("weight_bytes", "a frozen weight; 4, 2, 1, or 0.55 of 4 bits", "bytes", high=8.0),
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


@explaining(*MEASUREMENT_COLUMNS, *NUMBERS)
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
