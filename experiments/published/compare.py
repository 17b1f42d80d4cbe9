"""What others published, in shape: the same comparison here, beside a mark that was stated before it was run.

`studies.yaml` says what is run, `marks.csv` what has to come out.

    python experiments/published/compare.py run OUT [STUDY ...]     run folders in OUT/STUDY/WAY/seed-N; what is finished stays
    python experiments/published/compare.py collect OUT             runs.csv, one run a row, from the folders
    python experiments/published/compare.py table                   the tables of README.md and its figure, from runs.csv
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from matplotlib.figure import Figure

import fedsim
from fedsim import views
from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.records.statistics import MeanInterval, mean_interval
from fedsim.records.stragglers import fairness

HERE = Path(__file__).parent
STUDIES, MARKS, ROWS, PAGE, FIGURE = (
    HERE / name for name in ("studies.yaml", "marks.csv", "runs.csv", "README.md", "published.png")
)
LOST = ("offline", "late", "memory")
NOT_ASKED_TO_THE_END = ("surplus", "in_flight", "polled")
NIGHT_ENDS_H, HOUR_S = 9, 3600.0
Key = tuple[str, str, int]
Form = Literal["value", "ratio", "difference", "double"]


@dataclass(frozen=True)
class Study:
    """Runs that differ by one thing each; `ways` are what they change of `base`."""

    name: str
    trained: bool
    seeds: int
    base: Mapping[str, Any]
    ways: Mapping[str, Mapping[str, Any]]
    metric: str | None = None
    target: float = math.nan


def studies() -> dict[str, Study]:
    """Return the studies of studies.yaml by name."""
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
    name = f"{study.name}-{slug(way)}-{seed}"
    return Experiment.model_validate({**values, "population": population, "name": name, "seed": seed})


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) if isinstance(v, dict) and k in base else v for k, v in change.items()}
    return {**base, **both}


def slug(way: str) -> str:
    """Return a way as the name of a folder."""
    return "-".join(way.replace(",", "").split())


def folder_of(out: Path, study: Study, way: str, seed: int) -> Path:
    """Return where a run lies."""
    return out / study.name / slug(way) / f"seed-{seed}"


def run(out: Path, names: Sequence[str]) -> None:
    """Make the runs that are not there yet."""
    for study in (study for name, study in studies().items() if not names or name in names):
        for seed in range(study.seeds):
            for way in study.ways:
                folder = folder_of(out, study, way, seed)
                if not (folder / "run.json").exists():
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
        "clients_share": float(committed.nunique()) / len(run.clients),
        "wasted_joules": float(views.wasted_work(run).attrs["share"]["joules"]),
    }
    if study.name == "bonawitz":
        kept["swing"] = swing(run)
    return kept | (costs(run, study.metric, study.target) if study.metric else {})


def swing(run: fedsim.Run) -> float:
    """Return how many times as many devices are online in the fullest hour of a day as in the emptiest, over two weeks."""
    online = prepare(Experiment.model_validate(run.experiment)).online
    shares = np.array([float(online.online(60.0 * minute).mean()) for minute in range(30, 14 * 1440, 60)])
    by_hour = shares.reshape(14, 24).mean(axis=0)
    return float(by_hour.max() / by_hour.min())


def costs(run: fedsim.Run, metric: str, target: float) -> dict[str, float]:
    """Return what the target has cost: NaN where it was not reached."""
    row = views.time_to_target([run], metric, target).iloc[0]
    before = run.commits["version"] <= (row["version"] if row["reached"] else -1)
    updates = float(run.commits.loc[before, "updates"].sum()) if row["reached"] else math.nan
    return {
        "reached": float(row["reached"]),
        "target_s": float(row["time_s"]),
        "target_up_bytes": float(row["up_bytes"]),
        "target_updates": updates,
        "last": float(views.scored(run, metric)["value"].iloc[-1]),
    }


def collect(out: Path) -> None:
    """Write runs.csv anew from run folders; rows of studies that are not in the folder stay."""
    known, rows = studies(), read()
    for study in known.values():
        for way in study.ways:
            for seed in range(study.seeds):
                folder = folder_of(out, study, way, seed)
                if (folder / "run.json").exists() and fedsim.load(folder).info.status == "done":
                    rows[study.name, way, seed] = figures(fedsim.load(folder), study)
    order = [(s.name, way, seed) for s in known.values() for way in s.ways for seed in range(s.seeds)]
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        file.write(
            "# written by experiments/published/compare.py collect: one run a row; empty: not asked, or not reached\n"
        )
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["study", "way", "seed", *names])
        for key in (key for key in order if key in rows):
            cells = [rows[key].get(name, math.nan) for name in names]
            writer.writerow([*key, *("" if math.isnan(x) else f"{x:.6g}" for x in cells)])


def read() -> dict[Key, dict[str, float]]:
    """Return the rows of runs.csv."""
    if not ROWS.exists():
        return {}
    with ROWS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {
        (row.pop("study"), row.pop("way"), int(row.pop("seed"))): {
            name: float(cell) for name, cell in row.items() if cell
        }
        for row in rows
    }


# marks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What came out of one mark: the interval over seeds, its control, how many runs had no value, and in words."""

    ours: MeanInterval
    control: MeanInterval
    missing: int
    verdict: str


def marks() -> list[dict[str, str]]:
    """Return the rows of marks.csv."""
    with MARKS.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


OF: dict[Form, Callable[..., float]] = {
    "value": lambda a: a,
    "ratio": lambda a, b: a / b if b else math.nan,
    "difference": lambda a, b: a - b,
    "double": lambda a, b, c, d: (a / b) / (c / d),
}


def numbers(
    rows: Mapping[Key, Mapping[str, float]], study: Study, measure: str, form: Form, ways: str
) -> list[float]:
    """Return one number a seed that all ways have; NaN where one of them has no value."""
    names = ways.split(" | ")
    seeds = [s for s in range(study.seeds) if all((study.name, way, s) in rows for way in names)]
    return [OF[form](*(rows[study.name, way, s].get(measure, math.nan) for way in names)) for s in seeds]


def judged(rows: Mapping[Key, Mapping[str, float]], mark: Mapping[str, str]) -> Found:
    """Return what came out of a mark."""
    study, measure = studies()[mark["study"]], mark["measure"]
    values = numbers(rows, study, measure, mark["form"], mark["ways"])  # type: ignore[arg-type]
    still = numbers(rows, study, measure, mark["control_form"], mark["control_ways"])  # type: ignore[arg-type]
    ours, control = mean_interval(values), mean_interval(still)
    low, high, null, least, most = (
        float(mark[name]) for name in ("low", "high", "null", "control_low", "control_high")
    )
    up = low >= null
    right = ours.low > null if up else ours.high < null
    wrong = ours.high < null if up else ours.low > null
    if len(set(values)) == 1 and len(values) > 1:  # every seed says the same
        right, wrong = (ours.mean > null) == up and ours.mean != null, (ours.mean > null) != up
    if not right:
        verdict = "no: the other way" if wrong else "not decided"
    elif not least <= control.mean <= most:
        verdict = "direction, but the control has it too"
    else:
        verdict = "yes" if low <= ours.mean <= high else "direction, another size"
    return Found(ours, control, sum(map(math.isnan, values)), verdict)


def said(interval: MeanInterval) -> str:
    """Return a mean and its interval in words."""
    if math.isnan(interval.mean):
        return "–"
    text = f"{interval.mean:.3g}"
    ends = [f"{end:.3g}" for end in (interval.low, interval.high)]
    return text if math.isnan(interval.low) or set(ends) == {text} else f"{text} ({ends[0]} to {ends[1]})"


def table() -> Iterator[str]:
    """Yield the lines of the tables."""
    rows = read()
    yield "| source | figure | setting | theirs | mark | ours | control | same direction, mark met |"
    yield "|---|---|---|---|---|---|---|---|"
    for mark in marks():
        found = judged(rows, mark)
        ours = said(found.ours) + (f"; {found.missing} of {found.ours.n} without" if found.missing else "")
        span = f"{mark['low']} to {mark['high']}"
        still = f"{said(found.control)}, {mark['control_low']} to {mark['control_high']}: {mark['control']}"
        cells = [
            mark["source"],
            mark["figure"],
            mark["setting"],
            mark["theirs"],
            span,
            ours,
            still,
            found.verdict,
        ]
        yield f"| {' | '.join(cells)} |"
    yield from details(rows)


SHOWN = {
    "flash": ("failed", "offline", "top_30", "hours_per_commit"),
    "bonawitz": ("offline", "failed", "swing", "day_over_night"),
    "fedscale": ("commits_per_hour",),
    "timelyfl": ("clients_share", "target_s", "commits"),
    "refl": ("wasted_joules", "clients_share", "offline", "commits"),
}
TO_TARGET = ("reached", "target_s", "target_up_bytes", "target_updates", "last")


def details(rows: Mapping[Key, Mapping[str, float]]) -> Iterator[str]:
    """Yield a table of means a study, one way a row: what was varied, too."""
    for study in studies().values():
        names = SHOWN.get(study.name, TO_TARGET)
        lines = []
        for way in study.ways:
            runs = [rows[study.name, way, s] for s in range(study.seeds) if (study.name, way, s) in rows]
            if runs:
                cells = [said(mean_interval([run.get(name, math.nan) for run in runs])) for name in names]
                lines.append(f"| {way} | {len(runs)} | {' | '.join(cells)} |")
        if lines:
            yield from ("", f"`{study.name}`:", "", f"| way | seeds | {' | '.join(names)} |")
            yield f"|---|---|{'---|' * len(names)}"
            yield from lines


def draw() -> None:
    """Draw the ratios with their intervals and marks, and Papaya's against concurrency."""
    rows = read()
    wanted = [mark for mark in marks() if mark["form"] == "ratio"]
    known = [(mark, judged(rows, mark)) for mark in wanted]
    known = [(mark, found) for mark, found in known if not math.isnan(found.ours.mean)]
    figure = Figure(figsize=(11, 0.6 + 0.34 * len(known)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, (mark, found) in enumerate(reversed(known)):
        left.barh(
            place, float(mark["high"]) - float(mark["low"]), left=max(float(mark["low"]), 0.05), color="0.88"
        )
        left.plot([found.ours.low, found.ours.high], [place, place], color="C0", linewidth=2)
        left.plot([found.ours.mean], [place], "o", color="C0")
        left.plot([found.control.mean], [place], "x", color="C1")
    left.set_yticks(range(len(known)), [mark["mark"] for mark, _ in reversed(known)], fontsize=8)
    left.axvline(1.0, color="0.4", linewidth=0.8, linestyle=":")
    left.set_xscale("log")
    left.set_xlabel("ratio: mean and 95 % interval (dot), control (cross), mark (grey)")
    study, slots = studies()["asynchrony"], (30, 100, 300, 1000)
    for measure, label in (("target_s", "time"), ("target_up_bytes", "bytes")):
        pairs = [
            mean_interval(numbers(rows, study, measure, "ratio", f"sync {n} | fedbuff {n}")) for n in slots
        ]
        right.plot(slots, [pair.mean for pair in pairs], "o-", label=f"{label} to the target")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("clients at once")
    right.set_ylabel("rounds over FedBuff")
    right.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=100)


BEGIN, END = (
    "<!-- tables: written by `python experiments/published/compare.py table` -->\n",
    "<!-- end of tables -->",
)


def write() -> None:
    """Write the tables of README.md anew, and its figure."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    text = "\n".join(table()) + "\n"
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    draw()


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    unknown = [name for name in arguments[2:] if name not in studies()]
    if not arguments or unknown or (len(arguments) < 2) != (arguments[0] == "table"):
        print(__doc__)
        return 2
    if arguments[0] == "run":
        run(Path(arguments[1]), arguments[2:])
    elif arguments[0] == "collect":
        collect(Path(arguments[1]))
    else:
        write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
