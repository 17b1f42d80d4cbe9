"""Gather the pages of the documentation and build the site: `make docs` writes build/site/index.html.

Pages keep their places, so that links between them are the same in the repository and on the site. The reference is
written anew from what it is about: settings, commands, tables, components, public names. Notebooks are not executed here:
`make notebooks` does that, once, for the tests and for the site.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from plotly.io import to_html
from plotly.offline import get_plotlyjs

import fedsim
from fedsim.cli.app import app
from fedsim.component import PACKAGES, block_of, find, kinds
from fedsim.config.experiment import Experiment
from fedsim.config.reference.attributes import prose, summary
from fedsim.config.reference.entries import Entry, entries
from fedsim.records import rows
from fedsim.records.stored.column_words import columns

ROOT = Path(__file__).parents[1]
CHAPTERS: dict[str, list[str]] = {
    "Begin": [
        "docs/quickstart.md",
        "docs/concepts.md",
        "notebooks/*.ipynb",
        "docs/coming_from.md",
        "README.md",
    ],
    "How to": [
        "docs/how_to/README.md",
        "docs/how_to/own_model.md",
        "docs/how_to/own_text.md",
        "docs/how_to/own_images.md",
        "docs/how_to/own_devices.md",
        "docs/extending.md",
        "docs/torch.md",
        "docs/how_to/tables.md",
        "docs/statistics.md",
        "docs/how_to/continue.md",
        "docs/how_to/million_clients.md",
        "docs/how_to/gpu.md",
        "docs/cluster.md",
        "docs/how_to/*.md",
    ],
    "Devices and the clock": [
        "docs/validity.md",
        "docs/devices.md",
        "docs/people.md",
        "docs/links.md",
        "docs/engine.md",
        "hetero_profiles/README.md",
    ],
    "Models and data": [
        "docs/families.md",
        "docs/lora.md",
        "docs/depth.md",
        "docs/quantised.md",
        "docs/chats.md",
        "docs/sources.md",
    ],
    "Runs": ["docs/startup.md", "docs/long_runs.md", "docs/resume.md", "docs/faults.md", "docs/*.md"],
    "Reference": ["docs/words.md", "reference/*.md", "docs/combinations.md"],
    "Results": [
        "docs/claims.md",
        "docs/simulators.md",
        "experiments/README.md",
        "experiments/*/README.md",
        "benchmarks/README.md",
        "benchmarks/*/*.md",
    ],
    "The project": [
        "DESIGN.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/threats.md",
        "tests/INDEX.md",
    ],
}
"""Pages of the site, each in the first chapter that names it."""
LEFT_OUT = {"docs/index.md"}
FRONT = "docs/site/front.md"
WRITTEN = {"fedsim/records/rows.py": "reference/tables.md"}
"""Files of the code that a page of the reference is written from: links to them lead there."""
EXECUTED = ROOT / "build" / "notebooks"
"""Notebooks with their outputs."""
FIGURE = "application/vnd.plotly.v1+json"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
FENCED_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"https?://[^\s<>\"'`]+")


@dataclass(frozen=True)
class Site:
    """Where the pages are gathered.

    Attributes:
        source: folder of the gathered pages, made anew.
        executed: folder of the notebooks with their outputs; None: without outputs.
    """

    source: Path
    executed: Path | None = None

    def gather(self) -> None:
        """Copy all pages and what they show, and write the reference, the front page, and `links.txt` beside them."""
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir(parents=True)
        shutil.copy(ROOT / "docs" / "site" / "conf.py", self.source)
        (self.source / "_static").mkdir()
        (self.source / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
        for name, text in reference():
            path = self.source / "reference" / f"{name}.md"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        chapters = self.chapters()
        pages = {page for named in chapters.values() for page in named}
        for page in pages:
            if not page.startswith("reference/"):
                self._copy(page, pages)
        (self.source / "index.md").write_text(front(chapters, pages), encoding="utf-8")
        texts = [path.read_text(encoding="utf-8") for path in self.source.rglob("*.md")]
        outside = {address for text in texts for address in addresses(text)}
        links = "".join(f"{address}\n" for address in sorted(outside))
        self.source.with_name("links.txt").write_text(links, encoding="utf-8")

    def chapters(self) -> dict[str, list[str]]:
        """Return the pages of every chapter, each page once."""
        named: set[str] = set(LEFT_OUT)
        found: dict[str, list[str]] = {}
        own = {p for patterns in CHAPTERS.values() for p in patterns if "*" not in p}
        for chapter, patterns in CHAPTERS.items():
            found[chapter] = []
            for pattern in patterns:
                base = self.source if pattern.startswith("reference/") else ROOT
                for path in sorted(base.glob(pattern)):
                    page = path.relative_to(base).as_posix()
                    if page not in named and (page == pattern or page not in own):
                        named.add(page)
                        found[chapter].append(page)
        return {chapter: pages for chapter, pages in found.items() if pages}

    def _copy(self, page: str, pages: set[str]) -> None:
        target = self.source / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if not page.endswith(".md"):
            notebook = json.loads((ROOT / page).read_text(encoding="utf-8"))
            if self.executed is not None:
                notebook = with_outputs(notebook, self.executed / target.name)
            target.write_text(json.dumps(notebook), encoding="utf-8")
            return
        text = (ROOT / page).read_text(encoding="utf-8")
        for image in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
            picture = (ROOT / page).parent / image
            if picture.is_file():
                beside = target.parent / image
                beside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, beside)
        target.write_text(linked(text, page, pages), encoding="utf-8")


def with_outputs(notebook: dict[str, list[dict]], executed: Path) -> dict[str, list[dict]]:
    """Return a notebook with its outputs, its figures drawn by the one plotly.js of the site.

    Args:
        notebook: as it is kept, without outputs.
        executed: the file of the same notebook with outputs.

    Raises:
        FileNotFoundError: there is none, or it is of other cells.
    """
    fix = "make notebooks"
    if not executed.is_file():
        raise FileNotFoundError(f"{executed}: the notebook was not executed: {fix}")
    done = json.loads(executed.read_text(encoding="utf-8"))
    if [cell["source"] for cell in done["cells"]] != [cell["source"] for cell in notebook["cells"]]:
        raise FileNotFoundError(f"{executed}: is of an older notebook: {fix}")
    script = '<script src="../_static/plotly.min.js"></script>'
    for cell in done["cells"]:
        for output in cell.get("outputs", []):
            figure = output.get("data", {}).pop(FIGURE, None)
            if figure is not None:
                plain = {name: figure[name] for name in ("data", "layout")}
                shown = to_html(
                    plain, full_html=False, include_plotlyjs=False, config={"displayModeBar": False}
                )
                output["data"] = {"text/html": script + shown}
                script = ""
    return done


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


def front(chapters: dict[str, list[str]], pages: set[str]) -> str:
    """Return the front page: what fedsim is, how to begin, where to go, and all chapters beside it."""
    lines = [linked(read(FRONT), FRONT, pages).replace(f"]({up(FRONT)}", "](")]
    for chapter, named in chapters.items():
        inside = "\n".join(page.removesuffix(".md").removesuffix(".ipynb") for page in named)
        lines += [f"```{{toctree}}\n:caption: {chapter}\n:maxdepth: 1\n:hidden:\n\n{inside}\n```", ""]
    return "\n\n".join(lines)


def reference() -> Iterator[tuple[str, str]]:
    """Yield the pages of the reference: name and text."""
    yield "configuration", configuration()
    yield "components", components()
    yield "commands", commands()
    yield "tables", tables()
    yield "python", public()


def configuration() -> str:
    """Return the page of all keys of an experiment."""
    lines = [
        "# Configuration",
        "",
        (
            "Every key of an experiment: what it means, what it takes, and what it is when it is not given. `fedsim explain KEY` prints the "
            "same. An editor with a YAML server completes and checks a file that begins with"
        ),
        "",
        "```yaml",
        "# yaml-language-server: $schema=fedsim.json",
        "```",
        "",
        "where `fedsim schema > fedsim.json` has written the schema.",
        "",
    ]
    block, kind = "", ""
    for entry in entries(Experiment):
        top = entry.path.partition(".")[0]
        if top != block:
            block, kind = top, ""
            lines += ["", f"## {block}", "", *_said(entry)]
            continue
        if entry.kind != kind and entry.path.count(".") == 1 and entry.kind:
            kind = entry.kind
            lines += ["", f"### {block}: {kind}", ""]
        lines += [f"`{entry.path}`", f": {_cell(entry)}", ""]
    return "\n".join(lines) + "\n"


def _said(entry: Entry) -> list[str]:
    return [f"{entry.meaning} Takes {entry.values}; default: `{entry.default}`.", ""]


def _cell(entry: Entry) -> str:
    """Return what is said of a key, on one line."""
    return f"{entry.meaning} *Takes* {entry.values}; *default* `{entry.default}`."


def components() -> str:
    """Return the page of all kinds of components, with what their docstrings say."""
    lines = ["# Components", "", "What `kind:` may be in each block, with equations and sources.", ""]
    for package in PACKAGES:
        block = block_of(package)
        lines += [f"## {block}", ""]
        for kind in kinds(package):
            cls = find(package, kind)
            lines += [f"### {block}: {kind}", "", f"**{summary(cls)}**", "", prose(cls), ""]
    return "\n".join(lines)


def commands() -> str:
    """Return the page of the command line: what `--help` of every command says."""
    lines = ["# Commands", ""]
    for name, command in _commands(typer.main.get_command(app), "fedsim"):
        with typer.Context(command, info_name=name) as context:  # type: ignore[attr-defined]
            lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(command: object, name: str) -> Iterator[tuple[str, object]]:
    yield name, command
    for inner, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {inner}")


def tables() -> str:
    """Return the page of the tables of a run: every column with its type, unit and meaning."""
    lines = ["# Tables", "", inspect.cleandoc(rows.__doc__ or ""), ""]
    for table, row in rows.ROWS.items():
        said = inspect.cleandoc(row.__doc__ or "").partition("\n\n")[0]
        lines += [f"## {table}.parquet", "", f"One row: {said[0].lower()}{said[1:]}", ""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.dtype} | {c.unit} | {c.meaning} |" for c in columns(table)]
        lines.append("")
    return "\n".join(lines)


def public() -> str:
    """Return the page of the public names of the package."""
    lines = [
        "# Python",
        "",
        _as_markdown(inspect.cleandoc(fedsim.__doc__ or "").partition("Public names")[0]),
        "",
    ]
    for name in sorted(fedsim.__all__):
        value = getattr(fedsim, name)
        said = inspect.getdoc(value) or ""
        head = f"fedsim.{name}" + (_signature(value) if inspect.isroutine(value) else "")
        lines += [f"## {name}", "", "```python", head, "```", "", _as_markdown(said), ""]
        if inspect.isclass(value):
            lines += _methods(name, value)
    return "\n".join(lines)


def _methods(name: str, cls: type) -> Iterator[str]:
    for method, value in vars(cls).items():
        if method.startswith("_") or not inspect.isroutine(value) or not value.__doc__:
            continue
        yield from (
            f"`{name}.{method}{_signature(value)}`",
            "",
            _as_markdown(inspect.getdoc(value) or ""),
            "",
        )


def _signature(value: object) -> str:
    try:
        return str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"


def _as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    out: list[str] = []
    section = False
    for line in docstring.splitlines():
        head = re.match(r"^(Args|Attributes|Raises|Returns|Yields|Example):$", line)
        if head:
            section = True
            out += ["", f"*{head[1]}*", ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            out.append(f"- {line.strip()}")
        elif section and line.startswith("     "):
            out.append(f"  {line.strip()}")
        else:
            section = section and not line.strip()
            out.append(line)
    return "\n".join(out)


def main() -> int:
    """Build the site; returns what sphinx-build returns: warnings are errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    parser.add_argument(
        "--gather", action="store_true", help="gather the pages, notebooks without outputs, and stop"
    )
    args = parser.parse_args()
    site = Site(ROOT / "build" / "pages", None if args.gather else EXECUTED)
    site.gather()
    if args.gather:
        return 0
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    return subprocess.call([*command, str(site.source), str(args.out)])


if __name__ == "__main__":
    sys.exit(main())
