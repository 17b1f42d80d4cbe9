"""Tables that say what devices are: peaks by unit, bandwidth, memory; and which software their owners would run.

No speed stands in them: `stacks.csv` says what software makes of a peak. An empty cell is a unit that a device
has not, or whose peak is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Floats, Ints, Names
from fedsim.devices.schemas.devices import (
    BANDWIDTH,
    GB,
    GFLOPS,
    LEAST,
    MOST,
    MOST_GFLOPS,
    NAME,
    POWER,
    RAM,
    TIER,
)
from fedsim.devices.stacks.table import OS, PEAKS, Peak, shares_of
from fedsim.errors import Message, ProfileError
from fedsim.files.user_tables import Column, Rows, filled, numbers, problems

KINDS = ("measured", "specification", "derived", "assumed")
"""Where a cell comes from."""
PEAK_COLUMNS: dict[Peak, str] = {peak: f"{peak}_gflop_per_s" for peak in PEAKS}
HARDWARE_COLUMNS = (
    NAME,
    TIER,
    Column("os", "text", choices=OS, meaning="its operating system", usual="android"),
    Column(
        "stack",
        "text",
        meaning="what its owner runs: a row of stacks.csv, or several with their shares",
        usual="cpp",
    ),
    BANDWIDTH,
    RAM,
    *POWER,
)
_PEAKS = {
    "cpu": ("a large float32 product on all cores; 20 to 170 of phones, 20 to 110 of boards", "97"),
    "gpu": ("float32 peak of the shaders; 700 to 3,400 of phones, 2,600 to 14,000 of Macs", ""),
    "matrix": ("dense 16-bit peak of tensor cores; 43,600 of a laptop's card, 312,000 of an A100", ""),
}
OPTIONAL_HARDWARE_COLUMNS = (
    *(
        Column(name, positive=True, low=LEAST, high=MOST_GFLOPS, unit=GFLOPS, meaning=meaning, usual=usual)
        for name, (meaning, usual) in zip(PEAK_COLUMNS.values(), _PEAKS.values(), strict=True)
    ),
    Column("npu_int8_gop_per_s", positive=True, unit="10^9 op/s", meaning="for the reader: no stack uses it"),
    Column(
        "ram_bandwidth_gb_per_s",
        positive=True,
        low=LEAST,
        high=MOST,
        unit=f"{GB}/s",
        meaning="peak of the RAM beside a card, for stacks of the processor; 51 of two channels of DDR4-3200, 90 of DDR5-5600",
    ),
    Column(
        "vram_gb",
        positive=True,
        low=LEAST,
        high=MOST,
        unit=GB,
        meaning="memory of a card of its own; 6 to 24",
    ),
)
"""Columns whose cells may be empty, and which a table of one's own may leave out."""
SOURCED = {
    "cpu": "cpu_gflop_per_s",
    "gpu": "gpu_gflop_per_s",
    "matrix": "matrix_gflop_per_s",
    "npu": "npu_int8_gop_per_s",
    "bandwidth": "memory_bandwidth_gb_per_s",
    "memory": "ram_gb",
    "power": "train_w",
}
"""Group of cells -> the column that needs `<group>_kind` and `<group>_source` where it is filled."""


@dataclass(frozen=True)
class Hardware:
    """Rows of a table of hardware, (rows,) each.

    Attributes:
        device, tier, os: names.
        stack: what the owner runs: a stack, or several with their shares (`cpp 0.5, llama.cpp-phone 0.5`).
        peaks: FLOP/s by unit; NaN: it has none.
        memory_bytes, vram_bytes: RAM, and that of a card of its own (NaN: the GPU shares the RAM).
        memory_bytes_per_s: bandwidth; of the card where there is one.
        ram_bytes_per_s: of the RAM beside a card; NaN: not known, or there is no card.
    """

    device: Names
    tier: Names
    os: Names
    stack: Names
    peaks: dict[Peak, Floats]
    memory_bytes: Floats
    vram_bytes: Floats
    memory_bytes_per_s: Floats
    ram_bytes_per_s: Floats


@dataclass(frozen=True)
class OwnedHardware:
    """The hardware of a population: the table, and each client's row, (clients,)."""

    table: Hardware
    row: Ints


def is_hardware(rows: Rows) -> bool:
    """Tell whether a table of devices says what they are, and not how fast they train."""
    return any(name in rows.cells for name in PEAK_COLUMNS.values()) and "stack" in rows.cells


def hardware_of(rows: Rows) -> Hardware:
    """Return the hardware of a sound table."""

    def names(column: str) -> Names:
        return np.array([str(cell) for cell in rows.cells[column]], dtype=object)

    return Hardware(
        device=names("device"),
        tier=names("class"),
        os=names("os"),
        stack=names("stack"),
        peaks={peak: 1e9 * _optional(rows, column) for peak, column in PEAK_COLUMNS.items()},
        memory_bytes=1e9 * numbers(rows, "ram_gb"),
        vram_bytes=1e9 * _optional(rows, "vram_gb"),
        memory_bytes_per_s=1e9 * numbers(rows, "memory_bandwidth_gb_per_s"),
        ram_bytes_per_s=1e9 * _optional(rows, "ram_bandwidth_gb_per_s"),
    )


def hardware_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of hardware, shares apart."""
    yield from problems(rows, HARDWARE_COLUMNS)
    for column in OPTIONAL_HARDWARE_COLUMNS:
        if column.name in rows.cells:
            yield from problems(filled(rows, column.name), (column,))
    for group, figure in SOURCED.items():
        kind, source = f"{group}_kind", f"{group}_source"
        if kind in rows.cells and figure in rows.cells:
            cells = filled(rows, figure)
            yield from problems(cells, (Column(kind, "text", choices=KINDS), Column(source, "text")))
    for row, cell in enumerate(map(str, rows.cells.get("stack", []))):
        try:
            shares_of("stack", cell)
        except ProfileError as problem:
            yield rows.say(row, "stack", problem.message.what, problem.message.got, problem.message.fix)
    yield from _of_cards(rows)
    peaks = [rows.cells[name] for name in PEAK_COLUMNS.values() if name in rows.cells]
    for row in range(len(rows.numbers)):
        if all(cells[row] in ("", None) for cells in peaks):
            fix = f"give one of {', '.join(PEAK_COLUMNS.values())}"
            yield rows.say(row, "", "has no peak: nothing can be computed on it", fix=fix)


def _of_cards(rows: Rows) -> Iterator[Message]:
    """Yield the rows that say what the RAM beside a card delivers, and have none."""
    name = "ram_bandwidth_gb_per_s"
    for row, cell in enumerate(rows.cells.get(name, [])):
        if cell not in ("", None) and (
            "vram_gb" not in rows.cells or rows.cells["vram_gb"][row] in ("", None)
        ):
            what = "is of the RAM beside a card, and the row has no vram_gb"
            fix = "leave the cell empty: memory_bandwidth_gb_per_s is of the RAM here; or fill vram_gb"
            yield rows.say(row, name, what, cell, fix)


def _optional(rows: Rows, name: str) -> Floats:
    return numbers(rows, name) if name in rows.cells else np.full(len(rows.numbers), np.nan)
