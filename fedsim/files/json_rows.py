"""Rows from JSON: one object a line, or one list of objects; strictly, with the line of what is wrong."""

from __future__ import annotations

import json

from fedsim.files.opened import UnreadableError

Row = dict[str, object]
FIX = 'write one object a line, {"text": "..."}, or one list of them'


def json_rows(text: str, *, nested: bool = False) -> list[Row]:
    """Return the objects of a text.

    Args:
        text: JSON.
        nested: whether a row may hold lists and objects, so that one alone is a row and no table by columns.

    Raises:
        UnreadableError: no JSON (with its line), something else than objects, or a key given twice.
    """
    if text.lstrip()[:1] == "[":
        values = _parsed(text, 1)
        assert isinstance(values, list)
        return [_object(value, "item", number) for number, value in enumerate(values, start=1)]
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            if not rows:
                _refuse_one_object(text, line)
            rows.append(_object(_parsed(line, number), "line", number))
    if (
        not nested
        and len(rows) == 1
        and any(isinstance(value, dict | list) and value for value in rows[0].values())
    ):
        raise UnreadableError("is one JSON object of lists or objects, not rows", fix=_by_pandas())
    return rows


def _refuse_one_object(text: str, first: str) -> None:
    """Refuse an object that is written over several lines: it is one row at most, or a table by columns."""
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return  # neither: the line says what is wrong
        what = "is one JSON value over several lines, not rows"
        raise UnreadableError(what, fix=_by_pandas()) from None


def _by_pandas() -> str:
    return f"{FIX} (pandas: to_json(FILE, orient='records', lines=True))"


def _object(value: object, kind: str, number: int) -> Row:
    if not isinstance(value, dict):
        raise UnreadableError(f"{kind} {number} is not a JSON object", fix=FIX)
    return value


def _parsed(text: str, line: int) -> object:
    try:
        value: object = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as problem:
        what = f"is not JSON ({problem.msg} at column {problem.colno})"
        raise UnreadableError(what, line=line + problem.lineno - 1, fix=FIX) from problem
    except RecursionError as problem:
        raise UnreadableError("is nested too deeply", line=line, fix=FIX) from problem
    except TwiceError as problem:
        what = "gives one key twice"
        raise UnreadableError(what, line=line, got=str(problem), fix="keep one of the two") from problem
    except ValueError as problem:  # a number of thousands of digits
        reason = str(problem).partition(";")[0]
        raise UnreadableError(f"cannot be read ({reason})", line=line, fix="correct that value") from problem
    return value


class TwiceError(ValueError):
    """A key is given twice in one object."""


def once(pairs: list[tuple[str, object]]) -> Row:
    """Return the object of some pairs, for `json.loads`.

    Raises:
        TwiceError: a key is given twice.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise TwiceError(next(key for at, key in enumerate(keys) if key in keys[:at]))
    return row
