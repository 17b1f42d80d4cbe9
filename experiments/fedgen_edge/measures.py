"""What is kept of the runs of studies.yml: runs.csv, curves.csv, clients.csv and rates.csv beside this file.

`compare.py remake OUT` calls `collect`; rows of runs that are not in OUT stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fedsim
from fedsim import views
from fedsim.records.studies.kept import Key, csv_text, finished, lines_of, rows_in, text_of

HERE = Path(__file__).parent
RUNS, CURVES, CLIENTS, RATES = (HERE / f"{name}.csv" for name in ("runs", "curves", "clients", "rates"))
BY = "written by experiments/fedgen_edge/compare.py remake"
TARGET = 0.75
"""A target is this share of version 0's perplexity on the same text."""
LOST = ("offline", "late", "memory")
NOT_TO_THE_END = ("surplus", "in_flight", "polled")
CURVE = ("version", "time_s", "up_bytes", "down_bytes", "joules", "value")
CLIENT = ("client", "tier", "seen", "shared", "own")


def scored(folder: Path, score: str) -> float:
    """Return what a search for a learning rate looks at; infinite where the run failed, or its numbers did.

    Args:
        folder: of the run.
        score: `valid`: perplexity of the last version there; `personal`, `local`: of the clients' own models, or of those
            trained alone, the geometric mean over clients.
    """
    if not finished(folder):
        return math.inf
    run = fedsim.load(folder)
    if score == "valid":
        value = float(views.scored(run, "perplexity", "valid")["value"].iloc[-1])
    else:
        value = math.exp(float(np.mean([math.log(x) for x in run.personal[f"metric_{score}"]])))
    return value if math.isfinite(value) else math.inf


def figures(run: fedsim.Run) -> dict[str, float]:
    """Return what is kept of a run: what it cost, who took part, and what came of it."""
    visits = run.frame("visits", "outcome", "client", "committed_version", "up_bytes", "down_bytes", "joules")
    asked = visits[~visits["outcome"].isin(NOT_TO_THE_END)]
    kept = {
        "rate": float(run.experiment["local"]["lr"]),
        "rate_after": float(run.experiment["personal"].get("lr") or math.nan),
        "commits": float(len(run.commits)),
        "updates": float(run.commits["updates"].sum()),
        "heard": float(visits.loc[visits["committed_version"] > 0, "client"].nunique()),
        "able": float((run.clients["memory_plan"] != "refused").sum()),
        "hours": float(run.commits["time_s"].max()) / 3600,
        **{name: float(visits[name].sum()) for name in ("up_bytes", "down_bytes", "joules")},
        **{name: float(asked["outcome"].eq(name).mean()) for name in LOST},
        "skew_bits": float(run.info.task.get("token_divergence_bits", math.nan)),
        "skew_iid_bits": float(run.info.task.get("token_divergence_iid_bits", math.nan)),
        "wall_s": float(run.info.wall_s or math.nan),
    }
    return kept | drift(run) | (own_models(run) if len(run.personal) else learned(run))


def drift(run: fedsim.Run) -> dict[str, float]:
    """Return how alike clients moved: means over the commits of whole cohorts.

    `cosine` is that of a client's move to the mean of the moves; of k moves that have nothing in common it is 1 / sqrt(k). `move`
    is the length of the mean over that cosine: the mean length of the moves, weighted by how much they have in common with it.
    `first_cosine` is that of the first round, in which all ways start from one model.
    """
    commits = run.commits[run.commits["updates"] == run.experiment["protocol"]["cohort"]]
    whole = (
        commits[commits["mean_cosine"] > 0] if len(commits) and commits["updates"].max() > 1 else commits[:0]
    )
    cosine = whole["mean_cosine"].to_numpy(dtype=float)
    if not cosine.size:
        return {}
    first = {"first_cosine": float(cosine[0])} if whole["version"].iloc[0] == 1 else {}
    return first | {
        "cosine": float(cosine.mean()),
        "move": float((whole["update_norm"].to_numpy() / cosine).mean()),
    }


def learned(run: fedsim.Run) -> dict[str, float]:
    """Return perplexity on test before and after, and what three quarters of the first have cost; nothing where none is scored."""
    if views.headline(run) != "perplexity":
        return {}
    scores = views.scored(run, "perplexity")
    first, last = float(scores["value"].iloc[0]), float(scores["value"].iloc[-1])
    row = views.time_to_target([run], "perplexity", TARGET * first).iloc[0]
    costs = {
        "version": "target_rounds",
        "time_s": "target_s",
        "up_bytes": "target_up_bytes",
        "joules": "target_joules",
    }
    return {
        "first": first,
        "last": last,
        "reached": float(row["reached"]),
        **{name: float(row[column]) for column, name in costs.items()},
    }


def own_column(run: fedsim.Run) -> str:
    """Return the column of `personal` that has the clients' own models: where nothing is shared, those trained alone."""
    return "metric_local" if run.experiment["aggregator"]["kind"] == "local-only" else "metric_personal"


def own_models(run: fedsim.Run) -> dict[str, float]:
    """Return perplexity of the clients' own models on their own held-out text, the geometric mean over clients."""
    own = [math.log(x) for x in run.personal[own_column(run)]]
    shared = [math.log(x) for x in run.personal["metric_global"]]
    return {
        "own": math.exp(float(np.mean(own))),
        "shared": math.exp(float(np.mean(shared))),
        "share_better": float(np.mean(np.array(own) < np.array(shared))),
    }


def curve(run: fedsim.Run) -> list[list[str]]:
    """Return the scores on test with what they had cost."""
    if len(run.personal) or views.headline(run) != "perplexity":
        return []
    return [[f"{row[name]:.6g}" for name in CURVE] for _, row in views.scored(run, "perplexity").iterrows()]


def clients(run: fedsim.Run) -> list[list[str]]:
    """Return the perplexities of every client's models on its own held-out text, four digits each."""
    tiers = dict(zip(run.clients["client"], run.clients["tier"], strict=True))
    column = own_column(run)
    return [
        [
            str(row["client"]),
            str(tiers[row["client"]]),
            str(row["seen"]),
            f"{row['metric_global']:.4g}",
            f"{row[column]:.4g}",
        ]
        for _, row in run.personal.iterrows()
    ]


def _cells(path: Path) -> list[list[str]]:
    """Return the rows of a CSV; none where nothing was kept yet."""
    return [[*row.values()] for row in lines_of(path.read_text("utf-8"))] if path.exists() else []


def _stored(path: Path) -> dict[tuple[str, ...], list[list[str]]]:
    """Return the rows of a CSV with several lines a run, by (study, way, seed)."""
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for row in _cells(path):
        found.setdefault(tuple(row[:3]), []).append(row[3:])
    return found


def _write(
    path: Path, head: Sequence[str], rows: Mapping[tuple[str, ...], Any], order: Iterable[Key], about: str
) -> None:
    keys = [tuple(map(str, key)) for key in order]
    cells = [[*key, *row] for key in keys for row in rows.get(key, [])]
    path.write_text(
        csv_text(["study", "way", "seed", *head], cells, f"{BY}: {about}"), encoding="utf-8", newline="\n"
    )


def collect(out: Path, ways: Mapping[str, Sequence[Any]], searches: Mapping[str, Any]) -> None:
    """Write the CSVs anew from run folders."""
    rows, cpu_s = rows_in(RUNS), spent_s(out)
    curves, people = _stored(CURVES), _stored(CLIENTS)
    order = [
        Key(w.study, w.name, seed) for of_study in ways.values() for w in of_study for seed in range(w.seeds)
    ]
    slugs = {(way.study, way.name): way.slug for of_study in ways.values() for way in of_study}
    for key in order:
        path = f"{key.study}/{slugs[key.study, key.way]}/seed-{key.seed}"
        folder = out / path
        if not finished(folder):
            continue
        run, name = fedsim.load(folder), tuple(map(str, key))
        rows[key] = figures(run) | {"cpu_s": cpu_s.get(path, math.nan)}
        curves[name], people[name] = curve(run), clients(run)
    RUNS.write_text(
        text_of(rows, order, f"{BY}: one run a row; empty: not asked, or not reached"), "utf-8", newline="\n"
    )
    _write(CURVES, CURVE, curves, order, "perplexity on test of every scored version, and what it had cost")
    _write(
        CLIENTS,
        CLIENT,
        people,
        order,
        "perplexity on a client's own held-out text: of the shared model and of its own",
    )
    tried(out, searches)


def spent_s(out: Path) -> dict[str, float]:
    """Return the seconds of a processor that each run folder took, all starts together."""
    path, total = out / "spent.csv", dict[str, float]()
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        folder, seconds, _ = line.split(",")
        total[folder] = total.get(folder, 0.0) + float(seconds)
    return total


def kept_scores(search: str) -> dict[float, float]:
    """Return what each learning rate of a search scored, as rates.csv has it."""
    return {float(rate): float(score) for name, _, rate, score, _ in _cells(RATES) if name == search}


def tried(out: Path, searches: Mapping[str, Any]) -> None:
    """Write rates.csv: every learning rate that was tried, and its score; those that are not in `out` stay."""
    stored, cells, cpu_s = _cells(RATES), [], spent_s(out)
    for search in searches.values():
        rows = {float(row[2]): row for row in stored if row[0] == search.name}
        for path in (out / "rates" / search.name).glob("*/run.json"):
            name = path.parent.name
            if finished(path.parent):
                score = f"{scored(path.parent, search.score):.6g}"
                seconds = f"{cpu_s.get(f'rates/{search.name}/{name}', 0.0):.1f}"
                rows[float(name)] = [search.name, search.key, name, score, seconds]
        cells += [row for _, row in sorted(rows.items())]
    head = ["search", "key", "rate", "perplexity", "cpu_s"]
    RATES.write_text(
        csv_text(head, cells, f"{BY}: what a learning rate scored, seed 100"), "utf-8", newline="\n"
    )
