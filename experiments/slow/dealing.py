"""The text of the study, dealt to a hundred users by how long a visit takes their devices.

    python experiments/slow/dealing.py OUT --speeches speeches.jsonl --news PTB [--texts registers plays] [--seeds 0 1 2 3 4 100]

writes OUT/TEXTS/seed-N/DEALING/train.jsonl and test.jsonl, and OUT/TEXTS/seed-N/clients.csv, which says whose device takes how
long and whose text it holds. In every dealing a hundred owners have the same text; only who holds it differs:

    tied     owners of the first kind on the slowest fifth of the devices, of the last kind on the fastest fifth
    turned   the other way round
    drawn    by lot
    tuning   as drawn, without the last quarter of every owner's text: learning rates are chosen on it

An owner's text is at most 4,000 characters. `test.jsonl` is of roles that nobody holds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

import fedsim
from fedsim.builtin import documents
from fedsim.cli.shell import script
from fedsim.clock.estimate import estimate
from fedsim.clock.plan import prepare
from fedsim.config.loading import load
from fedsim.rng import stream

HERE = Path(__file__).parent
CHARACTERS = 4_000
"""Of an owner's text, at most."""
OUTER, STRANGERS = 20, 20
"""Owners of the first kind, and of the last; roles that nobody holds."""
MIDDLE = 60
TUNED = 0.75
"""Share of an owner's text that learning rates are chosen on; what is held out in the runs begins at 0.8."""
KINDS = {
    "registers": ("news", "plays", "manual"),
    "plays": ("histories", "comedies", "tragedies"),
}
"""The kinds of each set of texts: of the first fifth, of the three in the middle, of the last fifth."""
GENRES = {
    "histories": """henry_iv_part_1 henry_iv_part_2 henry_v henry_vi_part_1 henry_vi_part_2 henry_vi_part_3 henry_viii john
        richard_ii richard_iii""",
    "comedies": """alls_well_that_ends_well as_you_like_it comedy_of_errors loves_labours_lost measure_for_measure
        merchant_of_venice merry_wives_of_windsor much_ado_about_nothing pericles taming_of_the_shrew tempest twelfth_night
        two_gentlemen_of_verona winters_tale""",
    "tragedies": """antony_and_cleopatra coriolanus cymbeline hamlet julius_caesar lear macbeth othello romeo_and_juliet
        timon_of_athens tragedy_of_titus_andronicus troilus_and_cressida""",
}
"""As the First Folio has them, with Pericles among the comedies and Troilus among the tragedies."""
DEALINGS = ("tied", "turned", "drawn", "tuning")
Text = dict[str, list[str]]
"""Owner -> rows. An owner is `KIND/...`."""


@dataclass(frozen=True)
class Owners:
    """A hundred owners by kind, in the order of `KINDS`, and what nobody holds."""

    kinds: tuple[Text, Text, Text]
    strangers: Text

    @property
    def all(self) -> Text:
        """All of them."""
        return {owner: rows for kind in self.kinds for owner, rows in kind.items()}


# text -------------------------------------------------------------------------------------------


def roles_of(speeches: Path) -> Text:
    """Return the speeches of every role, `PLAY/ROLE`, in the play's order."""
    roles: Text = {}
    with speeches.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            roles.setdefault(row["owner"], []).append(row["text"])
    return roles


def first(rows: Iterable[str], most: float = CHARACTERS) -> list[str]:
    """Return the first rows, whole, as long as they have at most so many characters together; one at least."""
    kept: list[str] = []
    length = 0
    for row in rows:
        length += len(row)
        if kept and length > most:
            break
        kept.append(row)
    return kept


def largest(roles: Mapping[str, Sequence[str]], count: int, kind: str, plays: str | None = None) -> Text:
    """Return the roles with most text up to the bound, the largest first; of some plays, or of all.

    Raises:
        SystemExit: there are fewer roles.
    """
    wanted = None if plays is None else set(plays.split())
    sizes = {
        owner: sum(map(len, first(rows)))
        for owner, rows in roles.items()
        if wanted is None or owner.partition("/")[0] in wanted
    }
    if len(sizes) < count:
        raise SystemExit(f"{kind}: {count} roles are needed, there are {len(sizes)}")
    taken = sorted(sizes, key=lambda owner: (-sizes[owner], owner))[:count]
    return {f"{kind}/{owner}": first(roles[owner]) for owner in taken}


def stretches(rows: Sequence[str], count: int, kind: str) -> Text:
    """Return so many stretches of a long text, at equal distances.

    Raises:
        SystemExit: it is too short for that.
    """
    ends = np.cumsum([len(row) for row in rows])
    starts = [int(np.searchsorted(ends, ends[-1] * k / count)) for k in range(count)]
    cut = [first(rows[a:b]) for a, b in pairwise([*starts, len(rows)])]
    if min(sum(map(len, part)) for part in cut) < CHARACTERS / 2:
        raise SystemExit(f"{kind}: {count} stretches of {CHARACTERS} characters are needed")
    return {f"{kind}/{k:02}": part for k, part in enumerate(cut)}


def owners(texts: str, speeches: Path, news: Path | None) -> Owners:
    """Return the owners of a set of texts."""
    roles = roles_of(speeches)
    low, middle, high = KINDS[texts]
    if texts == "plays":
        kinds = tuple(
            largest(roles, n, k, GENRES[k]) for k, n in zip(KINDS[texts], (20, 60, 20), strict=True)
        )
    else:
        if news is None:
            raise SystemExit(
                "registers needs --news: a folder with ptb.train.txt, or any text file of sentences"
            )
        file = news / "ptb.train.txt" if news.is_dir() else news
        lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        pages = [d.text for d in documents() if d.group.startswith("topics/")]
        paragraphs = [part.strip() for page in pages for part in page.split("\n\n") if part.strip()]
        kinds = (
            stretches(lines, OUTER, low),
            largest(roles, MIDDLE, middle),
            stretches(paragraphs, OUTER, high),
        )
    assert len(kinds) == 3
    held = {owner.partition("/")[2] for kind in kinds for owner in kind}
    left = {owner: rows for owner, rows in roles.items() if owner not in held}
    return Owners((kinds[0], kinds[1], kinds[2]), largest(left, STRANGERS, "strangers"))


# devices ----------------------------------------------------------------------------------------


def visit_seconds(seed: int) -> list[float]:
    """Return how long a whole visit takes every client of base.yaml by itself [s]; inf if it does not fit its memory.

    It needs no text: who is drawn, and what a visit is charged, follow from the settings alone.
    """
    base = load(HERE / "base.yaml").plain()
    charge = base["task"]["charge_as"]
    timed = {
        "task": {"kind": "quadratic", "layout": "lora", "layers": 5, "charge_as": charge},
        "local": {"optimizer": "sgd", "lr": 0.1, "steps": base["local"]["steps"]},
        "evaluate": {"every_commits": 1},
        "personal": {"kind": "none"},
        "seed": seed,
    }
    plan = prepare(fedsim.Experiment.model_validate({**base, **timed}))
    asked = plan.experiment
    alone = [
        estimate(
            plan.population.profile(client),
            plan.work(client),
            0.0,
            compute=asked.compute,
            tail=asked.energy.tail,
            network=asked.network,
        )
        for client in range(asked.population.clients)
    ]
    return [visit.total_s if visit.fits else float("inf") for visit in alone]


def fifths(seconds: Sequence[float]) -> list[int]:
    """Return every client's fifth, 1 the slowest; ties by number.

    >>> fifths([9.0, 1.0, 7.0, 3.0, 5.0])
    [1, 5, 2, 4, 3]
    """
    order = sorted(range(len(seconds)), key=lambda client: (-seconds[client], client))
    found = [0] * len(seconds)
    for place, client in enumerate(order):
        found[client] = 1 + 5 * place // len(seconds)
    return found


def dealt(found: Owners, fifth_of: Sequence[int], seed: int) -> dict[str, list[str]]:
    """Return dealing -> the owner of every client's text."""
    clients = range(len(fifth_of))
    mixed = [
        [list(kind)[i] for i in stream(seed, "slow", "kind", number).permutation(len(kind))]
        for number, kind in enumerate(found.kinds)
    ]
    everybody = [owner for kind in mixed for owner in kind]
    lot = stream(seed, "slow", "lot").permutation(len(everybody))

    def by_speed(slowest: Sequence[str], fastest: Sequence[str]) -> list[str]:
        piles = {1: iter(slowest), 5: iter(fastest)}
        middle = iter(mixed[1])
        return [next(piles.get(fifth_of[client], middle)) for client in clients]

    drawn = [everybody[i] for i in lot]
    return {
        "tied": by_speed(mixed[0], mixed[2]),
        "turned": by_speed(mixed[2], mixed[0]),
        "drawn": drawn,
        "tuning": drawn,
    }


# files ------------------------------------------------------------------------------------------


def write(folder: Path, text: Iterable[tuple[str, Sequence[str]]], name: str) -> None:
    """Write rows as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": row, "owner": owner}) for owner, rows in text for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_seed(out: Path, found: Owners, seed: int) -> None:
    """Write all dealings of a seed."""
    seconds = visit_seconds(seed)
    fifth_of = fifths(seconds)
    by_dealing = dealt(found, fifth_of, seed)
    text = found.all
    for dealing, who in by_dealing.items():
        share = TUNED if dealing == "tuning" else 1.0
        held = [(owner, first(text[owner], share * sum(map(len, text[owner])))) for owner in who]
        write(out / dealing, held, "train.jsonl")
        write(out / dealing, found.strangers.items(), "test.jsonl")
    with (out / "clients.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["client", "visit_s", "fifth", *DEALINGS[:3]])
        for client, visit_s in enumerate(seconds):
            names = [by_dealing[dealing][client] for dealing in DEALINGS[:3]]
            writer.writerow([client, f"{visit_s:.6g}", fifth_of[client], *names])


def main(arguments: Sequence[str]) -> int:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--speeches", type=Path, required=True)
    parser.add_argument("--news", type=Path)
    parser.add_argument("--texts", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4, 100])
    asked = parser.parse_args(arguments)
    for texts in asked.texts:
        found = owners(texts, asked.speeches, asked.news)
        for seed in asked.seeds:
            write_seed(asked.out / texts / f"seed-{seed}", found, seed)
            print(asked.out / texts / f"seed-{seed}")
    return 0


if __name__ == "__main__":
    sys.exit(script(main))
