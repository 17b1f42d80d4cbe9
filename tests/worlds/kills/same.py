"""Whether a resumed run is the undisturbed one: every file of the folder, byte by byte, but for clocks and processes."""

from __future__ import annotations

import json
import re

from fedsim.files.client_vectors import ClientVectors

OF_THE_MOMENT = ("started", "ended", "wall_s", "host", "pid", "process")
"""Keys of run.json that say when and where; so does whatever is said about resuming."""
CHECKPOINTS = "checkpoints"


def facts(path):
    """What `run.json` says, but for when and where."""
    info = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in info.items() if key not in OF_THE_MOMENT and "resum" not in key}
    kept["files"] = {
        name: sha
        for name, sha in info["files"].items()
        if name != "wall.jsonl" and not name.startswith("kept/")
    }
    return kept


def leaves(value, name=""):
    """The numbers and words in nested facts, by their paths."""
    if not isinstance(value, dict | list) or not value:
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        path: leaf for key, part in parts for path, leaf in leaves(part, f"{name}.{key}".lstrip(".")).items()
    }


def vectors(path):
    """Client -> the bytes that it keeps."""
    view = ClientVectors.read(path)
    return {client: view.get(client).tobytes() for client in view}


def names(folder):
    """The files of a run folder, but for its checkpoints."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != CHECKPOINTS}


def leftovers(folder):
    """Files beside those of an undisturbed checkpoint: of a write that was cut off."""
    inside = (folder / CHECKPOINTS).rglob("*")
    return [path.name for path in inside if path.name.startswith(".") or path.suffix == ".tmp"]


def differences(folder, wanted, *, report=True):
    """One line for each thing that differs from the undisturbed run; without `report`, but for its page."""
    here, there = names(folder), names(wanted)
    if not report:
        here, there = here - {"report.html"}, there - {"report.html"}
    lines = [f"{name}: is missing" for name in sorted(there - here)]
    lines += [f"{name}: is left over" for name in sorted(here - there)]
    lines += [f"{CHECKPOINTS}/{name}: is left over" for name in leftovers(folder)]
    for name in sorted(here & there):
        lines += _differs(name, folder / name, wanted / name)
    return lines


def _differs(name, path, wanted):
    if name == "wall.jsonl":
        return _unreadable(name, path)
    if name == "run.json":
        got, due = leaves(facts(path)), leaves(facts(wanted))
        return [
            f"run.json: {key}: {got.get(key)!r} instead of {due.get(key)!r}"[:200]
            for key in sorted({*got, *due})
            if got.get(key) != due.get(key)
        ]
    if name.startswith("kept/"):
        return [] if vectors(path) == vectors(wanted) else [f"{name}: other vectors"]
    if name == "report.html":
        return [] if page(path) == page(wanted) else [f"{name}: differs"]
    return [] if path.read_bytes() == wanted.read_bytes() else [f"{name}: differs"]


def page(path):
    """A report without its one line of how long this machine took, and when."""
    return re.sub(
        r"[^;>]* of real time; started [^;<]*(; gone on with [^;<]*)?", "", path.read_text(encoding="utf-8")
    )


def _unreadable(name, path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            json.loads(line)
        except ValueError:
            return [f"{name}: line {number} cannot be read: {line[:80]!r}"]
    return []
