"""What a task's `model` and `data` may be called, whatever it learns."""

from __future__ import annotations

from collections.abc import Iterable

from fedsim.errors import invalid


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
