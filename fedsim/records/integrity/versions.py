"""The versions of Python and of the packages that results may depend on."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from functools import cache

from fedsim.records.integrity.seals import FEDSIM

_PACKAGES = ("numpy", "pandas", "pyarrow", "pydantic", "simpy", "torch", "transformers", "peft", "ray")  # fmt: skip


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results may depend on, as `run.json` names them."""
    versions = {"python": platform.python_version(), FEDSIM: _running_version()}
    for package in _PACKAGES:
        version = _of_loaded(package) if package in sys.modules else _installed(package)
        if version is not None:
            versions[package] = version
    return versions


@cache
def _of_loaded(package: str) -> str | None:
    """Return the version of a package that is loaded, looked up once: it stays what it is, whatever is installed meanwhile."""
    return _installed(package)


def _installed(package: str) -> str | None:
    """Return the version of a package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _running_version() -> str:
    """Return the version of the code that runs: what was noted when a source tree was installed may be older."""
    return str(vars(sys.modules["fedsim"])["__version__"])
