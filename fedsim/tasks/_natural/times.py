"""Moments of rows, from a column of numbers or dates, and rows in their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Literal, NamedTuple

from fedsim.errors import DataError, Shown, message

Kind = Literal["number", "date", "date with an offset"]


class Moment(NamedTuple):
    """When a row was written.

    Attributes:
        kind: how it says so; two of different kinds cannot be compared.
        value: the number itself, or seconds since 1970.
    """

    kind: Kind
    value: float


FIX = "write numbers, or dates as in 2026-11-28T09:30:00"


def moments(values: Sequence[object], where: str) -> list[Moment]:
    """Return the moments of a column.

    Args:
        values: whole and other numbers, dates, or both as text.
        where: the table, for the message.

    Raises:
        DataError: one is no moment, or the column has some of two kinds.
    """
    read: list[Moment] = []
    for row, value in enumerate(values, start=1):
        moment = _moment(value)
        if moment is None:
            got = Shown(f"{str(value)[:60]!r}")
            raise DataError(message("task.time_column", f"{where}: row {row} says no time", got=got, fix=FIX))
        if read and moment.kind != read[0].kind:
            what = f"{where}: row 1 is a {read[0].kind}, row {row} a {moment.kind}"
            raise DataError(message("task.time_column", what, fix="write all of them in one way"))
        read.append(moment)
    return read


def in_order(times: Sequence[Moment], where: str) -> list[int]:
    """Return the numbers of rows from the earliest to the latest; equal ones in their order.

    Raises:
        DataError: they are of two kinds, of several files.
    """
    kinds = sorted({moment.kind for moment in times})
    if len(kinds) > 1:
        what = f"{where}: some files have a {kinds[0]}, others a {kinds[1]}"
        raise DataError(message("task.time_column", what, fix="write all of them in one way"))
    return sorted(range(len(times)), key=lambda row: times[row].value)


def _moment(value: object) -> Moment | None:
    """Return the moment that a cell says; None if it says none."""
    if isinstance(value, str):
        return _of_text(value.strip())
    if isinstance(value, datetime):
        return _of_date(value)
    if isinstance(value, date):
        return _of_date(datetime(value.year, value.month, value.day))  # noqa: DTZ001  # a day has no offset
    return None if isinstance(value, bool) or not isinstance(value, int | float) else _of_number(value)


def _of_text(text: str) -> Moment | None:
    """Return a moment that is written as a number or as a date."""
    try:
        plain = text.isascii() and "_" not in text  # as in every other table
        return _of_number(int(text) if text.lstrip("+-").isdecimal() else float(text)) if plain else None
    except ValueError:
        pass
    try:
        return _of_date(datetime.fromisoformat(text))
    except ValueError:
        return None


def _of_number(number: float) -> Moment | None:
    try:
        return Moment("number", number) if math.isfinite(number) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def _of_date(moment: datetime) -> Moment:
    if moment.tzinfo is None:
        return Moment("date", moment.replace(tzinfo=UTC).timestamp())
    return Moment("date with an offset", moment.timestamp())
