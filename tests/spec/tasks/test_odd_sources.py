"""Several files of one split, folders in folders, odd columns: each is read as itself, or refused."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import fedsim
from fedsim.errors import DataError, ExperimentError
from fedsim.files.delimited import read_grid
from fedsim.files.parquet_file import read_parquet
from fedsim.files.text_file import UnreadableError
from fedsim.tasks._images.data import Source, read


def album(folder):
    return read(Source(str(folder), None, None, None, None, 1, 8))


def picture(path, grey=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), grey, np.uint8)).save(path)


def png(grey=100):
    stored = io.BytesIO()
    Image.fromarray(np.full((8, 8), grey, np.uint8)).save(stored, "PNG")
    return stored.getvalue()


def parquet(path, images, labels, names=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": images, "label": labels})
    if names:
        kinds = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(kinds).encode()})
    pq.write_table(table, path)


def test_paths_in_each_parquet_file_start_at_its_own_folder(tmp_path):
    for name, grey in (("a", 10), ("b", 250)):
        for k in range(10):
            picture(tmp_path / "train" / name / f"{k}.png", grey)
        parquet(tmp_path / "train" / name / "x.parquet", [f"{k}.png" for k in range(10)], [name] * 10)

    splits = album(tmp_path).splits

    for split in splits.values():
        assert {(label, int(pixels.mean())) for label, pixels in zip(split.labels, split.pixels, strict=True)} == {
            (0, 10), (1, 250)
        }  # fmt: skip
        assert split.names == ("a", "b")


def test_each_parquet_file_names_its_own_classes(tmp_path):
    parquet(tmp_path / "train" / "a.parquet", [png(10)] * 10, [0] * 10, ["cat", "dog"])
    parquet(tmp_path / "train" / "b.parquet", [png(250)] * 10, [0] * 10, ["dog", "cat"])

    train = album(tmp_path).splits["train"]

    assert {(train.names[k], int(p.mean())) for k, p in zip(train.labels, train.pixels, strict=True)} == {
        ("cat", 10), ("dog", 250)
    }  # fmt: skip


def test_files_with_and_without_names_of_classes_are_not_mixed(tmp_path):
    parquet(tmp_path / "train" / "a.parquet", [png()] * 10, [0] * 10, ["cat", "dog"])
    parquet(tmp_path / "train" / "b.parquet", [png()] * 10, [0] * 10)
    with pytest.raises(DataError, match=r"b\.parquet has no names of classes, and .*a\.parquet has"):
        album(tmp_path)


def test_a_broken_picture_is_said_with_its_own_file_and_row(tmp_path):
    parquet(tmp_path / "train" / "a.parquet", [png()] * 12, [0] * 12)
    parquet(tmp_path / "train" / "b.parquet", [png(), b"broken"], [0, 1])
    with pytest.raises(DataError, match=r"b\.parquet: row 2: the image cannot be read"):
        album(tmp_path)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["n01/images", "n02/images"], ("n01", "n02")),
        (["n01/a/b", "n02/a/b"], ("n01", "n02")),
        (["dogs/poodle", "cats/poodle", "cats/manx"], ("cats/manx", "cats/poodle", "dogs/poodle")),
        (["dogs", "dogs/old", "cats"], ("cats", "dogs", "dogs/old")),
        (["images"], ("all",)),
    ],
)
def test_a_class_is_the_way_to_its_folder(tmp_path, folders, names):
    for folder in folders:
        for k in range(10):
            picture(tmp_path / "train" / folder / f"{k}.png")

    made = album(tmp_path)

    assert made.splits["train"].names == (names if folders != ["images"] else ("images",))
    said = [notice for notice in made.notices if "a folder in a folder" in notice]
    assert len(said) == any("/" in name for name in names)


def test_a_number_among_words_is_a_class_that_train_has_not(tmp_path):
    parquet(tmp_path / "train.parquet", [png()] * 4, ["cat", "2"] * 2)
    parquet(tmp_path / "test.parquet", [png()] * 2, ["2", "3"])
    with pytest.raises(DataError, match="the test split has classes that train has not"):
        album(tmp_path)


def test_a_transparent_colour_of_16_bits_is_laid_on_white(tmp_path):
    for name, clear in (("seen", None), ("clear", 40_000)):
        for k in range(10):
            path = tmp_path / name / f"{k}.png"
            path.parent.mkdir(exist_ok=True)
            extra = {} if clear is None else {"transparency": clear}
            Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path, **extra)

    train = album(tmp_path).splits["train"]

    grey = {train.names[k]: int(p.mean()) for k, p in zip(train.labels, train.pixels, strict=True)}
    assert grey == {"seen": round(40_000 / 257), "clear": 255}


def test_only_a_column_of_whole_numbers_may_have_no_name():
    assert read_grid(",a\n0,x\n1,y\n", ",").header == ["a"]
    with pytest.raises(UnreadableError, match="column 1 has no name"):
        read_grid(",label\nsome text,0\nmore text,1\n", ",")


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([10**8], pa.date32()), "100000000"),
        (pa.array([2**62], pa.duration("s")), "4611686018427387904"),
        (pa.array([2**60], pa.timestamp("us")), "1152921504606846976"),
    ],
)
def test_what_python_has_no_value_for_is_its_text(tmp_path, column, text):
    pq.write_table(pa.table({"text": ["a"], "odd": column}), tmp_path / "a.parquet")

    columns = read_parquet(tmp_path / "a.parquet").columns

    assert columns["text"] == ["a"]
    assert text in columns["odd"][0]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"kind": "language", "text_column": "text"}, "the shipped data have no columns"),
        ({"kind": "images", "label_column": "label"}, "the shipped data have no columns"),
        ({"kind": "language", "data": ""}, "task.data: is empty"),
        ({"kind": "images", "model": " "}, "task.model: is empty"),
    ],
)
def test_names_that_say_nothing_are_refused(task, said):
    blocks = {"population": {"preset": "mixed_edge_2025", "clients": 10}, "budget": {"commits": 1}}
    with pytest.raises(ExperimentError, match=said):
        fedsim.Experiment.model_validate({**blocks, "task": task})
