"""A file or folder on its way to other machines: which files it has, how large they are, and their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedsim.errors import HostError, message
from fedsim.files.folders import is_leftover
from fedsim.files.text_file import shown

PIECE_BYTES = 16 * 2**20
"""Bytes that travel at a time: a file of any size needs two pieces of memory."""
OTHER_WEIGHTS = frozenset({".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".onnx", ".gguf"})
"""Weights in formats that nobody reads where there are safetensors beside them."""


@dataclass(frozen=True)
class Entry:
    """One file of a parcel: its place below the parcel, with slashes; bytes; SHA-256.

    Raises:
        HostError: the place would lead out of the parcel.
    """

    place: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse places that lead elsewhere."""
        parts = PurePosixPath(self.place).parts
        plain = bool(parts) and not any(part in ("..", "/") or "\\" in part or ":" in part for part in parts)
        if not plain or "\0" in self.place:
            raise HostError(message("runtime.ship", "a file would leave its folder", got=self.place))

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, bytes) of the pieces in which it travels."""
        for offset in range(0, self.size, PIECE_BYTES):
            yield offset, min(PIECE_BYTES, self.size - offset)


@dataclass(frozen=True)
class Parcel:
    """What is sent under one name.

    Attributes:
        name: as the task has it: a path, or the name of a model on a hub.
        source: where it lies on the driver's machine.
        is_file: whether it is one file, and not a folder.
        entries: its files, sorted by their place.
    """

    name: str
    source: Path
    is_file: bool
    entries: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all places, sizes and hashes: equal content has one digest, whatever it is called."""
        lines = "".join(f"{entry.place}\t{entry.size}\t{entry.sha256}\n" for entry in self.entries)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def path_in(self, folder: Path) -> Path:
        """Return what stands for `source` in a folder that holds the entries."""
        return folder / self.entries[0].place if self.is_file else folder


def parcel_of(name: str, source: Path) -> Parcel:
    """Return a file or folder as a parcel: every file is read once, for its hash.

    Links to files are followed (a cache of Hugging Face is made of them), links to folders are not; what hides is left
    out, and so are weights in other formats beside safetensors.

    Raises:
        HostError: there is no such file or folder, it is empty, or it cannot be read.
    """
    try:
        if source.is_file():
            return Parcel(name, source, True, (_entry(source, source.name),))
        files = sorted(_files(source))
        files = [path for path in files if path.suffix.lower() not in OTHER_WEIGHTS or not _safe_beside(path)]
        entries = tuple(_entry(path, path.relative_to(source).as_posix()) for path in files)
    except OSError as problem:
        what = f"cannot be read ({problem.strerror or problem})"
        raise HostError(message("runtime.ship", what, got=name)) from problem
    if not entries:
        raise HostError(message("runtime.ship", "there is nothing to send", got=name))
    return Parcel(name, source, False, entries)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(path: Path, place: str) -> Entry:
    if place != shown(Path(place)):
        raise HostError(message("runtime.ship", "the name of a file cannot be sent", got=shown(Path(place))))
    return Entry(place, path.stat().st_size, digest_of(path))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_leftover(path.name):
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _files(path)
        elif path.is_file():
            yield path


def _safe_beside(path: Path) -> bool:
    return any(path.parent.glob("*.safetensors"))
