"""A sweep over draws of what is not known of the stacks: a band for every configuration, and whether their order survives."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from worlds.small_runs import EXPERIMENT, small

from fedsim.report import page
from fedsim.report.several import draws, labels


def run(name, draw, seed, perplexity, times_s=(4.0, 16.0)):
    """A run of a configuration, in a draw, that ends with a perplexity and commits at these times."""
    made = small()
    experiment = EXPERIMENT.plain() | {"name": f"{name}-{draw}-{seed}", "seed": seed}
    experiment["compute"] = experiment["compute"] | {"uncertainty": "stacks", "uncertainty_draw": draw}
    experiment["local"] = experiment["local"] | {"lr": {"a": 0.1, "b": 0.2}[name]}
    scores = made.scores.copy()
    last = (scores["version"] == 2) & (scores["split"] == "test") & (scores["metric"] == "perplexity")
    scores.loc[last, "value"] = perplexity
    commits = made.commits.assign(time_s=list(times_s))
    info = replace(made.info, seed=seed)
    return replace(made, experiment=experiment, info=info, scores=scores, commits=commits)


def text_of(runs):
    return " ".join(text for section in draws.sections(labels.compared(runs)) for text in section.text)


def cells(runs):
    return [list(row) for section in draws.sections(labels.compared(runs)) for row in section.tables[0].rows]


def test_runs_of_one_draw_have_no_band():
    runs = [run(name, 0, seed, 20.0 + seed) for name in "ab" for seed in (0, 1)]
    assert draws.sections(labels.compared(runs)) == []
    assert draws.lead(labels.compared(runs)) == ""


def test_an_order_that_is_the_same_in_every_draw_is_said_to_survive():
    runs = [run("a", d, s, 20.0 + d + s) for d in range(3) for s in range(2)]
    runs += [run("b", d, s, 25.0 + d + s) for d in range(3) for s in range(2)]
    text = text_of(runs)
    assert "lr 0.1 before lr 0.2, is the same in all 3 draws of what is not known of the stacks." in text
    assert cells(runs) == [
        ["lr 0.1", "21.5", "20.5 to 22.5", "3"],
        ["lr 0.2", "26.5", "25.5 to 27.5", "0"],
    ]
    assert "is the same in all 3 draws" in page.several(runs).lead


def test_an_order_that_changes_is_said_not_to():
    runs = [run("a", d, 0, value) for d, value in enumerate((20.0, 21.0, 30.0))]
    runs += [run("b", d, 0, 25.0) for d in range(3)]
    text = text_of(runs)
    assert "does not survive what is not known of the stacks: lr 0.1 before lr 0.2 in 2 of 3 draws" in text
    assert "best is lr 0.1 in 2 and lr 0.2 in 1" in text


def test_time_to_the_commits_that_all_have_is_compared_too():
    runs = [run("a", d, 0, 20.0, (4.0, 10.0 + d)) for d in range(2)]
    runs += [run("b", d, 0, 20.0, (4.0, 20.0 - 9.5 * d)) for d in range(2)]
    text = text_of(runs)
    assert "virtual time to 2 commits does not survive" in text
    assert "there is no order that 2 draws could change" in text  # of the perplexity: all are equal


def test_seeds_that_a_configuration_lacks_are_left_out_of_the_draw():
    runs = [run("a", d, s, 20.0 + 100 * s) for d in range(2) for s in range(2)]
    runs += [run("b", d, 0, 25.0) for d in range(2)]
    assert cells(runs)[0][1:3] == ["20", "20 to 20"]


def test_one_configuration_has_its_band():
    runs = [run("a", d, 0, 20.0 + d) for d in range(4)]
    assert "between 20 and 23 over 4 draws of what is not known of the stacks" in text_of(runs)


@pytest.mark.parametrize("commits", [0, 2])
def test_runs_without_scores_are_compared_by_their_commits_if_they_have_any(commits):
    runs = []
    for name in "ab":
        for d in range(2):
            made = run(name, d, 0, 1.0, (4.0, 10.0 + d if name == "a" else 30.0))
            empty = made.commits.iloc[:commits]
            runs.append(replace(made, scores=made.scores.iloc[:0], commits=pd.DataFrame(empty)))
    assert ("is the same in all 2 draws" in text_of(runs)) == bool(commits)
