"""What the schema of an experiment offers: at a path of keys, given the kinds chosen; and all of it as JSON schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from fedsim.component import Component, find, kinds
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError

PACKAGES = {"server_optimizer": "optimizers", "personal": "personal"}
"""Packages of kinds that are not called by the block's plural."""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of an experiment, with every kind that ships and room for the user's own."""
    schema = Experiment.model_json_schema()
    for block, field in Experiment.model_fields.items():
        if _models(field.annotation) != [Component]:
            continue
        choices: list[dict[str, Any]] = []
        package = PACKAGES.get(block, f"{block}s")
        for kind in kinds(package):
            block_schema = find(package, kind).model_json_schema(ref_template="#/$defs/{model}")
            schema.setdefault("$defs", {}).update(block_schema.pop("$defs", {}))
            block_schema["required"] = sorted({*block_schema.get("required", []), "kind"})
            choices.append(block_schema)
        of_user = {
            "type": "object",
            "properties": {"kind": {"type": "string", "pattern": ":"}},
            "required": ["kind"],
        }
        schema["properties"][block] = {"anyOf": [*choices, of_user]}
    schema["properties"]["extends"] = {"type": "string", "description": "A YAML file to start from."}
    schema["properties"]["sweep"] = {
        "type": "object",
        "description": "Key paths and their values; for `fedsim sweep`.",
    }
    return schema


def model_at(path: Iterable[str], raw: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the schema of the block at a path, given the kinds chosen in `raw`; None if it is no block."""
    model: type[BaseModel] | None = Experiment
    at: Any = raw
    for key in path:
        field = model.model_fields.get(key) if model is not None else None
        if field is None:
            return None
        at = at.get(key) if isinstance(at, Mapping) else None
        if at is None and isinstance(field.default, dict):
            at = field.default
        model = _choose(_models(field.annotation), key, at)
    return model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _choose(models: list[type[BaseModel]], name: str, value: Any) -> type[BaseModel] | None:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if models == [Component]:
        try:
            return find(PACKAGES.get(name, f"{name}s"), str(kind))
        except (ExperimentError, ImportError):
            return None
    if len(models) == 1:
        return models[0]
    return next(
        (m for m in models if "kind" in m.model_fields and kind == m.model_fields["kind"].default), None
    )
