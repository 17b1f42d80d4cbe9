"""Folders of images: which file is a picture, of which split and of which class, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import DataError, message
from fedsim.files.folders import Contents, contents, listed
from fedsim.files.opened import UnreadableError
from fedsim.tasks._images.pixels import SUFFIXES
from fedsim.tasks._split_names import split_called, split_of

LISTS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Files that may be a list of pictures and their labels."""


@dataclass(frozen=True)
class Placed:
    """Where images lie.

    Attributes:
        files: of each split, `train` and `test`.
        classes: of each of its files.
        notices: sentences about what is not read.
    """

    files: Mapping[str, list[Path]]
    classes: Mapping[str, list[str]]
    notices: tuple[str, ...]


def parquet_files(root: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return the parquet files of a folder by split, and what is said about them."""
    files_of: dict[str, list[Path]] = {}
    for path in _contents(root, (".parquet",)).files:
        split = split_of(path.relative_to(root).parts, str(path)) or "train"
        files_of.setdefault(split, []).append(path)
    return _without_valid(files_of)


def placed(root: Path) -> Placed:
    """Return the images of each split and their classes: `[train|test]/CLASS/*.png`; without folders they are one class.

    Folders in folders are classes by their path (`dogs/poodle`), but for one that all of them end with (`CLASS/images`).

    A folder at the top called by a split is one if it has folders below, or if all at the top are called so:
    `train/` beside `bus/` is a class of pictures of trains.

    Raises:
        DataError: the folder holds no images.
    """
    inside = _contents(root, SUFFIXES)
    if not inside.files:
        fix = f"give a folder of images ({', '.join(SUFFIXES)}), one folder a class, or of parquet files"
        raise DataError(message("task.data", "the folder holds no images", got=str(root), fix=fix))
    places = _places(inside.files, root)
    tops = {place[0] for place in places if place}
    deep = {place[0] for place in places if len(place) > 1}
    all_called = all(map(split_called, tops))
    splits = {top: split for top in tops if (split := split_called(top)) and (top in deep or all_called)}
    files: dict[str, list[Path]] = {}
    below: dict[Path, tuple[str, ...]] = {}
    for path, place in zip(inside.files, places, strict=True):
        split = splits.get(place[0]) if place else None
        files.setdefault(split or "train", []).append(path)
        below[path] = place if split is None else place[1:]
    kept, notices = _without_valid(files)
    classes = {path: name for paths in kept.values() for path, name in _classes(paths, below).items()}
    notices += _said_of_classes(classes.values())
    if inside.left_out:
        notices += (f"not read, as no images: {listed(root, inside.left_out)}",)
    if set(classes.values()) == {"all"} and (
        lists := [p for p in inside.left_out if p.suffix.lower() in LISTS]
    ):
        notices += (f"all images are of one class; for the labels of a list set task.data: {lists[0]}",)
    return Placed(kept, {split: [classes[p] for p in paths] for split, paths in kept.items()}, notices)


def _classes(paths: Sequence[Path], below: Mapping[Path, tuple[str, ...]]) -> dict[Path, str]:
    """Return the class of each file of a split: the path of its folders, without one that is the last of all (`n01/images`)."""
    folders = [below[path] for path in paths]
    while all(place[-1:] == folders[0][-1:] and len(place) > 1 for place in folders):
        folders = [place[:-1] for place in folders]
    return {path: "/".join(place) or "all" for path, place in zip(paths, folders, strict=True)}


def _said_of_classes(classes: Collection[str]) -> tuple[str, ...]:
    deep = sorted({name for name in classes if "/" in name})
    if not deep:
        return ()
    return (f"a folder in a folder is a class of its own, as {deep[0]}: {len(set(classes))} classes",)


def _contents(root: Path, suffixes: tuple[str, ...]) -> Contents:
    try:
        return contents(root, suffixes)
    except UnreadableError as problem:
        raise DataError(message("task.data", str(problem), fix="check its permissions")) from problem


def _places(files: tuple[Path, ...], root: Path) -> list[tuple[str, ...]]:
    """Return the folders of each file below the data folder, those around all of it apart."""
    places = [path.relative_to(root).parts[:-1] for path in files]
    while all(place[:1] == places[0][:1] and place[1:2] for place in places) and not split_called(
        places[0][0]
    ):
        places = [place[1:] for place in places]
    return places


def _without_valid(files: Mapping[str, list[Path]]) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Return files by split, `train` and `test`: validation data are test data where there are no others, else not read."""
    kept = {split: files[split] for split in ("train", "test") if split in files}
    valid = files.get("valid", [])
    if not valid:
        return kept, ()
    if "test" in kept:
        return kept, (f"not read, as there is a test split: {len(valid)} files of validation data",)
    return kept | {"test": valid}, ("the validation data are the test data: there are no others",)
