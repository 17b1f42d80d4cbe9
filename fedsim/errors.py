"""Every error fedsim raises on purpose, and the exit code the command line answers with.

    FedsimError                     1
      ExperimentError               2   a configuration: unknown key, wrong value, impossible combination
      ProfileError                  2   a device, network or availability table or preset
      DataError                     2   a text, model or data set that cannot be used as asked
      RunFolderError                2   a run folder that is missing, taken, or not readable
      RunError                      1   the run failed: nobody came online, nothing can be learned
        WorkerError                 1   one client's training failed (names client and visit)
      HostError                     3   this machine: Ray, memory, a missing package, the watchdog

Each carries exactly one message (SimPy and Ray rebuild exceptions from `args`):
`where: what is wrong (got ...)`, then on a second line `fix: ...`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class FedsimError(Exception):
    """Base of all expected errors; its one argument is the whole message."""

    exit_code: ClassVar[int] = 1


class ExperimentError(FedsimError):
    """The configuration is wrong."""

    exit_code = 2


class ProfileError(FedsimError):
    """A device, network or availability table, or a preset, is wrong."""

    exit_code = 2


class DataError(FedsimError):
    """A data set or model cannot be used as asked."""

    exit_code = 2


class RunFolderError(FedsimError):
    """A run folder is missing, taken or unreadable."""

    exit_code = 2


class RunError(FedsimError):
    """The run started and failed."""


class WorkerError(RunError):
    """The training or evaluation of one client failed."""


class HostError(FedsimError):
    """This machine cannot run it: Ray, memory, a missing package, or the watchdog."""

    exit_code = 3


_NOTHING = object()


def message(where: str, what: str, *, got: Any = _NOTHING, fix: str | None = None) -> str:
    """Return the text of an error: where, what, the offending value, and one way out.

    >>> print(message("a.yaml: lora.r", "must be at least 1", got=0, fix="set lora.r: 8"))
    a.yaml: lora.r: must be at least 1 (got 0)
      fix: set lora.r: 8
    """
    text = f"{where}: {what}" if where else what
    if got is not _NOTHING:
        text += f" (got {got!r})"
    return f"{text}\n  fix: {fix}" if fix else text


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint with the nearest valid name, or with all of them.

    >>> nearest("uniforn", ["uniform", "oort"])
    "did you mean 'uniform'?"
    >>> nearest("xyz", ["uniform", "oort"])
    'choose one of: oort, uniform'
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(names)}"
