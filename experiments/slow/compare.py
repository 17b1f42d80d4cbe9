"""What slow devices get: the runs of ways.yml, and what is kept of them.

    python experiments/slow/compare.py run RUNS TEXTS [WAY ...] [--seeds 0 1 ...] [--dealings tied ...] [-s KEY=VALUE ...]
        run folders RUNS/WAY/DEALING/seed-N; what is finished stays, what was interrupted goes on
    python experiments/slow/compare.py remake RUNS TEXTS
        runs.csv from the folders, and of it the tables and the figure of README.md

TEXTS is what dealing.py has written; rates.py chooses the learning rates, `tables.py` holds runs.csv against marks.csv.
"""

from __future__ import annotations

import argparse
import csv
import math
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

import fedsim
from fedsim.cli.shell import script
from fedsim.config.loading import load
from fedsim.records.folder import clear_stillborn, has_begun, holds_run
from fedsim.records.studies.kept import Key, finished, rows_in, slug, text_of

HERE = Path(__file__).parent
WAYS, ROWS = HERE / "ways.yml", HERE / "runs.csv"
KINDS: dict[str, tuple[str, str, str]] = runpy.run_path(str(HERE / "dealing.py"))["KINDS"]
SERVERS = ("deadline", "fedbuff", "patient", "fedasync", "timely", "tifl", "beat", "fedat")
"""Ways whose learning rate is chosen; the others change one of these, and keep its rate."""
PARTS = ("first", "middle", "last")


@dataclass(frozen=True)
class Way:
    """One way to run: a file, what is changed of it, which dealings of which texts, how many seeds; see ways.yml."""

    name: str
    file: str
    dealings: tuple[str, ...]
    seeds: int
    change: tuple[str, ...] = ()
    commits: int | None = None
    texts: str = "registers"
    epoch: bool = True
    apart: bool = False

    @property
    def slug(self) -> str:
        """Its name as that of a folder."""
        return slug(self.name)

    def settings(self) -> list[str]:
        """Return what is changed of its file."""
        ends = [] if self.commits is None else [f"budget={{commits: {self.commits}}}"]
        return [*self.change, *ends, *([] if self.epoch else ["personal.epochs=0"])]


@dataclass(frozen=True)
class Held:
    """Whose text a client holds, and in which fifth of speed its device is, 1 the slowest."""

    client: int
    owner: str
    fifth: int
    part: str


def ways() -> dict[str, Way]:
    """Return the ways of ways.yml by name."""
    read = yaml.safe_load(WAYS.read_text("utf-8"))
    lists = ("dealings", "change")
    return {
        name: Way(name=name, **{k: tuple(v) if k in lists else v for k, v in block.items()})
        for name, block in read.items()
        if name != "anchors"
    }


def experiment(
    way: Way, dealing: str, seed: int, texts: Path, changes: Sequence[str] = ()
) -> fedsim.Experiment:
    """Return one experiment."""
    own = [
        f"seed={seed}",
        f"name=slow-{way.slug}-{dealing}-{seed}",
        f"task.data={(texts / way.texts / f'seed-{seed}' / dealing).absolute()}",
        "runtime.executor=inline",
    ]
    return load(HERE / f"{way.file}.yaml", [*own, *way.settings(), *changes])


def make(asked: fedsim.Experiment, folder: Path) -> None:
    """Make a run, or go on with what there is of it."""
    if holds_run(folder):
        if has_begun(folder):
            fedsim.resume(folder, experiment=asked, report=False)
            return
        clear_stillborn(folder)
    fedsim.simulate(asked, out=folder, report=False)


def run(out: Path, texts: Path, wanted: Sequence[Way], seeds: Sequence[int], changes: Sequence[str]) -> None:
    """Make the runs that are not there yet, seed by seed."""
    for seed in seeds:
        for way in (way for way in wanted if seed < way.seeds):
            for dealing in way.dealings:
                folder = out / way.slug / dealing / f"seed-{seed}"
                if not finished(folder):
                    make(experiment(way, dealing, seed, texts, changes), folder)
                    print(folder, flush=True)


# what is kept of a run --------------------------------------------------------------------------


def held_by(texts: Path, way: Way, dealing: str, seed: int) -> list[Held]:
    """Return what every client holds."""
    part_of = dict(zip(KINDS[way.texts], PARTS, strict=True))
    with (texts / way.texts / f"seed-{seed}" / "clients.csv").open(encoding="utf-8") as file:
        return [
            Held(int(row["client"]), row[dealing], int(row["fifth"]), part_of[row[dealing].partition("/")[0]])
            for row in csv.DictReader(file)
        ]


def losses(run: fedsim.Run, column: str) -> dict[int, float]:
    """Return the loss [nats a token] of every client's own held-out text."""
    rows = run.personal
    return {int(client): math.log(value) for client, value in zip(rows["client"], rows[column], strict=True)}


def figures(run: fedsim.Run, held: Sequence[Held], *, epoch: bool) -> dict[str, float]:
    """Return what is kept of a run: sums and means by fifth of speed, means by kind of text."""
    visits = run.frame("visits", "client", "joules", "committed_version")
    spent = visits.groupby("client")["joules"].sum()
    updates = visits.loc[visits["committed_version"] > 0, "client"].value_counts()
    asked = visits["client"].value_counts()
    shared = losses(run, "metric_global")
    own = losses(run, "metric_personal") if epoch else {}
    kept = {
        "commits": float(len(run.commits)),
        "hours": run.info.end_time_s / 3600,
        "wall_s": float(run.info.wall_s or math.nan),
        "loss": float(np.mean(list(shared.values()))),
    }
    for fifth in range(1, 6):
        mine = [one.client for one in held if one.fifth == fifth]
        for name, counts in (("visits", asked), ("updates", updates), ("joules", spent)):
            kept[f"{name}_{fifth}"] = float(sum(counts.get(client, 0.0) for client in mine))
        kept[f"loss_{fifth}"] = float(np.mean([shared[client] for client in mine]))
    for part in PARTS:
        mine = [one.client for one in held if one.part == part]
        kept[f"loss_{part}"] = float(np.mean([shared[client] for client in mine]))
        if own:
            kept[f"own_{part}"] = float(np.mean([own[client] for client in mine]))
    return kept


def excess(mine: Mapping[str, float], lot: Mapping[str, float], held: Sequence[Held]) -> dict[str, float]:
    """Return by how much more the owners of every fifth lose than where text was dealt by lot."""
    return {
        f"excess_{fifth}": float(
            np.mean([mine[one.owner] - lot[one.owner] for one in held if one.fifth == fifth])
        )
        for fifth in range(1, 6)
    }


def of_way(out: Path, texts: Path, way: Way) -> Iterator[tuple[Key, dict[str, float]]]:
    """Yield what is kept of the finished runs of a way."""
    for seed in range(way.seeds):
        by_owner: dict[str, dict[str, float]] = {}
        for dealing in reversed(way.dealings):  # by lot first: the others are held against it
            folder = out / way.slug / dealing / f"seed-{seed}"
            if not finished(folder):
                continue
            done, held = fedsim.load(folder), held_by(texts, way, dealing, seed)
            shared = losses(done, "metric_global")
            by_owner[dealing] = {one.owner: shared[one.client] for one in held}
            tuned = way.epoch and done.experiment["personal"].get("epochs") != 0
            kept = figures(done, held, epoch=tuned)
            if "drawn" in by_owner and dealing != "drawn":
                kept |= excess(by_owner[dealing], by_owner["drawn"], held)
            yield Key(way.name, dealing, seed), kept


def collect(out: Path, texts: Path) -> None:
    """Write runs.csv anew from run folders; rows whose run is not in the folder stay."""
    known = ways()
    rows: dict[Key, dict[str, float]] = rows_in(ROWS)
    for way in known.values():
        rows |= dict(of_way(out, texts, way))
    order = [
        Key(w.name, dealing, seed)
        for w in known.values()
        for dealing in w.dealings
        for seed in range(w.seeds)
    ]
    about = "written by experiments/slow/compare.py remake: study: the way, way: who holds what; losses in nats a token"
    ROWS.write_text(text_of(rows, order, about), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    known = ways()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("run", "remake"))
    parser.add_argument("runs", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("ways", nargs="*", metavar="WAY")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    dealings = ["tied", "turned", "drawn"]
    parser.add_argument("--dealings", nargs="+", choices=dealings, default=dealings)
    parser.add_argument("-s", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_intermixed_args(arguments)
    if unknown := set(asked.ways) - set(known):
        parser.error(f"no such way: {', '.join(sorted(unknown))}")
    if asked.verb == "run":
        wanted = [known[name] for name in asked.ways] or [way for way in known.values() if not way.apart]
        some = [
            replace(way, dealings=tuple(d for d in way.dealings if d in asked.dealings)) for way in wanted
        ]
        run(asked.runs, asked.texts, some, asked.seeds, asked.changes)
    else:
        collect(asked.runs, asked.texts)
        runpy.run_path(str(HERE / "tables.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
