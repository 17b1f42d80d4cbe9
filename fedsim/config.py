"""From a YAML file, `extends:` and `-s key.path=value` to a checked `Experiment`, or to plain words why not.

    experiment = load("experiments/ptb/sync.yaml", ["seed=1", "protocol.kind=buffered"])
    check(experiment)

Rules: a file may extend one other (`extends: base.yaml`, one level); paths are relative to the file
that gives them; `~` and `$VARIABLES` are expanded; choosing another `kind` for a block drops what the
block had for the old kind; `sweep:` is for `sweep_points` only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedsim import explain, places, yamlfile
from fedsim.errors import ExperimentError, message
from fedsim.experiment import Experiment
from fedsim.fits import misfits

KeyPath = tuple[str, ...]


_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")


@dataclass
class _Draft:
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


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment.

    Args:
        path: the YAML file.
        overrides: `key.path=value` each, the value in YAML; the last of two equal paths wins.

    Raises:
        ExperimentError: everything that is wrong with it, all at once.
    """
    draft = _draft(path, overrides)
    if "sweep" in draft.values:
        what, fix = "is for `fedsim sweep` only", f"run `fedsim sweep {path}`, or remove the block"
        raise ExperimentError(message(f"{draft.where}: sweep", what, fix=draft.origin(("sweep",)) + fix))
    return _validated(draft)


def from_mapping(
    mapping: Mapping[str, Any], where: str = "experiment", folder: Path | None = None
) -> Experiment:
    """Build an experiment from plain values; relative paths start at `folder` (default: here).

    Raises:
        ExperimentError: everything that is wrong with it, all at once.
    """
    folder = Path.cwd() if folder is None else folder
    values = places.absolute(deepcopy(dict(mapping)), folder, where)
    return _validated(_Draft(where, folder, values))


def changed(experiment: Experiment, overrides: Sequence[str], where: str = "experiment") -> Experiment:
    """Return an experiment with overrides as `-s` gives them; relative paths start here.

    Raises:
        ExperimentError: everything that is wrong with it, all at once.
    """
    draft = _Draft(where, Path.cwd(), experiment.plain())
    _apply(draft, [_parsed(text, draft) for text in overrides])
    return _validated(draft)


def sweep_points(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[dict[str, Any], Experiment]]:
    """Return (changed values, experiment) of every point of the grid in `sweep:`; the last key varies fastest.

    Each experiment is named `NAME.LABEL`, see `label`.

    Raises:
        ExperimentError: no grid, an empty axis, or a point that is no valid experiment.
    """
    draft = _draft(path, overrides)
    grid = draft.values.pop("sweep", None)
    where = f"{draft.where}: sweep"
    fix = "write sweep: {key.path: [value, value], ...}"
    if grid is None:
        raise ExperimentError(message(where, "is required", fix=f"{fix}, or use `fedsim run {path}`"))
    if not isinstance(grid, dict) or not grid:
        raise ExperimentError(message(where, "must be a block of key paths", got=grid, fix=fix))
    for key, axis in grid.items():
        if not isinstance(axis, list) or not axis:
            raise ExperimentError(message(f"{where}.{key}", "must be a list of values", got=axis, fix=fix))
        if any(axis.count(value) > 1 for value in axis):
            raise ExperimentError(message(f"{where}.{key}", "has a value twice", got=axis, fix="keep one"))
    _refuse_overridden_axes(grid, overrides, where)
    base_name = str(draft.values.get("name", "run"))
    points: list[tuple[dict[str, Any], Experiment]] = []
    problems: dict[str, None] = {}
    for values in itertools.product(*grid.values()):
        changed = dict(zip(grid, values, strict=True))
        point = deepcopy(draft)
        _apply(point, [(tuple(key.split(".")), value, f"sweep.{key}") for key, value in changed.items()])
        if "name" not in changed:
            point.values["name"] = f"{base_name}.{label(changed)}"
        try:
            points.append((changed, _validated(point)))
        except ExperimentError as problem:
            problems.update(dict.fromkeys([str(problem)]))
    if problems:
        raise ExperimentError("\n".join(problems))
    return points


def label(changed: Mapping[str, Any]) -> str:
    """Return a folder name for one point of a sweep.

    >>> label({"protocol.kind": "buffered", "seed": 2, "lora": {"r": 4}})
    'protocol-buffered_seed-2_lora-r-4'
    """

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return "-".join(f"{text(v)}" if k == "kind" else f"{k}-{text(v)}" for k, v in value.items())
        if isinstance(value, list):
            return "-".join(map(text, value))
        return "none" if value is None else str(value)

    parts = []
    for key, value in changed.items():
        name = key.removesuffix(".kind").rsplit(".", 1)[-1]
        shown = text(value)
        parts.append(_UNSAFE.sub("-", f"{name}-{Path(shown).name if '/' in shown else shown}").strip("-"))
    return "_".join(parts)


def check(experiment: Experiment, where: str = "experiment") -> None:
    """Hold the blocks against each other; needs no data, no torch, and starts nothing.

    Raises:
        ExperimentError: everything that does not fit together, all at once.
    """
    found = misfits(experiment)
    if found:
        raise ExperimentError("\n".join(_sentence(where, problem, "") for problem in found))


def _draft(path: str | Path, overrides: Sequence[str]) -> _Draft:
    path = Path(path)
    where = str(path)
    document = yamlfile.read(path)
    draft = _Draft(
        where, path.parent.absolute(), places.absolute(document.values, path.parent.absolute(), where)
    )
    draft.origins.update({keys: f"line {line}" for keys, line in document.lines.items()})
    if "extends" in draft.values:
        _extend(draft, document.lines)
    _apply(draft, [_parsed(text, draft) for text in overrides])
    return draft


def _extend(draft: _Draft, lines: Mapping[KeyPath, int]) -> None:
    """Put the file that `extends:` names under the values of this one."""
    named = draft.values.pop("extends")
    at = f"{draft.where}: extends"
    if not isinstance(named, str):
        raise ExperimentError(message(at, "must be a file name", got=named, fix="write extends: base.yaml"))
    path = draft.folder / places.expanded(named, at)
    base = yamlfile.read(path, f"{at}: {named}")
    if "extends" in base.values:
        what = f"{named} extends another file itself"
        raise ExperimentError(message(at, what, fix="one level is all there is: merge the two base files"))
    under = places.absolute(base.values, path.parent.absolute(), f"{at}: {named}")
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
            same = value.get("kind", old.get("kind")) == old.get("kind")
            result[key] = _merged(old, value) if same else value
    return result


def _parsed(text: str, draft: _Draft) -> tuple[KeyPath, Any, str]:
    name, equals, given = text.partition("=")
    keys = tuple(name.strip().split("."))
    if keys[0] == "sweep" and len(keys) > 1:
        keys = ("sweep", ".".join(keys[1:]))
    if not equals or not all(keys):
        raise ExperimentError(message("-s", "must be key.path=value", got=text, fix="write -s seed=1"))
    value = yamlfile.scalar(given, f"-s {name}")
    return keys, _given_path(name.strip(), value, draft), f"-s {text}"


def _given_path(name: str, value: Any, draft: _Draft) -> Any:
    """Resolve a path given by `-s`: beside the YAML file; failing that, where the command was typed."""
    at = f"-s {name}"
    beside = places.placed(name, value, draft.folder, at)
    here = places.placed(name, value, Path.cwd(), at)
    if isinstance(beside, str) and beside != here and not Path(beside).exists() and Path(here).exists():
        return here
    return beside


def _apply(draft: _Draft, overrides: Sequence[tuple[KeyPath, Any, str]]) -> None:
    """Set values: whole blocks before their keys, `kind` before its neighbours, else in the given order."""
    for keys, value, text in sorted(overrides, key=lambda o: (len(o[0]), o[0][-1] != "kind")):
        at = draft.values
        for depth, key in enumerate(keys[:-1], start=1):
            if at.get(key) is None:
                at[key] = _default_kind(keys[:depth]) if keys[depth] != "kind" else {}
                draft.origins[keys[:depth]] = text
            if not isinstance(at[key], dict):
                name = ".".join(keys[:depth])
                what = f"{name} is one value, not a block of keys"
                where = f"{draft.where}: {'.'.join(keys)}"
                raise ExperimentError(message(where, what, got=at[key], fix=f"{text}: set {name} itself"))
            at = at[key]
        if keys[-1] == "kind" and at.get("kind") != value:
            at.clear()
        at[keys[-1]] = value
        draft.origins = {k: o for k, o in draft.origins.items() if k[: len(keys)] != keys}
        draft.origins[keys] = text


def _default_kind(path: KeyPath) -> dict[str, Any]:
    default = Experiment.model_fields[path[0]].default if path[0] in Experiment.model_fields else None
    return dict(default) if len(path) == 1 and isinstance(default, dict) else {}


def _refuse_overridden_axes(grid: Mapping[str, Any], overrides: Sequence[str], where: str) -> None:
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name in grid:
            fix = f"give -s 'sweep.{name}=[...]' instead"
            raise ExperimentError(message(f"{where}.{name}", f"is swept, and -s sets {name} too", fix=fix))


def _validated(draft: _Draft) -> Experiment:
    try:
        experiment = Experiment.model_validate(draft.values)
    except ValidationError as error:
        problems = explain.problems(error, draft.values)
        raise ExperimentError(_text(draft, problems)) from None
    problems = explain.mistaken_booleans(experiment, draft.values)
    if problems:
        raise ExperimentError(_text(draft, problems))
    return experiment


def _text(draft: _Draft, problems: Sequence[explain.Problem]) -> str:
    return "\n".join(_sentence(draft.where, p, draft.origin(p.path)) for p in problems)


def _sentence(where: str, problem: explain.Problem, origin: str) -> str:
    at = f"{where}: {problem.name}" if problem.path else where
    text = message(at, problem.what)
    if problem.has_value:
        shown = repr(problem.got)
        text += f" (got {shown if len(shown) <= 80 else shown[:77] + '...'})"
    return f"{text}\n  fix: {origin}{problem.fix}"
