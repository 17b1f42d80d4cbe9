"""Files of others are opened with care: regular ones, inside their folder, no longer than what is read; nothing waits."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedsim.errors import DataError, ExperimentError, ProfileError
from fedsim.files import yaml_file
from fedsim.files.opened import GIB, UnreadableError, bytes_of, data_bytes, is_hollow, opened, read_bytes
from fedsim.files.parquet_file import read_parquet
from fedsim.files.user_tables import read_rows
from fedsim.importers import import_table
from fedsim.importers.options import Options
from fedsim.tasks._images.pixels import decoded
from fedsim.tasks._tables import columns


def sparse(path, size=10 * GIB):
    """A file of ten gigabytes that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def refused(call, *args):
    with pytest.raises((UnreadableError, DataError, ExperimentError, ProfileError)) as error:
        call(*args)
    return str(error.value)


def test_a_file_is_read_whole_up_to_its_limit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")

    assert bytes_of(path, 5) == b"12345"
    assert "has 5 bytes, and no more than 4 bytes are read" in refused(bytes_of, path, 4)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.json", "a.jsonl", "a.txt"])
def test_ten_gigabytes_are_refused_before_they_are_read(tmp_path, name):
    path = sparse(tmp_path / name)

    assert "10.0 GiB" in refused(read_bytes, path)
    assert "10.0 GiB" in refused(columns, path)
    assert "10.0 GiB" in refused(import_table, "fedscale-capacity", [path], Options())
    if path.suffix in (".csv", ".parquet"):
        assert "10.0 GiB" in refused(read_rows, path)


def test_a_yaml_file_and_a_picture_have_limits_of_their_own(tmp_path):
    assert "no more than 1,048,576 bytes" in refused(yaml_file.read, sparse(tmp_path / "a.yaml", 2**21))
    assert "no more than" in refused(decoded, sparse(tmp_path / "a.png", GIB), 3, 8, "a.png")


def test_the_limit_of_data_is_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIM_MAX_FILE_GIB", "16")
    assert data_bytes() == 16 * GIB
    monkeypatch.setenv("FEDSIM_MAX_FILE_GIB", "0.000001")
    (tmp_path / "a.txt").write_bytes(b"x" * 2000)
    assert "allow more" not in refused(read_bytes, tmp_path / "a.txt")
    for wrong in ("no", "-1", "0", "nan", "1e99"):
        monkeypatch.setenv("FEDSIM_MAX_FILE_GIB", wrong)
        assert "must be a positive number" in refused(read_bytes, tmp_path / "a.txt")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind, monkeypatch):
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = tmp_path / "zero"
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as server:
            monkeypatch.chdir(tmp_path)  # names of sockets are short
            server.bind("a")

    with pytest.raises((UnreadableError, OSError)), opened(path) as file:
        file.read(1)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_read(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "a").write_bytes(b"out")
    (inside / "b").write_bytes(b"in")
    (inside / "near").symlink_to("b")
    (inside / "far").symlink_to(outside / "a")
    (inside / "way").symlink_to(outside)
    (inside / "self").symlink_to("self")

    assert bytes_of(inside / "near", folder=inside) == b"in"
    for path in (inside / "far", inside / "way" / "a", inside / ".." / "outside" / "a"):
        assert "outside of its folder" in refused(lambda path=path: bytes_of(path, folder=inside))
    with pytest.raises((UnreadableError, OSError)):
        bytes_of(inside / "self", folder=inside)
    assert bytes_of(inside / "far") == b"out"
    assert "no name of a file" in refused(bytes_of, inside / "a\0b")


def test_holes_are_told_from_what_somebody_wrote(tmp_path):
    (tmp_path / "whole").write_bytes(b"x" * 4096)
    for path, hollow in ((sparse(tmp_path / "holes"), True), (tmp_path / "whole", False)):
        with opened(path) as file:
            assert is_hollow(file.fileno()) == hollow


# Parquet ----------------------------------------------------------------------------------------


def test_a_text_that_is_stored_once_and_used_often_is_counted_before_it_is_copied(tmp_path, monkeypatch):
    path = tmp_path / "bomb.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 300_000, pa.int32()), pa.array(["y" * 1_000_000]))
    pq.write_table(pa.table({"text": text}), path, compression="zstd", store_schema=False)
    monkeypatch.setenv("FEDSIM_MAX_FILE_GIB", "0.5")

    assert path.stat().st_size < 1_000_000
    assert "no more than 536,870,912 bytes are read" in refused(read_parquet, path)


def test_lists_are_counted_as_they_come(tmp_path, monkeypatch):
    path = tmp_path / "lists.parquet"
    pq.write_table(pa.table({"n": pa.array([[0] * 1000] * 3000)}), path)
    monkeypatch.setenv("FEDSIM_MAX_FILE_GIB", "0.01")

    assert "are read" in refused(read_parquet, path)
    monkeypatch.setenv("FEDSIM_MAX_FILE_GIB", "0.1")
    assert len(read_parquet(path)) == 3000


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int8(), pa.string())],
)
def test_cells_come_as_they_were_written_however_they_are_coded(tmp_path, kind):
    values = ["a", None, "b", "a", ""] if "binary" not in str(kind) else [b"a", None, b"b", b"a", b""]
    table = pa.table(
        {"text": pa.array(values).cast(kind), "n": [1, 2, None, 4, 5], "l": [[1], None, [], [2, 3], [4]]}
    )
    for name in ("plain", "listed"):
        pq.write_table(table if name == "listed" else table.drop(["l"]), tmp_path / f"{name}.parquet")
        read = read_parquet(tmp_path / f"{name}.parquet")

        assert read.columns["text"] == values
        assert read.columns["n"] == [1, 2, None, 4, 5]


def test_a_pickle_among_the_types_of_columns_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Evil()),
    }
    schema = pa.schema([pa.field("text", pa.string(), metadata=metadata)])
    pq.write_table(pa.table({"text": ["a"]}, schema=schema), tmp_path / "a.parquet")

    assert read_parquet(tmp_path / "a.parquet").columns == {"text": ["a"]}
    assert not (tmp_path / "executed").exists()


def test_too_many_columns_are_refused(tmp_path):
    pq.write_table(pa.table({f"c{k}": [1] for k in range(10_001)}), tmp_path / "wide.parquet")

    assert "10,001 columns" in refused(read_parquet, tmp_path / "wide.parquet")


def test_numbers_are_those_of_the_file(tmp_path):
    numbers = np.random.default_rng(0).random(200_000)
    pq.write_table(pa.table({"n": numbers}), tmp_path / "n.parquet")

    assert read_parquet(tmp_path / "n.parquet").columns["n"] == numbers.tolist()
