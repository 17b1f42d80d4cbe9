"""Examples from wherever they are: the shipped ones, folders, tables, the Hugging Face hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsim.builtin.questions import questions
from fedsim.errors import DataError, message
from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import shown
from fedsim.tasks._chats.examples import Example, Examples, examples_of
from fedsim.tasks._chats.settings import Columns, Format
from fedsim.tasks._language.folder import TextFile, is_file_name, refuse_kind, split_files
from fedsim.tasks._language.held_out import TENTH, groups
from fedsim.tasks._language.units import joined
from fedsim.tasks._natural.times import moments
from fedsim.tasks._tables import SUFFIXES, column, columns, from_hub, unreadable
from fedsim.training.chats.template import ANSWERS
from fedsim.training.hub import is_hub_name


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        data: `builtin`, a folder, a file or a hub name.
        kind: what a row is.
        columns: names of its columns.
        answered: whether each chat needs an answer.
        config, revision: of a hub data set.
        client_column, label_column, time_column: of tables.
    """

    data: str
    kind: Format
    columns: Columns
    answered: bool = True
    config: str | None = None
    revision: str | None = None
    client_column: str | None = None
    label_column: str | None = None
    time_column: str | None = None


def read(source: Source) -> tuple[dict[str, Examples], list[str]]:
    """Return examples by split (`train`, perhaps `valid`, and `test`), and what is said about them.

    Without test examples, the last tenth of each owner's of each label are the test; of few, of the whole.

    Raises:
        DataError: nothing there, not readable, a column that is missing, a row that is no example.
    """
    notices: list[str] = []
    splits = {name: part.in_time(source.data) for name, part in _read(source, notices).items()}
    if "test" not in splits:
        train, test = held_out(splits["train"])
        splits = {"train": train, **{k: v for k, v in splits.items() if k != "train"}, "test": test}
        notices.append("no test examples were given: the last tenth is held out, and nobody trains on it")
    return splits, notices


def held_out(whole: Examples) -> tuple[Examples, Examples]:
    """Return training and test examples.

    Raises:
        DataError: there is one example only.
    """
    large = [group for group in groups(whole.texts) if len(group) >= TENTH]
    tested = {row for group in large for row in group[len(group) - len(group) // TENTH :]}
    if not tested:
        tested = set(range(len(whole) - max(1, len(whole) // TENTH), len(whole)))
    if len(tested) == len(whole):
        fix = "give more of them, or a folder with *train* and *test* files"
        raise DataError(message("task.data", "one example is too few to hold one out for testing", fix=fix))
    trained = [row for row in range(len(whole)) if row not in tested]
    return whole.take(trained), whole.take(sorted(tested))


def _read(source: Source, notices: list[str]) -> dict[str, Examples]:
    if source.data == "builtin":
        return {"train": _shipped()}
    path = Path(source.data)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as problem:
        error = UnreadableError(f"cannot be read ({problem.strerror})", fix="check the path")
        raise unreadable(path, error) from problem
    if is_folder:
        return {name: _joined(files, source) for name, files in split_files(path, notices).items()}
    if is_file:
        return {"train": _joined([TextFile(path, path.stem)], source)}
    if is_hub_name(source.data) and not is_file_name(source.data):
        tables = from_hub(source.data, source.config, source.revision, notices=notices)
        return {name: _table(part, source, f"{source.data} {name}") for name, part in tables.items()}
    fix = "give a folder, a .jsonl, .parquet or .csv file, a hub name, or builtin"
    raise DataError(message("task.data", "there is no such file or folder", got=source.data, fix=fix))


def _shipped() -> Examples:
    """Return the shipped questions as chats: what a function does, asked and answered."""
    asked = questions()
    turns = [
        Example(({"role": "user", "content": q.question}, {"role": ANSWERS, "content": q.answer}))
        for q in asked
    ]
    return Examples(turns, [q.document for q in asked], [q.group for q in asked])


def _joined(files: Iterable[TextFile], source: Source) -> Examples:
    parts = [_file(file, source) for file in files]
    timed = source.time_column is not None
    return Examples([e for p in parts for e in p.examples], **joined(parts, timed=timed))


def _file(file: TextFile, source: Source) -> Examples:
    refuse_kind(file.path)
    if file.path.suffix.lower() not in SUFFIXES:
        what = f"a text file has no rows of format {source.kind}"
        fix = "write them as .jsonl, .parquet or .csv, or set task.format: text"
        raise DataError(message("task.data", what, got=shown(file.path), fix=fix))
    return _table(
        columns(file.path, nested=True), source, shown(file.path), file.owner if file.by_folder else "table"
    )


def _table(table: dict[str, list[object]], source: Source, where: str, owner: str = "table") -> Examples:
    examples = examples_of(table, source.kind, source.columns, where, answered=source.answered)
    owners, labels = [owner] * len(examples), None
    if source.client_column is not None:
        owners = [str(v) for v in column(table, source.client_column, "client_column", where)]
    if source.label_column is not None:
        labels = [str(v) for v in column(table, source.label_column, "label_column", where)]
    times = None
    if source.time_column is not None:
        times = moments(column(table, source.time_column, "time_column", where), where)
    return Examples(examples, owners, labels, rows=source.client_column is None, times=times)


def digest(splits: Mapping[str, Examples]) -> str:
    """Return the SHA-256 of all examples of all splits, in order."""
    total = hashlib.sha256()
    for name, part in splits.items():
        total.update(f"{name}:{len(part)}".encode())
        for example in part.examples:
            data = example.canonical.encode("utf-8", "surrogatepass")
            total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()
