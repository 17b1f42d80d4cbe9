"""Plain values on their way from files and `-s` to an experiment, and where each of them was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.config import paths
from fedsim.config.experiment import Experiment
from fedsim.config.validation import Place
from fedsim.errors import ExperimentError, message
from fedsim.files import yaml_file
from fedsim.files.yaml_file import KeyPath

CHOICES = ("kind", "full")
"""Keys that decide which other keys their block may have."""


@dataclass(frozen=True)
class Override:
    """One value to set.

    Attributes:
        keys: path of keys.
        value: plain.
        origin: where it was given, as `-s seed=1`.
    """

    keys: KeyPath
    value: Any
    origin: str


@dataclass
class Draft:
    """Plain values on their way to an experiment, and where each was given."""

    where: str
    folder: Path
    values: dict[str, Any]
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> str:
        """Return where the nearest enclosing key was given, as `line 7: `, or nothing."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return f"{self.origins[path[:end]]}: "
        return ""


def draft_of(path: str | Path, overrides: Sequence[str]) -> Draft:
    """Read a file, what it extends, and overrides; raises ExperimentError."""
    path = Path(path)
    where = str(path)
    document = yaml_file.read(path)
    draft = Draft(
        where, path.parent.absolute(), paths.absolute(document.values, path.parent.absolute(), where)
    )
    draft.origins.update({keys: f"line {line}" for keys, line in document.lines.items()})
    if "extends" in draft.values:
        _extend(draft, document.lines)
    apply(draft, [parsed(text, draft) for text in overrides])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")
    if stem and "name" not in draft.values:
        draft.values["name"] = stem
    return draft


def _extend(draft: Draft, lines: Mapping[KeyPath, int]) -> None:
    """Put the file that `extends:` names under the values of this one."""
    named = draft.values.pop("extends")
    at = f"{draft.where}: extends"
    if not isinstance(named, str):
        raise ExperimentError(message(at, "must be a file name", got=named, fix="write extends: base.yaml"))
    path = draft.folder / paths.expanded(named, at)
    base = yaml_file.read(path, f"{at}: {named}")
    if "extends" in base.values:
        what = f"{named} extends another file itself"
        raise ExperimentError(message(at, what, fix="one level is all there is: merge the two base files"))
    under = paths.absolute(base.values, path.parent.absolute(), f"{at}: {named}")
    origins = {keys: f"line {line} of {named}" for keys, line in base.lines.items()}
    draft.values = _merged(under, draft.values)
    draft.origins = origins | {keys: f"line {line}" for keys, line in lines.items()}


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` laid on `under`, block by block; a block of another kind replaces the whole block."""
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        result[key] = value
        if isinstance(old, dict) and isinstance(value, dict) and key != "sweep":
            differs = any(c in value and _differ(value[c], old.get(c)) for c in CHOICES)
            result[key] = value if differs else _merged(old, value)
    return result


def parsed(text: str, draft: Draft) -> Override:
    """Return what one `-s key.path=value` sets."""
    name, equals, value_text = text.partition("=")
    keys = tuple(name.strip().split("."))
    if keys[0] == "sweep" and len(keys) > 1:
        keys = ("sweep", ".".join(keys[1:]))
    if not equals or not all(keys):
        raise ExperimentError(message("-s", "must be key.path=value", got=text, fix="write -s seed=1"))
    value = yaml_file.scalar(value_text, f"-s {name}")
    return Override(keys, _placed(name.strip(), value, draft), f"-s {text}")


def _placed(name: str, value: Any, draft: Draft) -> Any:
    """Resolve a path given by `-s`: beside the YAML file; failing that, where the command was typed."""
    at = f"-s {name}"
    beside = paths.placed(name, value, draft.folder, at)
    here = paths.placed(name, value, Path.cwd(), at)
    if isinstance(beside, str) and beside != here and not Path(beside).exists() and Path(here).exists():
        return here
    return beside


def apply(draft: Draft, overrides: Sequence[Override]) -> None:
    """Set values: whole blocks before their keys, `kind` before its neighbours, else in the given order."""
    for override in sorted(overrides, key=lambda o: (len(o.keys), o.keys[-1] not in CHOICES)):
        keys = override.keys
        block = _block_at(draft, override)
        if keys[-1] in CHOICES and _differ(block.get(keys[-1]), override.value):
            block.clear()
        block[keys[-1]] = override.value
        draft.origins = {k: o for k, o in draft.origins.items() if k[: len(keys)] != keys}
        draft.origins[keys] = override.origin


def _block_at(draft: Draft, override: Override) -> dict[str, Any]:
    """Return the block that holds the last key of an override; blocks on the way are made where there are none."""
    keys, block = override.keys, draft.values
    for depth, key in enumerate(keys[:-1], start=1):
        if block.get(key) is None:
            block[key] = _default_kind(keys[:depth]) if keys[depth] not in CHOICES else {}
            draft.origins[keys[:depth]] = override.origin
        if not isinstance(block[key], dict):
            name = ".".join(keys[:depth])
            what = f"{name} is one value, not a block of keys"
            where = f"{draft.where}: {'.'.join(keys)}"
            fix = f"{override.origin}: set {name} itself"
            raise ExperimentError(message(where, what, got=block[key], fix=fix))
        block = block[key]
    return block


def _differ(first: Any, second: Any) -> bool:
    """Compare two choices; leaving `full` out is `full: false`."""
    return bool((first or None) != (second or None))


def _default_kind(path: KeyPath) -> dict[str, Any]:
    default = Experiment.model_fields[path[0]].default if path[0] in Experiment.model_fields else None
    return dict(default) if len(path) == 1 and isinstance(default, dict) else {}


def validated(draft: Draft) -> Experiment:
    """Return the experiment, or raise ExperimentError with everything that is wrong."""
    return Experiment.model_validate(draft.values, context=Place(draft.where, draft.origin))
