"""Columns of text, from table files and from the Hugging Face hub."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsim.errors import DataError, Shown, message, nearest
from fedsim.files.delimited import SEPARATORS, ragged_row, read_grid
from fedsim.files.json_rows import json_rows
from fedsim.files.opened import UnreadableError, read_bytes
from fedsim.files.parquet_file import read_parquet
from fedsim.files.text_file import decoded, read_text, shown
from fedsim.tasks._split_names import matched
from fedsim.training import hub

Columns = dict[str, list[Any]]
COLUMNS = ("text", "sentence", "content")
"""Names that are taken for the text when `task.text_column` is not given."""
SUFFIXES = (".parquet", *SEPARATORS, ".jsonl", ".ndjson", ".json")
"""Of tables."""
PARQUET = "refs/convert/parquet"
REVISIONS = {"ptb-text-only/ptb_text_only": PARQUET, "ptb_text_only": PARQUET}
"""Data sets whose main branch holds only a script, which `datasets` refuses: the hub converted them."""


def columns(path: Path, *, nested: bool = False) -> Columns:
    """Return a table file's columns; its suffix, in whatever case, says which kind it is.

    Args:
        path: of the file.
        nested: whether cells may be lists and objects.

    Raises:
        DataError: it cannot be read, rows of unequal length, separators or quotes that are not the kind's.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return read_parquet(path).columns
        if suffix in SEPARATORS:
            return _delimited(path, SEPARATORS[suffix])
        rows = json_rows(read_text(path), nested=nested)
    except UnreadableError as problem:
        raise unreadable(path, problem) from problem
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def unreadable(path: Path, problem: UnreadableError) -> DataError:
    """Return what is wrong with a file as an error about `task.data`."""
    said = problem.message(shown(path), "line")
    return DataError(replace(said, where="task.data", what=f"{said.where}: {said.what}"))


def _delimited(path: Path, separator: str) -> Columns:
    grid = read_grid(decoded(read_bytes(path)), separator)
    if grid.ragged:
        raise ragged_row(grid, *grid.ragged[0])
    return {name: grid.column(name) for name in grid.header}


def text_column(columns: Columns, where: str) -> str:
    """Return the name of the text column when it was not given: a usual name, or the only one of strings."""
    for name in COLUMNS:
        if name in columns:
            return name
    strings = [name for name, values in columns.items() if _is_text(values)]
    if len(strings) == 1:
        return strings[0]
    if not columns:
        fix = "put a header line and rows into it"
        raise DataError(message("task.data", f"{where}: the table has no columns at all", fix=fix))
    if not strings:
        chats = [name for name, values in columns.items() if values and is_chat(values[0])]
        fix = CHAT_FIX if chats else "give a table with a column of text"
        names = Shown(", ".join(map(shown, columns)))
        raise DataError(message("task.text_column", f"{where}: no column holds text", got=names, fix=fix))
    fix = f"set task.text_column to one of: {', '.join(map(shown, strings))}"
    fix += "; to train on several, write them joined into one column first"
    raise DataError(message("task.text_column", f"{where}: which column is the text?", fix=fix))


CHAT_FIX = "write each chat as one text into a column `text` first (tokenizer.apply_chat_template(..., tokenize=False))"
"""Chats are lists of messages; a template makes text of them."""


def is_chat(value: object) -> bool:
    """Tell whether a cell is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)


def _is_text(values: Sequence[object]) -> bool:
    return any(isinstance(v, str) for v in values) and all(v is None or isinstance(v, str) for v in values)


def column(columns: Columns, name: str, field: str, where: str) -> list[Any]:
    """Return a column that must be there and, unless it is the text, complete."""
    if name not in columns:
        fix = nearest(name, map(shown, columns)) if columns else "the table is empty"
        raise DataError(message(f"task.{field}", f"{where}: there is no such column", got=name, fix=fix))
    if field != "text_column":
        for row, value in enumerate(columns[name], start=1):
            if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                fix = "fill it in, or remove the row"
                raise DataError(message(f"task.{field}", f"{where}: row {row} has no {shown(name)}", fix=fix))
    return columns[name]


def from_hub(
    name: str,
    config: str | None,
    revision: str | None,
    load: Callable[..., Any] | None = None,
    *,
    class_names: dict[str, list[str]] | None = None,
    notices: list[str] | None = None,
) -> dict[str, Columns]:
    """Return the splits of a hub data set; parquet only, since `datasets` runs no scripts any more.

    Args:
        name: of the data set.
        config: its configuration, if it has several.
        revision: a branch or commit; for known script-only sets their parquet branch.
        load: `datasets.load_dataset`, or what stands in for it.
        class_names: takes the names of classes by column, where the data set gives them.
        notices: takes a sentence about splits that are not read.
    """
    revision = revision or REVISIONS.get(name)
    try:
        if load is None:
            import datasets

            datasets.disable_progress_bars()
            load = datasets.load_dataset
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = load(name, config, revision=revision)
    except ImportError as problem:
        fix = "pip install 'fedsim-edge[hf]', or give a local file"
        raise DataError(
            message("task.data", "a hub data set needs the package datasets", fix=fix)
        ) from problem
    except Exception as problem:  # the hub client has no common base class
        said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        fix = "is the name right, the hub reachable (HF_HUB_OFFLINE), task.data_config set? Or give a local file"
        text = message("task.data", f"cannot get it from the hub ({said})", got=name, fix=fix)
        raise DataError(text) from problem
    splits = matched(dataset)
    if "train" not in splits:
        fix = "choose another task.data_config"
        raise DataError(
            message("task.data", "the data set has no split train", got=", ".join(dataset), fix=fix)
        )
    unread = [there for there in dataset if there not in splits.values()]
    if unread and notices is not None:
        notices.append(f"splits of {name} that are not read: {', '.join(unread)}")
    if class_names is not None:
        class_names |= hub.class_names(dataset[splits["train"]])
    return {
        split: {c: list(dataset[there][c]) for c in dataset[there].column_names}
        for split, there in splits.items()
    }
