"""What can be asked of an importer, and which format takes what: nothing given is ever ignored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.errors import ProfileError, message

if TYPE_CHECKING:
    from fedsim.importers.table import Table


@dataclass(frozen=True)
class Options:
    """Options of all formats; None: not given.

    Attributes:
        licence, source: for the header of the table.
        direction: `down`, `up` or `both`: whose rate a file with one rate is.
        up: one file of uplink rates for each of the downlink files.
        bin_s: width of the steps that packets are counted in.
        last_s: how long the last row lasts.
        table: `devices` or `networks`.
        gflop_per_sample: what a latency of one sample is turned into a speed with.
        when: words that must all hold, as in `charging,wifi`.
        period_s: the windows repeat with this period.
        gap_s, shortest_s, longest_s: how sessions are cleaned.
    """

    licence: str | None = None
    source: str | None = None
    direction: str | None = None
    up: tuple[Path, ...] = ()
    bin_s: float | None = None
    last_s: float | None = None
    table: str | None = None
    gflop_per_sample: float | None = None
    when: str | None = None
    period_s: float | None = None
    gap_s: float | None = None
    shortest_s: float | None = None
    longest_s: float | None = None


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        about: what it is, for `--help`.
        read: files and options to a table.
        uses: options that have a meaning, besides licence and source.
        many: several files may be given, a trace each.
    """

    about: str
    read: Callable[[Sequence[Path], Options], Table]
    uses: tuple[str, ...]
    many: bool = False


CHOICES = {"direction": ("down", "up", "both"), "table": ("devices", "networks")}
SESSIONS = ("period_s", "gap_s", "shortest_s", "longest_s")
_MAY_BE_ZERO = ("gap_s", "shortest_s")
_OF_ALL = ("licence", "source")


def fitting(name: str, one: Format, options: Options) -> None:
    """Check that every option given belongs to the format and has a value that it can have.

    Raises:
        ProfileError: the first that does not.
    """
    for field in fields(Options):
        value = getattr(options, field.name)
        if value is None or value == () or field.name in _OF_ALL:
            continue
        option = flag(field.name)
        if field.name not in one.uses:
            used = ", ".join(flag(use) for use in one.uses) or "none of its own"
            raise ProfileError(
                message(option, f"has no meaning for {name}", fix=f"remove it; {name} takes {used}")
            )
        if field.name in CHOICES and value not in CHOICES[field.name]:
            raise ProfileError(
                message(
                    option,
                    "no such choice",
                    got=value,
                    fix=f"choose one of: {', '.join(CHOICES[field.name])}",
                )
            )
        if isinstance(value, float) and not (0 < value < 1e10 or (value == 0 and field.name in _MAY_BE_ZERO)):
            bound = "at least 0" if field.name in _MAY_BE_ZERO else "greater than 0"
            raise ProfileError(message(option, f"must be {bound} and finite", got=value, fix="give seconds"))


def needed(name: str, options: Options, field: str, fix: str) -> str:
    """Return an option that has no default, since nothing would be the obvious one.

    Raises:
        ProfileError: it is not given.
    """
    value = getattr(options, field)
    if value is None:
        raise ProfileError(message(flag(field), f"is needed for {name}", fix=fix))
    return str(value)


def flag(field: str) -> str:
    """Return the command line's word for an option."""
    return "--" + field.replace("_", "-")
