"""What is wrong with a configuration, in plain words: pydantic's errors as `path: problem (got ...)` and a fix.

Knows nothing about files. A `Problem` has the path of keys, so that whoever read the file can say
where that key was given (`Place`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fedsim.config.problem import Problem
from fedsim.config.reference.meant import block_meant, keys_of
from fedsim.config.reference.schema import kinds_with, model_at, places_of
from fedsim.errors import ABSENT, INVALID, ExperimentError, Message, nearest, several
from fedsim.known_names import SAME_KEYS, key_pointer, nearest_kind, nearest_word
from fedsim.redaction import redactor

_EXAMPLES = {
    "task": "add `task: {kind: language}`",
    "population": "add `population: {preset: mixed_edge_2025, clients: 100}`",
    "budget": "add `budget: {time_s: 86400}` (or commits, up_bytes)",
    "population.clients": "add `clients: 100`",
}

_BLOCKS = ("model_type", "model_attributes_type", "dict_type")
"""What pydantic calls a value that is no block of keys."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""First letter of a unit of time -> its seconds."""
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "model": "a block of keys",
    "dict": "a block of keys",
    "mapping": "a block of keys",
    "list": "a list",
    "tuple": "a list",
    "none": "null",
}


@dataclass(frozen=True)
class Place:
    """Where plain values came from.

    Attributes:
        where: the file, or another name of the experiment.
        origin: where the value at a path of keys was given, as `line 7: `; or nothing.
    """

    where: str = "experiment"
    origin: Callable[[tuple[str, ...]], str] = lambda _path: ""

    def refusal(self, problems: list[Problem]) -> ExperimentError:
        """Return the error that says all problems, each where it was given."""
        located = [problem.located(self.where, self.origin(problem.path)) for problem in problems]
        return ExperimentError(several(located))


def problems(error: ValidationError, raw: object, root: type[BaseModel]) -> list[Problem]:
    """Return what is wrong, one problem a field, in the order of the schema.

    Args:
        error: what validating `raw` as `root` raised.
        raw: the plain values that were given.
        root: the schema of an experiment.
    """
    values: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
    by_path: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for detail in error.errors():
        by_path.setdefault(_path(detail, raw), []).append(detail)
    return [
        _problem(path, details, values, root)
        for path, details in by_path.items()
        if not _of_a_word(path, details, by_path)
    ]


def _of_a_word(path: tuple[str, ...], details: list[ErrorDetails], paths: Iterable[tuple[str, ...]]) -> bool:
    """Tell whether all that is wrong is that a block is no word, while more is said of what stands in the block."""
    return all(
        detail["type"] == "literal_error" and isinstance(detail["input"], Mapping) for detail in details
    ) and any(len(other) > len(path) and other[: len(path)] == path for other in paths)


def mistaken_booleans(experiment: BaseModel, raw: object) -> list[Problem]:
    """Return true/false given where a number belongs (pydantic takes true for 1)."""
    booleans: list[Problem] = []

    def visit(value: Any, typed: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, Mapping) and isinstance(typed, BaseModel):
            for key, item in value.items():
                visit(item, getattr(typed, key, None), (*path, key))
        elif isinstance(value, Mapping) and isinstance(typed, Mapping):
            for key, item in value.items():
                visit(item, typed.get(key), (*path, str(key)))
        elif isinstance(value, list | tuple) and isinstance(typed, list | tuple):
            for k, (item, made) in enumerate(zip(value, typed, strict=False)):
                visit(item, made, (*path, str(k)))
        elif isinstance(value, bool) and isinstance(typed, int | float) and not isinstance(typed, bool):
            booleans.append(Problem(path, "must be a number", "give a number, not true or false", value))

    visit(raw, experiment, ())
    return booleans


def secrets(experiment: BaseModel) -> list[Problem]:
    """Return the settings that hold a token or a password: they are stored with every run, and shown in its page."""
    found: list[Problem] = []
    redact = redactor()

    def visit(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, BaseModel | Mapping):
            for key, part in dict(value).items():
                visit(part, (*path, str(key)))
        elif isinstance(value, list | tuple):
            for part in value:
                visit(part, path)
        elif isinstance(value, str | Path):
            text = str(value)
            address = path == ("runtime", "address") and "@" in text
            if address or redact(text) != text:
                what, fix = "holds a secret, and settings are stored with every run", "leave it out"
                found.append(Problem(path, what, f"{fix}; the hub reads HF_TOKEN, Ray RAY_AUTH_TOKEN_PATH"))

    visit(experiment, ())
    return found


def _path(detail: ErrorDetails, raw: Any) -> tuple[str, ...]:
    """Return pydantic's location without its own words (names of union members and validators)."""
    path: list[str] = []
    at = raw
    for i, part in enumerate(detail["loc"]):
        if isinstance(at, Mapping) and part in at:
            at = at[str(part)]
        elif isinstance(at, list | tuple) and isinstance(part, int) and part < len(at):
            at = at[part]
        elif not (detail["type"] == "missing" and i == len(detail["loc"]) - 1):
            continue
        path.append(str(part))
    return tuple(path)


def _problem(
    path: tuple[str, ...], details: list[ErrorDetails], raw: Mapping[str, Any], root: type[BaseModel]
) -> Problem:
    first = details[0]
    kind = first["type"]
    if kind == "missing":
        return Problem(path, "is required", _EXAMPLES.get(".".join(path), f"add `{path[-1]}: ...`"))
    if kind == "extra_forbidden":
        return Problem(path, "no such key", _other_keys(path, raw, root), first["input"])
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return _wrong_kind(path, first)
    if kind == "string_pattern_mismatch":
        what = "must be letters, digits, dots, dashes and underscores, the first one a letter or digit"
        return Problem(path, what, "give a plain name, as in my-run.1", first["input"])
    ours = next((detail for detail in details if detail["type"] == INVALID), None)
    if ours is not None:  # of a block that may also be a word, what is wrong with the block
        return _refused(path, ours)
    if kind in ("value_error", "assertion_error"):  # of a user's validator
        return Problem(path, str(first["ctx"]["error"]), "change it", first["input"])
    wanted = list(dict.fromkeys(_wanted(detail) for detail in details))
    give = [f"a value {word}" if word.startswith(("greater ", "less ")) else word for word in wanted]
    give = [f"a value of {word}" if word.startswith("at ") else word for word in give]
    fix = _fix(path, details, model_at(root, path[:-1], raw), " or ".join(give))
    return Problem(path, f"must be {' or '.join(wanted)}", fix, first["input"])


def _wanted(detail: ErrorDetails) -> str:
    """Return what a value must be, to follow `must be`."""
    kind, context = detail["type"], detail.get("ctx", {})
    bounds = {
        "greater_than": ("gt", "greater than"),
        "greater_than_equal": ("ge", "at least"),
        "less_than": ("lt", "less than"),
        "less_than_equal": ("le", "at most"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return f"{words} {context[key]:g}"
    if kind == "string_too_long":
        return f"text of at most {context['max_length']} characters"
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind in _WANTED:
        return _WANTED[kind]
    return _WANTED.get(kind.split("_")[0], detail["msg"].removeprefix("Input should be "))


def _fix(
    path: tuple[str, ...], details: list[ErrorDetails], model: type[BaseModel] | None, wanted: str
) -> str:
    names = [
        name
        for detail in details
        if detail["type"] == "literal_error"
        for name in re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    ]
    value = details[0]["input"]
    if names and isinstance(value, str) and (hint := nearest_word(value, names)).startswith("did you mean"):
        return hint
    field = model.model_fields.get(path[-1]) if model is not None and path else None
    meant = _meant(path, details[0]["type"], value, field)
    if meant is not None:
        return f"write {meant}"
    if details[0]["type"] in _BLOCKS and (keys := keys_of(field)):
        wanted = f"a block of its keys: {', '.join(keys)}"
    if field is None or field.is_required() or isinstance(field.default, BaseModel | dict):
        return f"give {wanted}"
    default = json.dumps(field.default) if isinstance(field.default, bool | None) else str(field.default)
    return f"give {wanted}, or leave it out (default: {default})"


def _meant(path: tuple[str, ...], wrong: str, value: object, field: FieldInfo | None = None) -> str | None:
    """Return what was meant by a duration with its unit, or by a word without its block; None: neither.

    >>> _meant(("budget", "time_s"), "float_parsing", "4h")
    '14400: seconds'
    """
    if not path or not isinstance(value, str):
        return None
    duration = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|sec|min|m|h|d|days)", value)
    if path[-1].endswith("_s") and duration:
        return f"{float(duration[1]) * _SECONDS[duration[2][0]]:g}: seconds"
    return block_meant(field, path[-1], value) if wrong in _BLOCKS else None


def _wrong_kind(path: tuple[str, ...], detail: ErrorDetails) -> Problem:
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_not_found":
        return Problem(path, "needs `kind:`", "add `kind: ...`, the name of what you want", detail["input"])
    valid = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
    tag = context.get("tag")
    return Problem((*path, "kind"), "no such kind", nearest_kind(str(tag), valid), tag)


def _refused(path: tuple[str, ...], detail: ErrorDetails) -> Problem:
    """Return the problem that a validator of ours raised, its parts as data."""
    refusal: Message = detail["ctx"]["message"]
    below = refusal.where.split(".") if refusal.where else []
    value = detail["input"] if refusal.got is ABSENT else refusal.got
    return Problem((*path, *below), refusal.what, refusal.fix or "change it", value)


def _pointed(pointer: str, path: tuple[str, ...], keys: list[str]) -> str | None:
    """Return what a known name stands for: a key of its own block first; None: itself."""
    block, written = ".".join(path[:-1]), re.split(r"[^\w.]", pointer, maxsplit=1)[0]
    home, _, key = written.rpartition(".")
    if block:
        same = [own for own in (key, *SAME_KEYS.get(key, ())) if own in keys]
        here = home == block and key in keys
        if same and not here and (key != "kind" or home == block):
            return f"did you mean {same[0]!r}? The keys here are: {', '.join(sorted(keys))}"
        if f"{block}." in pointer and not here:
            return f"remove it, or {nearest(path[-1], keys)}"
    return f"write {pointer}" if pointer != ".".join(path) else None


def _other_keys(path: tuple[str, ...], raw: Mapping[str, Any], root: type[BaseModel]) -> str:
    """Return the key that the name stands for, the nearest key here, the block it belongs to, or all keys."""
    model, name = model_at(root, path[:-1], raw), path[-1]
    keys = list(model.model_fields) if model is not None else []
    others = kinds_with(root, path)
    if others:
        return f"set {path[0]}.kind to one that has it ({', '.join(others)}), or remove it"
    pointer = key_pointer(name)
    fix = None if pointer is None else _pointed(pointer, path, keys)
    if fix is not None:
        return fix
    hint = nearest(name, keys)
    if hint.startswith("did you mean"):
        return f"{hint} The keys here are: {', '.join(sorted(keys))}"
    elsewhere = places_of(root, name, raw)
    return f"did you mean {elsewhere[0]!r}?" if elsewhere else f"remove it, or {hint}"
