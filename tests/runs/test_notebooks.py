"""Notebooks are kept as scripts and as notebooks without outputs, and the two agree; each is executed once in `make check`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jupytext
import nbformat
import plotly.graph_objects as go
import pytest
from worlds.loaded_scripts import loaded_script

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
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


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_notebook_asks_a_question_runs_something_draws_it_and_concludes(script):
    cells = jupytext.read(script).cells
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    text = [c.source for c in cells if c.cell_type == "markdown"]

    assert text[0].startswith("# ")
    assert "?" in "".join(text[:2]) or script.stem.startswith("01")
    assert "fedsim.simulate(" in code
    assert "plots." in code
    assert (
        script.stem.startswith("01")
        or text[-1].startswith("## What we have seen")
        or "\n## What we have seen" in text[-1]
    )


def test_notebooks_are_executed_once_for_tests_and_site():
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = {line.split(":")[0]: line for line in made.splitlines() if re.match(r"[\w./]+:", line)}

    assert made.count("--nbmake ") == 1
    assert "build/notebooks/.done" in rules["docs"]
    assert "build/notebooks/.done" in rules["notebooks"]
    assert 'nb_execution_mode = "off"' in (ROOT / "docs" / "site" / "conf.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def with_outputs():
    with loaded_script(ROOT / "scripts" / "documentation.py", "fedsim_site") as module:
        yield module.with_outputs


def a_notebook(*outputs):
    cell = {"cell_type": "code", "source": ["x"], "outputs": list(outputs)}
    return {"cells": [cell]}


def test_the_site_takes_outputs_and_draws_figures_with_one_program(with_outputs, tmp_path):
    figure = json.loads(go.Figure(go.Bar(x=[1], y=[2])).to_json())
    drawn = {"output_type": "display_data", "data": {"application/vnd.plotly.v1+json": figure}}
    said = {"output_type": "stream", "name": "stdout", "text": ["5 commits"]}
    (tmp_path / "a.ipynb").write_text(json.dumps(a_notebook(drawn, said, drawn)))
    one, two, three = with_outputs(a_notebook(), tmp_path / "a.ipynb")["cells"][0]["outputs"]

    assert two == said
    assert "Plotly.newPlot" in one["data"]["text/html"]
    assert "Plotly.newPlot" in three["data"]["text/html"]
    assert (one["data"]["text/html"] + three["data"]["text/html"]).count("../_static/plotly.min.js") == 1


def test_the_site_refuses_outputs_of_other_cells_and_says_what_to_do(with_outputs, tmp_path):
    (tmp_path / "a.ipynb").write_text(json.dumps(a_notebook()))
    other = {"cells": [{"cell_type": "code", "source": ["y"], "outputs": []}]}

    with pytest.raises(FileNotFoundError, match="older notebook: make notebooks"):
        with_outputs(other, tmp_path / "a.ipynb")
    with pytest.raises(FileNotFoundError, match="not executed: make notebooks"):
        with_outputs(a_notebook(), tmp_path / "b.ipynb")
