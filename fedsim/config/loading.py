"""From a YAML file, `extends:` and `-s key.path=value` to a checked `Experiment`, or to plain words why not.

    experiment = load("experiments/ptb/sync.yaml", ["seed=1", "protocol.kind=buffered"])
    check(experiment)

Rules: a file may extend one other (`extends: base.yaml`, one level); paths are relative to the file
that gives them; `~` and `$VARIABLES` are expanded; choosing another `kind` for a block (or `lora.full`)
drops what the block had for the old one; `sweep:` is for `sweep_points` only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsim.config.experiment import LONGEST_NAME, Experiment
from fedsim.config.overrides import Draft, Override, apply, draft_of, parsed, validated
from fedsim.errors import ABSENT, ExperimentError, FedsimError, Message, Shown, message, several

LONGEST_LABEL = 120
"""Characters: a disk takes names of 255 bytes, and the run of a point is called NAME.LABEL."""
_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment.

    Args:
        path: the YAML file.
        overrides: `key.path=value` each, the value in YAML; the last of two equal paths wins.

    Raises:
        ExperimentError: everything that is wrong with it, all at once.
    """
    draft = draft_of(path, overrides)
    if "sweep" in draft.values:
        what, fix = "is for `fedsim sweep` only", f"run `fedsim sweep {path}`, or remove the block"
        raise ExperimentError(message(f"{draft.where}: sweep", what, fix=draft.origin(("sweep",)) + fix))
    return validated(draft)


def changed(experiment: Experiment, overrides: Sequence[str], where: str = "experiment") -> Experiment:
    """Return an experiment with overrides as `-s` gives them; relative paths start here.

    Raises:
        ExperimentError: everything that is wrong with it, all at once.
    """
    draft = Draft(where, Path.cwd(), experiment.plain())
    apply(draft, [parsed(text, draft) for text in overrides])
    return validated(draft)


def sweep_points(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[dict[str, Any], Experiment]]:
    """Return (changed values, experiment) of every point of the grid in `sweep:`; the last key varies fastest.

    Each experiment is named `NAME.LABEL`, see `label`.

    Raises:
        ExperimentError: no grid, an empty axis, or a point that is no valid experiment.
    """
    draft = draft_of(path, overrides)
    grid = _grid(draft, path, overrides)
    base_name = str(draft.values.get("name", "run"))
    points: list[tuple[dict[str, Any], Experiment]] = []
    problems: dict[str, Message] = {}  # by its text: many points share a mistake
    for values in itertools.product(*grid.values()):
        changes = dict(zip(grid, values, strict=True))
        point = deepcopy(draft)
        own = deepcopy(changes)  # a block of the grid is changed where another axis names a key in it
        apply(point, [Override(tuple(key.split(".")), value, f"sweep.{key}") for key, value in own.items()])
        if "name" not in changes:
            text = label(changes)
            point.values["name"] = f"{base_name[: LONGEST_NAME - 1 - len(text)]}.{text}"
        try:
            points.append((changes, validated(point)))
        except ExperimentError as problem:
            problems[str(problem)] = problem.message
    if problems:
        raise ExperimentError(several([*problems.values()]))
    _refuse_twins(points, draft.where)
    return points


def _refuse_twins(points: Sequence[tuple[Mapping[str, Any], Experiment]], where: str) -> None:
    """Refuse two points that are one experiment, however their values are written: `[8, "8"]`."""
    seen: dict[str, str] = {}
    for changes, experiment in points:
        named = {} if "name" in changes else {"name": ""}
        text = json.dumps(experiment.plain() | named, sort_keys=True)
        if text in seen:
            what = "two points are the same experiment"
            got = Shown(f"{seen[text]} and {_words(changes)}")
            raise ExperimentError(message(f"{where}: sweep", what, got=got, fix="remove one of them"))
        seen[text] = _words(changes)


def _words(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in changes.items())


def _grid(draft: Draft, path: str | Path, overrides: Sequence[str]) -> dict[str, list[Any]]:
    """Take the block `sweep:` out of a draft and return its axes, checked."""
    grid = draft.values.pop("sweep", None)
    where = f"{draft.where}: sweep"
    fix = "write sweep: {key.path: [value, value], ...}"
    if grid is None:
        lists = [text for text in overrides if text.partition("=")[2].lstrip().startswith("[")]
        if lists:
            axes = ", ".join("{}: {}".format(*text.split("=", 1)) for text in lists)
            fix = f"write -s 'sweep={{{axes}}}'"
        raise ExperimentError(message(where, "is required", fix=f"{fix}, or use `fedsim run {path}`"))
    if not isinstance(grid, dict) or not grid:
        raise ExperimentError(message(where, "must be a block of key paths", got=grid, fix=fix))
    for key, axis in grid.items():
        if not isinstance(axis, list) or not axis:
            raise ExperimentError(message(f"{where}.{key}", "must be a list of values", got=axis, fix=fix))
        if any(axis.count(value) > 1 for value in axis):
            raise ExperimentError(message(f"{where}.{key}", "has a value twice", got=axis, fix="keep one"))
    _refuse_overridden_axes(grid, overrides, where)
    return grid


def label(changed: Mapping[str, Any]) -> str:
    """Return a folder name for one point of a sweep; one that is too long for a disk ends in the hash of the whole.

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
    whole = "_".join(parts)
    if len(whole) <= LONGEST_LABEL:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: LONGEST_LABEL - len(digest) - 1]}_{digest}"


@contextmanager
def naming(experiment: Experiment, where: str) -> Iterator[None]:
    """Put the file, and the value if it is missing, into errors that begin with a field (`task.data: ...`)."""
    try:
        yield
    except FedsimError as problem:
        content = problem.message
        keys = content.where.split(".")
        if keys[0] not in Experiment.model_fields:
            raise
        value: Any = experiment.plain()
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        missing = content.got is ABSENT and value is not None and not isinstance(value, dict)
        located = replace(content, where=f"{where}: {content.where}", got=value if missing else content.got)
        raise type(problem)(located) from problem


def _refuse_overridden_axes(grid: Mapping[str, Any], overrides: Sequence[str], where: str) -> None:
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name in grid:
            fix = f"give -s 'sweep.{name}=[...]' instead"
            raise ExperimentError(message(f"{where}.{name}", f"is swept, and -s sets {name} too", fix=fix))
