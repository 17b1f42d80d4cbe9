"""Tokens of a long text, kept for the next run: cutting a text takes seconds, and a run, its audit and its resume all need it.

They lie in `$XDG_CACHE_HOME/fedsim` or `~/.cache/fedsim`, by the hash of what they depend on: the text, the files of its
tokenizer, the version of the library. A file that cannot be read, or is not whole, is made anew; one that cannot be written
is done without.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Ints
from fedsim.files.atomic import write_atomically
from fedsim.files.opened import GIB, UnreadableError, bytes_of
from fedsim.tasks._language.tokens import Stream, id_type, tokenise
from fedsim.training.direct.tokenizer import FolderTokenizer

FORMAT = "1"
"""Of a file: another number where its arrays mean something else."""
FEWEST, MOST = 500_000, 200_000_000
"""Characters of a text whose tokens are kept: less takes a moment, more takes the disk of somebody who was not asked."""
MOST_BYTES = 4 * GIB
"""Of a file; four bytes a character are more than there are."""
KINDS = ("|u1", "<u2", "<u4", "<i4", "<u8")
"""Kinds of whole numbers in a file, as NumPy calls them."""
SPOILT = (UnreadableError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a file may raise that is not whole."""


def tokenised(tokenizer: Any, texts: Sequence[str], eos: int, vocabulary: int) -> Stream:
    """Return the tokens of all units, each followed by `<eos>`; see `fedsim.tasks._language.tokens.tokenise`."""
    if not isinstance(tokenizer, FolderTokenizer) or not FEWEST <= sum(map(len, texts)) <= MOST:
        return tokenise(tokenizer, texts, eos, vocabulary)
    place = _place(tokenizer, texts, eos, vocabulary)
    kept = _read(place, len(texts), vocabulary)
    if kept is not None:
        return kept
    stream = tokenise(tokenizer, texts, eos, vocabulary)
    _write(place, stream)
    return stream


def _place(tokenizer: FolderTokenizer, texts: Sequence[str], eos: int, vocabulary: int) -> Path:
    whole = hashlib.sha256("\n".join((FORMAT, tokenizer.digest, str(eos), str(vocabulary))).encode())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(8, "little"))
        whole.update(data)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fedsim" / f"tokens-{whole.hexdigest()[:32]}.bin"


def _read(place: Path, units: int, vocabulary: int) -> Stream | None:
    """Return what a file holds; None if there is none, or it does not hold together."""
    try:
        kept = _unpacked(bytes_of(place, MOST_BYTES))
        stream = Stream(
            kept["tokens"].astype(id_type(vocabulary)),
            kept["words"].astype(np.int32),
            kept["bytes"].astype(np.int32),
            np.cumsum(kept["lengths"], dtype=np.int64),
            np.cumsum(kept["units"], dtype=np.int64),
        )
        sizes = {stream.tokens.size, stream.words.size, stream.bytes.size, stream.ends.size}
        whole = sizes == {int(stream.stops[-1])} and stream.stops.size == units
        return stream if whole and int(kept["tokens"].max()) < vocabulary else None
    except SPOILT:
        return None


def _write(place: Path, stream: Stream) -> None:
    arrays = {
        "tokens": stream.tokens,
        "words": _narrow(stream.words),
        "bytes": _narrow(stream.bytes),
        "lengths": _narrow(np.diff(stream.ends, prepend=0)),
        "units": _narrow(np.diff(stream.stops, prepend=0)),
    }
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, packed(arrays))


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays of whole numbers as one line that names them, and their numbers behind it."""
    head = {name: [array.dtype.str, array.size] for name, array in arrays.items()}
    return json.dumps(head).encode() + b"\n" + b"".join(array.tobytes() for array in arrays.values())


def _unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays again; raises one of `SPOILT` where the bytes are not those of whole numbers, or not all there."""
    line, _, rest = data.partition(b"\n")
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for name, (kind, size) in json.loads(line).items():
        if kind not in KINDS:
            raise ValueError("no kind of whole number")
        arrays[name] = np.frombuffer(rest, kind, size, at)
        at += arrays[name].nbytes
    if at != len(rest):
        raise ValueError("more than the arrays")
    return arrays


def _narrow(numbers: NDArray[np.int32] | Ints) -> NDArray[Any]:
    """Return whole numbers, none below 0, in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
