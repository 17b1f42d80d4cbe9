"""The peers' own environments: `benchmarks/.venvs/NAME`, made from `requirements/NAME.txt`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import HERE, say

NAMES = {"flower": "Flower 1.41", "pfl": "pfl-research 0.6"}
_FOLDER = "Scripts" if os.name == "nt" else "bin"


class Missing(Exception):  # noqa: N818  # reads as what it says
    """A peer cannot be installed here."""


def python(name: str) -> Path:
    """Return the interpreter of a peer's environment, installing it first if needed.

    Raises:
        Missing: pip cannot install it; the message ends with pip's last line.
    """
    wanted = HERE / "requirements" / f"{name}.txt"
    key = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()
    folder = HERE / ".venvs" / name
    found, stamp = folder / _FOLDER / "python", folder / "installed"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == key:
        return found
    say(f"installing {NAMES[name]} into benchmarks/.venvs/{name} (minutes)")
    shutil.rmtree(folder, ignore_errors=True)
    _called(name, [sys.executable, "-m", "venv", str(folder)])
    pip = [str(found), "-m", "pip", "--disable-pip-version-check", "install", "-q", "-r", str(wanted)]
    _called(name, pip)
    stamp.write_text(key, encoding="ascii")
    return found


def _called(name: str, command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise Missing(f"{NAMES[name]} cannot be installed: {last}")


def available(missing: dict[str, str]) -> dict[str, Path]:
    """Return the interpreters of the peers that can be installed; the others are named in `missing`."""
    found = {}
    for name in NAMES:
        try:
            found[name] = python(name)
        except Missing as problem:
            missing[name] = str(problem)
            say(f"WARNING: {problem}")
    return found
