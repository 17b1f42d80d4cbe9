"""The files of docs/extending.md and docs/torch.md, written out so that they can be imported and run."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
_FILE = re.compile(r"^`(?P<name>[\w.]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


_SEAM = re.compile(r"^(class \w+)\((?:Aggregator|ServerProtocol|Sampler)\):", re.MULTILINE)


def files(page=PAGE):
    """Name and text of every file on the page."""
    return {match["name"]: match["text"] for match in _FILE.finditer(page.read_text(encoding="utf-8"))}


def plain(text):
    """A file of the page whose class derives from `Component` alone, with the name that an invitation had before."""
    derived, changed = _SEAM.subn(r"\1(Component):", text.replace("Invitation", "Ask"))
    first = "from fedsim.component import Component\nfrom fedsim."
    return derived.replace("from fedsim.", first, 1) if changed else text


@contextmanager
def installed(folder, form=str, page=PAGE):
    """The files in a folder on sys.path; what was imported of it is forgotten afterwards, and what was there is back."""
    before = {name: sys.modules.pop(name, None) for name in (n.removesuffix(".py") for n in files(page))}
    for name, text in files(page).items():
        (folder / name).write_text(form(text), encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
