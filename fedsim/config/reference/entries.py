"""All keys of an experiment, one entry each: path, meaning, values, default."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fedsim.component import Component, find, kinds, package_of
from fedsim.config.fields import LARGEST, MOST
from fedsim.config.reference.attributes import meanings, summary
from fedsim.config.reference.schema import models_of

UNITS = {
    "_flops_per_s": "floating-point operations a second",
    "_bytes_per_s": "bytes a second",
    "flops_per_s": "floating-point operations a second",
    "_s": "seconds",
    "_bytes": "bytes",
    "_mbps": "Mbit/s",
    "_mb": "MB",
    "_flops": "floating-point operations",
    "_w": "watts",
    "_c": "degrees Celsius",
}
"""What the end of a name says of a quantity's unit."""
_PLAIN: dict[object, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "file or folder",
    type(None): "null",
}


@dataclass(frozen=True)
class Entry:
    """One key.

    Attributes:
        path: as it is written with `-s`; the key of a block, too.
        kind: of the component whose key it is; empty if it is no component's.
        meaning: in a sentence.
        values: what may be given.
        default: what stands where nothing is given; `required` if something must be.
    """

    path: str
    kind: str
    meaning: str
    values: str
    default: str


OF_FILES = (
    Entry(
        "extends",
        "",
        "a YAML file to start from: what this file says replaces what that one does.",
        "file",
        "null",
    ),
    Entry(
        "sweep",
        "",
        "keys and their values, as in sweep: {seed: [0, 1]}; `fedsim sweep` runs every combination.",
        "mapping of keys to lists of values",
        "null",
    ),
)
"""Keys of a YAML file that are no settings of one experiment."""


@cache
def entries(root: type[BaseModel]) -> tuple[Entry, ...]:
    """Return every key of an experiment, blocks before what is in them, kinds one after the other."""
    return tuple(_of_block(root, "", ""))


def blocks(root: type[BaseModel]) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Yield the blocks: path, kind (empty if it is no component) and class; the experiment itself first."""
    yield "", "", root
    yield from _inner(root, "", "")


def _inner(model: type[BaseModel], path: str, kind: str) -> Iterator[tuple[str, str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        at = f"{path}.{name}" if path else name
        for inner, of_kind in _blocks_of(name, field):
            yield at, of_kind or kind, inner
            yield from _inner(inner, at, of_kind or kind)


def _of_block(model: type[BaseModel], path: str, kind: str) -> Iterator[Entry]:
    said = meanings(model)
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        at = f"{path}.{name}" if path else name
        inner = list(_blocks_of(name, field))
        meaning = said.get(name, "")
        yield Entry(at, kind, meaning, values_of(name, field), _default(field))
        for block, of_kind in inner:
            yield from _of_block(block, at, of_kind or kind)


def _blocks_of(name: str, field: FieldInfo) -> Iterator[tuple[type[BaseModel], str]]:
    for model in models_of(field.annotation):
        if model is Component:
            package = package_of(name)
            yield from ((find(package, kind), kind) for kind in kinds(package))
        else:
            own = model.model_fields.get("kind")
            yield model, "" if own is None else str(own.default)


def values_of(name: str, field: FieldInfo) -> str:
    """Return what a field takes, in words: `whole number >= 1`, `a or b`, with its unit where the name has one.

    Args:
        name: of the field.
        field: as pydantic has it.
    """
    if models_of(field.annotation) == [Component]:
        return "a block with `kind:` " + ", ".join(kinds(package_of(name)))
    of_kinds = [
        str(m.model_fields["kind"].default) for m in models_of(field.annotation) if "kind" in m.model_fields
    ]
    if len(of_kinds) > 1:
        return f"a block with `kind:` {', '.join(of_kinds)}"
    text = _words(field.annotation, field.metadata)
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return f"{text} [{unit}]" if unit and "number" in text else text


def _words(annotation: object, metadata: Sequence[object]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(parts[0], [*parts[1:], *metadata])
    if origin is Literal:
        return ", ".join(f"`{part}`" if isinstance(part, str) else str(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(part, metadata) for part in parts))
    if origin is tuple:
        return f"list of: {_words(parts[0], [])}"
    if origin in (dict, Mapping):
        return f"mapping of {_words(parts[0], [])} to {_words(parts[1], [])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        own = annotation.model_fields.get("kind")
        return "a block" if own is None else f"a block with `kind: {own.default}`"
    return _PLAIN.get(annotation, "value") + (_bounds(metadata) if annotation in (int, float) else "")


def _bounds(metadata: Sequence[object]) -> str:
    found: dict[str, object] = {}
    notes = (
        inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])
    )
    for note in notes:
        match note:
            case Gt(gt=bound):
                found.setdefault(">", bound)
            case Ge(ge=bound):
                found.setdefault(">=", bound)
            case Lt(lt=bound):
                found.setdefault("<", bound)
            case Le(le=int() | float() as bound) if bound < (MOST if isinstance(bound, int) else LARGEST):
                found.setdefault("<=", bound)
            case _:
                pass
    return ",".join(f" {sign} {bound:g}" for sign, bound in found.items())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        given = {k: v for k, v in value.model_dump(mode="json").items() if v is not None}
        own = {k: v for k, v in given.items() if k == "kind" or k in value.model_fields_set}
        return _text(own) if own else "its defaults"
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_key(root: type[BaseModel], path: str) -> list[Entry]:
    """Return the entries of a key: one for each kind of component that has it; none if there is no such key."""
    return [entry for entry in entries(root) if entry.path == path]


def below(root: type[BaseModel], path: str) -> list[Entry]:
    """Return the keys right below a block."""
    depth = path.count(".") + 1
    return [e for e in entries(root) if e.path.startswith(f"{path}.") and e.path.count(".") == depth]


def about(root: type[BaseModel], path: str) -> str:
    """Return what a block says of itself; empty if it says nothing."""
    return next((summary(model) for at, _, model in blocks(root) if at == path), "")
