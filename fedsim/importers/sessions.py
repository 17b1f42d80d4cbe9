"""Sessions read from a foreign trace, cleaned, as a table of windows of ours.

Plugs flap and logs have holes, so sessions a short gap apart are one, very short ones are dropped and very
long ones are cut. What was done stands in the header of the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedsim.errors import ProfileError, message
from fedsim.importers.options import Options
from fedsim.importers.table import Table, spread

GAP_S = 60.0
SHORTEST_S = 60.0
LONGEST_S = 86_400.0
Sessions = Sequence[tuple[float, float]]


def windows(where: str, sessions: Mapping[str, Sessions], options: Options, period_s: float | None) -> Table:
    """Return the table of the windows of all clients.

    Args:
        where: the file, for the message.
        sessions: client -> (start, stop) [s], in any order.
        options: how to clean them.
        period_s: the windows repeat with this period; what lies beyond it is cut off. None: they do not repeat.

    Raises:
        ProfileError: nothing is left.
    """
    end_s = math.inf if period_s is None else period_s
    windows_of = {client: cleaned(read, options, end_s) for client, read in sessions.items()}
    traces = {client: windows for client, windows in windows_of.items() if windows}
    if not traces:
        fix = "check that it is the right file, or lower --shortest-s"
        raise ProfileError(message(where, "has no session that is long enough", got=len(sessions), fix=fix))
    columns: dict[str, list[Any]] = {
        "trace": [client for client, windows in traces.items() for _ in windows],
        "start_s": [start for windows in traces.values() for start, _ in windows],
        "stop_s": [stop for windows in traces.values() for _, stop in windows],
    }
    gap_s, shortest_s, longest_s = _limits(options)
    facts = {
        "cleaned": f"sessions at most {gap_s:g} s apart joined, those under {shortest_s:g} s dropped, the rest "
        f"cut to {longest_s:g} s"
    }
    if period_s is not None:
        facts["period_s"] = f"{period_s:.17g}"
    return Table("windows", columns, facts, _figures(sessions, traces, period_s))


def _figures(
    sessions: Mapping[str, Sessions], traces: Mapping[str, Sessions], period_s: float | None
) -> dict[str, Any]:
    """Return what a person should see of the windows that were left of the sessions."""
    lengths_s = [[stop - start for start, stop in windows] for windows in traces.values()]
    hours = np.concatenate(lengths_s) / 3600
    covered_s = period_s or max(stop for windows in traces.values() for _, stop in windows)
    online = [sum(lengths) / covered_s for lengths in lengths_s]
    return {
        "clients": len(traces),
        "clients never there (left out)": len(sessions) - len(traces),
        "rows": len(hours),
        "sessions before cleaning": sum(len(read) for read in sessions.values()),
        "hours of a session": spread(hours),
        "hours in all": f"{hours.sum():.4g}",
        "repeats after": "never" if period_s is None else f"{period_s / 3600:g} hours",
        "percent of the time there": spread(100 * np.array(online)),
    }


def cleaned(sessions: Sessions, options: Options, end_s: float = math.inf) -> list[tuple[float, float]]:
    """Return sessions in order: joined, the short ones dropped, the long ones cut, all before `end_s`.

    >>> cleaned([(0, 100), (150, 400), (900, 910)], Options())
    [(0, 400)]
    """
    gap_s, shortest_s, longest_s = _limits(options)
    joined: list[tuple[float, float]] = []
    for start, stop in sorted(sessions):
        if joined and start - joined[-1][1] <= gap_s:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    limited = [(start, min(stop, start + longest_s, end_s)) for start, stop in joined]
    return [(start, stop) for start, stop in limited if stop > start and stop - start >= shortest_s]


def _limits(options: Options) -> tuple[float, float, float]:
    return (
        GAP_S if options.gap_s is None else options.gap_s,
        SHORTEST_S if options.shortest_s is None else options.shortest_s,
        LONGEST_S if options.longest_s is None else options.longest_s,
    )
