"""The tables of README.md and rows of docs/claims.md: runs.csv and rates.csv, held against marks.csv; `figures.py` draws.

python experiments/slow/tables.py
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

import yaml

from fedsim.records.quantities import number
from fedsim.records.statistics import MeanInterval, mean_interval
from fedsim.records.studies import claims as claim_rows
from fedsim.records.studies.kept import Key, Rows, lines_of, rows_in
from fedsim.records.studies.marks import interval_of, judged
from fedsim.records.studies.pages import between, table
from fedsim.records.studies.pages import with_interval as said

HERE = Path(__file__).parent
MARKS, ROWS, RATES, PAGE = (HERE / name for name in ("marks.csv", "runs.csv", "rates.csv", "README.md"))
CLAIMS = HERE.parents[1] / "docs" / "claims.md"
STUDY = "slow"
FIFTHS = range(1, 6)
SPEEDS = ("slowest", "second", "third", "fourth", "fastest")
SERVERS = {
    "deadline": "rounds, deadline of 30 min",
    "patient": "rounds that wait for all",
    "fedbuff": "FedBuff",
    "fedasync": "FedAsync",
    "beat": "a commit every 10 min",
    "timely": "TimelyFL",
    "tifl": "TiFL",
    "fedat": "FedAT",
}
"""Ways of the main table, and what they are called there."""
Row = Mapping[str, float]
NOTHING: Row = {}
ON_EQUAL = {"deadline": "deadline, equal", "fedbuff": "fedbuff, equal"}
"""Way -> the same server, on equal devices."""


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv by way, dealing and seed."""
    return rows_in(ROWS)


# one number a seed ------------------------------------------------------------------------------


def percent(nats: float) -> float:
    """Return by how many per cent a perplexity is higher whose loss is higher by so much."""
    return 100.0 * math.expm1(nats)


def gap(tied: Row, turned: Row, kind: str) -> float:
    """Return by how much more [nats] the same text loses on the slowest fifth than on the fastest, mean of both outer kinds."""

    def of(row: Row, part: str) -> float:
        return row.get(f"{kind}_{part}", math.nan)

    return fmean((of(tied, "first") - of(turned, "first"), of(turned, "last") - of(tied, "last")))


def shares(row: Row, name: str) -> list[float]:
    """Return the share of every fifth, the slowest first [%]."""
    counts = [row[f"{name}_{fifth}"] for fifth in FIFTHS]
    return [100.0 * count / sum(counts) if sum(counts) else math.nan for count in counts]


def bought(row: Row, before: Row) -> list[float]:
    """Return every fifth's share of what its text has gained since version 0 [%]."""
    gained = [before.get(f"loss_{fifth}", math.nan) - row[f"loss_{fifth}"] for fifth in FIFTHS]
    return [100.0 * one / sum(gained) if sum(gained) else math.nan for one in gained]


def numbers_of(tied: Row, turned: Row, lot: Row, before: tuple[Row, Row]) -> dict[str, float]:
    """Return the numbers of one way and seed, of its runs; those of runs that are not there are NaN."""
    shared, own = (percent(gap(tied, turned, kind)) for kind in ("loss", "own"))
    found = {
        "gap": shared,
        "slow": math.exp(fmean((tied["loss_first"], turned["loss_last"]))),
        "fast": math.exp(fmean((turned["loss_first"], tied["loss_last"]))),
        "lot": math.exp(fmean(lot.get(f"loss_{part}", math.nan) for part in ("first", "last"))),
        "all": math.exp(fmean((tied["loss"], turned["loss"]))),
    }
    if not math.isnan(own):  # a local epoch was made
        found |= {"own_gap": own, "repaired": shared - own}
    for at, fifth in enumerate(FIFTHS):
        found[f"excess_{fifth}"] = percent(
            fmean(row.get(f"excess_{fifth}", math.nan) for row in (tied, turned))
        )
        for name in ("updates", "joules"):
            found[f"{name}_{fifth}"] = fmean(shares(row, name)[at] for row in (tied, turned))
        found[f"bought_{fifth}"] = fmean((bought(tied, before[0])[at], bought(turned, before[1])[at]))
    found["unheard"] = found["joules_1"] - found["updates_1"]
    return found


def derived(rows: Rows) -> dict[Key, dict[str, float]]:
    """Return (STUDY, way, seed) -> its numbers: of ways with both outer dealings, and of single runs as `WAY, DEALING`."""
    found = {
        Key(STUDY, f"{way}, {dealing}", seed): {"all": math.exp(row["loss"])}
        for (way, dealing, seed), row in rows.items()
    }
    for way, seed in dict.fromkeys((way, seed) for way, _, seed in rows):
        tied, turned, lot = (rows.get(Key(way, dealing, seed)) for dealing in ("tied", "turned", "drawn"))
        if tied is not None and turned is not None:
            before = [rows.get(Key("untrained", dealing, seed), NOTHING) for dealing in ("tied", "turned")]
            found[Key(STUDY, way, seed)] = numbers_of(tied, turned, lot or NOTHING, (before[0], before[1]))
    return found


def over_seeds(found: Rows, way: str, name: str) -> MeanInterval:
    """Return the interval of a number over the seeds of a way that have it."""
    return mean_interval([row[name] for (_, of, _), row in found.items() if of == way and name in row])


def seeds(found: Rows, way: str) -> int:
    """Return over how many seeds a way was run."""
    return sum(of == way for _, of, _ in found)


def counted(interval: MeanInterval, n: int) -> str:
    """Return an interval in words, with its number of seeds where that is not the row's."""
    return said(interval) + (f"; n = {interval.n}" if interval.n not in (0, n) else "")


# tables -----------------------------------------------------------------------------------------


def main_table(found: Rows) -> list[str]:
    """Return the main table: the same users' text on the slowest fifth, by lot, on the fastest."""
    columns = {
        "slow": "on the slowest fifth",
        "lot": "by lot",
        "fast": "on the fastest fifth",
        "gap": "gap [%]",
        "own_gap": "gap after a local epoch [%]",
        "updates_1": "updates of the slowest [%]",
        "joules_1": "joules of the slowest [%]",
        "all": "everybody",
    }

    def cell(way: str, column: str) -> str:
        interval = over_seeds(found, way, column)
        return counted(interval, seeds(found, way)) if column.endswith("gap") else number(interval.mean)

    body = [
        [name, str(seeds(found, way)), *(cell(way, column) for column in columns)]
        for way, name in SERVERS.items()
        if seeds(found, way)
    ]
    return table(["server", "seeds", *columns.values()], body)


def payers(found: Rows) -> list[str]:
    """Return who pays for whose perplexity: shares by fifth of speed."""

    def cell(way: str, fifth: int) -> str:
        names = (f"{kind}_{fifth}" for kind in ("joules", "updates", "bought"))
        return " / ".join(f"{over_seeds(found, way, name).mean:.0f}" for name in names).replace("nan", "–")

    body = [
        [name, *(cell(way, fifth) for fifth in FIFTHS)] for way, name in SERVERS.items() if seeds(found, way)
    ]
    return table(["server", *SPEEDS], body)


def stated(found: Rows) -> list[str]:
    """Return what was stated, and what came out."""
    body = []
    for mark in lines_of(MARKS.read_text("utf-8")):
        got = judged(found, mark)
        still = f"{said(got.control)}, {mark['control_low']} to {mark['control_high']}: {mark['control']}"
        span = f"{mark['low']} to {mark['high']}"
        body.append([mark["figure"], mark["source"], span, claim_rows.told(got), still, got.verdict])
    return table(["stated", "source", "mark", "ours", "control", "outcome"], body)


def against(found: Rows) -> list[str]:
    """Return by how much gaps are larger than on equal devices, seed by seed: the same texts, by which chance gives a gap, too."""
    body = []
    for way, equal in ON_EQUAL.items():
        more = interval_of(found, STUDY, "gap", "difference", f"{way} | {equal}")
        row = [counted(over_seeds(found, name, "gap"), more.n) for name in (way, equal)]
        body.append([SERVERS[way], str(more.n), *row, said(more)])
    return table(["server", "seeds", "gap [%]", "on equal devices [%]", "more [points]"], body)


def varied(found: Rows) -> list[str]:
    """Return what else was run."""
    known = yaml.safe_load((HERE / "ways.yml").read_text("utf-8"))
    others = [way for way in known if way not in (*SERVERS, "anchors") and seeds(found, way)]
    names = ("gap [%]", "gap after a local epoch [%]", "updates of the slowest [%]", "everybody")
    columns = dict(zip(("gap", "own_gap", "updates_1", "all"), names, strict=True))
    body = [
        [
            way,
            str(seeds(found, way)),
            *(counted(over_seeds(found, way, column), seeds(found, way)) for column in columns),
        ]
        for way in others
    ]
    dealings = ("tied", "drawn")
    away = [
        [
            way,
            str(seeds(found, f"{way}, tied")),
            *(said(over_seeds(found, f"{way}, {d}", "all")) for d in dealings),
        ]
        for way in ("alone", "together")
        if seeds(found, f"{way}, tied")
    ]
    head = ["devices that are away", "seeds", "everybody, tied", "everybody, by lot"]
    return [*table(["way", "seeds", *columns.values()], body), "", *table(head, away)]


def rates(_: Rows) -> list[str]:
    """Return the perplexity of all users' validation text by learning rate, the chosen one in bold."""
    tried = lines_of(RATES.read_text("utf-8")) if RATES.exists() else []
    grid = sorted({float(row["lr"]) for row in tried})
    body = []
    for name in dict.fromkeys(row["server"] for row in tried):
        mine = {float(row["lr"]): float(row["loss"]) for row in tried if row["server"] == name}
        best = min(mine, key=lambda rate: mine[rate])
        told = {rate: f"{math.exp(loss):.2f}" for rate, loss in mine.items()}
        cells = [f"**{told[rate]}**" if rate == best else told.get(rate, "") for rate in grid]
        body.append([SERVERS.get(name, name), *cells])
    return table(["", *(f"{rate:g}" for rate in grid)], body)


def cost(_: Rows) -> list[str]:
    """Return how long it all took."""
    rows = read()
    hours = number(sum(row.get("wall_s", 0.0) for row in rows.values()) / 3600)
    return [
        f"{len(rows)} runs on one thread, {hours} hours by the clock on the wall; those that chose the rates apart."
    ]


PARTS: Mapping[str, Callable[[Rows], list[str]]] = {
    "main": main_table,
    "payers": payers,
    "marks": stated,
    "against": against,
    "varied": varied,
    "rates": rates,
    "cost": cost,
}
"""Places of README.md, and what is written there."""


def filled(page: str) -> str:
    """Return a page with every part in its place."""
    found = derived(read())
    for name, lines in PARTS.items():
        begin = f"<!-- {name}: written by `python experiments/slow/tables.py` -->"
        page = between(page, begin, f"<!-- end of {name} -->", lines(found))
    return page


def claims() -> Iterator[claim_rows.Row]:
    """Yield the rows of docs/claims.md that come from here."""
    return claim_rows.of_marks(derived(read()), lines_of(MARKS.read_text("utf-8")), STUDY, "figure")


def main() -> None:
    """Write everything anew."""
    PAGE.write_text(filled(PAGE.read_text("utf-8")), encoding="utf-8")
    CLAIMS.write_text(claim_rows.filled(CLAIMS.read_text("utf-8"), STUDY, claims()), encoding="utf-8")
    runpy.run_path(str(HERE / "figures.py"), run_name="__main__")


if __name__ == "__main__":
    main()
