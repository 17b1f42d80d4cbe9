"""Whether what goes on is what was: settings, packages, data and model files, each named where it differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedsim.config.target import TargetConfig
from fedsim.errors import Message, RunFolderError, message, several
from fedsim.records.info import json_values

FREE = ("name", "runtime")
"""Blocks that change no result."""
DECIDING = ("python", "fedsim-edge", "numpy", "simpy", "torch", "transformers", "peft")
"""Packages that results may depend on; of Python, its minor version."""
_MOST = 20


def refuse_other_settings(folder: Path, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Raise if settings differ in more than a budget that grows and where the run works.

    Args:
        folder: of the run.
        before: its settings as plain values.
        after: those to go on with.

    Raises:
        RunFolderError: names every key that differs, the old value and the new one.
    """
    wrong = [
        message(
            f"{folder}: {path}", "was changed since the run began", got=new, fix=f"set it back to {old!r}"
        )
        for path, old, new in _differences("", _without(before), _without(after))
    ]
    wrong += _smaller_budgets(folder, _block(before, "budget"), _block(after, "budget"))
    _refuse(wrong)


def grown(before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Tell whether a budget allows for more than another one."""
    return _block(before, "budget") != _block(after, "budget")


def _without(settings: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in settings.items() if key not in (*FREE, "budget")}


def _block(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    block = settings.get(name)
    return block if isinstance(block, Mapping) else {}


def _differences(path: str, old: object, new: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(f"{path}.{key}" if path else str(key), old.get(key), new.get(key))
    elif old != new:
        yield path, old, new


def _smaller_budgets(
    folder: Path, before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[Message]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        larger = new is None or _is_larger(old, new)
        if old != new and not larger:
            what = "a budget may grow, not shrink" if old is not None else "the run had no such limit"
            fix = "leave it out" if old is None else f"give at least {old!r}"
            fix = f"give one as hard as {old!r}, or null" if isinstance(old, Mapping) else fix
            yield message(f"{folder}: budget.{name}", what, got=new, fix=fix)


def _is_larger(old: object, new: object) -> bool:
    """Tell whether a limit allows for as much as another one: a number, or a target that is as hard to reach."""
    if isinstance(old, int | float) and isinstance(new, int | float):
        return new >= old
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return TargetConfig.model_validate(new).is_harder_than(TargetConfig.model_validate(old))
    return False


def refuse_other_packages(folder: Path, before: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise if a package that results may depend on has another version than when the run was made.

    Raises:
        RunFolderError: names each.
    """
    wrong = []
    for name in DECIDING:
        old, new = before.get(name), here.get(name)
        if name == "python":
            old, new = _minor(old), _minor(new)
        if old != new:
            there = "is not installed" if new is None else f"is {new}"
            fix = "go on where it is not installed" if old is None else f"pip install {name}=={old}"
            fix = f"go on with Python {old}" if name == "python" else fix
            made = "without it" if old is None else f"with {old}"
            wrong.append(message(str(folder), f"{name} {there} here, and the run was made {made}", fix=fix))
    _refuse(wrong)


def _minor(version: str | None) -> str | None:
    return None if version is None else ".".join(version.split(".")[:2])


def refuse_other_files(
    folder: Path, before: Mapping[str, object], here: Mapping[str, object], what: str
) -> None:
    """Raise if facts about data, model or tables of devices differ: a file is another one than when the run began.

    Raises:
        RunFolderError: names each.
    """
    differences = _differences("", json_values(dict(before)), json_values(dict(here)))
    _refuse(
        [
            message(
                f"{folder}: {what}",
                f"{path} was {old!r} when the run began",
                got=new,
                fix="put the file back",
            )
            for path, old, new in differences
        ]
    )


def refuse_foreign_cluster(folder: Path, before: Mapping[str, object], changes: Sequence[str]) -> None:
    """Raise if settings of a folder that is not trusted name a Ray cluster, and nobody has said where to train.

    Raises:
        RunFolderError: as said.
    """
    address = _block(before, "runtime").get("address")
    if address is not None and not any(change.startswith("runtime.address=") for change in changes):
        what, fix = (
            "names a cluster, which is joined with trust only",
            "give --trust, or -s runtime.address=...",
        )
        raise RunFolderError(message(f"{folder}: runtime.address", what, got=address, fix=fix))


def _refuse(wrong: list[Message]) -> None:
    if wrong:
        raise RunFolderError(several(wrong[:_MOST]))
