"""Writes tests/INDEX.md: one sentence for each file of the tests, taken from its docstring.

python tests/index.py            tell whether the index is as the files say
python tests/index.py --write    write it anew
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent
INDEX = ROOT / "INDEX.md"
PARTS = {
    "spec": "One room at a time",
    "contracts": "What components owe each other, by discovery",
    "runs": "Whole runs, documents, and what ships beside the package",
    "slow": "What takes minutes: real transfers, clusters of Ray",
    "gpu": "Runs that need CUDA",
    "worlds": "The harness: worlds by hand, short runs, files",
    "oracles": "Closed forms and second implementations",
}


def files():
    """Every Python file of the tests but this and conftest files, by its path."""
    return sorted(path for path in ROOT.rglob("*.py") if path.name not in ("index.py", "conftest.py"))


def sentence(path):
    """The first paragraph of a file's docstring, on one line; empty if it has none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def index():
    """The text of the index."""
    lines = ["# Index of the tests", "", "Made of the files' docstrings by `python tests/index.py --write`."]
    for part, title in PARTS.items():
        lines += ["", f"## {part}: {title}"]
        room = None
        for path in files():
            place = path.relative_to(ROOT)
            if place.parts[0] != part:
                continue
            if place.parent != room:
                room = place.parent
                lines += ["", f"**{room.as_posix()}/**", ""]
            lines.append(f"- [{path.stem}]({place.as_posix()}): {sentence(path)}")
    return "\n".join(lines) + "\n"


def main(words):
    """Write or compare; returns the exit status."""
    if "--write" in words:
        INDEX.write_text(index(), encoding="utf-8")
        return 0
    is_fresh = INDEX.is_file() and INDEX.read_text(encoding="utf-8") == index()
    print("as the files say" if is_fresh else "out of date: python tests/index.py --write")
    return 0 if is_fresh else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
