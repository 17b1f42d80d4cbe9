"""The files that an experiment reads, and whether they are what they were."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsim.component import Component
from fedsim.config.experiment import Experiment
from fedsim.files.folders import is_about, is_leftover

_PIECE_BYTES = 2**22


class Inputs:
    """SHA-256 of files, each computed once as long as its size and time of change stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, experiment: Experiment) -> dict[str, str]:
        """Return file -> SHA-256 of what an experiment names: tables, data, models, modules of its own components."""
        paths = {path for name in _named(experiment) for path in _files(name)}
        return {str(path): self._sha256(path) for path in sorted(paths)}

    def changed(self, before: Mapping[str, str], experiment: Experiment) -> list[str]:
        """Return the files that are not what they were, with what became of them; none if nothing is known of before."""
        if not before:
            return []
        now = self.of(experiment)
        words = {
            path: "is gone" if path not in now else "is new" if path not in before else "has changed"
            for path in sorted({*before, *now})
            if before.get(path) != now.get(path)
        }
        return [f"{path} {what}" for path, what in words.items()]

    def _sha256(self, path: Path) -> str:
        try:
            facts = path.stat()
            key = (str(path), facts.st_size, facts.st_mtime_ns)
            if key not in self._known:
                whole = hashlib.sha256()
                with path.open("rb") as file:
                    while piece := file.read(_PIECE_BYTES):
                        whole.update(piece)
                self._known[key] = whole.hexdigest()
            return self._known[key]
        except OSError:  # the run will say so
            return "unreadable"


def _named(experiment: Experiment) -> Iterator[Path]:
    """Yield the files and folders that the settings name, and the modules that components come from."""
    waiting: list[object] = [experiment.plain()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and os.path.isabs(value):  # noqa: PTH117 - most are no paths
            yield Path(value)
    for _, block in experiment:
        if isinstance(block, Component) and ":" in block.kind:
            module = sys.modules.get(type(block).__module__)
            if module is not None and module.__file__ is not None:
                yield Path(module.__file__)


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or those in a folder and below: no links to folders, nothing that hides, no read-me files."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for folder, below, names in os.walk(path):
            below[:] = sorted(name for name in below if not is_leftover(name))
            yield from (
                Path(folder) / name for name in sorted(names) if not (is_leftover(name) or is_about(name))
            )
