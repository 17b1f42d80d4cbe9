"""What takes long on the pages: examples with models are run, the experiments' commands read, Ray's own parsed by Ray."""

from __future__ import annotations

import pytest
from worlds import page_checks as checks
from worlds.page_runs import ELSEWHERE, PLAYED_SLOWLY, importable, play
from worlds.pages import blocks, commands, every, lines_of, of_fedsim, pages, write_files

import fedsim

pytestmark = pytest.mark.slow
WITHOUT_FOLDERS = {"docs/callbacks.md", "docs/how_to/editor.md"}
"""Pages that leave no run folder."""


@pytest.mark.parametrize("page", PLAYED_SLOWLY)
def test_what_a_page_shows_runs_from_its_top_to_its_end(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play(page, tmp_path)

    runs = [fedsim.load(path.parent) for path in tmp_path.rglob("run.json")]
    assert runs or page in WITHOUT_FOLDERS
    assert {run.info.status for run in runs} <= {"done"}


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("experiments/")])
def test_what_the_experiments_say_to_run_passes_the_gate(page, tmp_path):
    for _, args in of_fedsim(page):
        checks.accepted(args, tmp_path)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_shows_a_user_s_own_code_passes_the_gate(page, tmp_path):
    write_files(page, tmp_path)
    with importable(tmp_path):
        for block in blocks(page):
            if block.language == "yaml":
                checks.yaml_accepted(block, tmp_path)


def test_what_is_said_to_ray_is_what_ray_takes():
    from ray.scripts.scripts import cli

    lines = [
        line for block in every("console") for line in lines_of(block) if line.startswith(("ray ", "RAY_"))
    ]
    for line in lines:
        for _, *words in commands(line):
            command = cli
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            assert command is not cli, line
            command.make_context(line, words)
    assert len(lines) >= 4
