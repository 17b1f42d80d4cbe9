"""A checkpoint as a file: what it says of its run, and the values; written, found and read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import TypeAdapter, ValidationError

from fedsim.clock.plan import Plan
from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import sync_folder
from fedsim.files.checkpoint.kept_again import KeptAgain
from fedsim.files.checkpoint.plain_values import DamagedError, Held, Restored
from fedsim.files.checkpoint.tensor_file import Array, read_tensors, write_tensors
from fedsim.files.client_vectors import ClientVectors
from fedsim.records.info import Refusal, json_values
from fedsim.server.values.saved import ValuesData

FORMAT = 1
"""Of what this version writes; others are refused."""
KEPT = 2
"""Checkpoints of a run that are kept: the older one serves if the newer is damaged."""
FOLDER, SUFFIX = "checkpoints", ".safetensors"


@dataclass(frozen=True)
class Head:
    """What a checkpoint says of its run.

    Attributes:
        version: that it was taken after; time_s: of its commit [virtual s]; wall_s: real seconds by then.
        rows: that each table had.
        refused: updates that were not taken, as `run.json` names them.
        experiment: the settings as plain values.
        versions: of the packages; cpu: the processor.
        task, population: facts about model and data, with their SHA-256.
        files: SHA-256 of the model's files, by path.
        format: of the file.
    """

    version: int
    time_s: float
    wall_s: float
    rows: Mapping[str, int]
    refused: tuple[Refusal, ...]
    experiment: Mapping[str, object]
    versions: Mapping[str, str]
    cpu: str
    task: Mapping[str, object] = field(default_factory=dict)
    population: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class Stored:
    """A checkpoint as it was read: its file, what it says, and its values, not put together yet."""

    path: Path
    head: Head
    tree: object
    arrays: Mapping[str, Array] = field(repr=False)


def known(plan: Plan) -> dict[str, object]:
    """Return what is not stored in a checkpoint, because the plan has it."""
    return {"layout": plan.task.layout}


def modules_of(plan: Plan) -> set[str]:
    """Return the modules of a run's own components, whose frozen dataclasses may be in a checkpoint."""
    return {type(part).__module__ for part in plan.parts.everything}


def held_by(plan: Plan, folder: Path) -> Held:
    """Return what takes the values of a run apart."""
    return Held(known(plan), modules_of(plan), folder / "kept")


def write(folder: Path, head: Head, tree: object, arrays: Mapping[str, Array]) -> tuple[Path, int]:
    """Write a checkpoint into a run folder; then all but the newest `KEPT` go. Returns its file and length [bytes].

    Raises:
        OSError: the disk does not take it.
    """
    inner = folder / FOLDER
    inner.mkdir(exist_ok=True)
    for named in (
        folder.parent,
        folder,
        folder / "kept",
    ):  # the files that it counts on are there under their names
        if named.is_dir():
            sync_folder(named)
    path = inner / f"{head.version:08}{SUFFIX}"
    written = write_tensors(path, json.dumps({"head": json_values(head), "values": tree}), arrays)
    for older in found(folder)[KEPT:]:
        older.unlink(missing_ok=True)
    return path, written


def found(folder: Path) -> list[Path]:
    """Return the files of a run's checkpoints, the newest first."""
    paths = (folder / FOLDER).glob(f"*{SUFFIX}")
    return sorted(
        (path for path in paths if path.stem.isdecimal()), key=lambda path: int(path.stem), reverse=True
    )


def keep_only(folder: Path, path: Path | None) -> None:
    """Remove the checkpoints of a run but one (None: all), and what was left half written."""
    for other in [*found(folder), *(folder / FOLDER).glob(".*")]:
        if other != path:
            with contextlib.suppress(OSError):
                other.unlink()


def newest(
    folder: Path, check: Callable[[Head], None], plan: Plan
) -> tuple[Stored, Values, list[str]] | None:
    """Return the newest checkpoint of a run that is whole, and what is wrong with newer ones; None: there is none.

    Args:
        folder: of the run.
        check: raises if a checkpoint is not of this experiment; so does this, then.
        plan: of the run.

    Raises:
        RunFolderError: there are some, and none can be read.
    """
    wrong: list[str] = []
    for path in found(folder):
        try:
            stored = read(path)
        except RunFolderError as problem:
            wrong.append(problem.message.headline)
            continue
        check(stored.head)
        try:
            return stored, values(stored, plan), wrong
        except RunFolderError as problem:
            wrong.append(problem.message.headline)
    if wrong:
        fix = f"remove {folder / FOLDER} to begin again from version 0 in the same folder"
        raise RunFolderError(message(str(folder), f"no checkpoint can be read: {'; '.join(wrong)}", fix=fix))
    return None


@cache
def _reader() -> TypeAdapter[Head]:
    return TypeAdapter(Head)


def read(path: Path) -> Stored:
    """Read a checkpoint.

    Raises:
        RunFolderError: it is damaged, or of another format.
    """
    text, arrays = read_tensors(path)
    try:
        content = json.loads(text)
        stored_format = content["head"].get("format")
        if stored_format != FORMAT:
            what = "is a checkpoint of another format"
            fix = "go on with the version of fedsim that made it"
            raise RunFolderError(message(str(path), what, got=stored_format, fix=fix))
        return Stored(path, _reader().validate_python(content["head"]), content["values"], arrays)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise RunFolderError(message(str(path), "is damaged: it is no checkpoint of a run")) from problem


@dataclass(frozen=True)
class Values:
    """The values of a checkpoint.

    Attributes:
        data: all of them.
        views: those among them that are of what clients keep.
        kept: the files of these.
    """

    data: ValuesData
    views: Sequence[ClientVectors]
    kept: KeptAgain


def values(stored: Stored, plan: Plan) -> Values:
    """Return the values of a checkpoint.

    Raises:
        RunFolderError: they are none, or a file of what clients keep has others by now.
    """
    kept = KeptAgain(stored.path.parents[1] / "kept")
    try:
        restored = Restored(stored.tree, stored.arrays, known(plan), modules_of(plan), kept)
        return Values(cast("ValuesData", restored.value()), restored.views, kept)
    except DamagedError as problem:
        raise RunFolderError(message(str(stored.path), f"is damaged ({problem})")) from problem
