"""The versions of Python and of the packages that results may depend on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from functools import cache

from fedsim.records.integrity.seals import FEDSIM

_PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "simpy", "torch", "transformers", "peft", "ray")  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on, as `run.json` names them."""
    return {"python": platform.python_version(), FEDSIM: _running_version(), **_package_versions()}


@cache
def _package_versions() -> Mapping[str, str]:
    """Return the versions of the packages, looked up once: what a process has loaded stays what it is, whatever is installed meanwhile."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _running_version() -> str:
    """Return the version of the code that runs: what was noted when a source tree was installed may be older."""
    return str(vars(sys.modules["fedsim"])["__version__"])
