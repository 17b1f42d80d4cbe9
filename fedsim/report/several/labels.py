"""What runs and configurations are called beside each other: by name, by what differs, and by seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fedsim.records.comparisons import configurations, seeds_of, settings_of
from fedsim.records.run import Run
from fedsim.report.parts import listing


@dataclass(frozen=True)
class Compared:
    """Runs with the names they get in the page.

    Attributes:
        runs, labels: one label a run, all different.
        groups: number of each run's configuration; runs that differ in their seeds only share one.
        names: of each configuration, all different.
        differing: (key, one value a configuration) for every setting that is not equal in all.
    """

    runs: Sequence[Run]
    labels: Sequence[str]
    groups: Sequence[int]
    names: Sequence[str]
    differing: Sequence[tuple[str, Sequence[str]]]

    def members(self, group: int) -> list[int]:
        """Return the places of a configuration's runs."""
        return [i for i, number in enumerate(self.groups) if number == group]

    def only(self, chosen: Sequence[int]) -> Compared:
        """Return the same names for some of the runs, by their places; configurations keep their numbers."""
        runs, labels = [self.runs[i] for i in chosen], [self.labels[i] for i in chosen]
        return Compared(runs, labels, [self.groups[i] for i in chosen], self.names, self.differing)

    @property
    def present(self) -> list[int]:
        """Configurations that have a run, in their order."""
        return sorted(set(self.groups))


def compared(runs: Sequence[Run]) -> Compared:
    """Name configurations by their runs' names if those tell them apart, else by what differs; runs also by seeds."""
    groups = configurations(runs)
    firsts = [runs[groups.index(number)] for number in range(max(groups) + 1)]
    differing = _differing(firsts)
    by_group = [[r.name for r, g in zip(runs, groups, strict=True) if g == n] for n in range(len(firsts))]
    names = _names(by_group)
    if len(set(names)) < len(names):
        changes = [
            listing([_short(key, values[n]) for key, values in differing][:3]) for n in range(len(firsts))
        ]
        names = _unique([change or run.name for change, run in zip(changes, firsts, strict=True)])
    labels = [
        f"{names[g]}, seed {seeds_of(run)}" if groups.count(g) > 1 else names[g]
        for run, g in zip(runs, groups, strict=True)
    ]
    for i, (run, g) in enumerate(zip(runs, groups, strict=True)):
        if len(set(by_group[g])) > 1 and names[g] == _joined(by_group[g]):  # each has a name of its own
            labels[i] = run.name
    return Compared(runs, _unique(labels), groups, names, differing)


def _differing(firsts: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not equal in all configurations."""
    settings = [settings_of(run) for run in firsts]
    keys = dict.fromkeys(key for flat in settings for key in flat)
    rows = [(key, [str(flat.get(key, "–")) for flat in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _names(by_group: Sequence[Sequence[str]]) -> list[str]:
    """Return what the names of each configuration's runs have in common: a sweep puts the seed into them, too."""
    parts = [_common(names, "._") for names in by_group]
    first = {one[0] if one else "" for one in parts}
    if len(parts) > 1 and len(first) == 1 and all("-" in "".join(one[1:]) for one in parts):
        parts = [one[1:] for one in parts]  # the name of the sweep
    return [
        ("".join(one) or "".join(_common(names, "-._"))).rstrip("-._") or _joined(names)
        for one, names in zip(parts, by_group, strict=True)
    ]


def _common(names: Sequence[str], separators: str) -> list[str]:
    """Return the parts of a name that all names have at the same place; one of another number of parts has none."""
    cut = [re.findall(f"[^{separators}]+[{separators}]?", name) for name in names]
    if len({len(parts) for parts in cut}) > 1:
        return []
    bare = [[part.rstrip(separators) for part in parts] for parts in cut]
    return [part for i, part in enumerate(cut[0]) if len({parts[i] for parts in bare}) == 1]


def _joined(names: Sequence[str]) -> str:
    """Return the names of a configuration whose runs have nothing of a name in common."""
    different = list(dict.fromkeys(names))
    return listing(different[:2]) if len(different) < 3 else f"{different[0]} and {len(different) - 1} more"


def _unique(names: Sequence[str]) -> list[str]:
    """Number what is called alike, from the second on."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return unique


def _short(key: str, value: str) -> str:
    return value if key.endswith(".kind") else f"{key.rsplit('.', maxsplit=1)[-1]} {value}"
