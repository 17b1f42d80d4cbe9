"""Classes of images from folders and labels: numbers in numeric order, labels as names, files that nobody means."""

from __future__ import annotations

import io
import json
import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fedsim.errors import DataError
from fedsim.tasks._images.data import Source, read
from fedsim.tasks._images.labels import classes_of, text_of


def album(data, **columns):
    fields = {"config": None, "revision": None, "image_column": None, "label_column": None} | columns
    return read(Source(str(data), channels=1, size=2, **fields))


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(path)


def png(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path, labels, values=None):
    images = [png(v) for v in (range(len(labels)) if values is None else values)]
    pq.write_table(pa.table({"image": images, "label": labels}), path)


def test_folders_that_are_numbers_are_classes_by_value(tmp_path):
    for name in range(12):
        for k in range(2):
            picture(tmp_path / "train" / str(name) / f"{k}.png", 20 * name)
            picture(tmp_path / "test" / str(name) / f"{k}.png", 20 * name)
    splits = album(tmp_path).splits

    assert splits["train"].names == tuple(map(str, range(12)))
    assert [int(p) for p in splits["train"].pixels[:, 0, 0, 0]] == [
        20 * int(c) for c in splits["train"].labels
    ]


@pytest.mark.parametrize("kind", [int, str, float])
def test_numbers_of_a_table_are_classes_by_value_in_whatever_form(tmp_path, kind):
    labels = [kind(n) if kind is not str else str(n) for n in range(12)] * 2
    table(tmp_path / "train.parquet", labels, [20 * (n % 12) for n in range(24)])
    table(tmp_path / "test.parquet", labels[:3], [0, 20, 40])
    splits = album(tmp_path).splits

    for part in splits.values():
        assert [int(p) for p in part.pixels[:, 0, 0, 0]] == [20 * int(c) for c in part.labels]
        assert part.names == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([3, 1000000007], ("3", "1000000007"), (0, 1)),
        ([-1, 1], ("-1", "1"), (0, 1)),
        ([-5, -40], ("-40", "-5"), (1, 0)),
        ([0.5, 10.25, 2.0], ("0.5", "2", "10.25"), (0, 2, 1)),
        (["cat", "bird"], ("bird", "cat"), (1, 0)),
        ([True, False], ("False", "True"), (1, 0)),
        (["03", "10", "1"], ("0", "1", "2", "03", "4", "5", "6", "7", "8", "9", "10"), (3, 10, 1)),
        (["1", "01"], ("01", "1"), (1, 0)),
        (["9", "x", "10"], ("9", "10", "x"), (0, 2, 1)),
        ([2**70, 1], ("1", str(2**70)), (1, 0)),
    ],
)
def test_labels_are_names_and_not_sizes(labels, names, numbers):
    words = text_of(labels, "label", "a table")
    classes = classes_of(words)

    assert classes.names == names
    assert tuple(classes.of(words).tolist()) == numbers


def test_two_identities_with_large_numbers_are_two_classes_within_a_second(tmp_path):
    table(tmp_path / "train.parquet", [3, 1000000007] * 20)
    began = time.perf_counter()
    splits = album(tmp_path).splits

    assert splits["train"].names == ("3", "1000000007")
    assert sorted(np.unique(splits["test"].labels).tolist()) == [0, 1]
    assert time.perf_counter() - began < 5  # it took 23 s, and all memory


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_missing_label_is_named_by_its_row(missing):
    with pytest.raises(DataError, match="a table: row 2 has no label"):
        text_of([1.0, missing], "label", "a table")


def test_what_systems_and_editors_leave_behind_is_no_class_and_no_picture(tmp_path):
    for name in ("cat", "dog"):
        for k in range(20):
            picture(tmp_path / name / f"{k}.PNG", k)
        (tmp_path / name / "._0.PNG").write_bytes(b"resource fork")
        (tmp_path / name / "Thumbs.db").write_bytes(b"")
        picture(tmp_path / name / ".ipynb_checkpoints" / "0-checkpoint.png")
    picture(tmp_path / "__MACOSX" / "cat" / "._1.png")
    (tmp_path / ".DS_Store").write_bytes(b"")
    found = album(tmp_path)

    assert found.splits["train"].names == ("cat", "dog")
    assert sum(map(len, found.splits.values())) == 40
    assert not any("not read" in notice for notice in found.notices)


def test_files_that_are_not_read_are_said(tmp_path):
    for k in range(20):
        picture(tmp_path / "cat" / f"{k}.png", k)
    (tmp_path / "cat" / "a.heic").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("image,label\n")

    assert any("cat/a.heic" in notice and "labels.csv" in notice for notice in album(tmp_path).notices)


def test_validation_images_are_no_test_images_where_there_are_some(tmp_path):
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        for k in range(count):
            picture(tmp_path / "all" / split / "cat" / f"{k}.png", k)
            if split != "test":
                picture(tmp_path / "two" / split / "cat" / f"{k}.png", k)
    found, without = album(tmp_path / "all"), album(tmp_path / "two")

    assert {split: len(part) for split, part in found.splits.items()} == {"train": 5, "test": 2}
    assert any("3 files of validation data" in notice for notice in found.notices)
    assert {split: len(part) for split, part in without.splits.items()} == {"train": 5, "test": 3}
    assert any("validation data are the test data" in notice for notice in without.notices)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_list_of_paths_and_labels_is_read_from_its_own_folder(tmp_path, suffix, monkeypatch):
    rows = [(f"pictures/{k}.png", "odd" if k % 2 else "even") for k in range(20)]
    for k, (name, _) in enumerate(rows):
        picture(tmp_path / "data" / name, k)
    path = tmp_path / "data" / f"index{suffix}"
    if suffix == ".csv":
        path.write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    else:
        path.write_text("".join(json.dumps({"image": name, "label": label}) + "\n" for name, label in rows))
    monkeypatch.chdir(os.sep)
    splits = album(path).splits

    assert splits["train"].names == ("even", "odd")
    for part in splits.values():
        assert (part.pixels[:, 0, 0, 0] % 2).tolist() == part.labels.tolist()


def test_a_folder_of_pictures_beside_a_list_says_where_the_labels_are(tmp_path):
    for k in range(20):
        picture(tmp_path / f"{k}.png", k)
    (tmp_path / "index.csv").write_text("image,label\n0.png,1\n")

    assert any("set task.data" in notice and "index.csv" in notice for notice in album(tmp_path).notices)


def test_a_test_split_with_a_class_that_nobody_trains_on_is_refused(tmp_path):
    for split, name in (("train", "cat"), ("test", "cat"), ("test", "emu")):
        picture(tmp_path / split / name / "0.png")

    with pytest.raises(DataError, match=r"has classes that train has not \(got 'emu'\)"):
        album(tmp_path)


def test_labels_that_a_table_s_own_list_of_classes_does_not_name_are_refused(tmp_path):
    info = json.dumps({"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}})
    for wrong in (-1, 2):
        there = pa.table({"image": [png(0)] * 4, "label": [0, 1, wrong, 0]})
        pq.write_table(there.replace_schema_metadata({"huggingface": info}), tmp_path / "train.parquet")
        with pytest.raises(DataError, match=rf"none of the 2 named ones \(got '{wrong}'\)"):
            album(tmp_path)


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": 7}}}}']
)
def test_metadata_of_others_are_no_list_of_classes(tmp_path, metadata):
    there = pa.table({"image": [png(k) for k in range(20)], "label": [0, 1] * 10})
    pq.write_table(there.replace_schema_metadata({"huggingface": metadata}), tmp_path / "train.parquet")

    assert album(tmp_path).splits["train"].names == ("0", "1")
