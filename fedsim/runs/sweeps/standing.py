"""How a point stands, by what its folder holds: the contract of a sweep's folder (docs/sweeps.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fedsim.clock.auto import with_auto_as_stored
from fedsim.errors import FedsimError, RunFolderError, message
from fedsim.records.folder import holds_run, may_be_alive, read_head
from fedsim.records.integrity.versions import installed_versions
from fedsim.runs.sweeps.grid import Point
from fedsim.runs.sweeps.inputs import Inputs

How = Literal["waiting", "done", "in flight", "begun", "another"]
"""`begun`: its run can go on; `another`: an unfinished run of another experiment is in the way."""
SHOWN = 3
"""Keys and files that a message names."""


@dataclass(frozen=True)
class Standing:
    """What is in a point's folder.

    Attributes:
        point: the point, its folder being where its run really lies.
        how: see `How`.
        note: what else a reader must know of it, in a sentence.
    """

    point: Point
    how: How
    note: str = ""


class Folders:
    """The folders of a sweep's runs."""

    def __init__(
        self,
        grid: Sequence[Point],
        inputs: Inputs,
        *,
        timeline_only: bool,
        files_then: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Take the grid, and of earlier starts: folder -> the files that its run read, with their SHA-256."""
        self._inputs = inputs
        self._timeline_only, self._files_then = timeline_only, files_then
        self._strangers = list(_strangers(grid))

    def standing(self, point: Point) -> Standing:
        """Return how a point stands.

        Raises:
            RunFolderError: the folder holds a finished run of another experiment, or of files that have changed.
        """
        if not holds_run(point.folder):
            moved = self._under_another_name(point)
            if moved is None:
                return Standing(point, "waiting")
            point = replace(point, folder=moved)
        info, stored = read_head(point.folder)
        if info.status == "running" and may_be_alive(info, point.folder):
            return Standing(point, "in flight", f"process {info.pid} on {info.host} is at work on it")
        experiment = with_auto_as_stored(point.experiment, stored)
        where = str(point.folder)
        if info.digest != experiment.digest or info.timeline_only != self._timeline_only:
            if info.status != "done":
                return Standing(point, "another")
            differs = _difference(stored, experiment.plain()) or "one of them without training"
            what, fix = (
                f"holds the run of another experiment ({differs})",
                "choose another --out, or move that folder away",
            )
            raise RunFolderError(message(where, what, fix=fix))
        if info.status != "done":
            return Standing(point, "begun")
        changed = self._inputs.changed(self._files_then.get(point.folder.name, {}), point.experiment)
        if changed:
            what = f"holds a run of other files ({'; '.join(changed[:SHOWN])})"
            fix = "put the files back, move that folder away to run it again, or choose another --out"
            raise RunFolderError(message(where, what, fix=fix))
        return Standing(point, "done", _of_other_versions(info.versions))

    def _under_another_name(self, point: Point) -> Path | None:
        """Return the folder that holds this experiment's run under a name of before; None: there is none."""
        for folder in self._strangers:
            try:
                info, stored = read_head(folder)
            except FedsimError:
                continue
            same = info.digest == with_auto_as_stored(point.experiment, stored).digest
            if same and info.timeline_only == self._timeline_only and info.status == "done":
                return folder
        return None


def _strangers(grid: Sequence[Point]) -> Iterator[Path]:
    """Yield the folders with runs beside those of the points: of another grid, or labelled otherwise."""
    out, names = grid[0].folder.parent, {point.folder.name for point in grid}
    if out.is_dir():
        for folder in sorted(out.iterdir()):
            if folder.is_dir() and folder.name not in names and holds_run(folder):
                yield folder


def put_aside(folder: Path) -> Path:
    """Rename a folder whose run does not go on, so that it can be looked at; returns its new name."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.unfinished-{number}")).exists():
        number += 1
    return folder.rename(aside)


def _difference(stored: Mapping[str, object], asked: Mapping[str, object]) -> str:
    """Return the first keys in which two plain configurations differ, with both values."""
    before, now = dict(_leaves(stored)), dict(_leaves(asked))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    keys = [key for key in keys if key != "name" and not key.startswith("runtime.")]
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(f"{key}: {before.get(key)!r}, not {now.get(key)!r}" for key in keys[:SHOWN]) + more


def _leaves(block: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in block.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _of_other_versions(versions: Mapping[str, str]) -> str:
    """Return which packages a finished run had in other versions, in words; nothing if in none."""
    now = installed_versions()
    other = [f"{name} {was}" for name, was in versions.items() if now.get(name, was) != was]
    return f"made with {', '.join(other[:SHOWN])}, which is another version here" if other else ""
