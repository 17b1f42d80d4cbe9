"""Rates read from one file each, as one table of rate traces: a trace a file, or one a pair of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.arrays import Floats
from fedsim.errors import ProfileError, message
from fedsim.importers.formats import Format
from fedsim.importers.options import Options
from fedsim.importers.table import Table, spread
from fedsim.network.base import MBPS
from fedsim.network.traces import RateTrace

Curve = tuple[Floats, Floats]
"""Times [s] from 0, the last of them the end; rates [bytes/s], the last of them again that before the end."""
Reader = Callable[[Path, Options], Curve]
_NAMES = {
    "down": ("down_bytes_per_s",),
    "up": ("up_bytes_per_s",),
    "both": ("down_bytes_per_s", "up_bytes_per_s"),
}


def of_curves(about: str, read: Reader, *uses: str) -> Format:
    """Return the format of files that hold one rate over time each."""
    return Format(
        about, lambda files, options: _table(files, options, read), ("direction", "up", *uses), many=True
    )


def _table(files: Sequence[Path], options: Options, read: Reader) -> Table:
    _sides_given(files, options)
    labels = _labels(files)
    columns: dict[str, list[Any]] = {"trace": [], "time_s": []}
    names = _NAMES[options.direction or "both"]
    columns |= {name: [] for name in names}
    means: dict[str, list[float]] = {name: [] for name in names}
    hours, cut_s = [], 0.0
    for k, (label, path) in enumerate(zip(labels, files, strict=True)):
        sides = [_carrying(path, read(path, options))]
        if options.up:
            sides.append(_carrying(options.up[k], read(options.up[k], options)))
        ends = [float(times[-1]) for times, _ in sides]
        cut_s = max(cut_s, max(ends) - min(ends))
        times, rates = _joined(sides)
        columns["trace"] += [label] * len(times)
        columns["time_s"] += times.tolist()
        for name, side in zip(names, (rates * 2)[: len(names)], strict=True):
            columns[name] += side.tolist()
            means[name].append(float(np.sum(np.diff(times) * side[:-1]) / times[-1]))
        hours.append(times[-1] / 3600)
    facts = {"last_row": "the end of a trace"}
    figures = {
        "traces": len(files),
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


def _carrying(path: Path, curve: Curve) -> Curve:
    if not np.any(curve[1] > 0):
        raise ProfileError(message(str(path), "never carries anything: all rates are 0", fix="leave it out"))
    return curve


def _joined(sides: list[Curve]) -> tuple[Floats, list[Floats]]:
    """Return common times and the rate of every side at each, up to the end of the shorter side."""
    if len(sides) == 1:
        return sides[0][0], [sides[0][1]]
    end_s = min(times[-1] for times, _ in sides)
    times = np.unique(np.concatenate([times for times, _ in sides]))
    times = times[times <= end_s]
    links = [RateTrace(at, rates, "hold") for at, rates in sides]
    return times, [np.array([link.rate(float(t)) for t in times]) for link in links]
