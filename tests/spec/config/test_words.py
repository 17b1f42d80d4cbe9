"""A field that takes a word or a file: what is neither is told the nearest word, or what the file must have."""

from __future__ import annotations

import pytest

from fedsim.config.experiment import Experiment
from fedsim.config.words import COLUMNS, WORDS, no_such_file
from fedsim.errors import ExperimentError


@pytest.mark.parametrize(
    ("field", "word"), [(field, word) for field, words in WORDS.items() for word in words]
)
def test_words_are_no_files(field, word):
    assert no_such_file(field, word) is None


@pytest.mark.parametrize("field", WORDS)
def test_a_file_that_is_there_is_fine_and_one_that_is_not_is_told_its_columns(field, tmp_path):
    path = tmp_path / "zzz.csv"
    problem = no_such_file(field, str(path))
    assert (problem.name, problem.what, problem.got) == (field, "no such file", str(path))
    assert problem.fix == f"write {', '.join(WORDS[field])}, or the file of a table with {COLUMNS[field]}"
    path.touch()
    assert no_such_file(field, str(path)) is None


def test_a_word_with_a_letter_missing_is_told_the_word():
    assert no_such_file("population.availability", "chargin").fix == "did you mean 'charging'?"


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ({"compute": {"thermal": {"power_exponent": "much"}}}, "compute.thermal.power_exponent"),
        ({"task": {"kind": "language", "quantise": {"kind": "nf4", "block": 8}}}, "task.quantise.block"),
        ({"compute": {"thermal": {"ambient": 1}}}, "compute.thermal.ambient"),
    ],
)
def test_of_a_block_that_may_also_be_a_word_only_what_is_wrong_in_it_is_said(block, key):
    plain = {
        "population": {"preset": "homogeneous", "clients": 20},
        "task": {"kind": "quadratic"},
        "budget": {"commits": 1},
    }

    with pytest.raises(ExperimentError) as refused:
        Experiment.model_validate({**plain, **block})
    assert [refused.value.message.where, *refused.value.message.others] == [f"experiment: {key}"]
