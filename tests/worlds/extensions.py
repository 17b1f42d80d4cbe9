"""The files of docs/extending.md, written out so that they can be imported and run."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
_FILE = re.compile(r"^`(?P<name>[\w.]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def files():
    """Name and text of every file on the page."""
    return {found["name"]: found["text"] for found in _FILE.finditer(PAGE.read_text(encoding="utf-8"))}


@contextmanager
def installed(folder):
    """The files in a folder on sys.path; what was imported of it is forgotten afterwards."""
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name in files():
            sys.modules.pop(name.removesuffix(".py"), None)
