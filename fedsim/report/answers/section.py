"""What a model of chats answers: how near that is to what was expected, and some answers before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsim.errors import RunFolderError, message
from fedsim.files.opened import FACTS_BYTES, bytes_of
from fedsim.records import views
from fedsim.records.quantities import number
from fedsim.records.run import Run
from fedsim.records.tables import UNREADABLE, first_line
from fedsim.report.parts import Section, Table

SPLIT = "answers"
TITLE = "What the model answers"
FILE = "samples/answers.json"
MOST_ENTRIES, MOST_CHARACTERS = 100, 2000
"""Of the page: answers, and characters of a cell."""
NAMES = {"rouge_l": "ROUGE-L", "exact_match": "the share that is equal"}


def sections(run: Run) -> list[Section]:
    """Return the section if the run generated any answer, else nothing.

    Raises:
        RunFolderError: its file of answers is damaged.
    """
    tables = list(_tables(_entries(run.folder)))
    sentences = list(_sentences(run))
    if not tables and not sentences:
        return []
    return [
        Section(
            SPLIT, TITLE, sentences or ["Some answers, chosen greedily, before and after."], tables=tables
        )
    ]


def _sentences(run: Run) -> Iterator[str]:
    """Yield how near the generated answers of the first and the last scored version are to those that were expected."""
    known = set(run.scores.loc[run.scores["split"] == SPLIT, "metric"])
    for metric, name in NAMES.items():
        if metric in known:
            curve = views.scored(run, metric, SPLIT)["value"]
            yield f"Of generated answers {name} was {number(curve.iloc[0])} at first and {number(curve.iloc[-1])} at the end."


def _entries(folder: Path | None) -> list[Mapping[str, object]]:
    path = None if folder is None else folder / FILE
    if folder is None or path is None or not path.is_file():
        return []
    try:
        entries = json.loads(bytes_of(path, FACTS_BYTES, folder=folder))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise TypeError("it is no list of answers")
    except (*UNREADABLE, AttributeError) as problem:
        what = f"is damaged ({first_line(problem)})"
        raise RunFolderError(message(str(path), what, fix=f"remove {path.parent}")) from problem
    return entries[:MOST_ENTRIES]


def _tables(entries: list[Mapping[str, object]]) -> Iterator[Table]:
    """Yield a table of test examples and one of clients' own."""
    of_all = [entry for entry in entries if entry.get("client") is None]
    of_clients = [entry for entry in entries if entry.get("client") is not None]
    for chosen, names, caption in (
        (of_all, ("question", "expected", "before", "after"), "Answers to test examples"),
        (
            of_clients,
            ("client", "question", "expected", "before", "after", "own"),
            "Answers to what clients keep apart, by the shared model and by their own",
        ),
    ):
        if chosen:
            yield Table(
                names,
                [tuple(_cell(entry.get(name)) for name in names) for entry in chosen],
                caption,
                is_words=True,
            )


def _cell(value: object) -> str:
    return "–" if value is None else str(value)[:MOST_CHARACTERS]
