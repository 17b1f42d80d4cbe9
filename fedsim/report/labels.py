"""What runs are called beside each other: by name, by what differs, and by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsim.records.run import Run
from fedsim.report.parts import listing

SEED = ", seed "
_NOT_COMPARED = ("name", "seed", "runtime", "numerics")


@dataclass(frozen=True)
class Compared:
    """Runs with the names they get in the page.

    Attributes:
        runs, labels: one label a run, all different.
        groups: number of each run's configuration; runs that differ in their seed only share one.
        differing: (key, one value a run) for every setting that is not equal in all runs.
    """

    runs: Sequence[Run]
    labels: Sequence[str]
    groups: Sequence[int]
    differing: Sequence[tuple[str, Sequence[str]]]


def compared(runs: Sequence[Run]) -> Compared:
    """Name runs: by their names if those tell configurations apart, else by what differs; then by seed."""
    flat = [_flat({k: v for k, v in run.experiment.items() if k not in _NOT_COMPARED}) for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    differing = [
        (key, [str(settings.get(key, "–")) for settings in flat])
        for key in keys
        if len({str(settings.get(key)) for settings in flat}) > 1
    ]
    changes = [tuple(values[i] for _, values in differing) for i in range(len(runs))]
    known = list(dict.fromkeys(changes))
    groups = [known.index(change) for change in changes]
    names_tell = len({(run.name, g) for run, g in zip(runs, groups, strict=True)}) == len(
        {r.name for r in runs}
    )
    if names_tell and len({run.name for run in runs}) >= len(known):
        labels = [run.name for run in runs]
    else:
        labels = [
            listing([_short(k, v[i]) for k, v in differing][:3]) or run.name for i, run in enumerate(runs)
        ]
    if len(set(labels)) < len(labels):
        labels = [f"{label}{SEED}{run.info.seed}" for label, run in zip(labels, runs, strict=True)]
    seen: dict[str, int] = {}
    unique = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        unique.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return Compared(runs, unique, groups, differing)


def _short(key: str, value: str) -> str:
    return value if key.endswith(".kind") else f"{key.rsplit('.', maxsplit=1)[-1]} {value}"


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in block.items():
        leaves.update(
            _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return leaves
