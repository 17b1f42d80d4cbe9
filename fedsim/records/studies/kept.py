"""What a study keeps of its runs: a few numbers a run, as a CSV that is committed where run folders are not."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fedsim.files.opened import FACTS_BYTES, bytes_of
from fedsim.records.info import read_info
from fedsim.records.run import Run, load


class Key(NamedTuple):
    """Which run of a study: what it is about, what was done in it, and its seed."""

    study: str
    way: str
    seed: int


Rows = Mapping[Key, Mapping[str, float]]
"""What is kept of each run, by name; what was not asked for, or not reached, is left out or NaN."""


def lines_of(text: str) -> list[dict[str, str]]:
    r"""Return the rows of a CSV as text, by column; lines that begin with `#` say something about it.

    >>> lines_of("# rates\nrate,loss\n0.1,2\n")
    [{'rate': '0.1', 'loss': '2'}]
    """
    return list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))


def rows_of(text: str) -> dict[Key, dict[str, float]]:
    r"""Return the rows of a CSV; lines that begin with `#` say something about it.

    >>> rows_of("# two runs\nstudy,way,seed,last,hours\na,b,0,1.5,\na,b,1,2,3\n")[Key("a", "b", 0)]
    {'last': 1.5}
    """
    return {
        Key(row.pop("study"), row.pop("way"), int(row.pop("seed"))): {
            name: float(cell) for name, cell in row.items() if cell
        }
        for row in lines_of(text)
    }


def rows_in(path: Path) -> dict[Key, dict[str, float]]:
    """Return the rows of a CSV file, none where nothing was kept yet.

    Raises:
        UnreadableError: it is no regular file, or longer than fedsim's own facts are.
    """
    return rows_of(str(bytes_of(path, FACTS_BYTES), "utf-8")) if path.exists() else {}


def text_of(rows: Rows, order: Iterable[Key], about: str) -> str:
    """Return rows as a CSV, those of `order` in it, six digits a number; what no row has is no column.

    Args:
        rows: what is kept.
        order: of the runs; those without a row are passed over.
        about: the first line, without its `#`.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name, x in row.items() if not math.isnan(x)))
    cells = [
        [*key, *("" if math.isnan(x) else f"{x:.6g}" for x in (rows[key].get(n, math.nan) for n in names))]
        for key in order
        if key in rows
    ]
    return csv_text(["study", "way", "seed", *names], cells, about)


def csv_text(head: Sequence[str], cells: Iterable[Sequence[object]], about: str) -> str:
    """Return a CSV with a first line that says what it is."""
    file = io.StringIO()
    file.write(f"# {about}\n")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(cells)
    return file.getvalue()


def slug(way: str) -> str:
    """Return what was done in a run as the name of a folder.

    >>> slug("FedBuff, no discount")
    'FedBuff-no-discount'
    """
    return "-".join(way.replace(",", "").split())


def finished(folder: Path) -> bool:
    """Return whether a run lies there that came to its end."""
    path = folder / "run.json"
    return path.exists() and read_info(path).status == "done"


def runs_of(folder: Path, ways: Iterable[str]) -> dict[str, list[Run]]:
    """Return the finished runs of each way by seed, from folders `folder/WAY/ANY/run.json`; ways without one are left out."""
    found = {way: sorted(path.parent for path in (folder / way).glob("*/run.json")) for way in ways}
    runs = {way: [load(path) for path in paths] for way, paths in found.items() if paths}
    return {way: sorted(of_way, key=lambda run: run.info.seed) for way, of_way in runs.items()}
