"""Notebooks are kept as scripts and as notebooks without outputs, and the two agree."""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_every_notebook_has_its_script():
    assert SCRIPTS
    assert [p.stem for p in sorted(FOLDER.glob("*.ipynb"))] == [p.stem for p in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_notebook_has_the_cells_of_its_script_and_no_outputs(script):
    kept = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    written = jupytext.read(script)

    assert [(c.cell_type, c.source) for c in kept.cells] == [(c.cell_type, c.source) for c in written.cells]
    code = [c for c in kept.cells if c.cell_type == "code"]
    assert all(c.outputs == [] and c.execution_count is None for c in code)
