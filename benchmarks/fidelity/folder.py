"""A folder of measured rows: everything in it is read, or named with the reason why not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fidelity import rows
from benchmarks.fidelity.rows import FRAMING, Kind, Quota, Scenario
from fedsim.errors import DataError, message

NAMES: dict[str, Kind] = {
    "single_upload.jsonl": "single",
    "shared_link.jsonl": "shared",
    "shared_link_htb.jsonl": "shared",
    "rate_trace.jsonl": "traced",
    "cpu_quota.jsonl": "quota",
}
"""Files whose rows must be of a kind; those of other files are what their fields say."""
FILES = tuple(name for name in NAMES if name != "shared_link_htb.jsonl")
"""Files that a whole folder has."""
MODES = {"single": ("tun", "tuntbf", "tbf"), "shared": tuple(FRAMING)}


@dataclass
class Unread:
    """Rows of a file that were not replayed.

    Attributes:
        file: its name.
        why: the reason, one for all of these rows.
        measured: whether they may be measurements, which the answer then says nothing about.
        rows: how many.
        lines: the first few of them.
    """

    file: str
    why: str
    measured: bool
    rows: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass
class Measured:
    """What a folder holds.

    Attributes:
        single: uploads over one link, by mode.
        shared, traces, quotas: the other kinds.
        read: rows that were read, by file.
        unread: files and rows that were not.
    """

    single: dict[str, list[Scenario]] = field(default_factory=dict)
    shared: list[Scenario] = field(default_factory=list)
    traces: list[Scenario] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)

    def leave(self, name: str, number: int | None, why: str, *, measured: bool) -> None:
        """Note a row that is not read, or (None) a whole file."""
        same = next((u for u in self.unread if u.file == name and u.why == why), None)
        if same is None:
            self.unread.append(same := Unread(name, why, measured))
        if number is not None:
            same.rows += 1
            same.lines += [number] if len(same.lines) < 5 else []

    def take(self, kind: Kind, where: str, plain: object) -> None:
        """Add a row.

        Raises:
            DataError: it is broken.
        """
        if kind == "single":
            mode, upload = rows.single_upload(where, plain)
            self.single.setdefault(mode, []).append(upload)
        elif kind == "shared":
            self.shared.append(rows.shared_link(where, plain))
        elif kind == "traced":
            self.traces.append(rows.rate_trace(where, plain))
        else:
            self.quotas.append(rows.cpu_quota(where, plain))

    def plain_unread(self) -> list[dict[str, Any]]:
        """Return what was not read, for JSON."""
        return [asdict(one) for one in self.unread]


def read_folder(folder: Path) -> Measured:
    """Return the measurements of a folder.

    Raises:
        DataError: no folder, a row that is broken (file, line, field), or nothing that could be read.
    """
    measured = Measured()
    if not folder.is_dir():
        raise DataError(message(str(folder), "no such folder", fix=f"give a folder with {', '.join(FILES)}"))
    for path in sorted(folder.iterdir()):
        if path.suffix == ".jsonl" and path.is_file():
            _read_file(path, measured)
        else:
            measured.leave(path.name, None, "is not a file of JSON lines", measured=False)
    if not any(measured.read.values()):
        fix = f"give a folder with {', '.join(FILES)}"
        raise DataError(message(str(folder), "holds no measured rows", fix=fix))
    return measured


def _read_file(path: Path, measured: Measured) -> None:
    measured.read[path.name] = 0
    for number, (where, plain) in enumerate(rows.parsed(path), start=1):
        kind = NAMES.get(path.name) or rows.kind_of(plain)
        if kind is None:
            why = "its fields are those of no kind of row that is replayed"
            measured.leave(path.name, number, why, measured=True)
        elif kind == "single" and isinstance(plain, dict) and "rep" not in plain:
            measured.leave(path.name, number, "no `rep`: an emulator's account", measured=False)
        elif (mode := _unknown_mode(kind, plain)) is not None:
            measured.leave(path.name, number, f"mode {mode!r} is not known", measured=True)
        else:
            measured.take(kind, where, plain)
            measured.read[path.name] += 1


def _unknown_mode(kind: Kind, plain: object) -> str | None:
    """Return the mode of a row if it is a word that is not known."""
    mode = plain.get("mode") if isinstance(plain, dict) else None
    return mode if kind in MODES and isinstance(mode, str) and mode not in MODES[kind] else None
