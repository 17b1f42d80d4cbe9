"""What others published, in shape: the runs of studies.yml, and what is kept of them.

    python experiments/published/compare.py run OUT [STUDY ...]     run folders OUT/STUDY/WAY/seed-N; what is finished stays
    python experiments/published/compare.py remake OUT [STUDY ...]  runs.csv from the folders, and of it all tables and figures

`tables.py` beside it holds runs.csv against `marks.csv`, which says what has to come out.
"""

from __future__ import annotations

import math
import runpy
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import fedsim
from fedsim import views
from fedsim.cli.shell import script
from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.records.stragglers import fairness
from fedsim.records.studies.kept import Key, finished, rows_in, slug, text_of

HERE = Path(__file__).parent
STUDIES, ROWS = HERE / "studies.yml", HERE / "runs.csv"
LOST = ("offline", "late", "memory")
NOT_ASKED_TO_THE_END = ("surplus", "in_flight", "polled")
NIGHT_ENDS_H, HOUR_S = 9, 3600.0


@dataclass(frozen=True)
class Study:
    """Runs that differ by one thing each; `ways` are what they change of `base`, `stops` ends them at the target."""

    name: str
    trained: bool
    seeds: int
    base: Mapping[str, Any]
    ways: Mapping[str, Mapping[str, Any]]
    metric: str | None = None
    target: float = math.nan
    stops: bool = False


def studies() -> dict[str, Study]:
    """Return the studies of studies.yml by name."""
    read = yaml.safe_load(STUDIES.read_text("utf-8"))
    return {name: Study(name=name, **block) for name, block in read.items() if name != "anchors"}


def experiment(study: Study, way: str, seed: int) -> Experiment:
    """Return one experiment; `population` and `task` of the way are merged into the base, other blocks replace it."""
    values = {name: dict(block) for name, block in study.base.items()}
    for name, block in study.ways[way].items():
        values[name] = _merged(values.get(name, {}), block) if name in ("population", "task") else block
    population = {k: v for k, v in values["population"].items() if v is not None}
    for name in ("devices", "networks"):
        if name in population:
            population[name] = str(HERE / population[name])
    if study.stops:
        values["budget"] = {**values["budget"], "target": {"metric": study.metric, "value": study.target}}
    name = f"{study.name}-{slug(way)}-{seed}"
    return Experiment.model_validate({**values, "population": population, "name": name, "seed": seed})


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) if isinstance(v, dict) and k in base else v for k, v in change.items()}
    return {**base, **both}


def folder_of(out: Path, study: Study, way: str, seed: int) -> Path:
    """Return where a run lies."""
    return out / study.name / slug(way) / f"seed-{seed}"


def run(out: Path, names: Sequence[str]) -> None:
    """Make the runs that are not there yet."""
    known = studies()
    for study in (known[name] for name in names or known):
        for seed in range(study.seeds):
            for way in study.ways:
                folder = folder_of(out, study, way, seed)
                if not finished(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    asked = experiment(study, way, seed)
                    fedsim.simulate(asked, out=folder, timeline_only=not study.trained, report=False)
                    print(folder, flush=True)


# what is kept of a run --------------------------------------------------------------------------


def figures(run: fedsim.Run, study: Study) -> dict[str, float]:
    """Return what is kept of a run."""
    visits = run.frame("visits", "outcome", "client", "dispatched_s", "committed_version")
    ended = visits[visits["outcome"] != "in_flight"]
    to_the_end = ended[~ended["outcome"].isin(NOT_ASKED_TO_THE_END)]
    offline = ended["outcome"].eq("offline")
    by_day = (ended["dispatched_s"] / HOUR_S % 24) >= NIGHT_ENDS_H
    last_h = float(run.commits["time_s"].max()) / HOUR_S
    committed = visits.loc[visits["committed_version"] > 0, "client"]
    night = float(offline[~by_day].mean())
    kept = {
        "commits": float(len(run.commits)),
        "visits": float(len(visits)),
        "hours_per_commit": last_h / len(run.commits),
        "commits_per_hour": len(run.commits) / last_h,
        "failed": float(to_the_end["outcome"].isin(LOST).mean()),
        "offline": float(offline.mean()),
        "day_over_night": float(offline[by_day].mean()) / night if night else math.nan,
        "top_30": float(fairness(run).loc["flops", "top_30_share"]),
        "updates_per_commit": float(run.commits["updates"].mean()),
        "clients_share": float(committed.nunique()) / len(run.clients),
        "wasted_joules": float(views.wasted_work(run).attrs["share"]["joules"]),
    }
    if study.name == "bonawitz":
        kept["swing"] = swing(run)
    return kept | (costs(run, study.metric, study.target) if study.metric else {})


def swing(run: fedsim.Run) -> float:
    """Return how many times as many devices are online in the fullest hour of a day as in the emptiest, over two weeks."""
    online = prepare(Experiment.model_validate(run.experiment)).population.availability
    shares = np.array([float(online.online(60.0 * minute).mean()) for minute in range(30, 14 * 1440, 60)])
    by_hour = shares.reshape(14, 24).mean(axis=0)
    return float(by_hour.max() / by_hour.min())


def costs(run: fedsim.Run, metric: str, target: float) -> dict[str, float]:
    """Return what the target has cost: NaN where it was not reached."""
    row = views.time_to_target([run], metric, target).iloc[0]
    scores = views.scored(run, metric)
    worse = scores[scores["value"] > target]
    settled = scores[scores["version"] > (worse["version"].max() if len(worse) else -1)]
    after = scores[scores["version"] >= row["version"]] if row["reached"] else scores
    before = run.commits["version"] <= (row["version"] if row["reached"] else -1)
    updates = float(run.commits.loc[before, "updates"].sum()) if row["reached"] else math.nan
    return {
        "reached": float(row["reached"]),
        "target_s": float(row["time_s"]),
        "target_up_bytes": float(row["up_bytes"]),
        "target_updates": updates,
        "last": float(scores["value"].iloc[-1]),
        "worst_after": float(after["value"].max()),
        "settled_s": float(settled["time_s"].iloc[0]) if len(settled) else math.nan,
    }


def collect(out: Path, wanted: Sequence[str]) -> None:
    """Write runs.csv anew from run folders; rows whose run is not in the folder stay."""
    known = studies()
    rows: dict[Key, dict[str, float]] = rows_in(ROWS)
    for study in (study for name, study in known.items() if not wanted or name in wanted):
        for way in study.ways:
            for seed in range(study.seeds):
                folder = folder_of(out, study, way, seed)
                if finished(folder):
                    rows[Key(study.name, way, seed)] = figures(fedsim.load(folder), study)
    order = [Key(s.name, way, seed) for s in known.values() for way in s.ways for seed in range(s.seeds)]
    about = (
        "written by experiments/published/compare.py remake: one run a row; empty: not asked, or not reached"
    )
    ROWS.write_text(text_of(rows, order, about), encoding="utf-8", newline="\n")


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    if len(arguments) < 2 or arguments[0] not in ("run", "remake") or set(arguments[2:]) - set(studies()):
        print(__doc__)
        return 2
    if arguments[0] == "run":
        run(Path(arguments[1]), arguments[2:])
    else:
        collect(Path(arguments[1]), arguments[2:])
        runpy.run_path(str(HERE / "tables.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
