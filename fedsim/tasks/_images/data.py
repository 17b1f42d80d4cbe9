"""Images and their classes: from folders, parquet, the Hugging Face hub, and the shipped digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.arrays import Ints
from fedsim.builtin import digits
from fedsim.errors import DataError, message, nearest
from fedsim.tasks import _tables
from fedsim.tasks._images import folders
from fedsim.tasks._images.labels import classes_of, text_of
from fedsim.tasks._images.pictures import Part, Pictures
from fedsim.tasks._images.pixels import SUFFIXES, stacked
from fedsim.tasks._natural.times import moments

COLUMNS = {
    "image": ("img", "image", "pixels", "jpg", "png", "file_name", "filename", "image_path", "path", "file"),
    "label": ("label", "labels", "fine_label", "class"),
}
"""Names that are taken for a column when it is not given."""
PREPARED = "8 bit, upright, on white where transparent; centre-cropped to a square, PIL's bicubic where a file has another size"
"""How images come to the model's size; the extractor has its own way from there."""
HELD_OUT = 10
"""Without a test split, one in so many images of each class is held out, the last of every ten."""


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        data: `builtin`, a folder or file, or a hub name.
        config, revision: of a hub data set.
        image_column, label_column: of a table; None: a usual name.
        channels, size: what images become: grey (1) or RGB (3), `size` pixels a side.
        client_column, time_column: of a table; None: nobody says whose an image is, or when it was made.
    """

    data: str
    config: str | None
    revision: str | None
    image_column: str | None
    label_column: str | None
    channels: int
    size: int
    client_column: str | None = None
    time_column: str | None = None


@dataclass(frozen=True)
class Album:
    """What was read.

    Attributes:
        splits: `train` and `test`.
        notices: sentences about what was left out, and where the test images come from.
    """

    splits: dict[str, Pictures]
    notices: tuple[str, ...] = ()


def read(source: Source) -> Album:
    """Return the splits `train` and `test`.

    A single file, a folder or a hub set without a test split holds out one in ten of each class.

    Raises:
        DataError: nothing there, no images, or images without classes where a table needs them.
    """
    if source.data == "builtin":
        splits = {"train": _builtin(source)}
        held = digits.is_test(splits["train"].labels)
        return Album({"train": splits["train"].take(~held), "test": splits["train"].take(held)})
    parts, notices = _parts(source)
    splits = _numbered({split: part.in_time() for split, part in parts.items()})
    if "test" not in splits:
        held = np.zeros(len(splits["train"]), dtype=bool)
        for label in np.unique(splits["train"].labels):
            held[np.flatnonzero(splits["train"].labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
        splits = {"train": splits["train"].take(~held), "test": splits["train"].take(held)}
        notices += (f"no test split is given: one in {HELD_OUT} images of each class is held out",)
    for split, pictures in splits.items():
        if not len(pictures):
            fix = "give more images, or a test split of your own"
            raise DataError(message("task.data", f"no image is left for {split}", got=source.data, fix=fix))
    return Album(splits, notices)


def _parts(source: Source) -> tuple[dict[str, Part], tuple[str, ...]]:
    path = Path(source.data)
    if path.is_dir():
        parts, notices = _of_parquet(path, source)
        return (parts, notices) if parts else _of_folder(path, source)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        fix = "give the folder it lies in"
        raise DataError(message("task.data", "is a single image", got=source.data, fix=fix))
    if path.is_file():
        names = _class_names(path) if path.suffix.lower() == ".parquet" else {}
        return {"train": _of_table(_tables.columns(path), source, str(path), names, path.parent)}, ()
    names = {}
    loaded = _tables.from_hub(source.data, source.config, source.revision, class_names=names)
    test = "test" if "test" in loaded else "valid"
    parts = {
        split: _of_table(loaded[name], source, source.data, names)
        for split, name in (("train", "train"), ("test", test))
        if name in loaded
    }
    said = test == "valid" and test in loaded
    return parts, ("the validation data are the test data: there are no others",) if said else ()


def _numbered(parts: Mapping[str, Part]) -> dict[str, Pictures]:
    """Return the splits with one list of classes: the source's own, or that of all labels."""
    names = max((part.names for part in parts.values()), key=len)
    if names:
        if any(names[: len(part.names)] != part.names for part in parts.values()):
            fix = "give both the same class folders or labels"
            raise DataError(message("task.data", "train and test have different classes", fix=fix))
        return {split: p.pictures(_named(p, names), names) for split, p in parts.items()}
    known = set(parts["train"].labels)
    unseen = {label for part in parts.values() for label in part.labels if label not in known}
    if unseen and not all(label.isdecimal() for label in known | unseen):
        what = "the test split has classes that train has not"
        fix = "give both the same class folders or labels"
        raise DataError(message("task.data", what, got=", ".join(sorted(unseen)[:5]), fix=fix))
    classes = classes_of(known | unseen)
    return {split: p.pictures(classes.of(p.labels), classes.names) for split, p in parts.items()}


def _named(part: Part, names: tuple[str, ...]) -> Ints:
    """Return labels as numbers of the names that the source gives."""
    for label in set(part.labels):
        if not (label.isascii() and label.isdecimal() and int(label) < len(names)):
            what = f"{part.where}: a class is none of the {len(names)} named ones"
            fix = "give labels that the table's own list of classes names"
            raise DataError(message("task.label_column", what, got=label, fix=fix))
    return np.array([int(label) for label in part.labels], dtype=np.int64)


def digest(splits: dict[str, Pictures]) -> str:
    """Return the SHA-256 of all images and classes as they are trained on."""
    import hashlib

    whole = hashlib.sha256()
    for name in sorted(splits):
        whole.update(name.encode() + digits.data_hash(splits[name].pixels, splits[name].labels).encode())
    return whole.hexdigest()


def _builtin(source: Source) -> Pictures:
    grey, labels = digits.images()
    pixels = (
        grey
        if (source.channels, source.size) == (1, 8)
        else stacked(grey[:, 0], source.channels, source.size, "the digits")
    )
    return Pictures(pixels, labels, tuple(str(d) for d in range(10)))


# files ------------------------------------------------------------------------------------------


def _of_parquet(root: Path, source: Source) -> tuple[dict[str, Part], tuple[str, ...]]:
    files_of, notices = folders.parquet_files(root)
    parts = {}
    for split, files in files_of.items():
        read = [
            _of_table(_tables.columns(file), source, str(file), _class_names(file), file.parent)
            for file in files
        ]
        parts[split] = _joined(read)
    if parts and "train" not in parts:
        fix = "call one of the files or folders train"
        raise DataError(message("task.data", "the parquet files hold no train split", got=str(root), fix=fix))
    return parts, notices


def _joined(parts: Sequence[Part]) -> Part:
    """Return the files of a split as one, each with its own paths and names of classes; names that differ become the labels.

    Raises:
        DataError: some files name their classes and others only number them.
    """
    first = parts[0]
    pixels = np.concatenate([part.pixels for part in parts])
    owners = None if first.owners is None else [owner for part in parts for owner in part.owners or ()]
    times = None if first.times is None else [time for part in parts for time in part.times or ()]
    if all(part.names == first.names for part in parts):
        labels = [label for part in parts for label in part.labels]
        return Part(pixels, labels, first.names, first.where, owners, times)
    nameless = next((part for part in parts if not part.names), None)
    if nameless is not None:
        named = next(part for part in parts if part.names)
        what = f"{nameless.where} has no names of classes, and {named.where} has"
        raise DataError(message("task.data", what, fix="give all files of a split the same list of classes"))
    labels = [part.names[number] for part in parts for number in _named(part, part.names)]
    return Part(pixels, labels, (), first.where, owners, times)


def _class_names(file: Path) -> dict[str, list[str]]:
    """Return the names of classes by column, which `datasets` keeps in a parquet file's metadata, if it has any."""
    import json

    import pyarrow.parquet

    try:
        raw = (pyarrow.parquet.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    except Exception as problem:  # pyarrow's own
        said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        fix = "give a parquet file of images and labels"
        raise DataError(message("task.data", f"{file} cannot be read ({said})", fix=fix)) from problem
    try:
        features = dict(json.loads(raw)["info"]["features"])
    except (ValueError, LookupError, TypeError):  # there are none, or another program's
        return {}
    named = {name: f.get("names") for name, f in features.items() if isinstance(f, dict)}
    return {name: [str(n) for n in names] for name, names in named.items() if isinstance(names, list)}


def _of_folder(root: Path, source: Source) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Read images whose folder is their class; see `fedsim.tasks._images.folders`."""
    for field, name in (("client_column", source.client_column), ("time_column", source.time_column)):
        if name is not None:
            fix = "give a table of paths and labels, or parquet files, or drop it"
            raise DataError(message(f"task.{field}", "a folder of images has no columns", got=name, fix=fix))
    found = folders.placed(root)
    if "train" not in found.files:
        fix = "call the folder of the training images train"
        raise DataError(message("task.data", "all images are test images", got=str(root), fix=fix))
    return {
        split: Part(stacked(files, source.channels, source.size), found.classes[split], (), str(root))
        for split, files in found.files.items()
    }, found.notices


def _of_table(
    columns: dict[str, list[Any]],
    source: Source,
    where: str,
    names: dict[str, list[str]],
    beside: Path | None = None,
) -> Part:
    """Read the images and labels of a table; relative paths in it start `beside` it."""
    image = _column(columns, source.image_column, "image", where)
    label = _column(columns, source.label_column, "label", where)
    if not columns[label]:
        raise DataError(message("task.data", f"{where}: the table has no rows", fix="give one with images"))
    labels = text_of(columns[label], label, where)
    if len(columns[image]) != len(labels):
        what = f"{where}: {len(columns[image])} images have {len(labels)} labels"
        raise DataError(message("task.data", what, fix="give every file of a split the same columns"))
    words = all(isinstance(value, str) for value in columns[label])
    named = () if words else tuple(names.get(label, []))
    owners = times = None
    if source.client_column is not None:
        owners = [str(v) for v in _tables.column(columns, source.client_column, "client_column", where)]
    if source.time_column is not None:
        times = moments(_tables.column(columns, source.time_column, "time_column", where), where)
    pixels = stacked(columns[image], source.channels, source.size, where, beside)
    return Part(pixels, labels, named, where, owners, times)


def _column(columns: dict[str, list[Any]], column: str | None, kind: str, where: str) -> str:
    if column is not None:
        if column not in columns:
            raise DataError(
                message(
                    f"task.{kind}_column",
                    f"{where}: there is no such column",
                    got=column,
                    fix=nearest(column, columns),
                )
            )
        return column
    for name in COLUMNS[kind]:
        if name in columns:
            return name
    fix = f"set task.{kind}_column to one of: {', '.join(columns) or 'no columns at all'}"
    raise DataError(message(f"task.{kind}_column", f"{where}: which column is the {kind}?", fix=fix))
