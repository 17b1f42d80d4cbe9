"""The documentation site: what goes on it, where its links lead, what its reference names."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds.loaded_scripts import loaded_script

import fedsim
from fedsim.cli.app import app
from fedsim.component import PACKAGES, kinds
from fedsim.config.experiment import Experiment
from fedsim.config.reference.entries import entries
from fedsim.records.tables import TABLES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site():
    with loaded_script(ROOT / "scripts" / "documentation.py", "fedsim_site") as module:
        yield module


@pytest.fixture(scope="module")
def gathered(site, tmp_path_factory):
    gathered = site.Site(tmp_path_factory.mktemp("site") / "pages")
    gathered.gather()
    return gathered


def test_every_page_of_the_documents_is_in_one_chapter(gathered):
    named = [page for pages in gathered.chapters().values() for page in pages]

    assert len(named) == len(set(named))
    every = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {"docs/index.md"}
    assert every <= set(named)


def test_links_lead_to_pages_and_what_is_no_page_stays_a_path(site, tmp_path):
    pages = {"README.md", "docs/words.md", "experiments/ptb/README.md"}

    def linked(text):
        return site.linked(text, "docs/index.md", pages)

    assert linked("[w](words.md#a)") == "[w](../docs/words.md#a)"
    assert linked("[p](../experiments/ptb)") == "[p](../experiments/ptb/README.md)"
    assert linked("[m](../Makefile)") == "m (`Makefile`)"
    assert linked("[r](https://docs.ray.io)") == "[r](https://docs.ray.io)"
    with pytest.raises(FileNotFoundError, match=r"docs/index.md: no such file: nowhere.md"):
        linked("[n](nowhere.md)")


def test_the_reference_names_every_key_kind_command_table_and_public_name(gathered):
    def page(name):
        return (gathered.source / "reference" / f"{name}.md").read_text(encoding="utf-8")

    configuration = page("configuration")
    assert [e.path for e in entries(Experiment) if "." in e.path and f"`{e.path}`" not in configuration] == []
    every = [kind for package in PACKAGES for kind in kinds(package)]
    assert [kind for kind in every if f": {kind}\n" not in page("components")] == []
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert [name for name in commands if f"## fedsim {name}\n" not in page("commands")] == []
    tables = page("tables")
    columns = [column for table in TABLES.values() for column in table]
    assert [name for name in [*TABLES, *columns] if name not in tables] == []
    assert [name for name in fedsim.__all__ if f"## {name}\n" not in page("python")] == []
