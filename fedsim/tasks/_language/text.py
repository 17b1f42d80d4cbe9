"""Text from wherever it is: the built-in corpus, folders, files, the Hugging Face hub.

All of it becomes units: a line of a text file, a row of a table, or a document. Each has an owner
(for `natural`) and perhaps a label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fedsim.errors import DataError, message
from fedsim.tasks._tables import Columns, column, columns, from_hub, text_column
from fedsim.training.hub import is_hub_name

TEXT = (".txt", ".text", ".tokens", ".raw", ".md")
TABLES = (".parquet", ".csv", ".jsonl", ".json")
SPLITS = ("train", "valid", "test")
Newline = Literal["auto", "eos", "keep"]


@dataclass(frozen=True)
class Texts:
    """Units of one split, in their order.

    Attributes:
        texts: the text of each unit.
        owners: who wrote it: a client column's value, the document or the file.
        labels: its class; None if there is none.
    """

    texts: list[str]
    owners: list[str]
    labels: list[str] | None = None

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> Texts:
        """Return some units."""
        labels = None if self.labels is None else [self.labels[i] for i in rows]
        return Texts([self.texts[i] for i in rows], [self.owners[i] for i in rows], labels)


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        data: `builtin`, a folder, a file or a hub name.
        config, revision: of a hub data set.
        text_column, client_column, label_column: of tables.
        newline: `eos`: each line of a text is a unit, stripped, its newline is `<eos>`; `keep`: newlines
            are text and a file or row is a unit; `auto`: `eos` for text files, `keep` for the rest.
    """

    data: str
    config: str | None = None
    revision: str | None = None
    text_column: str | None = None
    client_column: str | None = None
    label_column: str | None = None
    newline: Newline = "auto"


def read(source: Source) -> dict[str, Texts]:
    """Return the splits `train`, `test` and, if there is one, `valid`.

    Without test data of its own, a tenth is held out: the last units of each owner with at least
    ten, else the last lines of each text with at least ten, else the last units of all.

    Raises:
        DataError: nothing there, not readable, a missing column, no text.
    """
    splits = _read(source)
    if "test" not in splits:
        splits["train"], splits["test"] = held_out(splits["train"])
    for name, texts in splits.items():
        if not any(text.strip() for text in texts.texts):
            raise DataError(
                message("task.data", f"there is no text for {name}", got=source.data, fix="add some")
            )
    return splits


def _read(source: Source) -> dict[str, Texts]:
    if source.data == "builtin":
        from fedsim.builtin import documents

        corpus = documents()
        whole = Texts([d.text for d in corpus], [d.name for d in corpus], [d.group for d in corpus])
        return {"train": _by_line(whole) if source.newline == "eos" else whole}
    path = Path(source.data)
    if path.is_dir():
        return {name: _joined(files, source) for name, files in _split_files(path).items()}
    if path.is_file():
        return {"train": _joined([path], source)}
    if is_hub_name(source.data) and path.suffix not in TEXT + TABLES:
        tables = from_hub(source.data, source.config, source.revision)
        return {name: _table(part, source, f"{source.data} {name}") for name, part in tables.items()}
    fix = "give a folder, a .txt, .parquet, .csv or .jsonl file, a hub name, or builtin"
    raise DataError(message("task.data", "there is no such file or folder", got=source.data, fix=fix))


def _split_files(folder: Path) -> dict[str, list[Path]]:
    """Find the files of each split by their names, or else by those of the folders they are in."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in TEXT + TABLES)
    files_of: dict[str, list[Path]] = {}
    for path in files:
        parts = path.relative_to(folder).parts
        for part in reversed(parts):
            names = [split for split in SPLITS if split in part.lower()]
            if len(names) > 1:
                fix = "name it after one of train, valid, test"
                raise DataError(message("task.data", "one file names several splits", got=str(path), fix=fix))
            if names:
                files_of.setdefault(names[0], []).append(path)
                break
    if "train" not in files_of:
        seen = ", ".join(p.name for p in files[:5]) or "no text or table at all"
        fix = "name a file *train*.txt (.parquet, .csv, .jsonl), and if you have them *valid* and *test*; or give one file"
        raise DataError(
            message("task.data", f"no file of the folder is called *train* (there is {seen})", fix=fix)
        )
    order = [name for name in SPLITS if name in files_of]
    return {name: files_of[name] for name in order}


def _joined(files: Iterable[Path], source: Source) -> Texts:
    parts = [_file(path, source) for path in files]
    labels = None
    if all(part.labels is not None for part in parts):
        labels = [label for part in parts for label in part.labels or ()]
    return Texts([t for p in parts for t in p.texts], [o for p in parts for o in p.owners], labels)


def _file(path: Path, source: Source) -> Texts:
    if path.suffix in TABLES:
        return _table(columns(path), source, str(path))
    if path.suffix not in TEXT:
        fix = f"rename it to one of {', '.join(TEXT + TABLES)}"
        raise DataError(message("task.data", "this kind of file cannot be read", got=str(path), fix=fix))
    for field in ("text_column", "client_column", "label_column"):
        if (name := getattr(source, field)) is not None:
            fix = "use a .csv, .parquet or .jsonl file, or drop it"
            raise DataError(
                message(f"task.{field}", f"a text file has no columns ({path})", got=name, fix=fix)
            )
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as problem:
        fix = "save it as UTF-8"
        raise DataError(message("task.data", f"{path} cannot be read ({problem})", fix=fix)) from problem
    if not text.strip():
        raise DataError(message("task.data", "the file is empty", got=str(path), fix="give a file with text"))
    whole = Texts([text], [path.stem])
    return whole if source.newline == "keep" else _by_line(whole)


def _by_line(whole: Texts) -> Texts:
    """Make each line a unit, as PTB is read: blank ones too, white space at both ends apart."""
    cut = [t.removesuffix("\n").split("\n") for t in whole.texts]
    rows = [i for i, lines in enumerate(cut) for _ in lines]
    return replace(whole.take(rows), texts=[line.strip() for lines in cut for line in lines])


def _table(table: Columns, source: Source, where: str) -> Texts:
    name = source.text_column or text_column(table, where)
    texts = column(table, name, "text_column", where)
    owners = ["table"] * len(texts)
    if source.client_column is not None:
        owners = [str(v) for v in column(table, source.client_column, "client_column", where)]
    labels = None
    if source.label_column is not None:
        labels = [str(v) for v in column(table, source.label_column, "label_column", where)]
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            fix = "choose a column of text, or remove the row"
            raise DataError(message("task.text_column", f"{where}: row {row} is not text", got=text, fix=fix))
    if (
        source.newline == "auto"
    ):  # as Wikitext's rows have it: the newline at the end is what <eos> stands for
        texts = [text.removesuffix("\n") for text in texts]
    units = Texts(texts, owners, labels)
    return _by_line(units) if source.newline == "eos" else units


def held_out(whole: Texts) -> tuple[Texts, Texts]:
    """Return (train, test): the last tenth of each owner's units, or of each text's lines."""
    rows: dict[str, list[int]] = {}
    for row, owner in enumerate(whole.owners):
        rows.setdefault(owner, []).append(row)
    trained, tested = [], []
    texts = {False: list(whole.texts), True: list(whole.texts)}
    for mine in rows.values():
        if len(mine) >= 10:
            cut = len(mine) - len(mine) // 10
            trained += mine[:cut]
            tested += mine[cut:]
            continue
        for row in mine:
            lines = whole.texts[row].splitlines(keepends=True)
            trained.append(row)
            if len(lines) >= 10:
                cut = len(lines) - len(lines) // 10
                texts[False][row], texts[True][row] = "".join(lines[:cut]), "".join(lines[cut:])
                tested.append(row)
    if not tested:
        cut = len(whole) - max(1, len(whole) // 10)
        trained, tested = list(range(cut)), list(range(cut, len(whole)))
    if not trained:
        fix = "give a longer text, or a folder with *train* and *test* files"
        raise DataError(message("task.data", "too short to hold out a tenth for testing", fix=fix))
    train, test = replace(whole, texts=texts[False]), replace(whole, texts=texts[True])
    return train.take(sorted(trained)), test.take(sorted(tested))


def digest(splits: dict[str, Texts]) -> str:
    """Return the SHA-256 of all units of all splits, in order."""
    total = hashlib.sha256()
    for name, texts in splits.items():
        total.update(f"{name}:{len(texts)}".encode())
        for text in texts.texts:
            data = text.encode("utf-8", "surrogatepass")
            total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()
