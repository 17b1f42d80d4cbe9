"""Links of the documentation site: from page to page as in the repository, to headings, and to addresses outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WRITTEN = {
    "fedsim/__init__.py": "reference/python.md",
    "fedsim/cli/app.py": "reference/commands.md",
    "fedsim/component.py": "reference/components.md",
    "fedsim/config/experiment.py": "reference/configuration.md",
    "fedsim/records/rows.py": "reference/tables.md",
}
"""Files of the code that a page of the reference is written from: links to them lead there."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
FENCED_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"https?://[^\s<>\"'`]+")


def linked(text: str, page: str, pages: set[str]) -> str:
    """Return a page's text whose links lead to pages of the site; of what is no page, the path in the repository stays.

    Raises:
        FileNotFoundError: a link leads nowhere.
    """

    def of_site(link: re.Match[str]) -> str:
        said, target, part = link[1], link[2], link[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not path.exists():
            raise FileNotFoundError(f"{page}: no such file: {target}")
        inside = path.relative_to(ROOT).as_posix()
        if inside == "docs/index.md":
            return f"[{said}]({up(page)}index.md)"
        if part and part[1:] not in anchors(read(inside)):
            raise FileNotFoundError(f"{page}: no such heading: {target}{part}")
        if not target:
            return link[0]
        written = WRITTEN.get(inside, inside)
        for known in (written, f"{inside}/README.md", f"{inside.removesuffix('.py')}.ipynb"):
            if known in pages:
                return f"[{said}]({up(page)}{known}{part})"
        return f"{said} (`{inside}`)"

    return LINK.sub(of_site, text)


def read(page: str) -> str:
    """Return the text of a page of the repository, or of its folder's README; empty if it is no page."""
    path = ROOT / page / "README.md" if (ROOT / page).is_dir() else ROOT / page
    return path.read_text(encoding="utf-8") if path.suffix == ".md" else ""


def anchors(text: str) -> set[str]:
    """Return what links to the headings of a page end with, as GitHub and MyST make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.*?) *$", FENCED_BLOCK.sub("", text), re.MULTILINE):
        plain = LINK.sub(r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def addresses(text: str) -> Iterator[str]:
    """Yield the addresses outside that a page leads to or names in its prose, without the punctuation behind them."""
    for match in ADDRESS.finditer(re.sub(r"`[^`\n]*`", "", FENCED_BLOCK.sub("", text))):
        address = match[0].rstrip(".,;:!?*|")
        while address.endswith(")") and address.count(")") > address.count("("):
            address = address[:-1].rstrip(".,;:")
        yield address


def up(page: str) -> str:
    """Return the way from a page's folder to the root."""
    return "../" * page.count("/")
