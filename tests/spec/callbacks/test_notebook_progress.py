"""Progress in a notebook: a line for a run, which says how far it is and, at the end, how it went."""

from __future__ import annotations

import re

import IPython
import pytest
from worlds.small_runs import EXPERIMENT

import fedsim
from fedsim.callbacks import Committed, RunBegun, RunEnded, Scored, Scoring, Starting
from fedsim.callbacks.notebook import NotebookProgress, in_notebook, with_bar
from fedsim.errors import ExperimentError


class ZMQInteractiveShell:
    """What runs the cells of a notebook."""


class Shell(ZMQInteractiveShell):
    """A kernel of another maker."""


class TerminalInteractiveShell:
    """IPython on a terminal."""


@pytest.fixture
def lines(monkeypatch):
    """What stands under a cell: a list of what was written, one a line."""
    written = []

    class Paper:
        def __init__(self):
            written.append([])

        def write(self, html, text):
            written[-1].append((html, text))

    monkeypatch.setattr("fedsim.callbacks.notebook.Line", Paper)
    monkeypatch.setattr("fedsim.callbacks.notebook.ANEW_S", 0.0)
    return written


def begun(**changes):
    facts = {
        "name": "mine",
        "folder": None,
        "clients": 4,
        "workers": 1,
        "budget": {"commits": 4},
        "settings": {},
    }
    return RunBegun(**{**facts, **changes})


@pytest.mark.parametrize(
    ("shell", "is_one"),
    [(ZMQInteractiveShell, True), (Shell, True), (TerminalInteractiveShell, False), (type(None), False)],
)
def test_a_notebook_is_told_by_its_kernel(monkeypatch, shell, is_one):
    monkeypatch.setattr(IPython, "get_ipython", shell)

    assert in_notebook() is is_one
    assert [type(callback) for callback in with_bar([], progress=True)] == [NotebookProgress] * is_one


def test_there_is_one_bar_and_none_where_it_is_not_wanted(monkeypatch):
    monkeypatch.setattr(IPython, "get_ipython", ZMQInteractiveShell)
    mine = NotebookProgress()

    assert with_bar([mine], progress=True) == [mine]
    assert with_bar([], progress=False) == []


@pytest.mark.parametrize("given", [NotebookProgress, NotebookProgress()], ids=["class", "instance"])
def test_a_callback_without_its_list_is_refused_with_the_list(given):
    with pytest.raises(ExperimentError, match="callbacks: must be a list") as refused:
        fedsim.simulate(EXPERIMENT, timeline_only=True, callbacks=given)

    assert refused.value.message.fix == "write callbacks=[NotebookProgress()]"


def test_the_line_says_share_time_version_score_and_what_is_waited_for(lines):
    bar = NotebookProgress()
    bar.on_begin(begun())
    bar.on_commit(Committed(version=1, time_s=3600.0, updates=2, mean_staleness=0.0))
    bar.on_score(Scored(version=1, time_s=3600.0, split="valid", metrics={"loss": 9.0}))
    bar.on_score(Scored(version=1, time_s=3600.0, split="test", metrics={"perplexity": 31.25, "loss": 3.0}))
    bar.on_scoring(Scoring(version=1, split="samples", done=3, of=50))
    (written,) = lines

    assert written[0][1] == "mine: 0 % | t=0s | v0"
    assert written[-1][1] == "mine: 25.0 % | t=1h | v1 | perplexity 31.25 | scoring v1: 3 of 50 of samples"
    assert 'value="0.250"' in written[-1][0]


def test_the_last_line_says_how_the_run_ended_and_has_no_bar(lines):
    bar = NotebookProgress()
    bar.on_begin(begun())
    bar.on_end(RunEnded("failed", reason="client <7> failed", time_s=60.0, version=2))
    html, text = lines[0][-1]

    assert re.fullmatch(r"mine: failed: client <7> failed \| t=1m \| v2 \| [\d.]+s here", text)
    assert "<progress" not in html
    assert "client &lt;7&gt;" in html


def test_a_run_has_a_line_of_its_own_which_ray_opens(lines):
    bar = NotebookProgress()
    for _ in range(2):
        bar.on_starting(Starting("ray"))
        bar.on_begin(begun())
        bar.on_end(RunEnded("done"))

    assert len(lines) == 2
    assert lines[0][0][1].startswith("starting Ray")


def test_simulate_shows_it_in_a_notebook_and_nothing_elsewhere(lines, monkeypatch, capsys):
    settings = EXPERIMENT.plain() | {"local": {"optimizer": "sgd", "lr": 0.1}}
    fedsim.simulate(settings, timeline_only=True)
    assert lines == []

    monkeypatch.setattr(IPython, "get_ipython", ZMQInteractiveShell)
    fedsim.simulate(settings, timeline_only=True, progress=False)
    assert lines == []
    run = fedsim.simulate(settings, timeline_only=True)
    (written,) = lines
    assert f"| v{len(run.commits)} |" in written[-1][1]
    assert written[-1][1].startswith("small: done | t=30s")
    assert capsys.readouterr() == ("", "")
