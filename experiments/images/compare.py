"""Fashion-MNIST drawn by unequal devices: the runs of this folder's files, and what is kept of them.

    python experiments/images/compare.py tune OUT [METHOD ...] [-s ...]   learning rates of every method, until the best lies between two worse ones; puts it into the files
    python experiments/images/compare.py run OUT [FILE ...] [-s ...]      three seeds of every file; what is done stays, what was begun goes on
    python experiments/images/compare.py remake OUT                       rates.csv and runs.csv from the folders, and of them all tables, the figure, and rows of docs/claims.md

Methods (lora, ...) or files (lora-2-classes, ...) that are named are the only ones: one process may do some, and another the others.

`tables.py` beside it holds runs.csv against `marks.csv`. Where the reader's files are: `-s task.model=MODEL -s task.data=DATA
-s task.features.classifier=MODEL/classifier.safetensors`.
"""

from __future__ import annotations

import argparse
import math
import re
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import fedsim
from fedsim import views
from fedsim.cli.app import call
from fedsim.cli.shell import script
from fedsim.metrics.direction import CLIENTS_CLASSES, SAMPLES_DRAWN
from fedsim.records.studies.kept import Key, csv_text, rows_in, runs_of, text_of

HERE = Path(__file__).parent
ROWS, RATES_KEPT = HERE / "runs.csv", HERE / "rates.csv"
STUDIES = {"Dirichlet 0.1": "", "two classes": "-2-classes"}
"""How labels are split -> what the names of its files end with."""
METHODS = ("lora", "full", "local-only", "personal")
VARIED = ("wide",)
"""Run after all others, under the first split."""
RATES = (6.25e-5, 2.5e-4, 1e-3, 4e-3, 1.6e-2, 6.4e-2)
"""The grid of learning rates, the same for every method."""
FIRST_RATE = 1e-3
OTHER_SEED = 100
"""Of the runs that choose a learning rate: other clients, and other images than those of the seeds that count."""
CHOOSING = (
    "task.share=[0.5, 1.0]",
    "task.samples=0",
    "task.sampling_steps=1",
    "budget.commits=6",
    "evaluate.splits=[clients]",
    "personal={kind: none}",
    f"seed={OTHER_SEED}",
)
"""What the choice of a learning rate changes of a file: the loss is that of images which the clients hold out."""
EYES = {"own": "classifier", "lite": "efficientnet-lite0@64"}
SAMPLES = "samples"


def files() -> Iterator[tuple[str, str, str]]:
    """Yield the split, the method and the name of every file, in the order in which they are run."""
    for study, ending in STUDIES.items():
        yield from ((study, way, f"{way}{ending}") for way in METHODS)
    yield from ((next(iter(STUDIES)), way, way) for way in VARIED)


def swept(name: str, settings: Sequence[str], out: Path) -> int:
    """Run the file of that name over its grid; returns the exit code."""
    words = [word for setting in settings for word in ("-s", setting)]
    return call(["sweep", str(HERE / f"{name}.yaml"), *words, "--out", str(out)])


# learning rates ---------------------------------------------------------------------------------


def next_rate(losses: Mapping[float, float]) -> float | None:
    """Return the rate of the grid to try next: the first one, then an untried neighbour of the best; None: there is none."""
    if not losses:
        return FIRST_RATE
    at = RATES.index(min(losses, key=losses.__getitem__))
    beside = [RATES[i] for i in (at + 1, at - 1) if 0 <= i < len(RATES)]
    return next((rate for rate in beside if rate not in losses), None)


def tuned(out: Path, way: str) -> dict[float, fedsim.Run]:
    """Return the finished runs of a method's search, by learning rate, ascending."""
    runs = runs_of(out / "rates", [way]).get(way, [])
    done = {float(run.experiment["local"]["lr"]): run for run in runs if run.info.status == "done"}
    return dict(sorted(done.items()))


def validation_loss(run: fedsim.Run, at: int = -1) -> float:
    """Return the loss of images that clients hold out, of the last version; of version 0 with `at` 0. Infinite if it is no number."""
    value = float(views.scored(run, "loss", "clients")["value"].iloc[at])
    return value if math.isfinite(value) else math.inf


def tune(out: Path, ways: Sequence[str], settings: Sequence[str]) -> int:
    """Try learning rates of methods until the best lies between two that are worse, or at an end of the grid; put it into the files."""
    for way in ways:
        while (rate := next_rate(losses := tried(out, way))) is not None:
            axis = f"sweep={{local.lr: [{rate:g}]}}"
            code = swept(way, [axis, *CHOOSING, *settings], out / "rates" / way)
            if code or rate not in tuned(out, way):
                return code or 1
        put_rate(way, min(losses, key=losses.__getitem__))
    return 0


def tried(out: Path, way: str) -> dict[float, float]:
    """Return the losses of a method's search, by learning rate."""
    return {rate: validation_loss(run) for rate, run in tuned(out, way).items()}


def put_rate(way: str, rate: float) -> None:
    """Put a learning rate into the files of a method, where `local: {lr: ...}` stands."""
    for name in (name for _, of, name in files() if of == way):
        path = HERE / f"{name}.yaml"
        text = re.sub(r"(?m)^local: \{lr: [^}]*\}", f"local: {{lr: {rate:g}}}", path.read_text("utf-8"))
        path.write_text(text, "utf-8")


# what is kept of a run --------------------------------------------------------------------------


def figures(run: fedsim.Run) -> dict[str, float]:
    """Return what is kept of a run: how far its samples are from the clients' images, at the start and at the end, and what it took."""
    landed = run.visits[run.visits["outcome"] == "landed"]
    drawn = views.scored(run, SAMPLES_DRAWN, SAMPLES)["value"]
    same = (
        drawn.iloc[0] == drawn.iloc[-1]
    )  # else version 0 is that of other runs, looked at with fewer images
    start = {f"start_{name}": value for name, value in seen(run, 0).items()} if same else {}
    real = {f"real_{name}": last(run, f"FD({eye}) of test images") for name, eye in EYES.items()}
    took = {
        "samples": float(drawn.iloc[-1]),
        "commits": float(len(run.commits)),
        "landed": float(len(landed)),
        "heard": float(landed.loc[landed["committed_version"] > 0, "client"].nunique()),
        "update_bytes": float(landed["up_bytes"].median()),
        "up_bytes": float(run.visits["up_bytes"].sum()),
        "hours": run.info.end_time_s / 3600,
        "joules": run.info.totals.joules,
        "wall_s": run.info.wall_s or 0.0,
    }
    return seen(run, -1) | losses(run) | start | real | took


def last(run: fedsim.Run, metric: str, at: int = -1) -> float:
    """Return a metric of the samples of the last version; of the first one with `at` 0."""
    return float(views.scored(run, metric, SAMPLES)["value"].iloc[at])


def seen(run: fedsim.Run, at: int) -> dict[str, float]:
    """Return what the extractors say of the samples of one version: the first (0) or the last (-1).

    `gap` is the distance in variation between the classes of the samples and those of the clients' images, which have
    equally many of each of their classes: 0 if they agree, 1 if no sample is of a class of theirs. `largest` is the share of
    the commonest class of theirs.
    """
    pairs = [(distance, name, eye) for name, eye in EYES.items() for distance in ("FD", "KID")]
    values = {
        f"{distance.lower()}_{name}": last(run, f"{distance}({eye})", at) for distance, name, eye in pairs
    }
    named = run.info.task["class_names"]
    shares = [last(run, f"share of {name}", at) for name in named]
    theirs = last(run, CLIENTS_CLASSES, at)
    gap = (sum(abs(share - 1 / len(named)) for share in shares) + 1 - theirs) / 2
    return values | {"gap": gap, "theirs": theirs, "largest": max(shares)}


def losses(run: fedsim.Run) -> dict[str, float]:
    """Return the loss at fixed noise: of test images before and after, where all have one model, and of what twelve clients hold out.

    `held_shared` is that of the shared model on each client's own images, `held_own` that of the model which the client ends with.
    """
    people, kept = run.personal, dict[str, float]()
    if "test" in set(run.scores["split"]):
        curve = views.scored(run, "loss")["value"]
        kept = {"test_loss_before": float(curve.iloc[0]), "test_loss": float(curve.iloc[-1])}
    if len(people):
        kept["held_shared"] = float(people["metric_global"].mean())
        kept["held_own"] = float(people["metric_personal"].mean())
        kept["worse"] = float((people["gain"] < 0).mean())
    return kept


def collect(out: Path) -> None:
    """Write runs.csv and rates.csv anew; rows whose run is not in the folder stay."""
    rows = rows_in(ROWS)
    seeds: set[int] = {key.seed for key in rows}
    for study, way, name in files():
        for run in runs_of(out, [name]).get(name, []):
            if run.info.status == "done":
                rows[Key(study, way, run.info.seed)] = figures(run)
                seeds.add(run.info.seed)
    order = [Key(study, way, seed) for study, way, _ in files() for seed in sorted(seeds)]
    about = "written by experiments/images/compare.py remake: one run a row; empty: not asked"
    ROWS.write_text(text_of(rows, order, about), "utf-8")
    found = {way: tuned(out, way) for way in (*METHODS, *VARIED)}
    cells = [
        [
            way,
            f"{rate:g}",
            f"{validation_loss(run, 0):.6g}",
            f"{validation_loss(run):.6g}",
            f"{run.info.wall_s:.0f}",
        ]
        for way, runs in found.items()
        for rate, run in runs.items()
    ]
    if cells:
        about = "written by experiments/images/compare.py remake: learning rates that were tried, by the loss of held-out images"
        head = ["way", "rate", "before", "loss", "wall_s"]
        RATES_KEPT.write_text(csv_text(head, cells, about), "utf-8")


def asked(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("tune", "run", "remake"))
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("-s", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    given = asked(arguments)
    if given.command == "remake" and (given.names or given.settings):
        print("remake takes the folder alone: it writes what is in it", file=sys.stderr)
        return 2
    known = [*METHODS, *VARIED] if given.command == "tune" else [name for _, _, name in files()]
    if unknown := sorted(set(given.names) - set(known)):
        print(f"no {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    wanted = [name for name in known if name in (given.names or known)]
    if given.command == "tune":
        return tune(given.out, wanted, given.settings)
    if given.command == "run":
        return max(swept(name, given.settings, given.out / name) for name in wanted)
    collect(given.out)
    runpy.run_path(str(HERE / "tables.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
