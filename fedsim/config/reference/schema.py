"""What the schema of an experiment offers: at a path of keys, given the kinds chosen; and all of it as JSON schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from fedsim.component import Component, find, kinds, package_of
from fedsim.config.reference.attributes import meanings, summary
from fedsim.errors import ExperimentError
from fedsim.known_names import key_pointer


def json_schema(root: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of an experiment (`root`), with every kind that ships and room for the user's own.

    A file that extends another one says a part of what there must be, at every depth: nothing is required there.
    """
    schema = root.model_json_schema()
    _describe(schema, root)
    for block, field in root.model_fields.items():
        if models_of(field.annotation) != [Component]:
            continue
        choices: list[dict[str, Any]] = []
        package = package_of(block)
        for kind in kinds(package):
            component = find(package, kind)
            block_schema = component.model_json_schema(ref_template="#/$defs/{model}")
            _describe(block_schema, component)
            schema.setdefault("$defs", {}).update(block_schema.pop("$defs", {}))
            block_schema["required"] = sorted({*block_schema.get("required", []), "kind"})
            choices.append(block_schema)
        of_user = {
            "type": "object",
            "properties": {"kind": {"type": "string", "pattern": ":"}},
            "required": ["kind"],
        }
        schema["properties"][block] = {"description": meanings(root)[block], "anyOf": [*choices, of_user]}
    schema["properties"]["extends"] = {"type": "string", "description": "A YAML file to start from."}
    schema["properties"]["sweep"] = {
        "type": "object",
        "description": "Key paths and their values; for `fedsim sweep`.",
    }
    return _whole_or_part(schema)


_PART = ".part"
"""End of the names of definitions in which nothing is required."""


def _whole_or_part(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that asks for everything where a file starts from no other one, and else for nothing."""
    whole = {key: schema.pop(key) for key in ("properties", "required")}
    definitions = schema.setdefault("$defs", {})
    definitions |= {f"{name}{_PART}": _part(inner) for name, inner in definitions.items()}
    return {
        **schema,
        "properties": _part(whole["properties"]),
        "if": {"not": {"required": ["extends"]}},
        "then": whole,
    }


def _part(value: Any) -> Any:
    """Return a part of a schema in which nothing is required but the `kind` that names a user's own component."""
    if isinstance(value, list):
        return [_part(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    of_user = value.get("properties", {}).get("kind", {}).get("pattern") == ":"
    return {
        key: f"{inner}{_PART}" if key == "$ref" else _part(inner)
        for key, inner in value.items()
        if key != "required" or of_user or not isinstance(inner, list)
    }


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Write into a block's schema, and into those of the blocks in it, what their docstrings say of each key."""
    models = {model.__name__: (schema, model)}
    for inner in _below(model):
        models[inner.__name__] = (schema.get("$defs", {}).get(inner.__name__, {}), inner)
    for described, block in models.values():
        described["description"] = summary(block)
        for name, text in meanings(block).items():
            described.get("properties", {}).get(name, {})["description"] = text


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for inner in models_of(field.annotation):
            if inner is not Component:
                yield inner
                yield from _below(inner)


def model_at(root: type[BaseModel], path: Iterable[str], raw: Mapping[str, object]) -> type[BaseModel] | None:
    """Return the schema of the block at a path below `root`, given the kinds chosen in `raw`; None if it is no block."""
    model: type[BaseModel] | None = root
    at: Any = raw
    for key in path:
        field = model.model_fields.get(key) if model is not None else None
        if field is None:
            return None
        at = at.get(key) if isinstance(at, Mapping) else None
        if at is None and isinstance(field.default, dict):
            at = field.default
        model = _choose(models_of(field.annotation), key, at)
    return model


def places_of(root: type[BaseModel], name: str, raw: Mapping[str, object]) -> list[str]:
    """Return the keys of this name, at the top and in the blocks, given the kinds chosen in `raw`."""
    top = [name] if name in root.model_fields else []
    return top + [
        f"{block}.{name}"
        for block in root.model_fields
        if (other := model_at(root, (block,), raw)) is not None and name in other.model_fields
    ]


def kinds_with(root: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Return the kinds of the component block at `path[0]` that have the key `path[1]`; none if it is no such block."""
    field = root.model_fields.get(path[0]) if len(path) == 2 else None
    if field is None or models_of(field.annotation) != [Component]:
        return []
    package = package_of(path[0])
    return [kind for kind in kinds(package) if path[1] in find(package, kind).model_fields]


def key_meant(root: type[BaseModel], name: str) -> str | None:
    """Return the path of the key that a name on a command line stands for; None if there is none.

    Args:
        root: the schema of an experiment.
        name: as typed: `seed`, `local.lr`, `num-rounds`, `workers`.
    """
    plain = name.replace("-", "_")
    path = tuple(plain.split("."))
    model = model_at(root, path[:-1], {})
    if model is not None and path[-1] in model.model_fields:
        return plain
    places = places_of(root, plain, {})
    return key_pointer(plain) or (places[0] if places else None)


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the blocks that a field may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_of(part)]


def _choose(models: list[type[BaseModel]], name: str, value: Any) -> type[BaseModel] | None:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if models == [Component]:
        try:
            return find(package_of(name), str(kind))
        except (ExperimentError, ImportError):
            return None
    if len(models) == 1:
        return models[0]
    return next(
        (m for m in models if "kind" in m.model_fields and kind == m.model_fields["kind"].default), None
    )
