"""What a disk may hold after a power failure: what it was told to keep, and an arbitrary part of the rest.

Data are safe once their file was synced. Names (files made, moved, removed) reach the disk in their order, and are safe
once anything was synced after them (`ordered`, as ext4 does) or once their own folder was (`strict`, which is all that
POSIX says). What is not safe is there or not, as the dice have it: of bytes appended a part, of which the tail may be zeros.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Content:
    """A file's bytes on the disk, and the writes that wait for it."""

    data: bytearray = field(default_factory=bytearray)
    waiting: list = field(default_factory=list)

    def sync(self):
        """All that waits reaches the disk."""
        for entry in self.waiting:
            put(self.data, entry)
        self.waiting.clear()

    def lose(self, rng):
        """The power fails: return what is left."""
        data, whole = bytearray(self.data), int(rng.integers(len(self.waiting) + 1))
        for number, entry in enumerate(self.waiting):
            appended = entry[0] == "write" and entry[1] >= len(self.data)
            if number < whole or (not appended and rng.random() < 0.5):
                put(data, entry)
            elif number == whole and entry[0] == "write":
                part = int(rng.integers(len(entry[2]) + 1))
                tail = bytes(int(rng.integers(len(entry[2]) - part + 1))) if rng.random() < 0.5 else b""
                put(data, ("write", entry[1], entry[2][:part] + tail))
                if appended:
                    break
        return bytes(data)


def put(data, entry):
    """Apply a write, or a cut to a length, to the bytes of a file."""
    if entry[0] == "cut":
        del data[entry[1] :]
        data.extend(bytes(entry[1] - len(data)))
        return
    at, new = entry[1], entry[2]
    data.extend(bytes(max(0, at - len(data))))
    data[at : at + len(new)] = new


class Disk:
    """A folder as the process sees it, and as the disk has it."""

    def __init__(self, folder):
        """Take a folder (it may be none) whose every byte is on the disk."""
        self.names, self.safe = {}, {}
        self.folders, self.safe_folders = set(), set()
        self.waiting = []
        if Path(folder).is_dir():
            self.folders.add(".")
            for path in Path(folder).rglob("*"):
                name = path.relative_to(folder).as_posix()
                if path.is_dir():
                    self.folders.add(name)
                else:
                    self.names[name] = Content(bytearray(path.read_bytes()))
        self.safe, self.safe_folders = dict(self.names), set(self.folders)

    def follow(self, journal, *, strict=False):
        """Go through what a process did."""
        for entry in journal:
            what, name = entry[0], entry[1]
            if what == "sync":
                self._sync(name, strict=strict)
            elif what == "write":
                self._content(name).waiting.append(("write", *entry[2:]))
            elif what == "cut":
                self._content(name).waiting.append(("cut", entry[2]))
            elif what == "empty":
                self._content(name).waiting.append(("cut", 0))
            else:
                made = Content() if what == "create" else None
                name_change(self.names, self.folders, entry, made)
                self.waiting.append((entry, made))

    def _content(self, name):
        return self.names.get(name) or Content()  # of a file that has no name any more

    def _sync(self, name, *, strict):
        if name in self.names:
            self.names[name].sync()
        if strict:
            self._settle(lambda entry: name in self.folders and str(Path(entry[-1]).parent) == name)
        else:
            self._settle(lambda _: True)

    def _settle(self, chosen):
        left = []
        for entry, made in self.waiting:
            if chosen(entry):
                name_change(self.safe, self.safe_folders, entry, made)
            else:
                left.append((entry, made))
        self.waiting = left

    def fail(self, rng, folder):
        """The power fails: write what the disk may have by then into a folder, in place of what is there."""
        kept = self.waiting[: int(rng.integers(len(self.waiting) + 1))]
        for entry, made in kept:
            name_change(self.safe, self.safe_folders, entry, made)
        shutil.rmtree(folder, ignore_errors=True)
        for inner in sorted(self.safe_folders):
            (Path(folder) / inner).mkdir(parents=True, exist_ok=True)
        for name, content in self.safe.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.lose(rng))


def name_change(names, folders, entry, made):
    """Make, move or remove a name."""
    what, name = entry[0], entry[1]
    if what == "create":
        names[name] = made
    elif what == "mkdir":
        folders.add(name)
    elif what == "remove":
        names.pop(name, None)
        folders.discard(name)
    elif what == "move":
        if name in names:
            names[entry[2]] = names.pop(name)
        prefix = name + os.sep
        for inner in [inner for inner in names if inner.startswith(prefix)]:
            names[entry[2] + os.sep + inner[len(prefix) :]] = names.pop(inner)
        for inner in [inner for inner in folders if inner == name or inner.startswith(prefix)]:
            folders.discard(inner)
            folders.add(entry[2] + inner[len(name) :])
