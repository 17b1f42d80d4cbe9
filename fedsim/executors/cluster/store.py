"""Files that a run has sent to this machine: by their content, complete or not there, checked once a run."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedsim.errors import HostError, message
from fedsim.executors.cluster.parcel import Entry, Parcel, digest_of

Fetch = Callable[[Parcel, Entry], Iterable[bytes | memoryview]]
"""Gives a file of a parcel piece by piece."""


def default_root() -> Path:
    """Return where such files lie: `$XDG_CACHE_HOME/fedsim/shipped`, or `~/.cache/fedsim/shipped`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedsim" / "shipped"


def stored(parcel: Parcel, fetch: Fetch, run: str, root: Path | None = None) -> Path:
    """Return where a parcel lies on this machine, fetched if it is not there whole.

    Processes of one machine (and machines with one home folder) wait for whoever came first. What lies there from an
    earlier run is read again and compared with its hashes once a run.

    Args:
        parcel: what is wanted.
        fetch: gives a file's pieces, in order.
        run: any word that is this run's own.
        root: the folder of all parcels.

    Raises:
        HostError: the disk has no room, cannot be written, or a file is not what it was when it was sent.
    """
    root = default_root() if root is None else root
    folder, mark = root / parcel.digest, root / f"{parcel.digest}.checked"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(root / f"{parcel.digest}.lock"):
            if not (folder.is_dir() and (_read(mark) == run or _is_whole(folder, parcel))):
                _discard(root, parcel.digest)
                _fetch_all(root, parcel, fetch)
            if _read(mark) != run:
                mark.write_text(run, encoding="utf-8")
    except OSError as problem:
        what = f"cannot be kept in {root} ({problem.strerror or problem})"
        fix = "free some room there, or name another folder in XDG_CACHE_HOME on the nodes"
        raise HostError(message("runtime.ship", what, got=parcel.name, fix=fix)) from problem
    return parcel.path_in(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process; where a file system has none, the renaming at the end is enough."""
    with path.open("a") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(mark: Path) -> str:
    try:
        return mark.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _is_whole(folder: Path, parcel: Parcel) -> bool:
    """Tell whether every file is there with its bytes."""
    paths = [(folder / entry.place, entry) for entry in parcel.entries]
    try:
        return all(path.stat().st_size == entry.size for path, entry in paths) and all(
            digest_of(path) == entry.sha256 for path, entry in paths
        )
    except OSError:
        return False


def _discard(root: Path, digest: str) -> None:
    """Remove what is damaged, and what others have begun and not ended."""
    for folder in (root / digest, *root.glob(f".{digest}.*")):
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def _fetch_all(root: Path, parcel: Parcel, fetch: Fetch) -> None:
    """Fetch the files beside their place, and put them there when all of them are on the disk."""
    free = shutil.disk_usage(root).free
    if free < parcel.total_bytes:
        what = f"{parcel.total_bytes:,} bytes do not fit: {root} has {free:,} free"
        fix = "free some room there, or name another folder in XDG_CACHE_HOME on the nodes"
        raise HostError(message("runtime.ship", what, got=parcel.name, fix=fix))
    part = root / f".{parcel.digest}.{os.uname().nodename}.{os.getpid()}"
    try:
        for entry in parcel.entries:
            _write(part / entry.place, entry, fetch(parcel, entry))
        part.rename(root / parcel.digest)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(path: Path, entry: Entry, pieces: Iterable[bytes | memoryview]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            whole.update(piece)
        file.flush()
        os.fsync(file.fileno())
    if whole.hexdigest() != entry.sha256:
        what = f"{entry.place} is not what it was when the run began"
        raise HostError(message("runtime.ship", what, fix="leave the files alone while a run starts"))
