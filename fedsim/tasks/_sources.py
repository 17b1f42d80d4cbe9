"""What a task's `model` and `data` may be called, and what of them is held out, whatever it learns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, WithJsonSchema

from fedsim.errors import invalid

HELD_OUT = 0.1
"""Share of a client's data that it does not train on, where nobody says another one."""
LAST = "last"
_SCHEMA = {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"const": LAST}]}
Holdout = Annotated[float, Field(gt=0, lt=1), WithJsonSchema(_SCHEMA)]
"""A share between 0 and 1; a file may say `last`, which `spelled_out` makes of it."""


def spelled_out(values: object) -> object:
    """Return a task's settings in which `holdout: last` is a share and `holdout_from: last`.

    Raises:
        PydanticCustomError: `holdout_from` says something else.
    """
    if not isinstance(values, dict) or values.get("holdout") != LAST:
        return values
    if values.get("holdout_from", LAST) != LAST:
        fix = "set holdout_from: last and holdout to a share, or drop holdout_from"
        raise invalid(
            "`holdout: last` is `holdout_from: last`",
            where="holdout_from",
            got=values["holdout_from"],
            fix=fix,
        )
    return values | {"holdout": HELD_OUT, "holdout_from": LAST}


def check_data(model: str, data: str, columns: Iterable[str | None]) -> None:
    """Refuse names that are empty, which would be the working folder, and columns of the shipped data, which have none.

    Raises:
        PydanticCustomError: as a validator of settings does.
    """
    for key, name in (("model", model), ("data", data)):
        if not name.strip():
            fix = "give builtin, a folder, a file or a hub name"
            raise invalid("is empty", where=key, got=name, fix=fix)
    named = [column for column in columns if column is not None]
    if data == "builtin" and named:
        raise invalid("the shipped data have no columns", got=named[0], fix="drop it, or set task.data")
