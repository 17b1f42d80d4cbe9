"""What a machine is: Python, packages, the files of fedsim, the processor. Sent to nodes by value, where fedsim may be absent.

Standard library only, and nothing of fedsim: the whole file travels.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

PACKAGES = ("torch", "numpy", "transformers", "peft", "diffusers", "ray")
"""Packages of others on which results depend, or without which nodes cannot talk to each other."""
ABSENT = "none"
"""The version of what is not there."""
WIDE = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "fma"}
"""Flags of a processor on which torch computes with AVX-512 (cpuinfo, as its dispatcher asks)."""


@dataclass(frozen=True)
class Machine:
    """One node, as its own Python sees it.

    Attributes:
        host: name in the network.
        packages: `python`, `fedsim` and `PACKAGES` -> version, `ABSENT` without it.
        source: SHA-256 of the names and bytes of fedsim's files; empty without fedsim.
        folder: where fedsim lies.
        processor: the processor's name.
        instructions: what torch's kernels are chosen by: `AVX512`, `AVX2`, `DEFAULT`, or the architecture where there
            is no choice.
    """

    host: str
    packages: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    folder: str = ""
    processor: str = ""
    instructions: str = ""


def survey() -> Machine:
    """Return what this machine is; nothing heavy is imported for it."""
    folder = package_folder("fedsim")
    versions = {"python": platform.python_version(), "fedsim": written_version(folder)}
    versions |= {name: version_of(name) for name in PACKAGES}
    source = "" if folder is None else source_digest(folder)
    name, flags = processor()
    return Machine(socket.gethostname(), versions, source, str(folder or ""), name, instructions(flags))


def facts() -> dict[str, object]:
    """Return `survey` as plain values, which every process can read."""
    return asdict(survey())


def package_folder(name: str) -> Path | None:
    """Return where a package would be imported from; None: nowhere."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def written_version(folder: Path | None) -> str:
    """Return `__version__` as it is written in a package: what was noted when a source tree was installed may be older."""
    lines = [] if folder is None else (folder / "__init__.py").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition("=")[2].strip(" \"'") for line in lines if line.startswith("__version__")), ABSENT
    )


def source_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of all files below a folder; what Python compiles and what hides apart."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        place = path.relative_to(folder)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in place.parts):
            whole.update(f"{place.as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its flags; no flags where the system has no /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.machine(), frozenset(flags.split())


def instructions(flags: frozenset[str]) -> str:
    """Return the instruction set by which torch chooses its kernels on a processor with these flags.

    `ATEN_CPU_CAPABILITY` lowers it, as it does for torch.
    """
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        return machine
    if not flags:
        return "unknown"
    best = "AVX512" if flags >= WIDE else "AVX2" if flags >= {"avx2", "fma"} else "DEFAULT"
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "").upper()
    order = ("DEFAULT", "AVX2", "AVX512")
    return asked if asked in order and order.index(asked) < order.index(best) else best
