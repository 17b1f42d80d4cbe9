"""Which files of a folder are text, of which split, and whose; what is left out is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import DataError, message
from fedsim.files.folders import contents, listed
from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import PACKED, shown
from fedsim.tasks._split_names import SPLIT_WORDS, owner_of, split_of, splits_named
from fedsim.tasks._tables import SUFFIXES, unreadable

TEXT = (".txt", ".text", ".tokens", ".raw", ".md")
READABLE = TEXT + SUFFIXES
_SAVED_AS = {
    "save it as CSV (UTF-8)": (".xlsx", ".xls", ".ods", ".numbers"),
    "save it as plain text (.txt, UTF-8)": (".docx", ".doc", ".odt", ".rtf", ".pdf", ".epub", ".html", ".htm", ".xml"),
    "write it as .parquet": (".arrow", ".feather", ".pkl", ".pickle", ".npy", ".npz", ".pt", ".h5", ".hdf5"),
}  # fmt: skip


@dataclass(frozen=True)
class TextFile:
    """A file, and whose it is: its folders below the data folder without what names the split, else its own name.

    Attributes:
        path: of the file.
        owner: of its lines.
        by_folder: whether a folder says so; a table's name alone says nothing about its rows.
    """

    path: Path
    owner: str
    by_folder: bool = False


def split_files(folder: Path, notices: list[str]) -> dict[str, list[TextFile]]:
    """Return the files of each split, told by the names of their folders or their own.

    Args:
        folder: of the data.
        notices: takes a sentence about files that are left out.

    Raises:
        DataError: no file is of the split train, a name says several splits, or a folder cannot be listed.
    """
    try:
        found = contents(folder, READABLE)
    except UnreadableError as problem:
        raise unreadable(folder, problem) from problem
    split_by_path = {path: split_of(path.relative_to(folder).parts, shown(path)) for path in found.files}
    paths_of: dict[str, list[Path]] = {name: [] for name in SPLIT_WORDS}
    for path, split in split_by_path.items():
        if split is not None:
            paths_of[split].append(path)
    unnamed = [path for path, split in split_by_path.items() if split is None]
    if not paths_of["train"]:
        raise _no_train(folder, found.files, found.left_out)
    if found.left_out:
        notices.append(_left_out(folder, found.left_out, "no text or table that can be read"))
    if unnamed:
        notices.append(_left_out(folder, unnamed, "no name of a split in their paths"))
    for split, paths in paths_of.items():
        kinds = sorted({path.suffix.lower() for path in paths})
        if len(kinds) > 1:
            notices.append(
                f"{split} is read from files of several kinds, {', '.join(kinds)}: is the same in two of them?"
            )
    return {split: _owned(folder, paths) for split, paths in paths_of.items() if paths}


def _left_out(folder: Path, paths: Sequence[Path], why: str) -> str:
    count = f"{len(paths)} file{'s' if len(paths) > 1 else ''}"
    return f"{count} left out ({why}): {listed(folder, paths)}"


def _owned(folder: Path, paths: Sequence[Path]) -> list[TextFile]:
    """Return files with their owners; folders around all of them say nothing."""
    parts = [path.relative_to(folder).parts for path in paths]
    while all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    return [
        TextFile(path, owner_of(part), by_folder=not all(map(splits_named, part[:-1])))
        for path, part in zip(paths, parts, strict=True)
    ]


def _no_train(folder: Path, files: Sequence[Path], left_out: Sequence[Path]) -> DataError:
    fix = "name a file *train*.txt (.parquet, .csv, .jsonl), and if you have them *valid* and *test*; or give one file"
    if not files and left_out and left_out[0].suffix.lower() not in READABLE:
        fix = _saved_as(left_out[0])
    seen = listed(folder, [*files, *left_out]) or "nothing that could be read"
    what = f"no file of the folder is called *train* (there is {seen})"
    return DataError(message("task.data", what, fix=fix))


def refuse_kind(path: Path) -> None:
    """Raise a DataError if a file's suffix is of no kind that can be read."""
    if path.suffix.lower() not in READABLE:
        what = "this kind of file cannot be read"
        raise DataError(message("task.data", what, got=shown(path), fix=_saved_as(path)))


def is_file_name(name: str) -> bool:
    """Tell whether a name ends as files do, and is no name of a data set on the hub."""
    suffix = Path(name).suffix.lower()
    return suffix in READABLE or suffix in PACKED or any(suffix in kinds for kinds in _SAVED_AS.values())


def _saved_as(path: Path) -> str:
    """Return how to make something readable of a file."""
    suffix = path.suffix.lower()
    if suffix in PACKED:
        return f"unpack it first: {PACKED[suffix]} {shown(path.name)}"
    if path.is_symlink() and path.is_dir():
        return f"give the folder itself, {shown(path.resolve())}: links to folders are not followed"
    return next(
        (fix for fix, kinds in _SAVED_AS.items() if suffix in kinds), f"give one of {', '.join(READABLE)}"
    )
