"""Arrays and text in one safetensors file with a checksum: written whole or not at all, durable, read with suspicion.

The format is that of safetensors (eight bytes for the length of a header in JSON, the header, the arrays), so other tools
can look into such a file. Its last array, `sha256`, holds the SHA-256 of all bytes before its own: a file that was cut off
or changed is known as such. Nothing in it is code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import sync_folder
from fedsim.files.opened import UnreadableError, is_hollow, opened

Array = NDArray[np.generic]
TYPES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
"""NumPy's name of a type -> that of safetensors."""
NAMES = {ours: name for name, ours in TYPES.items()}
CHECK, CHECK_BYTES = "sha256", 32
_LENGTH = struct.Struct("<Q")
_CHUNK_BYTES = 2**24


def write_tensors(path: Path, text: str, arrays: Mapping[str, Array]) -> int:
    """Write arrays and a text: beside the file, to the disk, then renamed; the folder's entry is on the disk, too.

    Args:
        path: of the file; its folder exists.
        text: what is stored beside the arrays.
        arrays: by name, of the types in `TYPES`; `sha256` is taken.

    Returns:
        The length of the file [bytes].

    Raises:
        OSError: the disk does not take it; nothing is left of it then.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            written = _write(file, _header(text, arrays), arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)
    return written


def _header(text: str, arrays: Mapping[str, Array]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"fedsim": text}}
    at = 0
    shapes = [
        (name, TYPES[array.dtype.name], list(array.shape), array.nbytes) for name, array in arrays.items()
    ]
    for name, kind, shape, size in [*shapes, (CHECK, "U8", [CHECK_BYTES], CHECK_BYTES)]:
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def _write(file: BinaryIO, header: bytes, arrays: Mapping[str, Array]) -> int:
    sha, written = hashlib.sha256(), 0
    parts: Iterator[bytes | memoryview] = (_bytes_of(array) for array in arrays.values())
    for part in (_LENGTH.pack(len(header)), header, *parts):
        sha.update(part)
        file.write(part)
        written += len(part)
    return written + file.write(sha.digest())


def _bytes_of(array: Array) -> memoryview:
    """Return the values of an array, little-endian, row by row."""
    values = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return values.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def read_tensors(path: Path) -> tuple[str, dict[str, Array]]:
    """Return the text and the arrays of a file, each array a new one.

    Raises:
        RunFolderError: it cannot be read, was cut off, was changed, or is no such file.
    """
    try:
        with opened(path, folder=path.parent) as file:
            data = b"" if is_hollow(file.fileno()) else file.read()
    except UnreadableError as problem:
        raise RunFolderError(problem.message(str(path))) from problem
    except OSError as problem:
        raise RunFolderError(message(str(path), f"cannot be read ({problem.strerror})")) from problem
    if len(data) < _LENGTH.size + CHECK_BYTES or _sha256(data) != data[-CHECK_BYTES:]:
        raise RunFolderError(message(str(path), "is damaged: it was cut off or changed (SHA-256)"))
    try:
        return _parsed(data)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, MemoryError) as problem:
        raise RunFolderError(message(str(path), "is damaged: it is no file of arrays")) from problem


def _sha256(data: bytes) -> bytes:
    sha, view = hashlib.sha256(), memoryview(data)[:-CHECK_BYTES]
    for at in range(0, len(view), _CHUNK_BYTES):
        sha.update(view[at : at + _CHUNK_BYTES])
    return sha.digest()


def _parsed(data: bytes) -> tuple[str, dict[str, Array]]:
    (length,) = _LENGTH.unpack_from(data)
    first = _LENGTH.size + length
    if first > len(data):
        raise ValueError("the header is longer than the file")
    entries = json.loads(data[_LENGTH.size : first])
    text = entries.pop("__metadata__")["fedsim"]
    if not isinstance(text, str):
        raise TypeError("the text is none")
    arrays: dict[str, Array] = {}
    room = len(data) - first
    for name, entry in entries.items():
        begin, end = (_count(number) for number in entry["data_offsets"])
        shape, dtype = (
            tuple(_count(n) for n in entry["shape"]),
            np.dtype(NAMES[entry["dtype"]]).newbyteorder("<"),
        )
        if not begin <= end <= len(data) - first or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError("an array lies outside the file")
        room -= end - begin
        if room < 0:
            raise ValueError("arrays lie upon each other")
        values = np.frombuffer(data, dtype, math.prod(shape), first + begin)
        arrays[name] = values.astype(dtype.newbyteorder("="), copy=True).reshape(shape)
    del arrays[CHECK]
    return text, arrays


def _count(number: object) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("a length is no number")
    return number
