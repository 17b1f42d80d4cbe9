"""A pickle of plain data, read without unpickling: dicts, lists, text and numbers, and nothing else.

A pickle is a program. This runs the dozen instructions that build plain data on a stack of its own; it never
imports a name and never calls anything. Any other instruction is refused by its name and place.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import data_of

_MARK = object()
_CONSTANTS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING",
})  # fmt: skip
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_NOTHING = frozenset({"PROTO", "FRAME"})


def read_plain(path: Path) -> Any:
    """Return the plain data of a pickle.

    Raises:
        ProfileError: it holds anything but dicts, lists, text and numbers, uses one container in two places,
            or is cut off or not a pickle.
    """
    try:
        return _run(path, data_of(path))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as problem:
        reason = str(problem).splitlines()[0][:100] if str(problem) else type(problem).__name__
        fix = "fetch it again; it may be cut off, or not be a pickle"
        raise ProfileError(message(str(path), f"is not a whole pickle ({reason})", fix=fix)) from problem


def _run(path: Path, data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, at in pickletools.genops(data):
        name = opcode.name
        if name in _CONSTANTS:
            stack.append(argument)
        elif name in _PUT:
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in _GET:
            stack.append(_shared(path, memo[int(argument)], at))
        elif name in _CONTAINERS:
            _CONTAINERS[name](stack)
        elif name == "STOP":
            return _last(stack)
        elif name not in _NOTHING:
            raise _refused(path, name, argument, stack, at)
    raise ValueError("it has no end")


def _last(stack: list[Any]) -> Any:
    if len(stack) != 1:
        raise ValueError("it does not end with one value")
    return _top(stack)


def _append(stack: list[Any]) -> None:
    value = _top(stack)
    _list(stack[-1]).append(value)


def _append_all(stack: list[Any]) -> None:
    values = _since_mark(stack)
    _list(stack[-1]).extend(values)


def _set_item(stack: list[Any]) -> None:
    value, key = _top(stack), _top(stack)
    _dict(stack[-1]).update(_paired([key, value]))


def _set_items(stack: list[Any]) -> None:
    values = _since_mark(stack)
    _dict(stack[-1]).update(_paired(values))


_CONTAINERS: dict[str, Callable[[list[Any]], None]] = {
    "MARK": lambda stack: stack.append(_MARK),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "LIST": lambda stack: stack.append(_since_mark(stack)),
    "DICT": lambda stack: stack.append(_paired(_since_mark(stack))),
    "APPEND": _append,
    "APPENDS": _append_all,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
}
"""What instructions that build lists and dicts do to the stack."""


def _refused(path: Path, name: str, argument: Any, stack: list[Any], at: int | None) -> ProfileError:
    names = [text for text in stack[-2:] if isinstance(text, str)] if name == "STACK_GLOBAL" else [argument]
    wanted = " ".join(str(text)[:60] for text in names if text is not None)
    what = f"holds more than plain data and was not loaded: {name} {wanted}".rstrip() + f" at byte {at}"
    fix = "do not unpickle it; export it to CSV or Parquet where it was made"
    return ProfileError(message(str(path), what, fix=fix))


def _shared(path: Path, value: Any, at: int | None) -> Any:
    """Return text or a number that is used again; a container used twice could be a loop or a bomb."""
    if isinstance(value, dict | list):
        what = f"uses one {type(value).__name__} in two places (byte {at}), which plain data never does"
        fix = "export it to CSV or Parquet where it was made"
        raise ProfileError(message(str(path), what, fix=fix))
    return value


def _top(stack: list[Any]) -> Any:
    value = stack.pop()
    if value is _MARK:
        raise ValueError("a value is missing")
    return value


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
        if at < 0:
            raise ValueError("a mark is missing")
    values = stack[at + 1 :]
    del stack[at:]
    return values


def _paired(values: list[Any]) -> dict[Any, Any]:
    keys = values[0::2]
    if len(values) % 2 or not all(isinstance(key, str | int | float) for key in keys):
        raise ValueError("a key is neither text nor a number")
    return dict(zip(keys, values[1::2], strict=True))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("something is added to what is no list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("something is put into what is no dict")
    return value
