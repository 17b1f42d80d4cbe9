"""A JSON file, strictly: no key twice, and every failure a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import text_of


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        ProfileError: not UTF-8, not JSON (with its line), nested too deeply, or a key given twice.
    """
    try:
        return json.loads(text_of(path), object_pairs_hook=_once)
    except json.JSONDecodeError as problem:
        where, what = f"{path} row {problem.lineno}", f"is not JSON ({problem.msg})"
        raise ProfileError(message(where, what, fix="fetch it again; it may be cut off")) from problem
    except RecursionError as problem:
        what, fix = "is nested too deeply", "it is not a file of this format"
        raise ProfileError(message(str(path), what, fix=fix)) from problem
    except ValueError as problem:
        reason = str(problem).splitlines()[0][:100]
        raise ProfileError(
            message(str(path), f"cannot be read ({reason})", fix="correct that value")
        ) from problem


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return result
