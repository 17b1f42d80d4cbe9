"""What a low battery costs: the page says what its table of runs says, and one of its runs comes out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds.loaded_scripts import fixture_of

import fedsim
from fedsim.checks.blocks import check

FOLDER = Path(__file__).parents[2] / "experiments" / "availability"

compare = fixture_of(FOLDER / "compare.py", "compare_availability")


def test_the_page_says_what_the_runs_say(compare):
    assert "\n".join(compare.tables()) in (FOLDER / "README.md").read_text("utf-8")


def test_every_way_is_an_experiment_and_has_five_seeds(compare):
    rows = compare.read()
    for way in compare.WAYS:
        check(compare.experiment(way, 0), way)
        assert {key.seed for key in rows if key.way == way} == set(compare.SEEDS)
    assert {key.way for key in rows} == {*compare.WAYS}


def test_a_run_comes_out_as_it_stands_in_the_table(compare):
    run = fedsim.simulate(compare.experiment("pause", 1), timeline_only=True)
    found = {name: float(f"{value:.6g}") for name, value in compare.figures(run).items()}
    stored = compare.read()["availability", "pause", 1]
    assert {name: found[name] for name in stored} == stored
    assert stored["lost"] == 0 < stored["waiting"] < 100


@pytest.mark.parametrize("words", [[], ["run", "elsewhere"], ["remake"]])
def test_what_it_cannot_do_it_says(compare, capsys, words):
    assert compare.main(words) == 2
    assert "compare.py run" in capsys.readouterr().out
