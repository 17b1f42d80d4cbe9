"""Files of arrays: what others read in them, and what is refused."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedsim.errors import RunFolderError
from fedsim.files.checkpoint.tensor_file import TYPES, read_tensors, write_tensors

ARRAYS = {
    "0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "1": np.array(7, dtype=np.int64),
    "2": np.zeros((0, 4)),
    "3": np.array([True, False, True]),
    "4": np.arange(8, dtype=np.float64)[::2],
    "5": np.array([np.nan, np.inf, -0.0]),
}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "a.safetensors", '{"a": 1}', ARRAYS)
    return tmp_path / "a.safetensors"


def test_what_is_written_is_read_to_the_bit(path):
    text, arrays = read_tensors(path)

    assert text == '{"a": 1}'
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        n: a.tobytes() for n, a in ARRAYS.items()
    }
    assert {name: (a.dtype, a.shape) for name, a in arrays.items()} == {
        n: (a.dtype, a.shape) for n, a in ARRAYS.items()
    }
    assert all(array.flags.writeable for array in arrays.values())


def test_the_library_of_the_format_reads_it(path):
    arrays = load_file(path)

    assert set(arrays) == {*ARRAYS, "sha256"}
    assert all(
        np.array_equal(arrays[name], array, equal_nan=array.dtype.kind == "f")
        for name, array in ARRAYS.items()
    )


@pytest.mark.parametrize("name", TYPES)
def test_every_type_comes_back(name, tmp_path):
    array = np.arange(3).astype(name)
    write_tensors(tmp_path / "a", "", {"x": array})

    again = read_tensors(tmp_path / "a")[1]["x"]
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()


def test_a_file_that_was_cut_off_anywhere_is_refused(path):
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(RunFolderError, match="damaged"):
            read_tensors(path)


def test_a_file_with_any_changed_byte_is_refused(path):
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(RunFolderError, match="damaged"):
            read_tensors(path)


def forged(path, header, body=b""):
    """A file that says what it likes, with the right checksum."""
    import hashlib

    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + body
    path.write_bytes(data + hashlib.sha256(data).digest())


CHECK = {"dtype": "U8", "shape": [32], "data_offsets": [0, 32]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        {"__metadata__": {"fedsim": 3}, "sha256": CHECK},
        {"__metadata__": {"fedsim": ""}},
        {"__metadata__": {"fedsim": ""}, "sha256": CHECK, "x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"__metadata__": {"fedsim": ""}, "sha256": CHECK, "x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}},
        {"__metadata__": {"fedsim": ""}, "sha256": CHECK, "x": {"dtype": "object", "shape": [1], "data_offsets": [0, 8]}},
        {"__metadata__": {"fedsim": ""}, "sha256": CHECK, "x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    ],
)  # fmt: skip
def test_a_forged_header_is_refused(header, tmp_path):
    forged(tmp_path / "a", header)
    with pytest.raises(RunFolderError, match="damaged"):
        read_tensors(tmp_path / "a")


def test_a_header_of_another_length_is_refused(tmp_path):
    import hashlib

    data = struct.pack("<Q", 2**60) + b"{}"
    (tmp_path / "a").write_bytes(data + hashlib.sha256(data).digest())
    with pytest.raises(RunFolderError, match="damaged"):
        read_tensors(tmp_path / "a")


def test_a_file_of_others_has_no_checksum(tmp_path):
    save_file({"x": np.zeros(100)}, tmp_path / "a")
    with pytest.raises(RunFolderError, match="SHA-256"):
        read_tensors(tmp_path / "a")


def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, "other", ARRAYS)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
