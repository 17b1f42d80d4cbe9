"""Pages that show how something is done are done: their files are written, their commands and blocks of Python run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fedsim.cli.app import call

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(yaml|console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("docs/quickstart.md",)


def blocks(page):
    """The language and text of each block of a page, in order."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs_from_its_top_to_its_end(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, text in blocks(page):
        if language == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", text)
            assert name, f"{page}: a block of YAML begins with the name of its file"
            Path(name[1]).write_text(text, encoding="utf-8")
        elif language == "console":
            for line in re.findall(r"^\$ fedsim (.*)$", text, re.MULTILINE):
                assert call(shlex.split(line, comments=True)) == 0, (line, capsys.readouterr().err)
        else:
            exec(compile(text, page, "exec"), names)

    assert (tmp_path / "comparison.html").stat().st_size > 10_000
    assert names["run"].info.status == "done"
