"""Text as UTF-8: read whole, a byte order mark left out, and every other encoding said by its name."""

from __future__ import annotations

import re
from pathlib import Path

from fedsim.errors import visible
from fedsim.files.opened import UnreadableError, read_bytes

_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)
_AS_UTF_8 = "save it as UTF-8"
PACKED = {
    ".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip", ".tar": "tar -xf",
    ".tgz": "tar -xf", ".7z": "7z x", ".rar": "unrar x",
}  # fmt: skip
"""Suffixes of packed files, and what unpacks them."""


def read_text(path: Path) -> str:
    """Return the text of a file; its lines end with a line feed, whatever ends them in the file.

    Raises:
        UnreadableError: it is no file, cannot be read, or is no UTF-8 text.
    """
    return decoded(read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")


def decoded(data: bytes) -> str:
    """Return bytes as text, without a byte order mark.

    Raises:
        UnreadableError: other bytes than UTF-8's (with line and byte), another encoding, or a packed file.
    """
    for mark, name in _OTHER_MARKS:
        if data.startswith(mark):
            raise UnreadableError(f"is not UTF-8 text but {name}", fix=_AS_UTF_8)
    for mark, name in _PACKED:
        if data.startswith(mark):
            raise UnreadableError(f"is not UTF-8 text but packed ({name})", fix="unpack it first")
    data = data.removeprefix(_MARK)
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        what = "holds a zero byte: it is not UTF-8 text"
        raise UnreadableError(what, line=line, fix=f"{_AS_UTF_8}, or remove it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        before = data[: problem.start]
        at = problem.start - (before.rfind(b"\n") + 1) + 1
        what = f"is not UTF-8 text (byte {at} of the line is 0x{data[problem.start]:02x})"
        raise UnreadableError(what, line=before.count(b"\n") + 1, fix=_AS_UTF_8) from problem


def shown(name: object, most: int = 300) -> str:
    """Return a name for a message: on one line, as Unicode, and not endless.

    >>> shown("tea" + chr(233) + chr(10), most=3)
    'tea...'
    """
    text = visible(str(name)[: most + 1])
    return text if len(text) <= most else f"{text[:most]}..."


def reason(problem: BaseException) -> str:
    """Return what a library says of a failure, on one line; its kind where it says nothing.

    >>> reason(ValueError("a" + chr(10) + "b"))
    'a'
    """
    lines = str(problem).strip().splitlines()
    return shown(lines[0]) if lines else type(problem).__name__


def half_character(text: str) -> str | None:
    """Return the first half of a surrogate pair in a text, as JSON writes it; None: there is none.

    >>> half_character("a" + chr(0xD800))[1:]
    'ud800'
    """
    found = re.search("[\ud800-\udfff]", text)
    return None if found is None else f"\\u{ord(found[0]):04x}"
