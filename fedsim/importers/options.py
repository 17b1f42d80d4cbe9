"""What can be asked of an importer, and which format takes what: nothing given is ever ignored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import ProfileError, message


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


CHOICES = {"direction": ("down", "up", "both"), "table": ("devices", "networks")}
SESSIONS = ("period_s", "gap_s", "shortest_s", "longest_s")
MAY_BE_ZERO = ("gap_s", "shortest_s")
OF_ALL = ("licence", "source")


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
