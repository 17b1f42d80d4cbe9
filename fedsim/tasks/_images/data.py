"""Images and their classes: from folders, parquet, the Hugging Face hub, and the shipped digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.builtin import digits
from fedsim.errors import DataError, message, nearest
from fedsim.tasks import _tables
from fedsim.tasks._images.pictures import Pictures
from fedsim.tasks._images.pixels import stacked

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")
COLUMNS = {
    "image": ("img", "image", "pixels", "jpg", "png"),
    "label": ("label", "labels", "fine_label", "class"),
}
"""Names that are taken for a column when it is not given."""
SPLITS = {"train": ("train",), "test": ("test", "valid", "val", "validation", "eval")}
PREPARED = "8 bit; centre-cropped to a square, PIL's bicubic where a file has another size"
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
    """

    data: str
    config: str | None
    revision: str | None
    image_column: str | None
    label_column: str | None
    channels: int
    size: int


def read(source: Source) -> dict[str, Pictures]:
    """Return the splits `train` and `test`.

    A single file, a folder or a hub set without a test split holds out one in ten of each class.

    Raises:
        DataError: nothing there, no images, or images without classes where a table needs them.
    """
    if source.data == "builtin":
        splits = {"train": _builtin(source)}
        held = digits.is_test(splits["train"].labels)
        return {"train": splits["train"].take(~held), "test": splits["train"].take(held)}
    path = Path(source.data)
    if path.is_dir():
        splits = _of_parquet(path, source) or _of_folder(path, source)
    elif path.is_file() and path.suffix.lower() in IMAGES:
        fix = "give the folder it lies in"
        raise DataError(message("task.data", "is a single image", got=source.data, fix=fix))
    elif path.is_file():
        names = _class_names(path) if path.suffix == ".parquet" else {}
        splits = {"train": _of_table(_tables.columns(path), source, str(path), names)}
    else:
        names = {}
        loaded = _tables.from_hub(source.data, source.config, source.revision, class_names=names)
        splits = {
            split: _of_table(loaded[name], source, source.data, names)
            for split, name in (("train", "train"), ("test", "test" if "test" in loaded else "valid"))
            if name in loaded
        }
    if "test" not in splits:
        held = np.zeros(len(splits["train"]), dtype=bool)
        for label in np.unique(splits["train"].labels):
            held[np.flatnonzero(splits["train"].labels == label)[HELD_OUT - 1 :: HELD_OUT]] = True
        splits = {"train": splits["train"].take(~held), "test": splits["train"].take(held)}
    splits = _alike(splits)
    if splits["train"].names != splits["test"].names:
        fix = "give both the same class folders or labels"
        raise DataError(
            message("task.data", "train and test have different classes", got=source.data, fix=fix)
        )
    for split, pictures in splits.items():
        if not len(pictures):
            fix = "give more images, or a test split of your own"
            raise DataError(message("task.data", f"no image is left for {split}", got=source.data, fix=fix))
    return splits


def _alike(splits: dict[str, Pictures]) -> dict[str, Pictures]:
    """Return the splits with the names of one where the other's classes, counted from 0, end earlier."""
    longest = max((part.names for part in splits.values()), key=len)
    return {
        split: Pictures(
            part.pixels, part.labels, longest if longest[: len(part.names)] == part.names else part.names
        )
        for split, part in splits.items()
    }


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


def _split_of(path: Path, root: Path) -> str:
    """Return which split a file belongs to by its folders and its name; `train` if nothing says so."""
    words = [part.lower() for part in path.relative_to(root).parts]
    for part in words:
        for split, names in SPLITS.items():
            if any(part == name or part.startswith((f"{name}-", f"{name}_", f"{name}.")) for name in names):
                return split
    return "train"


def _of_parquet(root: Path, source: Source) -> dict[str, Pictures]:
    parts: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.parquet")):
        parts.setdefault(_split_of(file, root), []).append(file)
    splits = {}
    for split, files in parts.items():
        columns: dict[str, list[Any]] = {}
        for file in files:
            for name, values in _tables.columns(file).items():
                columns.setdefault(name, []).extend(values)
        splits[split] = _of_table(columns, source, str(files[0]), _class_names(files[0]))
    if splits and "train" not in splits:
        fix = "call one of the files or folders train"
        raise DataError(message("task.data", "the parquet files hold no train split", got=str(root), fix=fix))
    return splits


def _class_names(file: Path) -> dict[str, list[str]]:
    """Return the names of classes by column, which `datasets` keeps in a parquet file's metadata."""
    import json

    import pyarrow.parquet

    raw = (pyarrow.parquet.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(raw).get("info", {}).get("features", {})
    return {name: f["names"] for name, f in features.items() if isinstance(f, dict) and "names" in f}


def _of_folder(root: Path, source: Source) -> dict[str, Pictures]:
    """Read images whose folder is their class: `[train|test]/CLASS/*.png`; images without folders are one class.

    A folder at the top called by a split is one if it has folders below, or if all at the top are called so:
    `train/` beside `bus/` is a class of pictures of trains.
    """
    files = [p for p in sorted(root.rglob("*")) if p.suffix.lower() in IMAGES]
    if not files:
        fix = f"give a folder of images ({', '.join(IMAGES)}), one folder a class, or of parquet files"
        raise DataError(message("task.data", "the folder holds no images", got=str(root), fix=fix))
    places = [p.relative_to(root).parts[:-1] for p in files]
    called = {word: split for split, words in SPLITS.items() for word in words}
    while (
        all(place[:1] == places[0][:1] and place[1:2] for place in places)
        and places[0][0].lower() not in called
    ):
        places = [place[1:] for place in places]  # a folder around all of it
    tops = {place[0] for place in places if place}
    deep = {place[0] for place in places if len(place) > 1}
    split_folders = {
        top
        for top in tops
        if top.lower() in called and (top in deep or called.keys() >= {name.lower() for name in tops})
    }
    belongs: dict[str, list[int]] = {"train": [], "test": []}
    classes = []
    for i, place in enumerate(places):
        inside = bool(place) and place[0] in split_folders
        belongs[called[place[0].lower()] if inside else "train"].append(i)
        folders = place[1:] if inside else place
        classes.append(folders[-1] if folders else "all")
    names = tuple(sorted(set(classes)))
    splits = {}
    for split, rows in belongs.items():
        if rows:
            pixels = stacked((files[i] for i in rows), source.channels, source.size)
            labels = np.array([names.index(classes[i]) for i in rows], dtype=np.int64)
            splits[split] = Pictures(pixels, labels, names)
    if "train" not in splits:
        fix = "call the folder of the training images train"
        raise DataError(message("task.data", "all images are test images", got=str(root), fix=fix))
    return splits


def _of_table(
    columns: dict[str, list[Any]], source: Source, where: str, names: dict[str, list[str]]
) -> Pictures:
    image = _column(columns, source.image_column, "image", where)
    label = _column(columns, source.label_column, "label", where)
    labels = columns[label]
    if not labels:
        raise DataError(message("task.data", f"{where}: the table has no rows", fix="give one with images"))
    for row, value in enumerate(labels, start=1):
        if value is None or value == "":
            fix = "fill it in, or remove the row"
            raise DataError(message("task.label_column", f"{where}: row {row} has no {label}", fix=fix))
    if all(isinstance(value, int | np.integer) for value in labels):
        numbers = np.array(labels, dtype=np.int64)
        if numbers.min() < 0:
            fix = "give labels from 0 on"
            raise DataError(message("task.label_column", f"{where}: a class is below 0", got=label, fix=fix))
        said = tuple(names.get(label, [])) or tuple(str(i) for i in range(int(numbers.max()) + 1))
    else:
        said = tuple(sorted({str(value) for value in labels}))
        numbers = np.array([said.index(str(value)) for value in labels], dtype=np.int64)
    if numbers.max() >= len(said):
        fix = "give labels that the table's own list of classes names"
        got = int(numbers.max())
        what = f"{where}: a class is beyond the {len(said)} named ones"
        raise DataError(message("task.label_column", what, got=got, fix=fix))
    return Pictures(stacked(columns[image], source.channels, source.size, where), numbers, said)


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
