"""FLASH's two JSON files (Yang et al., WWW 2021): states of phones over a week, and Wi-Fi speeds.

States: {id: {guid, model, messages}}, messages a line an event, `YYYY-mm-dd HH:MM:SS<tab>event`. A phone starts
with every state unknown, which counts as not there. Speeds: {guid: {down_u, down_sigma, up_u, up_sigma}} in
kB/s of 1,000 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fedsim.errors import ProfileError, message, nearest
from fedsim.importers.capacity import networks
from fedsim.importers.entries import entries
from fedsim.importers.formats import Format
from fedsim.importers.numbers import number, shown
from fedsim.importers.options import SESSIONS, Options, needed
from fedsim.importers.plain_json import read_json
from fedsim.importers.sessions import windows
from fedsim.importers.table import Table
from fedsim.network.base import DIRECTIONS

EVENTS: dict[str, tuple[str, bool]] = {
    "battery_charged_on": ("charging", True),
    "battery_charged_off": ("charging", False),
    "wifi": ("wifi", True),
    **dict.fromkeys(("2g", "3g", "4g", "5g", "unknown"), ("wifi", False)),
    "screen_off": ("screen_off", True),
    "screen_on": ("screen_off", False),
    "screen_lock": ("locked", True),
    "screen_unlock": ("locked", False),
}
"""Event -> the state it sets."""
STATES_OF = ("charging", "wifi", "locked", "screen_off")
SPEED_FIELDS = ("down_u", "down_sigma", "up_u", "up_sigma")
Timeline = list[tuple[datetime, str]]


def _states(files: Sequence[Path], options: Options) -> Table:
    path = files[0]
    fix = "give the states that must all hold, as in --when charging,wifi,locked (FLASH's own rule)"
    wanted = _words(needed("flash-states", options, "when", fix))
    phones = {client: _events(where, value) for where, client, value in _entries(path, ("messages",))}
    first = min((events[0][0] for events in phones.values() if events), default=None)
    if first is None:
        raise ProfileError(message(str(path), "has no event", fix="check that it is the right file"))
    midnight = first.replace(hour=0, minute=0, second=0)
    sessions = {client: _there(events, wanted, midnight) for client, events in phones.items()}
    table = windows(str(path), sessions, options, options.period_s)
    facts = table.facts | {
        "there": f"while {' and '.join(wanted)}",
        "clock": f"time 0 is {midnight}, the midnight before the first event, in the phones' own time",
    }
    return Table(table.kind, table.columns, facts, table.figures | {"time 0": str(midnight)})


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in STATES_OF:
            raise ProfileError(message("--when", "no such state", got=word, fix=nearest(word, STATES_OF)))
    return words


def _events(where: str, value: dict[str, Any]) -> Timeline:
    """Return a phone's events in order, checked."""
    text = value["messages"]
    if not isinstance(text, str):
        raise ProfileError(
            message(f"{where}: messages", "must be text", got=shown(text), fix="a line an event")
        )
    events: Timeline = []
    for row, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{where} message {row}"
        stamp, tab, event = line.strip().partition("\t")
        event = event.strip().lower()
        if not tab or not (event in EVENTS or event.endswith("%")):
            fix = f"write a time, a tab, and one of: {', '.join(EVENTS)}, or a percentage"
            raise ProfileError(message(place, "is no event", got=shown(line.strip()), fix=fix))
        if event.endswith("%"):
            number(place, "battery", event[:-1])
        at = _time(place, stamp.strip())
        if events and at < events[-1][0]:
            what = f"must not be before the one above it ({events[-1][0]})"
            raise ProfileError(message(f"{place}: time", what, got=str(at), fix="sort the messages"))
        events.append((at, event))
    return events


def _time(place: str, text: str) -> datetime:
    try:
        if len(text) == len("YYYY-mm-dd HH:MM:SS") and text[10] == " ":
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    fix = "write YYYY-mm-dd HH:MM:SS"
    raise ProfileError(message(f"{place}: time", "is no time", got=shown(text), fix=fix))


def _there(events: Timeline, wanted: tuple[str, ...], midnight: datetime) -> list[tuple[float, float]]:
    """Return when all wanted states hold [s after midnight]; what holds at the last event ends there."""
    holds = dict.fromkeys(STATES_OF, False)
    sessions: list[tuple[float, float]] = []
    since: datetime | None = None
    for at, event in events:
        if event in EVENTS:
            state, on = EVENTS[event]
            holds[state] = on
        there = all(holds[word] for word in wanted)
        if there and since is None:
            since = at
        elif not there and since is not None:
            sessions.append(_seconds(since, at, midnight))
            since = None
    if since is not None:
        sessions.append(_seconds(since, events[-1][0], midnight))
    return [(start, stop) for start, stop in sessions if stop > start]


def _seconds(start: datetime, stop: datetime, midnight: datetime) -> tuple[float, float]:
    return (start - midnight).total_seconds(), (stop - midnight).total_seconds()


def _speeds(files: Sequence[Path], options: Options) -> Table:
    mbps: dict[str, tuple[float, float]] = {}
    cv: dict[str, float] = {}
    for where, user, value in _entries(files[0], SPEED_FIELDS):
        down, up = (number(where, f"{d}_u", value[f"{d}_u"], positive=True) for d in DIRECTIONS)
        sd = [number(where, f"{d}_sigma", value[f"{d}_sigma"]) for d in DIRECTIONS]
        mbps[user], cv[user] = (8e-3 * down, 8e-3 * up), (sd[0] / down + sd[1] / up) / 2
    table = networks(mbps, "networks.csv", "wifi-shared", cv)
    facts = table.facts | {"within_cv": "the mean of sigma / u down and up"}
    return Table(table.kind, table.columns, facts, table.figures)


def _entries(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (place, name, value) of each entry of the file."""
    return entries(read_json(path), path, "phone", fields, f"give it as {{id: {{{', '.join(fields)}}}}}")


STATES = Format(
    "FLASH state traces: JSON of phones with their messages; --when charging,wifi,locked",
    _states,
    ("when", *SESSIONS),
)
SPEEDS = Format(
    "FLASH Wi-Fi speeds: JSON of users with down_u, down_sigma, up_u, up_sigma [kB/s]", _speeds, ()
)
FORMATS = {"flash-states": STATES, "flash-speeds": SPEEDS}
