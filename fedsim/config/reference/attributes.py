"""What the docstring of a block says about its fields: its section `Attributes`, inherited, as one line a field."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from pydantic import BaseModel

_SECTION = re.compile(r"^Attributes:\n((?:[ ]+\S.*(?:\n|$)|\n)+)", re.MULTILINE)
_FIELD = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what each field of a block means, of those that its docstring or that of a base class speaks of.

    >>> from fedsim.config.experiment import BudgetConfig
    >>> meanings(BudgetConfig)["commits"]
    'server steps after which it ends.'
    """
    said = dict(pair for cls in reversed(model.__mro__) for pair in _attributes(cls))
    fields = {name: field.description for name, field in model.model_fields.items()}
    return {name: text for name in fields if (text := said.get(name) or fields[name])}


def summary(model: type[BaseModel]) -> str:
    """Return the first sentence or two of a block's docstring, on one line; empty if it has none of its own."""
    return " ".join(inspect.cleandoc(model.__dict__.get("__doc__") or "").partition("\n\n")[0].split())


def prose(model: type[BaseModel]) -> str:
    """Return what a block's docstring says below its first paragraph and above `Attributes`; empty if nothing."""
    text = inspect.cleandoc(model.__dict__.get("__doc__") or "").partition("\n\n")[2]
    return _SECTION.sub("", text).strip()


def _attributes(cls: type) -> Iterator[tuple[str, str]]:
    section = _SECTION.search(inspect.cleandoc(cls.__dict__.get("__doc__") or "") + "\n")
    names: list[str] = []
    text: list[str] = []
    for line in section[1].splitlines() if section else ():
        field = _FIELD.match(line)
        if field is not None:
            yield from ((name, " ".join(text)) for name in names)
            names, text = field[1].split(", "), [field[2]]
        else:
            text.append(line.strip())
    yield from ((name, " ".join(text).strip()) for name in names)
