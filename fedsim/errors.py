"""Every error fedsim raises on purpose, and the exit code the command line answers with.

    FedsimError                     1
      ExperimentError               2   a configuration: unknown key, wrong value, impossible combination
      ProfileError                  2   a device, network or availability table or preset
      DataError                     2   a text, model or data set that cannot be used as asked
      RunFolderError                2   a run folder that is missing, taken, or not readable
      RunError                      1   the run failed: nobody came online, nothing can be learned
        WorkerError                 1   one client's training failed (names client and visit)
      HostError                     3   this machine: Ray, memory, a missing package, the watchdog

Each carries exactly one argument (SimPy and Ray rebuild exceptions from `args`), a `Message`: what is wrong,
where, what was given, the way out and whom it blames are data. Its text, without secrets, is
`where: what is wrong (got ...)`, then on a second line `fix: ...`; nothing reads that text again.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic_core import PydanticCustomError


class Absent(enum.Enum):
    """The type of `ABSENT`: one value, the same one in every process."""

    ABSENT = "no value"


ABSENT = Absent.ABSENT
"""No offending value: the message has no `(got ...)`."""


NEWLINE = "\n"


def visible(text: str, also: str = "") -> str:
    r"""Return a text in which every character can be seen and written: others are escaped, those of `also` apart.

    A byte order mark inside a key, a terminal's escape sequence or half of a surrogate pair would else be read by nobody.

    >>> visible("lo" + chr(0xFEFF) + "ra" + chr(27) + "[31m")
    'lo\\ufeffra\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in also else c.encode("unicode_escape").decode() for c in text)


class Shown(str):
    """Words for what was given, shown as they are: `(got 25 and 30)`."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the words, without quotes."""
        return str(self)


@dataclass(frozen=True)
class Message:
    """What went wrong, as data; its `str()` is what the user reads.

    Attributes:
        what: the sentence, without place and value.
        where: a file and line, a path of keys, a client: what it is about.
        got: the offending value; one that is no plain value is held as its `repr`, which every process can read.
        fix: one way out.
        blamed: the (client, visit) pairs whose work failed.
        others: what else is wrong, each on lines of its own.
    """

    what: str
    where: str = ""
    got: object = ABSENT
    fix: str | None = None
    blamed: tuple[tuple[int, int], ...] = ()
    others: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if not _plain(self.got):
            object.__setattr__(self, "got", Shown(repr(self.got)))

    @property
    def headline(self) -> str:
        """Where, what and the value: the text without the way out."""
        from fedsim.redaction import (
            HIDDEN,
            is_secret_name,
            redacted,
        )  # no worker needs it, as long as nothing is wrong

        what = visible(self.what, also=NEWLINE)
        text = f"{visible(self.where)}: {what}" if self.where else what
        if self.got is not ABSENT:
            secret = is_secret_name(self.where.rpartition(".")[2])
            text += f" (got {HIDDEN if secret else visible(repr(self.got))})"
        return redacted(text)

    def __str__(self) -> str:
        from fedsim.redaction import redacted

        fix = f"\n  fix: {redacted(visible(self.fix, also=NEWLINE))}" if self.fix else ""
        text = f"{self.headline}{fix}"
        return "\n".join([text, *map(str, self.others)])


class Terminated(SystemExit):  # reads as what it says
    """SIGTERM has come: a run that ends, and no `sys.exit` of somebody's code, wherever it arrives."""


class FedsimError(Exception):
    """Base of all expected errors; its one argument is the whole message."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: Message | str) -> None:
        super().__init__(message)

    @property
    def message(self) -> Message:
        """What is wrong, as data."""
        content: Message | str = self.args[0]
        return content if isinstance(content, Message) else Message(content)


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


class TakenError(RunFolderError):
    """A folder for a new run holds something already: another run, or files that this one would overwrite."""


class RunError(FedsimError):
    """The run started and failed."""


class WorkerError(RunError):
    """The training or evaluation of one client failed; `blamed` says whose."""

    @property
    def blamed(self) -> tuple[tuple[int, int], ...]:
        """The (client, visit) pairs whose work failed; empty where it was an evaluation."""
        return self.message.blamed


class HostError(FedsimError):
    """This machine cannot run it: Ray, memory, a missing package, or the watchdog."""

    exit_code = 3


def message(where: str, what: str, *, got: object = ABSENT, fix: str | None = None) -> Message:
    """Return what is wrong: where, what, the offending value, and one way out.

    >>> print(message("a.yaml: lora.r", "must be at least 1", got=0, fix="set lora.r: 8"))
    a.yaml: lora.r: must be at least 1 (got 0)
      fix: set lora.r: 8
    """
    return Message(what, where, got, fix)


def several(messages: Sequence[Message]) -> Message:
    """Return one message that says them all, in their order.

    >>> print(several([message("a", "is odd"), message("b", "is even", fix="add 1")]))
    a: is odd
    b: is even
      fix: add 1
    """
    first, *rest = messages
    others = [m for message in rest for m in (replace(message, others=()), *message.others)]
    return replace(first, others=(*first.others, *others))


def invalid(
    what: str, *, fix: str = "change it", got: object = ABSENT, where: str = ""
) -> PydanticCustomError:
    """Return what a validator of a settings class raises (a `ValueError`); its parts arrive as data.

    Args:
        what: the sentence; the block's path of keys goes before it.
        fix: one way out.
        got: the offending value; without it, the value of the validated block or field is shown.
        where: the key below the validated block that it is about.
    """
    return as_invalid(Message(what, where, got, fix))


def as_invalid(content: Message) -> PydanticCustomError:
    """Return a message as what a validator raises; `problems` in `fedsim.config.validation` reads it back."""
    from pydantic_core import PydanticCustomError  # the command line says --help without it

    return PydanticCustomError(INVALID, "{text}", {"text": str(content), "message": content})


INVALID = "fedsim"
"""Pydantic's type of the errors that our own validators raise."""


MOST_NAMES = 40
"""Names to choose from that a message lists."""


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a hint with the nearest valid name, or with all of them; `cutoff` is how alike two names must be, 0..1.

    >>> nearest("uniforn", ["uniform", "oort"])
    "did you mean 'uniform'?"
    >>> nearest("xyz", ["uniform", "oort"])
    'choose one of: oort, uniform'
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=cutoff)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"choose one of: {', '.join(names[:MOST_NAMES])}{more}"


def _plain(value: Any) -> bool:
    """Whether every process can read the value back: numbers, text, paths, and lists and mappings of them."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(_plain(item) for pair in value.items() for item in pair)
    if type(value) in (list, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Path | Absent)
