"""Text from wherever it is: the built-in corpus, folders, files, the Hugging Face hub.

All of it becomes units: a line of a text file, a row of a table, or a document. Each has an owner
(for `natural`) and perhaps a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fedsim.errors import DataError, Shown, message
from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import half_character, read_text, shown
from fedsim.tasks._language.folder import TextFile, is_file_name, refuse_kind, split_files
from fedsim.tasks._language.held_out import held_out
from fedsim.tasks._language.units import Texts, joined
from fedsim.tasks._natural.times import moments
from fedsim.tasks._tables import (
    CHAT_FIX,
    SUFFIXES,
    Columns,
    column,
    columns,
    from_hub,
    is_chat,
    text_column,
    unreadable,
)
from fedsim.training.hub import is_hub_name

Newline = Literal["auto", "eos", "keep"]


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        data: `builtin`, a folder, a file or a hub name.
        config, revision: of a hub data set.
        text_column, client_column, label_column, time_column: of tables.
        newline: `eos`: each line of a text is a unit, stripped, its newline is `<eos>`; `keep`: newlines
            are text and a file or row is a unit; `auto`: `eos` for text files, `keep` for the rest.
    """

    data: str
    config: str | None = None
    revision: str | None = None
    text_column: str | None = None
    client_column: str | None = None
    label_column: str | None = None
    time_column: str | None = None
    newline: Newline = "auto"


@dataclass(frozen=True)
class Corpus:
    """What was read.

    Attributes:
        splits: `train`, perhaps `valid`, and `test`.
        notices: sentences about what was left out, and where the test text is from.
    """

    splits: Mapping[str, Texts]
    notices: tuple[str, ...] = ()


def read(source: Source) -> Corpus:
    """Return the splits of a corpus; see `held_out` for one that has no test text of its own.

    Raises:
        DataError: nothing there, not readable, a missing column, no text.
    """
    notices: list[str] = []
    splits = {name: texts.in_time(source.data) for name, texts in _read(source, notices).items()}
    if "test" not in splits:
        train, test, how = held_out(splits["train"])
        splits = {"train": train, **{k: v for k, v in splits.items() if k != "train"}, "test": test}
        notices.append(f"no test text was given: {how}")
    for name, texts in splits.items():
        if not any(text.strip() for text in texts.texts):
            raise DataError(
                message("task.data", f"there is no text for {name}", got=source.data, fix="add some")
            )
    return Corpus(splits, tuple(notices))


def _read(source: Source, notices: list[str]) -> dict[str, Texts]:
    if source.data == "builtin":
        from fedsim.builtin import documents

        corpus = documents()
        whole = Texts([d.text for d in corpus], [d.name for d in corpus], [d.group for d in corpus])
        return {"train": _by_line(whole) if source.newline == "eos" else whole}
    path = Path(source.data)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as problem:
        raise unreadable(
            path, UnreadableError(f"cannot be read ({problem.strerror})", fix="check the path")
        ) from problem
    if is_folder:
        splits = split_files(path, notices)
        return {name: _joined(files, source) for name, files in splits.items()}
    if is_file:
        return {"train": _joined([TextFile(path, path.stem)], source)}
    if is_hub_name(source.data) and not is_file_name(source.data):
        tables = from_hub(source.data, source.config, source.revision, notices=notices)
        return {name: _table(part, source, f"{source.data} {name}") for name, part in tables.items()}
    fix = "give a folder, a .txt, .parquet, .csv or .jsonl file, a hub name, or builtin"
    raise DataError(message("task.data", "there is no such file or folder", got=source.data, fix=fix))


def _joined(files: Iterable[TextFile], source: Source) -> Texts:
    parts = [_file(file, source) for file in files]
    return Texts([t for p in parts for t in p.texts], **joined(parts, timed=source.time_column is not None))


def _file(file: TextFile, source: Source) -> Texts:
    path = file.path
    refuse_kind(path)
    if path.suffix.lower() in SUFFIXES:
        return _table(columns(path), source, shown(path), file.owner if file.by_folder else "table")
    named = {
        "text_column": source.text_column,
        "client_column": source.client_column,
        "label_column": source.label_column,
        "time_column": source.time_column,
    }
    for field, name in named.items():
        if name is not None:
            fix = "use a .csv, .parquet or .jsonl file, or drop it"
            raise DataError(
                message(f"task.{field}", f"a text file has no columns ({shown(path)})", got=name, fix=fix)
            )
    try:
        text = read_text(path)
    except UnreadableError as problem:
        raise unreadable(path, problem) from problem
    if not text.strip():
        fix = "give a file with text, or remove it"
        raise DataError(message("task.data", "the file is empty", got=shown(path), fix=fix))
    whole = Texts([text], [file.owner])
    return whole if source.newline == "keep" else _by_line(whole)


def _by_line(whole: Texts) -> Texts:
    """Make each line a unit, as PTB is read: blank ones too, white space at both ends apart."""
    cut = [t.removesuffix("\n").split("\n") for t in whole.texts]
    rows = [i for i, lines in enumerate(cut) for _ in lines]
    return replace(whole.take(rows), texts=[line.strip() for lines in cut for line in lines])


def _table(table: Columns, source: Source, where: str, owner: str = "table") -> Texts:
    name = source.text_column or text_column(table, where)
    texts = column(table, name, "text_column", where)
    owners, labels = [owner] * len(texts), None
    if source.client_column is not None:
        owners = [str(v) for v in column(table, source.client_column, "client_column", where)]
    if source.label_column is not None:
        labels = [str(v) for v in column(table, source.label_column, "label_column", where)]
    for row, text in enumerate(texts, start=1):
        _check_text(text, name, f"{where}: row {row}")
    if not texts:
        fix = "put at least one row into it"
        raise DataError(message("task.data", f"{where}: the table has no rows", fix=fix))
    if (
        source.newline == "auto"
    ):  # as Wikitext's rows have it: the newline at the end is what <eos> stands for
        texts = [text.removesuffix("\n") for text in texts]
    times = None
    if source.time_column is not None:
        times = moments(column(table, source.time_column, "time_column", where), where)
    units = Texts(texts, owners, labels, rows=source.client_column is None, times=times)
    return _by_line(units) if source.newline == "eos" else units


def _check_text(text: object, name: str, where: str) -> None:
    """Raise a DataError if a cell is no text, or none that could be written as UTF-8."""
    if isinstance(text, str):
        half = None if text.isascii() else half_character(text)
        if half is not None:
            what, fix = f"{where} holds half of a character", "write the whole character, or remove it"
            raise DataError(message("task.data", what, got=half, fix=fix))
        return
    if is_chat(text):
        what = f"{where}: the column {name!r} holds chats (lists of messages), not text"
        raise DataError(message("task.text_column", what, got=name, fix=CHAT_FIX))
    fix = "fill it in, or remove the row" if text is None else "choose a column of text, or remove the row"
    got = text if text is None or isinstance(text, int | float) else Shown(f"{str(text)[:60]!r}")
    raise DataError(message("task.text_column", f"{where} is not text", got=got, fix=fix))


def digest(splits: Mapping[str, Texts]) -> str:
    """Return the SHA-256 of all units of all splits, in order."""
    total = hashlib.sha256()
    for name, texts in splits.items():
        total.update(f"{name}:{len(texts)}".encode())
        for text in texts.texts:
            data = text.encode("utf-8", "surrogatepass")
            total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()
