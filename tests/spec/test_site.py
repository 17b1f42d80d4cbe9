"""The documentation site: what goes on it, where its links lead, what its reference names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from worlds.loaded_scripts import loaded_script

import fedsim
from fedsim.cli.app import app
from fedsim.component import PACKAGES, kinds
from fedsim.config.experiment import Experiment
from fedsim.config.reference.entries import entries
from fedsim.records.rows import CAUSES, OUTCOMES
from fedsim.records.stored.column_words import columns
from fedsim.records.tables import TABLES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site():
    with loaded_script(ROOT / "scripts" / "documentation.py", "fedsim_site") as module:
        yield module


@pytest.fixture(scope="module")
def links(site):
    """The script beside it that knows links."""
    return importlib.import_module("site_links")


@pytest.fixture(scope="module")
def gathered(site, tmp_path_factory):
    gathered = site.Site(tmp_path_factory.mktemp("site") / "pages")
    gathered.gather()
    return gathered


def test_every_page_of_the_documents_is_in_one_chapter(site, gathered):
    named = [page for pages in gathered.chapters().values() for page in pages]

    assert len(named) == len(set(named))
    every = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    every -= {"docs/index.md", site.FRONT}
    assert every <= set(named)


def test_links_lead_to_pages_and_what_is_no_page_stays_a_path(site, tmp_path):
    pages = {"README.md", "docs/words.md", "experiments/ptb/README.md"}

    def linked(text):
        return site.linked(text, "docs/index.md", pages)

    assert linked("[w](words.md#a-visit)") == "[w](../docs/words.md#a-visit)"
    assert linked("[t](../fedsim/records/rows.py)") == "t (`fedsim/records/rows.py`)"
    pages.add("reference/tables.md")
    assert linked("[t](../fedsim/records/rows.py)") == "[t](../reference/tables.md)"
    assert linked("[p](../experiments/ptb)") == "[p](../experiments/ptb/README.md)"
    assert linked("[m](../Makefile)") == "m (`Makefile`)"
    assert linked("[r](https://docs.ray.io)") == "[r](https://docs.ray.io)"
    with pytest.raises(FileNotFoundError, match=r"docs/index.md: no such file: nowhere.md"):
        linked("[n](nowhere.md)")
    with pytest.raises(FileNotFoundError, match=r"docs/index.md: no such heading: words.md#nothing"):
        linked("[n](words.md#nothing)")


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
    assert [name for name in TABLES if f"## {name}.parquet\n" not in tables] == []
    written = [line.split(" | ") for line in tables.splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in written] == [c for table in TABLES.values() for c in table]
    assert all(len(cell.strip("| ")) > 0 for row in written for cell in row)
    assert [name for name in fedsim.__all__ if f"## {name}\n" not in page("python")] == []


PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(
        part in ("runs", "data", "build", "dist") or part[0] == "." for part in path.relative_to(ROOT).parts
    )
)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_headings_that_there_are_and_addresses_are_well_formed(links, page):
    name = page.relative_to(ROOT).as_posix()
    links.linked(links.read(name), name, set())

    for address in links.addresses(links.read(name)):
        parts = urlsplit(address)
        assert parts.scheme == "https", address
        assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), address
        assert re.fullmatch(r"[\w./~%#?=&+:,@()-]*", address.partition(parts.netloc)[2]), address


def test_links_of_gathered_pages_lead_to_gathered_pages(gathered):
    wrong = []
    for page in gathered.source.rglob("*.md"):
        for target in re.findall(r"(?<!!)\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                wrong.append(f"{page.relative_to(gathered.source)}: {target}")

    assert wrong == []


def test_addresses_outside_are_listed_beside_the_pages(gathered):
    listed = gathered.source.with_name("links.txt").read_text(encoding="utf-8").split()

    assert "https://docs.ray.io" in listed
    assert listed == sorted(set(listed))


def test_anchors_are_made_as_github_makes_them(links):
    text = "# A `b`: c, d?\n## Same\n## Same\n```python\n# no heading\n```\n### [x](y.md) ..."

    assert links.anchors(text) == {"a-b-c-d", "same", "same-1", "x-"}
    assert list(links.addresses("see https://a.b/c_(d), (https://e.f/g). `https://no.no`")) == [
        "https://a.b/c_(d)",
        "https://e.f/g",
    ]


def test_the_glossary_has_every_outcome_and_cause_and_what_is_read_in_tables_and_keys(site):
    text = site.read("docs/words.md")
    words = {
        word.strip(" `")
        for line in text.splitlines()
        if line.startswith("| ")
        for word in line.split("|")[1].split(",")
    }

    assert {*OUTCOMES} <= words
    assert [cause for cause in CAUSES if f"`{cause}`" not in text] == []
    asked = {
        "visit",
        "tier",
        "tokens per visit",
        "once per buffer",
        "away",
        "order",
        "cohort",
        "over-select",
        "staleness",
    }
    assert asked <= words


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning_and_every_number_a_unit(table):
    said = columns(table)

    assert [c.name for c in said] == [*TABLES[table]]
    assert [c.name for c in said if not (c.meaning and c.unit)] == []
    assert [c.name for c in said if c.dtype == "float64" and c.unit in ("whole number", "text")] == []


def test_units_of_some_columns_by_hand():
    units = {c.name: c.unit for table in TABLES for c in columns(table)}
    meanings = {c.name: c.meaning for c in columns("visits")}

    assert units["up_radio_j_per_byte"] == "J/byte"
    assert (units["landed_s"], units["gross_joules"], units["down_bytes_per_s"]) == ("s", "J", "bytes/s")
    assert (units["work_share"], units["client"], units["unseen"]) == (
        "share of 1",
        "whole number",
        "true or false",
    )
    assert meanings["order"] == "its place among all dispatches of the run, from 0"
    assert meanings["away"].startswith("why its device went away last")
