"""Examples: chats of several turns, instructions with an answer, prompts with a completion; from rows of tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedsim.errors import DataError, Shown, message, nearest
from fedsim.files.json_rows import TwiceError, once
from fedsim.files.text_file import half_character, shown
from fedsim.tasks._chats.settings import PARTS, Columns, Format
from fedsim.tasks._language.units import Texts, chosen
from fedsim.tasks._natural.times import Moment, in_order
from fedsim.training.chats.template import ANSWERS

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": ANSWERS,
    "gpt": ANSWERS,
    "model": ANSWERS,
    "tool": "tool",
    "function": "tool",
}
"""What a turn's role may be called, and what it then is: as `messages` have it, and as ShareGPT's `conversations`."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "question"),
    "completion": ("completion", "response", "answer"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response", "answer"),
}
"""Names of columns that are taken where `task.columns` gives none, the first that is there."""
OPTIONAL = ("input",)
Turn = dict[str, str]
"""`role` and `content`."""
Table = Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class Example:
    """One chat: its turns in order; a completion is a turn of the user's and an answer, written without a template."""

    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """What is said in it, for topics."""
        return "\n".join(turn["content"] for turn in self.turns)

    @property
    def canonical(self) -> str:
        """All that it is, as JSON, for the hash of the data."""
        return json.dumps(self.turns, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True)
class Examples:
    """Examples of one split, in their order.

    Attributes:
        examples: each with its turns.
        owners, labels, rows, times: as in `Texts`.
    """

    examples: list[Example]
    owners: list[str]
    labels: list[str] | None = None
    rows: bool = False
    times: list[Moment] | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)

    def take(self, rows: Sequence[int]) -> Examples:
        """Return some examples."""
        return Examples([self.examples[i] for i in rows], **chosen(self, rows))

    def in_time(self, where: str) -> Examples:
        """Return the examples from the earliest to the latest, in their order where nobody says when they were written."""
        return self if self.times is None else self.take(in_order(self.times, where))

    @property
    def texts(self) -> Texts:
        """The examples as units of text."""
        return Texts([e.text for e in self.examples], self.owners, self.labels, self.rows)


def examples_of(table: Table, kind: Format, columns: Columns, where: str, *, answered: bool) -> list[Example]:
    """Return the examples of a table's rows.

    Args:
        table: columns by name.
        kind: what a row is.
        columns: names of columns that were given.
        where: the file, for messages.
        answered: whether each chat needs an answer, because the loss is on answers.

    Raises:
        DataError: a column is missing, or a cell is not what it must be; the message has its row.
    """
    names = {part: _column(table, part, columns, where) for part in PARTS[kind]}
    if not table or not len(next(iter(table.values()))):
        raise DataError(
            message("task.data", f"{where}: the table has no rows", fix="put at least one into it")
        )
    examples = []
    for row in range(len(next(iter(table.values())))):
        cells = {part: None if name is None else table[name][row] for part, name in names.items()}
        place = f"{where}: row {row + 1}"
        turns = _chat(cells["messages"], place) if kind == "chat" else _pair(kind, cells, place)
        if answered and all(turn["role"] != ANSWERS for turn in turns):
            what, fix = f"{place} has no message of the assistant's", "remove it, or set task.loss_on: all"
            raise DataError(message("task.data", what, fix=fix))
        examples.append(Example(tuple(turns)))
    return examples


def _column(table: Table, part: str, columns: Columns, where: str) -> str | None:
    """Return the name of a column: the one that was given, or the first usual one that is there."""
    given = columns.of(part)
    if given is not None:
        if given not in table:
            what = f"{where}: there is no such column"
            raise DataError(
                message(f"task.columns.{part}", what, got=given, fix=nearest(given, map(shown, table)))
            )
        return given
    name = next((name for name in NAMES[part] if name in table), None)
    if name is None and part not in OPTIONAL:
        what = f"{where}: no column is called {' or '.join(NAMES[part])}"
        there = ", ".join(map(shown, table)) or "no columns"
        fix = f"name it: task.columns: {{{part}: COLUMN}}; or choose another task.format"
        raise DataError(message("task.columns", what, got=Shown(there), fix=fix))
    return name


def _pair(kind: Format, cells: Mapping[str, object], place: str) -> list[Turn]:
    """Return the turns of a completion or an instruction."""
    question, answer = ("prompt", "completion") if kind == "completion" else ("instruction", "output")
    asked = _text(cells[question], question, place)
    more = cells.get("input")
    if more is not None and not (isinstance(more, float) and math.isnan(more)):
        beside = _text(more, "input", place)
        asked = f"{asked}\n\n{beside}" if beside else asked
    said = _text(cells[answer], answer, place)
    if not said:
        raise DataError(
            message(f"task.columns.{answer}", f"{place} has no {answer}", fix="fill it in, or remove the row")
        )
    return [{"role": "user", "content": asked}, {"role": ANSWERS, "content": said}]


def _chat(cell: object, place: str) -> list[Turn]:
    """Return the turns of a cell: a list of messages, or JSON of one, as CSV has it."""
    if isinstance(cell, str):
        return _chat(_parsed(cell, place), place)
    if not isinstance(cell, list) or not cell:
        what = f"{place} is no list of messages" if not isinstance(cell, list) else f"{place} has no messages"
        got = Shown(repr(cell)[:60])
        fix = 'write [{"role": "user", "content": "..."}, ...], or remove the row'
        raise DataError(message("task.columns.messages", what, got=got, fix=fix))
    return [_turn(each, f"{place}, message {at}") for at, each in enumerate(cell, start=1)]


def _parsed(text: str, place: str) -> list[object]:
    """Return what JSON in a cell says, if it is a list."""
    try:
        cell = json.loads(text, object_pairs_hook=once)
        if isinstance(cell, list):
            return cell
    except TwiceError as problem:
        what = f"{place} gives one key twice"
        raise DataError(
            message("task.columns.messages", what, got=str(problem), fix="keep one of the two")
        ) from problem
    except (ValueError, RecursionError):
        pass
    what, fix = f"{place} is no list of messages", 'write [{"role": "user", "content": "..."}, ...]'
    raise DataError(message("task.columns.messages", what, got=text[:60], fix=fix))


def _turn(each: object, place: str) -> Turn:
    if not isinstance(each, dict):
        fix = 'write {"role": "user", "content": "..."}'
        raise DataError(
            message("task.columns.messages", f"{place} is no message", got=Shown(repr(each)[:60]), fix=fix)
        )
    role, content = (_first(each, *names) for names in (("role", "from"), ("content", "value")))
    if not isinstance(role, str) or role.lower() not in ROLES:
        known = ", ".join(dict.fromkeys(ROLES.values()))
        what = f"{place} has no role" if role is None else f"{place} has an unknown role"
        raise DataError(
            message("task.columns.messages", what, got=Shown(repr(role)[:60]), fix=f"give one of {known}")
        )
    if not content and (each.get("tool_calls") or each.get("function_call")):
        what, fix = f"{place} calls a tool and says nothing", "write the call as the text of the message"
        raise DataError(message("task.columns.messages", what, fix=fix))
    if isinstance(content, list):
        content = _joined(content, place)
    return {"role": ROLES[role.lower()], "content": _text(content, "content", place)}


def _first(each: Mapping[str, object], name: str, other: str) -> object:
    """Return what a message says under one of two names: tables with both in their columns leave one empty."""
    said = each.get(name)
    return each.get(other) if said is None else said


def _joined(parts: Sequence[object], place: str) -> str:
    """Return the text of a message that is given in parts."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        what, fix = f"{place} holds more than text", "leave pictures and sounds out"
        raise DataError(message("task.columns.messages", what, got=Shown(repr(parts)[:60]), fix=fix))
    return "".join(map(str, texts))


def _text(cell: object, part: str, place: str) -> str:
    """Return a cell that must be text."""
    if not isinstance(cell, str):
        what = f"{place}: {part} is not text"
        where = "task.columns.messages" if part == "content" else f"task.columns.{part}"
        fix = (
            "write the turns as one text, or use task.format: chat"
            if isinstance(cell, list)
            else "fill it in, or remove the row"
        )
        raise DataError(message(where, what, got=Shown(repr(cell)[:60]), fix=fix))
    half = None if cell.isascii() else half_character(cell)
    if half is not None:
        what, fix = f"{place} holds half of a character", "write the whole character, or remove it"
        raise DataError(message("task.data", what, got=half, fix=fix))
    return cell
