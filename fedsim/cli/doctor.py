"""Is this machine ready? What is installed, how many workers fit, whether Ray starts, what is offline."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedsim.errors import FedsimError
from fedsim.executors.host import WORKER_BYTES, cores, free_memory_bytes
from fedsim.records.quantities import said

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "ray",
    "simpy",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scikit-learn",
    "plotly",
    "jinja2",
)

_RAY = """
import os, ray
options = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "num_cpus": 1, "include_dashboard": False}
ray.init(log_to_driver=False, logging_level="ERROR", **options)
ray.shutdown()
"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: `bad` means that fedsim cannot work as it is."""

    state: Literal["ok", "note", "bad"]
    text: str
    fix: str = ""


def examine(*, start_ray: bool = False) -> list[Finding]:
    """Return the findings; `start_ray` really starts a local Ray with one core and stops it."""
    return [
        Finding("ok", f"python {platform.python_version()} on {platform.system()} {platform.machine()}"),
        *_packages(),
        *_torchvision(),
        _machine(),
        *_offline(),
        *_embedded(),
        _ray(start=start_ray),
    ]


def _packages() -> Iterator[Finding]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    present = [f"{name} {version}" for name, version in versions.items() if version is not None]
    if present:
        yield Finding("ok", ", ".join(present))
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield Finding("bad", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")


def _torchvision() -> Iterator[Finding]:
    """A torchvision that does not match torch stops transformers and diffusers from importing."""
    if importlib.util.find_spec("torchvision") is None:
        yield Finding("ok", "torchvision is not installed (good: it is not needed)")
        return
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    if tried.returncode:
        text = "torchvision is installed and does not import: transformers will not import either"
        yield Finding("bad", text, "pip uninstall torchvision")
    else:
        yield Finding("note", "torchvision is installed: one of another torch breaks transformers")


def _machine() -> Finding:
    memory = free_memory_bytes()
    n, shown = cores(), "unknown" if memory is None else said("bytes", memory)
    fit = n if memory is None else min(n, memory // WORKER_BYTES)
    disk = said("bytes", shutil.disk_usage(Path.cwd()).free)
    text = f"{n} cores, {shown} memory free, {disk} disk free: {fit} Ray workers fit ({said('bytes', WORKER_BYTES)} each)"
    if fit < 1:
        return Finding("note", text, "use -s runtime.executor=inline, or free some memory")
    return Finding("ok", text)


def _offline() -> Iterator[Finding]:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    off = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    state = (
        "offline (HF_HUB_OFFLINE): only what is there already" if off else "online: hub ids are downloaded"
    )
    yield Finding("ok", f"Hugging Face cache {home}, {state}; telemetry off")


def _embedded() -> Iterator[Finding]:
    """The default model and text: the model ships with fedsim, the text is that of this Python."""
    try:
        from fedsim import builtin

        builtin.model_folder()
        count = len(builtin.documents())
    except FedsimError as problem:
        content = problem.message
        yield Finding("bad", f"embedded model and text: {content.headline}", content.fix or "")
        return
    except (ImportError, OSError) as problem:
        yield Finding("bad", f"embedded model and text: {problem}")
        return
    yield Finding(
        "ok", f"embedded model and text: {count} documents of this Python's own reference and library"
    )


def _ray(*, start: bool) -> Finding:
    inline = "use -s runtime.executor=inline, which needs no Ray"
    if importlib.util.find_spec("ray") is None:
        return Finding("bad", "ray cannot be imported", inline)
    address = os.environ.get("RAY_ADDRESS")
    if not start:
        where = f"RAY_ADDRESS={address}" if address else "a local one is started when needed"
        return Finding("ok", f"ray: {where} (`fedsim doctor --ray` tries it)")
    began = time.perf_counter()
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _RAY], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("bad", "ray did not start within 120 s", inline)
    if tried.returncode:
        lines = [line for line in tried.stderr.splitlines() if line.strip()]
        return Finding("bad", f"ray cannot be used: {lines[-1] if lines else 'no message'}", inline)
    did = f"is reached at {address}" if address else "starts and stops"
    return Finding("ok", f"ray {did} ({time.perf_counter() - began:.1f} s)")
