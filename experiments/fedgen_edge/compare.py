"""The claims of FedGen-Edge that need training, parts (b) to (f) of README.md: the runs of studies.yml, and what is kept of them.

    python experiments/fedgen_edge/compare.py run OUT [STUDY ...] [--rest] --model MODEL --ptb PTB --plays PLAYS
    python experiments/fedgen_edge/compare.py remake OUT

`run` chooses learning rates (OUT/rates), makes the runs (OUT/STUDY/WAY/seed-N), and leaves alone what is finished: killed, it goes
on where it was. `--rest` leaves alone, too, what runs.csv and rates.csv have already, so that another machine makes the rest. `remake` writes the CSVs beside this file from the folders, and of them the tables and figures of README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedsim.cli.app import call
from fedsim.cli.shell import script
from fedsim.records.studies.kept import Key, finished, slug

HERE = Path(__file__).parent
MEASURES = runpy.run_path(str(HERE / "measures.py"))
LATTICE = tuple(float(f"{step}e{power}") for power in range(-6, 1) for step in (1, 3))
"""Learning rates that may be chosen, of all methods alike."""
TUNING_SEED = 100
STOPPED = (130, 143)
Settings = Mapping[str, object]


@dataclass(frozen=True)
class Places:
    """Where things lie: run folders, the model, the Penn Treebank, what plays.py has written."""

    out: Path
    model: str
    ptb: str
    plays: str

    def data(self, name: str) -> str:
        """Return the folder of `ptb`, `study` or `tuning`."""
        return self.ptb if name == "ptb" else f"{self.plays}/{name}"


@dataclass(frozen=True)
class Way:
    """One configuration of a study; `rates` are its learning rates: key -> name of the search."""

    study: str
    name: str
    seeds: int
    trained: bool
    data: str
    set: Settings
    rates: Mapping[str, str]

    @property
    def slug(self) -> str:
        """Name of its folder."""
        return slug(self.name)

    @property
    def whole(self) -> bool:
        """Whether it trains the whole model."""
        lora = self.set.get("lora")
        return isinstance(lora, Mapping) and bool(lora.get("full"))


@dataclass(frozen=True)
class Search:
    """How a learning rate is chosen: of which way, under which key, from where, and by what."""

    name: str
    way: Way
    key: str
    start: float
    score: str = "valid"

    @property
    def set(self) -> Settings:
        """What the way changes while it is searched: nothing that is reported is looked at."""
        if self.score == "valid":
            return {"evaluate.splits": ["valid"], "evaluate.every_commits": 1000}
        return {"population.clients": 50, "personal.clients": 20}

    @property
    def data(self) -> str:
        """Which data: clients' own models are searched on plays that are not studied."""
        return self.way.data if self.score == "valid" else "tuning"


def planned() -> tuple[dict[str, list[Way]], dict[str, Search]]:
    """Return the ways of each study, and the searches, as studies.yml has them."""
    read = yaml.safe_load((HERE / "studies.yml").read_text("utf-8"))
    ways = {
        study: [_way(study, block, name) for name in block["ways"]]
        for study, block in read["studies"].items()
    }
    known = {(way.study, way.name): way for of_study in ways.values() for way in of_study}
    searches = {
        name: Search(name, known[block.pop("study"), block.pop("way")], **block)
        for name, block in read["rates"].items()
    }
    return ways, searches


def _way(study: str, block: Mapping[str, Any], name: str) -> Way:
    own = block["ways"][name]
    settings = {**block.get("set", {}), **own.get("set", {})}
    data, rates = own.get("data", "study"), own.get("rates", {})
    return Way(study, name, block["seeds"], block.get("trained", True), data, settings, rates)


def words(way: Way, places: Places, data: str, changes: Settings) -> list[str]:
    """Return the arguments of `fedsim run` that make an experiment of base.yaml."""
    settings = {
        "name": f"{way.study}-{way.slug}",
        "task.model": places.model,
        "task.data": places.data(data),
        **way.set,
        **changes,
    }
    return [word for key, value in settings.items() for word in ("-s", f"{key}={json.dumps(value)}")]


@dataclass
class Driver:
    """Makes the runs of some places."""

    places: Places
    ways: Mapping[str, Sequence[Way]]
    searches: Mapping[str, Search]
    rest: bool = False
    """Whether what the CSVs have of other folders is taken from there."""
    found: dict[str, float] = field(default_factory=dict)

    def run(self, studies: Sequence[str]) -> None:
        """Make the runs of some studies, seed by seed, that are not there yet."""
        kept = MEASURES["rows_in"](MEASURES["RUNS"]) if self.rest else {}
        for study in studies:
            for seed in range(self.ways[study][0].seeds):
                for way in self.ways[study]:
                    if Key(study, way.name, seed) in kept:
                        continue
                    rates = {key: self.chosen(self.searches[name]) for key, name in way.rates.items()}
                    folder = self.places.out / study / way.slug / f"seed-{seed}"
                    self.make(way, folder, words(way, self.places, way.data, {"seed": seed, **rates}))

    def chosen(self, search: Search) -> float:
        """Return the learning rate that scores best and has a worse neighbour on both sides.

        Raises:
            SystemExit: it would lie outside of the lattice.
        """
        if search.name in self.found:
            return self.found[search.name]
        at = LATTICE.index(search.start)
        scores: dict[int, float] = {}
        wanted = [at - 1, at, at + 1]
        while wanted:
            for place in wanted:
                scores[place] = self.tried(search, LATTICE[place])
            at = min(scores, key=lambda place: (scores[place], place))
            wanted = [place for place in (at - 1, at + 1) if place not in scores]
            if not 0 < at < len(LATTICE) - 1 or math.isinf(scores[at]):
                sys.exit(f"{search.name}: no learning rate of the lattice does")
        self.found[search.name] = LATTICE[at]
        return LATTICE[at]

    def tried(self, search: Search, rate: float) -> float:
        """Return the score of a learning rate."""
        if self.rest and (kept := MEASURES["kept_scores"](search.name).get(rate)) is not None:
            return float(kept)
        others = {
            key: self.chosen(self.searches[name])
            for key, name in search.way.rates.items()
            if key != search.key
        }
        changes = {"seed": TUNING_SEED, **search.set, **others, search.key: rate}
        folder = self.places.out / "rates" / search.name / f"{rate:g}"
        self.make(search.way, folder, words(search.way, self.places, search.data, changes))
        score: float = MEASURES["scored"](folder, search.score)
        return score

    def make(self, way: Way, folder: Path, settings: Sequence[str]) -> None:
        """Make a run, or go on with it, unless it is done; what it took of the processor is written down."""
        if finished(folder):
            return
        if not way.trained:
            shutil.rmtree(folder, ignore_errors=True)
        began_s = time.process_time()
        how = "--resume" if way.trained else "--timeline-only"
        code = call(["run", str(HERE / "base.yaml"), *settings, how, "--out", str(folder)])
        with (self.places.out / "spent.csv").open("a", encoding="utf-8") as file:
            file.write(f"{folder.relative_to(self.places.out)},{time.process_time() - began_s:.1f},{code}\n")
        if way.whole:
            shutil.rmtree(folder / "adapter", ignore_errors=True)  # half a gigabyte that nobody reads
        if code in STOPPED:
            sys.exit(code)


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "remake"))
    parser.add_argument("out", type=Path)
    parser.add_argument("studies", nargs="*")
    parser.add_argument("--rest", action="store_true", help="leave alone what the CSVs have of other folders")
    data = HERE.parents[1] / "data"
    parser.add_argument("--model", default=str(data / "models" / "smollm2-135m"))
    parser.add_argument("--ptb", default=str(data / "ptb"))
    parser.add_argument("--plays", default=str(data / "shakespeare" / "plays"))
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for."""
    asked = arguments_of(arguments)
    ways, searches = planned()
    unknown = set(asked.studies) - set(ways)
    if unknown:
        print(f"no study {', '.join(sorted(unknown))}; there are {', '.join(ways)}", file=sys.stderr)
        return 2
    if asked.command == "run":
        asked.out.mkdir(parents=True, exist_ok=True)
        places = Places(asked.out, asked.model, asked.ptb, asked.plays)
        Driver(places, ways, searches, asked.rest).run(asked.studies or list(ways))
        return 0
    MEASURES["collect"](asked.out, ways, searches)
    runpy.run_path(str(HERE / "tables.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
