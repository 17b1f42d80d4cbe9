"""Rates read from files, as one table of rate traces: a trace a file, one a pair of files, or all that a file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.arrays import Floats
from fedsim.errors import ProfileError, message
from fedsim.importers.formats import Format
from fedsim.importers.options import Options
from fedsim.importers.table import Table, spread
from fedsim.network.base import MBPS
from fedsim.network.rate_tables import unfit_rates
from fedsim.network.traces import RateTrace

Curve = tuple[Floats, Floats]
"""Times [s] from 0, the last of them the end; rates [bytes/s], the last of them again that before the end."""
Reader = Callable[[Path, Options], Curve]
TracesReader = Callable[[Path, Options], dict[str, list[Curve]]]
"""The traces of a file: what comes behind the file's name in a trace's label, and the rates of its sides; one curve
alone serves all sides that are asked for."""
_NAMES = {
    "down": ("down_bytes_per_s",),
    "up": ("up_bytes_per_s",),
    "both": ("down_bytes_per_s", "up_bytes_per_s"),
}


def of_curves(about: str, read: Reader, *uses: str) -> Format:
    """Return the format of files that hold one rate over time each."""
    return of_traces(about, lambda path, options: {"": [read(path, options)]}, "up", *uses)


def of_traces(about: str, read: TracesReader, *uses: str) -> Format:
    """Return the format of files that hold several traces, or both directions."""
    return Format(about, lambda files, options: _table(files, options, read), ("direction", *uses), many=True)


def _table(files: Sequence[Path], options: Options, read: TracesReader) -> Table:
    _sides_given(files, options)
    columns: dict[str, list[Any]] = {"trace": [], "time_s": []}
    names = _NAMES[options.direction or "both"]
    columns |= {name: [] for name in names}
    means: dict[str, list[float]] = {name: [] for name in names}
    hours, cut_s = [], 0.0
    for path, label, sides in _traces(files, options, read):
        ends = [float(times[-1]) for times, _ in sides]
        cut_s = max(cut_s, max(ends) - min(ends))
        times, rates = _joined(sides)
        _fit(path, times, rates)
        columns["trace"] += [label] * len(times)
        columns["time_s"] += times.tolist()
        for name, side in zip(names, (rates * 2)[: len(names)], strict=True):
            columns[name] += side.tolist()
            means[name].append(float(np.sum(np.diff(times) * side[:-1]) / times[-1]))
        hours.append(times[-1] / 3600)
    facts = {"last_row": "the end of a trace"}
    figures = {
        "traces": len(hours),
        "rows": len(columns["trace"]),
        "hours": f"{sum(hours):.4g} in all, {spread(hours)}",
    }
    if cut_s:
        facts["cut"] = f"the longer of two directions ends with the shorter one (at most {cut_s:g} s cut off)"
        figures["cut off"] = f"at most {cut_s:g} s, where one direction is longer than the other"
    for name in names:
        mbps = name.replace("bytes_per_s", "mbps")
        figures |= {mbps: spread(np.array(columns[name]) / MBPS)}
        figures |= {f"mean {mbps} of a trace": spread(np.array(means[name]) / MBPS)}
    return Table("rates", columns, facts, figures)


def _traces(
    files: Sequence[Path], options: Options, read: TracesReader
) -> Iterator[tuple[Path, str, list[Curve]]]:
    """Yield every trace: its file, its label and the rates of its sides."""
    for k, (label, path) in enumerate(zip(_labels(files), files, strict=True)):
        for behind, curves in read(path, options).items():
            up = read(options.up[k], options)[""] if options.up else []
            yield path, label + behind, [*curves, *up]


def _sides_given(files: Sequence[Path], options: Options) -> None:
    if bool(options.up) == (options.direction is not None):
        what = "needs to know whose rate it is" if not options.up else "has no meaning beside --up"
        fix = "give --direction down, up or both; or --up FILE, one for each downlink file"
        raise ProfileError(message("--direction", what, fix=fix))
    if options.up and len(options.up) != len(files):
        fix = "give one --up for each FILE, in the same order"
        raise ProfileError(message("--up", f"must be given {len(files)} times", got=len(options.up), fix=fix))


def _labels(files: Sequence[Path]) -> list[str]:
    labels = [
        path.stem if path.suffix in (".csv", ".json", ".parquet", ".txt") else path.name for path in files
    ]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ProfileError(message("FILE", "two files have one name", got=twice, fix="rename one of them"))
    return labels


def _fit(path: Path, times: Floats, rates: list[Floats]) -> None:
    """Check that the rates of a trace can be used.

    Raises:
        ProfileError: they carry nothing, or next to nothing, or their steps are too short.
    """
    if np.any(np.diff(times) <= 0):
        fix = "count seconds from the beginning of the file"
        raise ProfileError(message(str(path), "has times too near to each other to be told apart", fix=fix))
    for side in rates:
        unfit = unfit_rates(times, side)
        if unfit is not None:
            raise ProfileError(message(str(path), unfit, fix="leave it out"))


def _joined(sides: list[Curve]) -> tuple[Floats, list[Floats]]:
    """Return common times and the rate of every side at each, up to the end of the shorter side."""
    if len(sides) == 1:
        return sides[0][0], [sides[0][1]]
    end_s = min(times[-1] for times, _ in sides)
    times = np.unique(np.concatenate([times for times, _ in sides]))
    times = times[times <= end_s]
    links = [RateTrace(at, rates, "hold") for at, rates in sides]
    return times, [np.array([link.rate(float(t)) for t in times]) for link in links]
