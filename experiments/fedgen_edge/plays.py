"""Shakespeare's speeches in two folders: plays to study, and other plays to choose learning rates on.

    python experiments/fedgen_edge/plays.py SPEECHES OUT     speeches.jsonl of scripts/shakespeare.py; a new folder

Every fourth play goes to `OUT/tuning`, the others to `OUT/study`. In each, the first eight tenths of what a role says are
`train.jsonl`, the next tenth `valid.jsonl`, the last one `test.jsonl`, in the order of the play; a role with fewer than ten
speeches has them all in `train.jsonl`. A column `anybody` deals the speeches anew: as many to each role as it has, drawn
from all of them, so that whose a speech is says nothing.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

TENTHS, EVERY = 10, 4
SPLITS = ("train", "valid", "test")


class Speech(TypedDict, total=False):
    """A line of speeches.jsonl, and whose it is when they are dealt anew."""

    text: str
    owner: str
    play: str
    turn: int
    anybody: str


def dealt(speeches: Sequence[Speech]) -> dict[tuple[str, str], list[Speech]]:
    """Return the speeches of each (folder, split), those of a role in their order."""
    plays = sorted({speech["play"] for speech in speeches})
    tuning = set(plays[EVERY - 1 :: EVERY])
    by_owner: dict[str, list[Speech]] = {}
    for speech in speeches:
        by_owner.setdefault(speech["owner"], []).append(speech)
    parts: dict[tuple[str, str], list[Speech]] = {}
    for own in by_owner.values():
        tenth = len(own) // TENTHS
        ends = (len(own) - 2 * tenth, len(own) - tenth, len(own))
        folder = "tuning" if own[0]["play"] in tuning else "study"
        for split, start, end in zip(SPLITS, (0, *ends[:2]), ends, strict=True):
            parts.setdefault((folder, split), []).extend(own[start:end])
    return {place: anew(part) for place, part in parts.items()}


def anew(speeches: Sequence[Speech]) -> list[Speech]:
    """Return speeches with the owners of all of them dealt anew, the same ones every time."""
    owners = [speech["owner"] for speech in speeches]
    random.Random(0).shuffle(owners)
    return [{**speech, "anybody": owner} for speech, owner in zip(speeches, owners, strict=True)]


def main(arguments: Sequence[str]) -> int:
    """Write the folders."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    source, out = map(Path, arguments)
    with source.open(encoding="utf-8") as file:
        speeches: list[Speech] = [json.loads(line) for line in file]
    for (folder, split), part in dealt(speeches).items():
        (out / folder).mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(speech, ensure_ascii=False) + "\n" for speech in part)
        (out / folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{out / folder / split}.jsonl: {len(part):,} speeches")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
