"""The pages of the documentation as data: their blocks, the files that they show, the commands that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTPUTS = {"runs", "data", "build", "dist"}
LANGUAGES = {"console", "python", "yaml", "json", "csv", "jinja", "text"}
"""What a block may be; `text` is what a program prints."""
_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_ABOVE = re.compile(r"`([\w.-]+\.\w+)`\s*\Z")
_FIRST = re.compile(r"# ([\w.-]+\.(?:yaml|py))\n")
_LOOP = re.compile(r"^for (\w+) in ([^;]*); do\n(.*?)^ *done$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of the page from the root of the repository.
        line: of its fence.
        language: what it is written in.
        text: what is in it.
        name: of the file that it shows, as the line above or its first line says; empty if of none.
    """

    page: str
    line: int
    language: str
    text: str
    name: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """All pages in the repository."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.md")
        if not any(part in OUTPUTS or part.startswith(".") for part in path.relative_to(ROOT).parent.parts)
    )


@cache
def prose(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """The blocks of a page, from its top to its end."""
    text, found = prose(page), []
    for match in _FENCE.finditer(text):
        named = _ABOVE.search(text[: match.start()]) or _FIRST.match(match[2])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1], match[2], named[1] if named else ""))
    return tuple(found)


def every(language: str) -> list[Block]:
    """The blocks of one language, on all pages."""
    return [block for page in pages() for block in blocks(page) if block.language == language]


def write_files(page: str, folder: Path) -> None:
    """Write the files that a page shows into a folder."""
    for block in blocks(page):
        if block.name:
            (folder / block.name).write_text(block.text, encoding="utf-8")


def lines_of(block: Block) -> list[str]:
    """The lines that a console block has somebody type, continued ones joined; what is printed is left out."""
    typed, found = False, []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
            typed = _goes_on(found[-1])
        elif typed:
            found[-1] += f"\n{line}"
            typed = _goes_on(found[-1])
    return [re.sub(r"\\\n\s*", "", line) for line in found]


def _goes_on(line: str) -> bool:
    opened = re.search(r"\bdo\n?", line) is not None and not line.rstrip().endswith("done")
    return opened or line.rstrip().endswith("\\")


def commands(line: str) -> Iterator[list[str]]:
    """Yield the words of every simple command in a line: loops unrolled, variables before it and files behind it left out."""
    loop = _LOOP.match(line)
    if loop:
        for value in loop[2].split():
            body = loop[3].replace(f"${{{loop[1]}}}", value).replace(f"${loop[1]}", value)
            for inner in body.strip().splitlines():
                yield from commands(inner)
        return
    words = shlex.split(line, comments=True)
    for at in reversed([at for at, word in enumerate(words) if word in (">", ">>", "2>")]):
        del words[at : at + 2]
    ends = [-1, *(at for at, word in enumerate(words) if word in ("|", "&&", ";")), len(words)]
    for begin, end in pairwise(ends):
        simple = words[begin + 1 : end]
        while simple and re.fullmatch(r"[A-Z_]+=.*", simple[0]):
            simple.pop(0)
        if simple:
            yield simple


def of_fedsim(page: str) -> Iterator[tuple[Block, list[str]]]:
    """Yield the arguments of every `fedsim ...` in the console blocks of a page."""
    for block in blocks(page):
        for line in lines_of(block) if block.language == "console" else ():
            yield from ((block, words[1:]) for words in commands(line) if words[0] == "fedsim")


def spans(page: str) -> set[str]:
    """What stands between backticks in the prose of a page."""
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", _FENCE.sub("", prose(page))))
