"""Gather the pages of the documentation and build the site: `make docs` writes build/site/index.html.

Pages keep their places, so that links between them are the same in the repository and on the site. The reference is
written anew from what it is about: settings, commands, tables, components, public names. Notebooks are not executed here:
`make notebooks` does that, once, for the tests and for the site.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from plotly.io import to_html
from plotly.offline import get_plotlyjs

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))  # under PYTHONSAFEPATH Python does not look beside a script

from site_links import addresses, linked, read, up  # noqa: E402
from site_reference import reference  # noqa: E402

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
        "docs/sweeps.md",
        "docs/targets.md",
        "docs/trackers.md",
        "docs/how_to/continue.md",
        "docs/how_to/million_clients.md",
        "docs/how_to/gpu.md",
        "docs/cluster.md",
        "docs/callbacks.md",
        "docs/json.md",
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
TITLES = {
    "README.md": "All of it on one page",
    "hetero_profiles/README.md": "Tables of devices and networks",
    "benchmarks/fidelity/README.md": "The clock beside real transfers",
    "benchmarks/devices/README.md": "How fast devices train",
}
"""What the contents call a page whose own title says less there."""
EXECUTED = ROOT / "build" / "notebooks"
"""Notebooks with their outputs."""
FIGURE = "application/vnd.plotly.v1+json"


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


def front(chapters: dict[str, list[str]], pages: set[str]) -> str:
    """Return the front page: what fedsim is, how to begin, where to go, and all chapters beside it."""
    lines = [linked(read(FRONT), FRONT, pages).replace(f"]({up(FRONT)}", "](")]
    for chapter, named in chapters.items():
        inside = "\n".join(map(_entry, named))
        lines += [f"```{{toctree}}\n:caption: {chapter}\n:maxdepth: 1\n:hidden:\n\n{inside}\n```", ""]
    return "\n\n".join(lines)


def _entry(page: str) -> str:
    """Return a page's line of the contents."""
    plain = page.removesuffix(".md").removesuffix(".ipynb")
    return f"{TITLES[page]} <{plain}>" if page in TITLES else plain


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
