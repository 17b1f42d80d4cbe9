"""What else a run has left: `run.json`, the seals of files and values, wall-clock lines, scores and personal gains."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fedsim.cost.memory.plan import depth_in
from fedsim.elementary import exp
from fedsim.files.opened import UnreadableError
from fedsim.metrics.direction import rises
from fedsim.records.folder import has_lines
from fedsim.records.info import UNFINISHED, last_instant_s, saved_share, totals_of
from fedsim.records.integrity.seals import (
    FACTS,
    HEAD,
    facts_sha256,
    file_sha256,
    must_be_sealed,
    settings_sha256,
    values_sha256,
    written,
)
from fedsim.records.run import Run
from fedsim.records.tables import TABLES, Arrays
from fedsim.records.verify.books import Books, equal

ROUNDING = 1e-9


def columns_of(run: Run) -> dict[str, Arrays]:
    """Return the tables of a run as arrays, each made when it is asked for."""
    return {table: run.columns(table) for table in TABLES}


# seals ------------------------------------------------------------------------------------------


def broken_seals(books: Books) -> Iterator[str]:
    """Say which files and which columns of values are not those that the run wrote."""
    run = books.run
    due = must_be_sealed(run.info) and not (run.folder is not None and has_lines(run.folder))
    if due and not (run.info.numbers and (run.info.files or run.folder is None)):
        yield "run.json: has no SHA-256 of files and values, which the version that made the run writes at its end"
    right = values_sha256(columns_of(run)) | facts_sha256(run.info)
    for name in sorted({*run.info.numbers, *right} if run.info.numbers else ()):
        if run.info.numbers.get(name) != right.get(name):
            if name == HEAD:
                yield f"run.json: {', '.join(FACTS)} are not those that the run wrote (SHA-256 in numbers)"
                continue
            table, _, column = name.partition(".")
            yield f"{table}, column {column}: its numbers are not those that the run wrote (SHA-256 in run.json)"
    if run.folder is None or not run.info.files:
        return
    here = set(written(run.folder))
    for name in sorted({*here, *run.info.files}):
        if name not in here:
            yield f"{name}: is gone"
        elif name not in run.info.files:
            yield f"{name}: is not of this run"
        elif _sha256(run.folder / name) != run.info.files[name]:
            yield f"{name}: is not the file that the run wrote (SHA-256 in run.json)"


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; nothing of one that cannot be read."""
    try:
        return file_sha256(path)
    except (OSError, UnreadableError):
        return ""


# run.json ---------------------------------------------------------------------------------------


def wrong_heads(books: Books) -> Iterator[str]:
    """Say where `run.json` and the settings do not fit each other or the tables."""
    info, settings, clients = books.run.info, books.run.experiment, books.run.count("clients")
    for name, value in (("name", info.name), ("seed", info.seed)):
        if name in settings and settings[name] != value:
            yield f"run.json, {name}: is {value!r}, experiment.yaml has {settings[name]!r}"
    if info.digest and info.digest != settings_sha256(settings):
        yield "run.json, digest: is not that of experiment.yaml"
    asked = books.block("population").get("clients")
    if isinstance(asked, int) and asked != clients:
        yield f"clients: has {clients} rows, experiment.yaml has {asked} clients"
    columns = books.run.frame("clients", "visit_flops", "rank")
    told, mean = info.charged, columns["visit_flops"].mean()
    if told is not None and not (math.isnan(mean) or math.isnan(told.mean_flops_per_visit)):
        if not equal(told.mean_flops_per_visit, mean):
            yield f"run.json, charged.mean_flops_per_visit: is {told.mean_flops_per_visit:.9g}, clients give {mean:.9g}"
        ranks = {str(rank): int(count) for rank, count in columns["rank"].value_counts().items()}
        if told.clients_by_rank and dict(told.clients_by_rank) != ranks:
            yield f"run.json, charged.clients_by_rank: is {dict(told.clients_by_rank)}, clients give {ranks}"
        shallow = {str(d): n for d, n in _depths(books).items() if n > told.clients_by_depth.get(str(d), 0)}
        if shallow:
            yield f"run.json, charged.clients_by_depth: is {dict(told.clients_by_depth)}, clients have {shallow}"
    computed = books.run.columns("visits")["computed"]
    if info.timeline_only and (computed.any() or books.run.count("scores")):
        yield "run.json, timeline_only: is true, and something was trained or scored"


def _depths(books: Books) -> Counter[int]:
    """Return how many clients train how many layers, of those that do not train all."""
    plans = books.run.frame("clients", "memory_plan")["memory_plan"]
    return Counter(depth for plan in plans.tolist() if (depth := depth_in(str(plan))) is not None)


def wrong_ends(books: Books) -> Iterator[str]:
    """Say where `run.json` tells of another end than the tables."""
    info = books.run.info
    if info.status in UNFINISHED or not info.executor:
        return
    columns = columns_of(books.run)
    right = totals_of(columns)
    told = info.totals
    for name, value, expected in (
        ("clients", told.clients, right.clients),
        ("outcomes", dict(told.outcomes), dict(right.outcomes)),
        ("serialized_up_bytes", told.serialized_up_bytes, right.serialized_up_bytes),
        ("serialized_down_bytes", told.serialized_down_bytes, right.serialized_down_bytes),
    ):
        if value != expected:
            yield f"run.json, totals.{name}: is {value}, the tables give {expected}"
    if not equal(info.saved_share, saved_share(columns)):
        yield f"run.json, saved_share: is {info.saved_share:.9g}, visits give {saved_share(columns):.9g}"
    visits = books.frame("client", "visit", "outcome", "ended_s")
    of_rejected = visits.loc[visits["outcome"] == "rejected", ["client", "visit"]]
    rejected = set(of_rejected.itertuples(index=False, name=None))
    if not {(refusal.client, refusal.visit) for refusal in info.refused} <= rejected:
        yield "run.json, refused: names a visit that is not 'rejected'"
    if info.end_time_s < last_instant_s(columns):
        yield f"run.json, end_time_s: is {info.end_time_s!r}, the tables go on to {last_instant_s(columns)!r}"
    open_s = visits.loc[visits["outcome"] == "in_flight", "ended_s"]
    if (open_s != info.end_time_s).any():
        yield f"visits, column ended_s: a visit in flight ends before the run, which ends at {info.end_time_s!r} s"


def wrong_wall(books: Books) -> Iterator[str]:
    """Say where the wall-clock lines do not fit the commits."""
    lines = books.run.wall
    if not lines or books.unfinished:
        return
    versions = [line.get("version") for line in lines if "checkpoint" not in line]
    if versions != books.commits["version"].tolist():
        yield "wall.jsonl: its versions are not those of the commits, one after the other"
    last_s = 0.0
    for number, line in enumerate(lines, start=1):
        wall_s = line.get("wall_s")
        if not isinstance(wall_s, int | float) or not last_s <= wall_s < math.inf:
            yield f"wall.jsonl, line {number}: wall_s goes backwards, or is no time (got {wall_s!r})"
            return
        last_s = wall_s


# values -----------------------------------------------------------------------------------------


def wrong_values(books: Books) -> Iterator[str]:
    """Say which losses, lengths and cosines cannot be."""
    visits, commits = books.run.columns("visits"), books.commits
    timeline = books.run.info.timeline_only
    loss, square = visits["loss"], visits["loss_square"]
    with np.errstate(over="ignore", invalid="ignore"):
        low = square < loss * loss * (1 - 1e-6) - ROUNDING
    if low.any():
        row = books.row(int(np.flatnonzero(low)[0]))
        where = f"visit {row['visit']} of client {row['client']}"
        yield f"visits, column loss_square: {where} has {row['loss_square']:.9g}, less than the square of its loss {row['loss']:.9g}"
    norm, cosine = commits["update_norm"].to_numpy(), commits["mean_cosine"].to_numpy()
    bad_norm = ~np.isnan(norm) if timeline else ~((norm >= 0) & np.isfinite(norm))
    bad_cosine = ~np.isnan(cosine) if timeline else (np.abs(cosine) > 1 + 1e-6)
    if books.run.info.executor:
        for name, bad in (("update_norm", bad_norm), ("mean_cosine", bad_cosine)):
            if bad.any():
                row = commits.iloc[int(np.flatnonzero(bad)[0])]
                yield f"commits, column {name}: commit {row['version']} has {row[name]:.9g}, which cannot be"


def wrong_metrics(books: Books) -> Iterator[str]:
    """Say which scores contradict each other, and which gains are not the difference of their scores."""
    scores = books.run.scores
    twice = scores[scores.duplicated(["version", "split", "metric"])]
    if len(twice):
        row = twice.iloc[0]
        yield f"scores, row {twice.index[0]}: version {row['version']} has {row['metric']!r} of {row['split']!r} twice"
        return
    commit_s = {0: 0.0} | dict(zip(books.commits["version"], books.commits["time_s"], strict=True))
    due_s = scores["version"].map(commit_s)
    off = np.flatnonzero((due_s.notna() & (scores["time_s"] != due_s)).to_numpy())
    if off.size and books.run.info.executor:
        row = scores.iloc[int(off[0])]
        yield f"scores, row {scores.index[off[0]]}, column time_s: is {row['time_s']!r}, version {row['version']} was made at {due_s.iloc[off[0]]!r}"
    yield from _wrong_perplexities(scores)
    yield from _wrong_gains(books)


def _wrong_perplexities(scores: pd.DataFrame) -> Iterator[str]:
    keys = ["version", "split"]
    losses, perplexities = (scores[scores["metric"] == name] for name in ("loss", "perplexity"))
    both = losses[[*keys, "value"]].merge(perplexities[[*keys, "value"]], on=keys, suffixes=("_of_loss", ""))
    both = both[np.isfinite(both["value_of_loss"]) & np.isfinite(both["value"])]
    right = exp(np.clip(both["value_of_loss"].to_numpy(dtype=np.float64), -700.0, 700.0))
    wrong = both[np.abs(right - both["value"]) > 1e-6 * np.abs(both["value"])]
    if len(wrong):
        version, split = wrong["version"].iloc[0], wrong["split"].iloc[0]
        yield f"scores, column value: perplexity of version {version} on {split!r} is not the exponential of its loss"


def _wrong_gains(books: Books) -> Iterator[str]:
    personal = books.run.personal
    if personal.empty:
        return
    twice = personal[personal.duplicated(["client", "kind"])]
    if len(twice):
        yield f"personal, row {twice.index[0]}, column client: client {twice['client'].iloc[0]} is there twice"
    sign = np.array([1.0 if rises(metric) else -1.0 for metric in personal["metric"]])
    gain = sign * (personal["metric_personal"] - personal["metric_global"]).to_numpy()
    off = np.flatnonzero(~(np.isclose(personal["gain"], gain, rtol=1e-9, atol=1e-12, equal_nan=True)))
    if off.size:
        row = personal.iloc[int(off[0])]
        yield f"personal, row {personal.index[off[0]]} (client {row['client']}), column gain: is {row['gain']:.9g}, its metrics give {gain[off[0]]:.9g}"
    visits = books.frame("client", "committed_version")
    taken = visits[visits["committed_version"] > 0].groupby("client").size()
    seen = personal["client"].map(taken).fillna(0).astype("int64")
    if books.run.info.executor and not books.unfinished:
        wrong = np.flatnonzero((personal["seen"] != seen).to_numpy())
        if wrong.size:
            row = personal.iloc[int(wrong[0])]
            yield f"personal, row {personal.index[wrong[0]]} (client {row['client']}), column seen: is {row['seen']}, visits give {seen.iloc[wrong[0]]}"
        asked = set(visits["client"])
        held = personal[personal["unseen"] & personal["client"].isin(asked)]
        if len(held):
            yield f"personal, row {held.index[0]} (client {held['client'].iloc[0]}), column unseen: it was held out, and has visits"
