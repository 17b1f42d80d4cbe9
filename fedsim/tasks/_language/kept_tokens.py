"""Tokens of a long text, kept for the next run: cutting a text takes seconds, and a run, its audit and its resume all need it.

They lie in `$XDG_CACHE_HOME/fedsim` or `~/.cache/fedsim`, by the hash of what they depend on: the text, the files of its
tokenizer, the version of the library. A file that cannot be read, or is not whole, is made anew; one that cannot be written
is done without.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Ints
from fedsim.tasks._language.tokens import Stream, id_type, tokenise
from fedsim.training.direct.tokenizer import FolderTokenizer

FORMAT = "1"
"""Of a file: another number where its arrays mean something else."""
FEWEST, MOST = 500_000, 200_000_000
"""Characters of a text whose tokens are kept: less takes a moment, more takes the disk of somebody who was not asked."""
SPOILT = (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile)
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
    return Path(cache) / "fedsim" / f"tokens-{whole.hexdigest()[:32]}.npz"


def _read(place: Path, units: int, vocabulary: int) -> Stream | None:
    """Return what a file holds; None if there is none, or it does not hold together."""
    with suppress(*SPOILT), np.load(place, allow_pickle=False) as kept:
        stream = Stream(
            kept["tokens"].astype(id_type(vocabulary)),
            kept["words"].astype(np.int32),
            kept["bytes"].astype(np.int32),
            np.cumsum(kept["lengths"], dtype=np.int64),
            np.cumsum(kept["units"], dtype=np.int64),
        )
        sizes = {stream.tokens.size, stream.words.size, stream.bytes.size, stream.ends.size}
        whole = sizes == {int(stream.stops[-1])} and stream.stops.size == units
        return stream if whole and int(stream.tokens.max()) < vocabulary else None
    return None


def _write(place: Path, stream: Stream) -> None:
    part = place.with_suffix(f".{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(
                file,
                tokens=stream.tokens,
                words=_narrow(stream.words),
                bytes=_narrow(stream.bytes),
                lengths=_narrow(np.diff(stream.ends, prepend=0)),
                units=_narrow(np.diff(stream.stops, prepend=0)),
            )
        part.replace(place)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _narrow(numbers: NDArray[np.int32] | Ints) -> NDArray[Any]:
    """Return whole numbers, none below 0, in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
