"""The tables and the figure of README.md: runs.csv and rates.csv, held against marks.csv.

python experiments/slow/tables.py
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from fedsim.records.quantities import number
from fedsim.records.statistics import MeanInterval, mean_interval
from fedsim.records.studies.kept import Key
from fedsim.records.studies.marks import judged
from fedsim.records.studies.pages import between, table
from fedsim.records.studies.pages import with_interval as said

HERE = Path(__file__).parent
MARKS, ROWS, RATES, PAGE, FIGURE = (
    HERE / name for name in ("marks.csv", "runs.csv", "rates.csv", "README.md", "slow.png")
)
STUDY = "slow"
FIFTHS = range(1, 6)
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
Key = tuple[str, str, int]
Row = Mapping[str, float]


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv: by way, dealing and seed."""
    if not ROWS.exists():
        return {}
    return {
        (row.pop("way"), row.pop("dealing"), int(row.pop("seed"))): {
            name: float(cell) for name, cell in row.items() if cell
        }
        for row in table_of(ROWS)
    }


def table_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, without its comments."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


# one number a seed ------------------------------------------------------------------------------


def percent(nats: float) -> float:
    """Return by how many per cent a perplexity is higher whose loss is higher by so much."""
    return 100.0 * math.expm1(nats)


def mean(*values: float) -> float:
    """Return the mean; NaN if one is missing."""
    return sum(values) / len(values)


def gap(tied: Row, turned: Row, kind: str) -> float:
    """Return by how much more [nats] the same text loses on the slowest fifth than on the fastest, mean of both outer kinds."""

    def of(row: Row, part: str) -> float:
        return row.get(f"{kind}_{part}", math.nan)

    return mean(of(tied, "first") - of(turned, "first"), of(turned, "last") - of(tied, "last"))


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
    own = gap(tied, turned, "own")
    found = {
        "gap": percent(gap(tied, turned, "loss")),
        "own_gap": percent(own),
        "repaired": percent(gap(tied, turned, "loss")) - percent(own),
        "slow": math.exp(mean(tied["loss_first"], turned["loss_last"])),
        "fast": math.exp(mean(turned["loss_first"], tied["loss_last"])),
        "lot": math.exp(mean(*(lot.get(f"loss_{part}", math.nan) for part in ("first", "last")))),
        "all": math.exp(mean(tied["loss"], turned["loss"])),
    }
    for fifth in FIFTHS:
        both = [row.get(f"excess_{fifth}", math.nan) for row in (tied, turned)]
        found[f"excess_{fifth}"] = percent(mean(*both))
        for name in ("updates", "joules"):
            found[f"{name}_{fifth}"] = mean(*(shares(row, name)[fifth - 1] for row in (tied, turned)))
        gains = [bought(row, was)[fifth - 1] for row, was in zip((tied, turned), before, strict=True)]
        found[f"bought_{fifth}"] = mean(*gains)
    found["unheard"] = found["joules_1"] - found["updates_1"]
    return found


def derived(rows: Mapping[Key, Row]) -> dict[Key, dict[str, float]]:
    """Return (study, way, seed) -> its numbers: of ways with both outer dealings, and of single runs as `WAY, DEALING`."""
    nothing: Row = {}
    found: dict[Key, dict[str, float]] = {
        (STUDY, f"{way}, {dealing}", seed): {"all": math.exp(row["loss"])}
        for (way, dealing, seed), row in rows.items()
    }
    for way, seed in dict.fromkeys((way, seed) for way, _, seed in rows):
        by_dealing = {dealing: rows.get((way, dealing, seed)) for dealing in ("tied", "turned", "drawn")}
        tied, turned = by_dealing["tied"], by_dealing["turned"]
        if tied is not None and turned is not None:
            before = tuple(rows.get(("untrained", dealing, seed), nothing) for dealing in ("tied", "turned"))
            assert len(before) == 2
            lot = by_dealing["drawn"] or nothing
            found[STUDY, way, seed] = numbers_of(tied, turned, lot, (before[0], before[1]))
    return found


def over_seeds(found: Mapping[Key, Row], way: str, name: str) -> MeanInterval:
    """Return the interval of a number over the seeds of a way."""
    return mean_interval([row[name] for (_, of, _), row in found.items() if of == way])


# tables -----------------------------------------------------------------------------------------


def judged() -> Iterator[str]:
    """Yield the table of what was stated, and what came out."""
    found = derived(read())
    yield "| stated | source | mark | ours | control | outcome |"
    yield "|---|---|---|---|---|---|"
    for mark in table_of(MARKS):
        got = judged(found, mark)
        still = f"{said(got.control)}, {mark['control_low']} to {mark['control_high']}: {mark['control']}"
        span = f"{mark['low']} to {mark['high']}"
        n = f"; n = {got.ours.n}" if got.ours.n else ""
        cells = [mark["figure"], mark["source"], span, said(got.ours) + n, still, got.verdict]
        yield f"| {' | '.join(cells)} |"


def main_table() -> Iterator[str]:
    """Yield the main table: the same users' text on the slowest fifth, by lot, on the fastest."""
    found = derived(read())
    yield (
        "| server | seeds | on the slowest fifth | by lot | on the fastest fifth | gap [%] | gap after a local epoch [%]"
        " | updates of the slowest [%] | joules of the slowest [%] | everybody |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for way, name in SERVERS.items():
        n = sum(of == way for _, of, _ in found)
        if n:
            columns = ("slow", "lot", "fast", "gap", "own_gap", "updates_1", "joules_1", "all")
            cells = [over_seeds(found, way, column) for column in columns]
            plain = [
                said(cell) if column in ("gap", "own_gap") else number(cell.mean)
                for column, cell in zip(columns, cells, strict=True)
            ]
            yield f"| {name} | {n} | {' | '.join(plain)} |"


def payers() -> Iterator[str]:
    """Yield who pays for whose perplexity: shares by fifth of speed."""
    found = derived(read())
    yield "| server | slowest | second | third | fourth | fastest |"
    yield "|---|---|---|---|---|---|"
    for way, name in SERVERS.items():
        if any(of == way for _, of, _ in found):
            cells = [
                " / ".join(
                    f"{over_seeds(found, way, f'{kind}_{fifth}').mean:.0f}".replace("nan", "–")
                    for kind in ("joules", "updates", "bought")
                )
                for fifth in FIFTHS
            ]
            yield f"| {name} | {' | '.join(cells)} |"


def varied() -> Iterator[str]:
    """Yield what else was run."""
    found = derived(read())
    known = [way for way in yaml.safe_load((HERE / "ways.yml").read_text("utf-8")) if way != "anchors"]
    yield "| way | seeds | gap [%] | gap after a local epoch [%] | updates of the slowest [%] | everybody |"
    yield "|---|---|---|---|---|---|"
    for way in (way for way in known if way not in (*SERVERS, "untrained")):
        n = sum(of == way for _, of, _ in found)
        if n:
            columns = ("gap", "own_gap", "updates_1", "all")
            cells = [said(over_seeds(found, way, column)) for column in columns]
            yield f"| {way} | {n} | {' | '.join(cells)} |"
    yield ""
    yield "| devices that are away | seeds | everybody, tied | everybody, by lot |"
    yield "|---|---|---|---|"
    for way in ("alone", "together"):
        n = sum(of == f"{way}, tied" for _, of, _ in found)
        if n:
            cells = [said(over_seeds(found, f"{way}, {dealing}", "all")) for dealing in ("tied", "drawn")]
            yield f"| {way} | {n} | {' | '.join(cells)} |"


def rates() -> Iterator[str]:
    """Yield the perplexity of all users' validation text by learning rate, the chosen one in bold."""
    tried = table_of(RATES) if RATES.exists() else []
    grid = sorted({float(row["lr"]) for row in tried})
    yield f"| | {' | '.join(f'{rate:g}' for rate in grid)} |"
    yield f"|---|{'---|' * len(grid)}"
    for name in dict.fromkeys(row["server"] for row in tried):
        mine = {float(row["lr"]): float(row["loss"]) for row in tried if row["server"] == name}
        best = min(mine, key=lambda rate: mine[rate])
        told = {rate: f"{math.exp(loss):.2f}" for rate, loss in mine.items()}
        cells = [f"**{told[r]}**" if r == best else told.get(r, "") for r in grid]
        yield f"| {SERVERS.get(name, name)} | {' | '.join(cells)} |"


def cost() -> Iterator[str]:
    """Yield how long it all took."""
    rows = read()
    hours = sum(row.get("wall_s", 0.0) for row in rows.values()) / 3600
    yield f"{len(rows)} runs of one thread, {number(hours)} hours by the clock on the wall, without those that chose the rates."


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "main": main_table,
    "marks": judged,
    "payers": payers,
    "varied": varied,
    "rates": rates,
    "cost": cost,
}
"""Places of README.md, and what is written there."""


def filled(page: str) -> str:
    """Return a page with every part between its marks."""
    for name, lines in PARTS.items():
        begin, end = f"<!-- {name}: written by `python experiments/slow/tables.py` -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}" + "\n".join(lines()) + f"\n{end}{rest.partition(end)[2]}"
    return page


# figure -----------------------------------------------------------------------------------------


def panel_of(found: Mapping[Key, Row], ways: Sequence[str], kind: str) -> list[list[float]]:
    """Return a number of every way, by fifth."""
    return [[over_seeds(found, way, f"{kind}_{fifth}").mean for fifth in FIFTHS] for way in ways]


def draw() -> None:
    """Draw what every fifth loses against a dealing by lot, its updates and its joules: a row a server."""
    found = derived(read())
    ways = [way for way in SERVERS if any(of == way for _, of, _ in found)]
    if not ways:
        return
    figure = Figure(figsize=(12, 1.6 + 0.42 * len(ways)), layout="constrained")
    titles = {
        "excess": "perplexity on its own text,\nagainst text dealt by lot [%]",
        "updates": "share of the updates [%]",
        "joules": "share of the joules [%]",
    }
    for ax, (kind, title) in zip(figure.subplots(1, 3, sharey=True), titles.items(), strict=True):
        values = np.array(panel_of(found, ways, kind))
        most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
        low, colours = (-most, "RdBu_r") if kind == "excess" else (0.0, "Greys")
        ax.imshow(values, cmap=colours, vmin=low, vmax=most, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            dark = abs(value) > 0.6 * most
            text = "–" if math.isnan(value) else f"{value:+.1f}" if kind == "excess" else f"{value:.0f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color="w" if dark else "k")
        ax.set_xticks(range(5), ["slowest", "second", "third", "fourth", "fastest"], fontsize=8)
        ax.set_yticks(range(len(ways)), [SERVERS[way] for way in ways], fontsize=9)
        ax.set_title(title, fontsize=10)
    figure.supxlabel("fifth of the devices by the time that a visit takes", fontsize=9)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Write everything anew."""
    PAGE.write_text(filled(PAGE.read_text("utf-8")), encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
