"""The documents name what there is: files, links, commands, names of the code, the version."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from worlds.rooms import FLOOR

import fedsim
from fedsim.checks.gate import admit
from fedsim.cli.app import app

ROOT = Path(__file__).parents[2]
OUTPUTS = {"runs", "data", "build", "dist"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part in OUTPUTS or part.startswith(".") for part in page.relative_to(ROOT).parts[:-1])
)
DOCUMENTS = [*PAGES, ROOT / "NOTICE", ROOT / "CITATION.cff"]
EXAMPLES = {"fedsim/aggregators/my_rule.py", "benchmarks/.venvs"}
"""Paths of what a reader would make."""

PATH = re.compile(
    r"(?<![\w/.-])(?:fedsim|tests|docs|scripts|benchmarks|experiments|hetero_profiles|notebooks)/[\w./-]*\w"
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
MADE = re.compile(r"`make (\w+)`|^\$ make (\w+)", re.MULTILINE)
COMMAND = re.compile(r"(?:`|^\$ )fedsim ([a-z]+)", re.MULTILINE)
NAME = re.compile(r"`(fedsim(?:\.\w+)+)`")


def text(path):
    return path.read_text(encoding="utf-8")


def named(path):
    return path.relative_to(ROOT).as_posix()


def without_history(path):
    """A document without what it says of former times."""
    return text(path).partition("## 0.1.0")[0] if path.name == "CHANGELOG.md" else text(path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_files_and_links_that_are_named_exist(document):
    paths = {match.rstrip(".") for match in PATH.findall(without_history(document))} - EXAMPLES
    links = set(LINK.findall(text(document)))

    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert [link for link in sorted(links) if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_are_named_exist(page):
    targets = set(re.findall(r"^(\w+):", text(ROOT / "Makefile"), re.MULTILINE))

    assert {a or b for a, b in MADE.findall(text(page))} <= targets
    assert {*COMMAND.findall(text(page))} <= {*get_command(app).commands}


def leads_somewhere(name):
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name) is not None
    except ImportError:
        return bool(module) and hasattr(importlib.import_module(module), attribute)


FORMER = {
    "fedsim.config.schema",
    "fedsim.devices.measured_speeds",
    "fedsim.experiment",
    "fedsim.simulation",
    "fedsim.run",
    "fedsim.verify",
    "fedsim.profiles",
    "fedsim.combinations",
}
"""Modules that the changelog says have moved."""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_of_the_code_exist(page):
    names = {*NAME.findall(without_history(page))} - (FORMER if page.name == "CHANGELOG.md" else set())

    assert [name for name in sorted(names) if not leads_somewhere(name)] == []


def test_the_index_leads_to_every_page():
    links = {(ROOT / "docs" / link).resolve() for link in LINK.findall(text(ROOT / "docs" / "index.md"))}
    folders = (ROOT, ROOT / "docs", ROOT / "docs" / "how_to")
    pages = {page for page in PAGES if page.parent in folders} - {ROOT / "docs" / "index.md"}

    assert pages <= links


def test_as_many_rooms_are_counted_as_there_are():
    rooms = sum((ROOT / "fedsim" / name / "__init__.py").is_file() for name in FLOOR)

    assert f"fedsim is {rooms} rooms" in text(ROOT / "README.md")
    assert f"`fedsim/` is {rooms} rooms" in text(ROOT / "DESIGN.md")


SNIPPETS = re.findall(r"^```yaml\n(.*?)^```", text(ROOT / "README.md"), re.MULTILINE | re.DOTALL)
WHOLE = {
    "population": {"preset": "homogeneous", "clients": 20},
    "task": {"kind": "language"},
    "budget": {"commits": 1},
}
"""What a snippet that shows some blocks is part of."""


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_what_the_readme_shows_passes_the_gate(snippet):
    shown = yaml.safe_load(snippet)

    assert admit(fedsim.Experiment.model_validate({**WHOLE, **shown})) is not None


def test_the_readme_shows_an_experiment_and_parts_of_some():
    assert len(SNIPPETS) >= 3
    assert [s for s in SNIPPETS if WHOLE.keys() <= yaml.safe_load(s).keys()]


def test_the_version_is_the_same_everywhere():
    assert yaml.safe_load(text(ROOT / "CITATION.cff"))["version"] == fedsim.__version__
    assert re.findall(r"^## (\S+)", text(ROOT / "CHANGELOG.md"), re.MULTILINE)[0] == fedsim.__version__


def test_the_hooks_are_the_tools_that_check_runs():
    hooks = yaml.safe_load(text(ROOT / ".pre-commit-config.yaml"))["repos"][0]["hooks"]
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}

    assert tools == set(re.findall(r"\$\(BIN\)/(ruff|mypy)", text(ROOT / "Makefile")))
