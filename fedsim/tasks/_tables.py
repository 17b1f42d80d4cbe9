"""Columns of text, from table files and from the Hugging Face hub."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fedsim.errors import DataError, message, nearest
from fedsim.training import hub

Columns = dict[str, list[Any]]
COLUMNS = ("text", "sentence", "content")
"""Names that are taken for the text when `task.text_column` is not given."""
SPLITS = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}
PARQUET = "refs/convert/parquet"
REVISIONS = {"ptb-text-only/ptb_text_only": PARQUET, "ptb_text_only": PARQUET}
"""Data sets whose main branch holds only a script, which `datasets` refuses: the hub converted them."""


def columns(path: Path) -> Columns:
    """Return a table file's columns."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            table: Columns = pyarrow.parquet.read_table(path).to_pydict()
            return table
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                csv.field_size_limit(2**31 - 1)
                return _columns(csv.DictReader(file, strict=True))
            return _columns(_objects(file, path))
    except DataError:
        raise
    except Exception as problem:  # pyarrow, csv, json and codecs raise their own
        said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise DataError(
            message("task.data", f"{path} cannot be read ({said})", fix="write the file again")
        ) from problem


def _objects(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            value = json.loads(line)
            if not isinstance(value, dict):
                fix = 'write one object a line: {"text": "..."}'
                raise DataError(message("task.data", f"{path}: line {number} is not a JSON object", fix=fix))
            yield value


def _columns(rows: Iterable[dict[str, Any]]) -> Columns:
    objects = list(rows)
    names = list(dict.fromkeys(name for row in objects for name in row if name is not None))
    return {name: [row.get(name) for row in objects] for name in names}


def text_column(columns: Columns, where: str) -> str:
    """Return the name of the text column when it was not given: a usual name, or the only one of strings."""
    for name in COLUMNS:
        if name in columns:
            return name
    strings = [name for name, values in columns.items() if values and all(isinstance(v, str) for v in values)]
    if len(strings) == 1:
        return strings[0]
    fix = f"set task.text_column to one of: {', '.join(columns) or 'no columns at all'}"
    raise DataError(message("task.text_column", f"{where}: which column is the text?", fix=fix))


def column(columns: Columns, name: str, field: str, where: str) -> list[Any]:
    """Return a column that must be there and, unless it is the text, complete."""
    if name not in columns:
        fix = nearest(name, columns) if columns else "the table is empty"
        raise DataError(message(f"task.{field}", f"{where}: there is no such column", got=name, fix=fix))
    if field != "text_column":
        for row, value in enumerate(columns[name], start=1):
            if value is None or value == "":
                fix = "fill it in, or remove the row"
                raise DataError(message(f"task.{field}", f"{where}: row {row} has no {name}", fix=fix))
    return columns[name]


def from_hub(
    name: str,
    config: str | None,
    revision: str | None,
    load: Callable[..., Any] | None = None,
    *,
    class_names: dict[str, list[str]] | None = None,
) -> dict[str, Columns]:
    """Return the splits of a hub data set; parquet only, since `datasets` runs no scripts any more.

    Args:
        name: of the data set.
        config: its configuration, if it has several.
        revision: a branch or commit; for known script-only sets their parquet branch.
        load: `datasets.load_dataset`, or what stands in for it.
        class_names: takes the names of classes by column, where the data set gives them.
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
    splits = {split: next((w for w in words if w in dataset), None) for split, words in SPLITS.items()}
    if splits["train"] is None:
        fix = "choose another task.data_config"
        raise DataError(
            message("task.data", "the data set has no split train", got=", ".join(dataset), fix=fix)
        )
    if class_names is not None:
        class_names |= hub.class_names(dataset[splits["train"]])
    return {
        split: {c: list(dataset[name_there][c]) for c in dataset[name_there].column_names}
        for split, name_there in splits.items()
        if name_there is not None
    }
