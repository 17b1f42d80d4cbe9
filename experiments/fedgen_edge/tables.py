"""The tables and figures of README.md, parts (b) to (f), and rows of docs/claims.md, of the CSVs beside this file.

python experiments/fedgen_edge/tables.py
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from fedsim.records.quantities import number
from fedsim.records.statistics import mean_interval
from fedsim.records.studies import claims as claim_rows
from fedsim.records.studies.kept import Key, lines_of, rows_in
from fedsim.records.studies.marks import judged
from fedsim.records.studies.pages import between, table
from fedsim.records.studies.pages import with_interval as said

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
CLAIMS = HERE.parents[1] / "docs" / "claims.md"
HOUR_S, GB, KJ = 3600.0, 1e9, 1e3
NOT_YET = "not run yet"
Row = Mapping[str, float]
Client = Mapping[str, float]


def beside(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV beside this file; none where it is not there yet."""
    path = HERE / name
    return lines_of(path.read_text("utf-8")) if path.exists() else []


@cache
def runs() -> dict[Key, dict[str, float]]:
    """Return runs.csv."""
    return rows_in(HERE / "runs.csv")


def of(study: str, way: str) -> list[Row]:
    """Return the runs of a way, by seed."""
    return [row for key, row in sorted(runs().items()) if (key.study, key.way) == (study, way)]


@cache
def ways(study: str) -> list[str]:
    """Return the ways of a study as studies.yml has them."""
    read = yaml.safe_load((HERE / "studies.yml").read_text("utf-8"))
    return list(read["studies"][study]["ways"])


Measure = Callable[[Row], float]


def plain(name: str, unit: float = 1.0) -> Measure:
    """Return what reads a number of a run, in a unit."""
    return lambda row: row.get(name, math.nan) / unit


def measured(study: str, names: Sequence[str], columns: Mapping[str, Measure]) -> list[str]:
    """Return a table of means with intervals over seeds, one way a row; ways without a run say so."""
    body = []
    for way in names:
        rows = of(study, way)
        cells = [said(mean_interval([read(row) for row in rows])) for read in columns.values()]
        body.append([way, str(len(rows)), *cells] if rows else [way, NOT_YET, *("–" for _ in columns)])
    return table(["", "seeds", *columns], body)


def shown(figure: str, about: str) -> Iterator[str]:
    """Yield the line that shows a figure, where it has been drawn."""
    if (HERE / figure).exists():
        yield from ("", f"![{about}]({figure})")


# (b) ---------------------------------------------------------------------------------------------


def skew() -> Iterator[str]:
    """Yield how unlike the clients are."""
    columns = {"bits between clients": plain("skew_bits"), "the same sizes dealt iid": plain("skew_iid_bits")}
    by_text = [way for way in ways("rounds") if way.startswith("LoRA")]
    lines = [*measured("rounds", by_text, columns), *measured("topics", ways("topics")[:1], columns)[2:]]
    yield from (line.replace("| LoRA, ", "| ") for line in lines)


def rates() -> Iterator[str]:
    """Yield what every learning rate scored; the chosen one, with a worse neighbour on both sides, is bold."""
    tried: dict[str, list[tuple[str, float]]] = {}
    for row in beside("rates.csv"):
        tried.setdefault(row["search"], []).append((row["rate"], float(row["perplexity"])))
    read = yaml.safe_load((HERE / "studies.yml").read_text("utf-8"))["rates"]
    body = []
    for name, search in read.items():
        scores = tried.get(name, [])
        order = [score for _, score in scores]
        best = order.index(min(order)) if order else 0
        cells = [f"{rate}: {number(score, 4)}" for rate, score in scores]
        if 0 < best < len(cells) - 1:
            cells[best] = f"**{cells[best]}**"
        body.append(
            [f"{search['study']}: {search['way']}", f"`{search['key']}`", ", ".join(cells) or NOT_YET]
        )
    yield from table(["searched with", "key", "rate: perplexity"], body)


def learned() -> Iterator[str]:
    """Yield perplexity on test, before and after the rounds."""
    columns = {
        "rate": plain("rate"),
        "before": plain("first"),
        "after": plain("last"),
        "updates": plain("updates"),
        "clients heard": plain("heard"),
        "rounds to 75 %": plain("target_rounds"),
    }
    yield from measured("rounds", ways("rounds"), columns)
    yield from measured("topics", ways("topics"), columns)[2:]
    yield from shown("rounds.png", "Perplexity over rounds, bytes and virtual hours")


# (c) ---------------------------------------------------------------------------------------------


@cache
def people() -> dict[tuple[str, str], dict[int, Client]]:
    """Return clients.csv: (way, seed) -> client -> its numbers."""
    found: dict[tuple[str, str], dict[int, Client]] = {}
    for row in beside("clients.csv"):
        numbers = {name: float(row[name]) for name in ("seen", "shared", "own")}
        found.setdefault((row["way"], row["seed"]), {})[int(row["client"])] = numbers
    return found


def gains(way: str, seed: str) -> tuple[list[float], list[float]]:
    """Return what each client gains over the shared model of `fine-tune`, and over its own model there; in percent of perplexity."""
    own, base = people()[way, seed], people()["fine-tune", seed]
    both = sorted(own.keys() & base.keys())
    over_shared = [100 * (1 - own[client]["own"] / base[client]["shared"]) for client in both]
    over_tuned = [100 * (1 - own[client]["own"] / base[client]["own"]) for client in both]
    return over_shared, over_tuned


def personal() -> Iterator[str]:
    """Yield what clients' own models are worth to them."""
    head = [
        "",
        "seeds",
        "rates",
        "own perplexity",
        "gain, %",
        "10 % .. 90 % of clients",
        "worse off, %",
        "better than fine-tuned, %",
    ]
    body = []
    for way in ways("personal"):
        rows = of("personal", way)
        seeds = [seed for name, seed in people() if name == way and ("fine-tune", seed) in people()]
        if not rows or not seeds:
            body.append([way, NOT_YET, *("–" for _ in head[2:])])
            continue
        found = [gains(way, seed) for seed in seeds]
        low, high = np.mean([np.quantile(over, [0.1, 0.9]) for over, _ in found], axis=0)
        after = rows[0].get("rate_after", math.nan)
        used = number(rows[0]["rate"]) if math.isnan(after) else f"{number(rows[0]['rate'])}, {number(after)}"
        body.append(
            [
                way,
                str(len(rows)),
                used,
                said(mean_interval([row["own"] for row in rows])),
                said(mean_interval([float(np.mean(over)) for over, _ in found])),
                f"{low:.1f} .. {high:.1f}",
                said(mean_interval([100 * float(np.mean(np.array(over) < 0)) for over, _ in found])),
                ""
                if way == "fine-tune"
                else said(mean_interval([100 * float(np.mean(np.array(than) > 0)) for _, than in found])),
            ]
        )
    yield from table(head, body)
    yield from shown("personal.png", "Gains of the clients, sorted")


# (d), (e), (f) -----------------------------------------------------------------------------------


def rank() -> Iterator[str]:
    """Yield perplexity by rank."""
    columns = {
        "rate": plain("rate"),
        "before": plain("first"),
        "after": plain("last"),
        "GB up": plain("up_bytes", GB),
    }
    yield from measured("rank", ways("rank"), columns)


def epochs() -> Iterator[str]:
    """Yield perplexity and drift by local epochs, at equal work."""
    columns = {
        "rounds": plain("commits"),
        "clients heard": plain("heard"),
        "rate": plain("rate"),
        "before": plain("first"),
        "after": plain("last"),
        "cosine": plain("cosine"),
        "in the first round": plain("first_cosine"),
        "length of a move": plain("move"),
    }
    yield from measured("epochs", ways("epochs"), columns)
    yield from shown("drift.png", "Perplexity and cosine over local epochs; perplexity over rank")


COSTS: Mapping[str, Measure] = {
    "hours": plain("hours"),
    "GB up": plain("up_bytes", GB),
    "GB down": plain("down_bytes", GB),
    "kJ": plain("joules", KJ),
    "can train": plain("able"),
    "offline, %": plain("offline", 0.01),
    "late, %": plain("late", 0.01),
    "no memory, %": plain("memory", 0.01),
}
UNTIL: Mapping[str, Measure] = {
    "reached": plain("reached"),
    "hours to 75 %": plain("target_s", HOUR_S),
    "GB up to 75 %": plain("target_up_bytes", GB),
    "kJ to 75 %": plain("target_joules", KJ),
}


def charged(study: str) -> list[str]:
    """Return the ways of a study whose training is on the clock: what clients do after the last version is not."""
    return [way for way in ways(study) if way != "local-only"]


def costs() -> Iterator[str]:
    """Yield what the runs of (b) to (e) cost on the virtual devices."""
    federated = [way for way in ways("rounds") if not way.startswith("pooled")]
    yield from measured("rounds", federated, {**COSTS, **UNTIL})
    for study in ("personal", "rank", "epochs", "clock"):
        yield from ("", f"`{study}`:", "", *measured(study, charged(study), COSTS))
    yield from shown("costs.png", "Where (c) to (e) end against bytes, virtual hours and joules")


def marks() -> Iterator[str]:
    """Yield the marks and what came out of them."""
    body = []
    for mark in beside("marks.csv"):
        found = judged(runs(), mark)
        missing = f"; {found.missing} of {found.ours.n} without" if found.missing else ""
        effect = f", off {mark['null']}" if mark["null"] else ", all of the interval"
        asked = f"{mark['low']} to {mark['high']}{effect}"
        body.append(
            [
                mark["claim"],
                mark["source"],
                asked,
                f"{said(found.ours)}{missing}",
                str(found.ours.n),
                found.verdict,
            ]
        )
    yield from table(["claim", "source", "mark", "ours", "seeds", "came out"], body)


def spent() -> Iterator[str]:
    """Yield what the runs took of a processor."""
    took: dict[str, list[float]] = {}
    for key, row in runs().items():
        took.setdefault(f"`{key.study}`", []).append(row.get("cpu_s", 0.0))
    took["searches"] = [float(row["cpu_s"] or 0) for row in beside("rates.csv")]
    each = [f"{name} {number(sum(of_one) / HOUR_S)} ({len(of_one)})" for name, of_one in took.items()]
    total = sum(map(sum, took.values())) / HOUR_S
    yield f"Hours of one thread, and how many runs: {', '.join(each)}; {number(total)} in all."


BLOCKS: Mapping[str, Callable[[], Iterator[str]]] = {
    "marks": marks,
    "skew": skew,
    "rates": rates,
    "rounds": learned,
    "personal": personal,
    "rank": rank,
    "epochs": epochs,
    "costs": costs,
    "spent": spent,
}


def written(page: str) -> str:
    """Return the page with its tables anew."""
    for name, lines in BLOCKS.items():
        begin = f"<!-- table {name}: written by `python experiments/fedgen_edge/tables.py` -->"
        page = between(page, begin, f"<!-- end of table {name} -->", lines())
    return page


TWO_ROUNDS = "read after two rounds, the first that were scored"
NOTES = {
    "lower-ptb": "at equal rounds; at equal virtual time and bytes LoRA is lower until the whole model's second round, in every seed",
    "skew": "other test windows, at the rates searched by role",
    "bytes": TWO_ROUNDS,
    "hours": f"{TWO_ROUNDS}; every seed has more than 10, and on logarithms it is off 1",
    "joules": f"{TWO_ROUNDS}; at 512 tokens a visit",
    "over-fedper": "one learning rate for the rounds and what follows, against two",
    "over-ditto": "by the clients that were heard, 16 to 19 of 100",
    "over-fedsa": "one learning rate for the rounds and what follows, against two; few clients came back",
    "drift": "16 epochs hear 4 clients, one epoch 18 to 22",
    "drift-skew": "other test windows, at the rates searched by role",
    "cosine-epochs": "not a fair comparison: one round from version 0 against sixteen",
    "cosine-skew": "open in the first rounds, and with 4 or 16 epochs",
    "clock": "with a deadline of an hour, which was not tuned",
}
"""What a reader of an outcome must know, by mark; README.md has the numbers."""


def claims() -> Iterator[claim_rows.Row]:
    """Yield the rows of docs/claims.md that come from here."""
    return claim_rows.of_marks(runs(), beside("marks.csv"), "fedgen_edge", "claim", notes=NOTES)


def main() -> None:
    """Write everything anew."""
    runpy.run_path(str(HERE / "figures.py"), run_name="__main__")
    PAGE.write_text(written(PAGE.read_text("utf-8")), encoding="utf-8")
    CLAIMS.write_text(claim_rows.filled(CLAIMS.read_text("utf-8"), "fedgen_edge", claims()), encoding="utf-8")


if __name__ == "__main__":
    main()
