"""Files that map a name to a mapping of fields: one entry a client or phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsim.errors import ProfileError, message
from fedsim.importers.numbers import shown


def entries(
    data: Any, path: Path, noun: str, fields: tuple[str, ...], fix: str
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (place, name, value) of each entry of a file's data.

    Args:
        data: what was read from `path`.
        path: for messages.
        noun: what an entry is called (`client`, `phone`).
        fields: what each entry must hold.
        fix: what to give instead of a file that is no mapping.

    Raises:
        ProfileError: no mapping, or an entry that is none or lacks a field.
    """
    if not isinstance(data, dict) or not data:
        raise ProfileError(message(str(path), f"is not a mapping of {noun}s", got=shown(data), fix=fix))
    for key, value in data.items():
        where = f"{path} {noun} {shown(key)}"
        if not isinstance(value, dict):
            what = f"must be a mapping of {', '.join(fields)}"
            raise ProfileError(message(where, what, got=shown(value), fix="leave it out"))
        for field in fields:
            if field not in value:
                fill = f"add it, or leave the {noun} out"
                raise ProfileError(message(f"{where}: {field}", "is missing", fix=fill))
        yield where, str(key), value
