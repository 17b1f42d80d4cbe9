"""Mahimahi's packet-delivery files: a line for every chance to send 1,500 bytes, its time in milliseconds.

Format and the end of the file (it begins again after the last time) as in Netravali et al., USENIX ATC 2015,
and its `mm-link`.
"""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import data_of
from fedsim.importers.numbers import shown
from fedsim.importers.options import Options
from fedsim.importers.traces import Curve, of_curves

ABOUT = "Mahimahi packet-delivery file: ms of every 1,500-byte opportunity; steps of --bin-s (1 s)"
PACKET_BYTES = 1500
BIN_S = 1.0
LONGEST_MS = 10**12
SHORTEST_BIN_S = 0.001
MOST_BINS = 10_000_000


def read(path: Path, options: Options) -> Curve:
    """Return the rate in bins: an opportunity at t ms counts for the bin that ends at or after t.

    The last bin ends with the last opportunity, where Mahimahi begins again: one line `1` is 12 Mbps.

    Raises:
        ProfileError: a line that is no whole number, a time before the one above it, a file of no length, or
            more steps than a table can hold.
    """
    times_ms = _times(path)
    end_ms = int(times_ms[-1])
    if end_ms == 0:
        raise ProfileError(message(str(path), "lasts no time at all", fix="the last time must be after 0 ms"))
    bin_s = BIN_S if options.bin_s is None else options.bin_s
    if bin_s < SHORTEST_BIN_S or end_ms / (1000 * bin_s) > MOST_BINS:
        least_s = max(SHORTEST_BIN_S, end_ms / (1000 * MOST_BINS))
        what = f"must be at least {least_s:g} for a file of {end_ms / 1000:g} s"
        raise ProfileError(message("--bin-s", what, got=bin_s, fix="count packets in longer steps"))
    edges_ms = np.append(np.arange(0.0, end_ms, 1000 * bin_s), float(end_ms))
    count = np.bincount(
        np.clip(np.searchsorted(edges_ms, times_ms) - 1, 0, None), minlength=len(edges_ms) - 1
    )
    rates = PACKET_BYTES * count / np.diff(edges_ms / 1000)
    return edges_ms / 1000, np.append(rates, rates[-1])


def _times(path: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    lines = data_of(path).removeprefix(codecs.BOM_UTF8).splitlines()
    if not lines:
        raise ProfileError(message(str(path), "is empty", fix="give a file with a time a line"))
    times = np.empty(len(lines), dtype=np.int64)
    before = 0
    for row, line in enumerate(lines, 1):
        text = line.strip()
        where = f"{path} row {row}: ms"
        if not (text.isdigit() and len(text) <= 13 and int(text) <= LONGEST_MS):
            fix = "write whole milliseconds, one a line"
            got = shown(text.decode("utf-8", "replace"))
            raise ProfileError(message(where, "must be a whole number of milliseconds", got=got, fix=fix))
        time_ms = int(text)
        if time_ms < before:
            fix = "sort the lines"
            raise ProfileError(
                message(where, f"must not be before row {row - 1} ({before} ms)", got=time_ms, fix=fix)
            )
        times[row - 1] = before = time_ms
    return times


FORMATS = {"mahimahi": of_curves(ABOUT, read, "bin_s")}
