"""Paths in a configuration: relative to the file that gives them, `~` and `$VARIABLES` expanded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fedsim.config.words import WORDS
from fedsim.errors import ExperimentError, message
from fedsim.redaction import is_secret_name

PATHS = frozenset(
    {
        "population.devices",
        "population.networks",
        "population.regions",
        "population.availability",
        "population.rates",
        "compute.calibration",
        "compute.stacks",
        "energy.battery.plugged",
        "lora.start_from",
        "task.chat_template",
        "task.features.classifier",
        "task.features.weights",
    }
)
"""Fields that are always a file, unless they hold a word of their own (`fedsim.config.words.WORDS`)."""

MAYBE_PATHS = frozenset({"task.model", "task.data"})
"""Fields that are a file or folder if one of that name, or the folder that it would lie in, exists beside the YAML file."""


def absolute(values: dict[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Return the values of a file with every path absolute."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key == "sweep" and isinstance(value, dict):
            result[key] = {
                name: [placed(name, v, folder, f"{where}: sweep.{name}") for v in axis]
                if isinstance(axis, list)
                else axis
                for name, axis in value.items()
            }
        else:
            result[key] = placed(key, value, folder, f"{where}: {key}")
    return result


def placed(name: str, value: Any, folder: Path, where: str) -> Any:
    """Return a value, or a whole block, with its paths absolute; `name` is its path of keys."""
    if isinstance(value, dict):
        return {key: placed(f"{name}.{key}", item, folder, f"{where}.{key}") for key, item in value.items()}
    return _absolute_value(name, value, folder, where)


def _absolute_value(name: str, value: Any, folder: Path, where: str) -> Any:
    """Return the value of the field `name`, absolute if it is a path."""
    if not isinstance(value, str) or not value:
        return value
    relative = value.startswith(("./", "../", "~/"))
    field = name if name in PATHS else name.rpartition(".")[0]  # one of several, by a key of their own
    if field in PATHS:
        is_path = value not in WORDS.get(field, ())
    elif name in MAYBE_PATHS:
        is_path = relative or value[0] in "/~$." or (folder / value).exists() or _in_a_folder(value, folder)
    else:
        is_path = relative and name.startswith("task.")
    if not is_path:
        return value
    return os.path.normpath(folder / expanded(value, where))


def _in_a_folder(value: str, folder: Path) -> bool:
    """Tell whether `models/tiny` lies in a folder that is there: then it is mistyped, and no name on a hub."""
    first, slash, rest = value.partition("/")
    return bool(slash and rest) and (folder / first).is_dir()


def expanded(text: str, where: str) -> str:
    """Expand `~` and `$NAME`; an unset variable is an error, not an odd file name."""
    for name in re.findall(r"\$\{?(\w+)", text):
        if is_secret_name(name):
            what = f"the environment variable {name} is a secret by its name, and is not written into a path"
            raise ExperimentError(message(where, what, got=text, fix="write the path"))
    result = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111
    unset = re.search(r"\$\{?(\w+)", result)
    if unset:
        what = f"the environment variable {unset[1]} is not set"
        raise ExperimentError(message(where, what, got=text, fix=f"export {unset[1]}=..., or write the path"))
    return result
