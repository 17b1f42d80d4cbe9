"""`stacks.csv`: what software makes of a device's peaks, with the spread of what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

import hetero_profiles
from fedsim.cost.memory.model import PLAIN, MemoryModel
from fedsim.devices.stacks.memory_models import memory_models
from fedsim.errors import Message, ProfileError, message
from fedsim.files.near_columns import nearly_named
from fedsim.files.plain_number import plain_number
from fedsim.files.user_tables import Column, Rows, explaining, numbers, problems, read_rows

Peak = Literal["cpu", "gpu", "matrix"]
PEAKS: tuple[Peak, ...] = get_args(Peak)
"""Which column of a table of hardware a stack's share is of: `cpu_gflop_per_s`, `gpu_gflop_per_s`, `matrix_gflop_per_s`."""
LEAST_SHARE, MOST_TOKENS = 1e-5, 1e9
"""The slowest program of the table reaches 600 times as much; no device has passes of so many tokens."""
OS = ("android", "ios", "macos", "linux", "windows")

STACK_COLUMNS = (
    Column("stack", "key", meaning="name of the row, once in the table", usual="my-stack"),
    Column("software", "text", meaning="which, with its version", usual="my trainer 1.0"),
    Column("peak", "text", choices=PEAKS, meaning="which of a device's peaks it uses", usual="cpu"),
    Column("os", "text", meaning="where it runs, separated by blanks", usual="android linux"),
    Column(
        "share_of_peak",
        positive=True,
        low=LEAST_SHARE,
        high=2.0,
        meaning="with many tokens a pass; 0.03 of plain C++, 0.3 of a good library, 0.5 of tensor cores",
        usual="0.28",
    ),
    Column(
        "share_sigma_ln",
        low=0.0,
        high=3.0,
        meaning="spread of ln(predicted / measured) on devices that were left out; 0.5 where only one was measured",
        usual="0.5",
    ),
    Column(
        "launch_s",
        low=0.0,
        high=1.0,
        unit="s",
        meaning="floor of a layer pass; 0 on processors, 0.002 on graphics cards",
        usual="0.0003",
    ),
    Column("launch_sigma_ln", low=0.0, high=3.0, meaning="spread of its logarithm", usual="0.5"),
    Column("pass_overhead_s", low=0.0, high=100.0, unit="s", meaning="fixed time of a pass", usual="0"),
    Column(
        "bandwidth_share",
        positive=True,
        low=LEAST_SHARE,
        high=1.0,
        meaning="of memory bandwidth, for weights",
        usual="0.7",
    ),
    Column(
        "expand_share",
        low=0.0,
        high=1.0,
        meaning="of it, for unpacking quantised weights in memory; 0: on the way",
        usual="0",
    ),
    Column(
        "least_tokens",
        low=1.0,
        high=MOST_TOKENS,
        meaning="fewest tokens a pass that it was fitted to",
        usual="64",
    ),
    Column("most_tokens", low=1.0, high=MOST_TOKENS, meaning="most of them", usual="512"),
    Column(
        "kind",
        "text",
        choices=("fitted", "derived", "assumed"),
        meaning="to several measurements, from one, or an estimate",
        usual="derived",
    ),
)

MEMORY_COLUMN = Column(
    "memory",
    "text",
    choices=tuple(memory_models()),
    meaning="what it keeps in memory: a row of memory_models.csv; without the column `plain`, weights as the experiment has them",
    usual="pytorch-float32",
)
"""A table of one's own may leave it out."""


@dataclass(frozen=True)
class Stack:
    """One row: a stack and what it makes of a device.

    Attributes:
        stack: its name.
        peak: of which peak it reaches a share.
        os: where it runs.
        share_of_peak: with many tokens a pass.
        share_sigma_ln: spread of the logarithm of measured over predicted time, devices left out one by one.
        launch_s: floor of a layer pass [s].
        launch_sigma_ln: spread of its logarithm (assumed where one set of measurements tells it).
        pass_overhead_s: fixed time of a pass [s].
        bandwidth_share: share of memory bandwidth at which weights are read.
        expand_share: share of it at which quantised weights are unpacked in memory; 0: on the way.
        memory: what it keeps in memory.
        tokens: fewest and most tokens a pass of what it is fitted to.
        kind: fitted, derived from a single point, or assumed.
        own: it is of a table of its user's.
        memory_said: its table says what it keeps in memory; else that is taken as `plain`.
    """

    stack: str
    peak: Peak
    os: tuple[str, ...]
    share_of_peak: float
    share_sigma_ln: float
    launch_s: float
    launch_sigma_ln: float
    pass_overhead_s: float
    bandwidth_share: float
    expand_share: float
    tokens: tuple[int, int]
    kind: str
    memory: MemoryModel = PLAIN
    own: bool = False
    memory_said: bool = True


@dataclass(frozen=True)
class StackTable:
    """All stacks by name, the SHA-256 of the file, and what it is called."""

    stacks: dict[str, Stack]
    sha256: str
    names: str = "stacks.csv"


def beside(shipped: StackTable, own: StackTable, name: str) -> StackTable:
    """Return a table with the rows of both; of two with one name, the own one."""
    sha256 = f"{shipped.sha256} {own.sha256}"
    return StackTable(shipped.stacks | own.stacks, sha256, f"{shipped.names} {name}")


def read_stacks(path: Path | None = None) -> StackTable:
    """Return a table of stacks, the shipped one by default.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    rows = read_rows(hetero_profiles.locate("stacks.csv") if path is None else path)
    problem = next(stack_problems(rows), None)
    if problem is not None:
        raise ProfileError(problem)
    figures = {c.name: numbers(rows, c.name).tolist() for c in STACK_COLUMNS if c.kind == "number"}
    stacks, memory_said = {}, MEMORY_COLUMN.name in rows.cells
    for k, name in enumerate(map(str, rows.cells["stack"])):
        peak = next(p for p in PEAKS if p == rows.cells["peak"][k])
        least, most = (int(figures[column][k]) for column in ("least_tokens", "most_tokens"))
        stacks[name] = Stack(
            stack=name,
            peak=peak,
            os=tuple(str(rows.cells["os"][k]).split()),
            share_of_peak=figures["share_of_peak"][k],
            share_sigma_ln=figures["share_sigma_ln"][k],
            launch_s=figures["launch_s"][k],
            launch_sigma_ln=figures["launch_sigma_ln"][k],
            pass_overhead_s=figures["pass_overhead_s"][k],
            bandwidth_share=figures["bandwidth_share"][k],
            expand_share=figures["expand_share"][k],
            tokens=(least, most),
            kind=str(rows.cells["kind"][k]),
            memory=memory_models()[str(rows.cells["memory"][k])] if memory_said else PLAIN,
            own=path is not None,
            memory_said=memory_said,
        )
    return StackTable(stacks, rows.sha256)


@explaining(*STACK_COLUMNS, MEMORY_COLUMN)
def stack_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of stacks."""
    with_memory = (MEMORY_COLUMN,) if MEMORY_COLUMN.name in rows.cells else ()
    yield from problems(rows, (*STACK_COLUMNS, *with_memory))
    yield from nearly_named(rows, STACK_COLUMNS, (MEMORY_COLUMN,))
    for row, name in enumerate(map(str, rows.cells.get("stack", []))):
        if (wrong := unfit_name(name)) is not None:
            yield rows.say(row, "stack", wrong[0], name, wrong[1])
    for row, cell in enumerate(rows.cells.get("os", [])):
        for name in sorted(set(str(cell).split()) - set(OS)):
            yield rows.say(row, "os", "no such operating system", name, f"choose from: {', '.join(OS)}")
    if {"least_tokens", "most_tokens"} <= set(rows.cells):
        least, most = numbers(rows, "least_tokens"), numbers(rows, "most_tokens")
        for row in np.flatnonzero(least > most).tolist():
            what = f"must be at least least_tokens = {least[row]:g}"
            yield rows.say(row, "most_tokens", what, float(most[row]), "swap them, or correct one")


def unfit_name(name: str) -> tuple[str, str] | None:
    """Return what is wrong with the name of a stack, and a way out; None: nothing, `compute.stack` can name it."""
    if re.search(r"[\s,]", name.strip()):
        fix = "write - in their place: in `compute.stack` a share follows a blank, another stack a comma"
        return "has a blank or a comma in its name", fix
    if name.strip() == "auto":
        return "means what a device's row says, in `compute.stack`", "give the stack another name"
    return None


def shares_of(where: str, text: str) -> list[tuple[str, float]]:
    """Return the stacks of a cell with their shares: `mlx`, or `cpp 0.5, llama.cpp-phone 0.5`.

    Raises:
        ProfileError: a share that is none, or that only some of several stacks have.
    """
    shares: list[tuple[str, float]] = []
    without = 0
    for part in text.split(","):
        name, _, number = part.strip().partition(" ")
        share = plain_number(number) if number else 1.0
        if not 0 < share < math.inf:
            fix = "write a stack, or several with their shares, as in cpp 0.5, llama.cpp-phone 0.5"
            raise ProfileError(message(where, "must have a share greater than 0", got=part.strip(), fix=fix))
        shares.append((name, share))
        without += not number
    if without and len(shares) > 1:
        fix = "give each its share, as in cpp 0.5, llama.cpp-phone 0.5"
        what = "names several stacks, and not every one has a share"
        raise ProfileError(message(where, what, got=text, fix=fix))
    whole = sum(share for _, share in shares)
    return [(name, share / whole) for name, share in shares]
