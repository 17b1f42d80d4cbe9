"""Names of splits: whole words between separators, the same for files, folders and the hub; and whose a file is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import DataError
from fedsim.tasks._split_names import SPLIT_WORDS, matched, owner_of, split_called, split_of, splits_named

WORDS = [(split, word) for split, words in SPLIT_WORDS.items() for word in words]


@pytest.mark.parametrize(("split", "word"), WORDS)
def test_every_word_is_known_between_separators_and_in_no_other_word(split, word):
    for name in (
        word,
        word.upper(),
        f"a.{word}.txt",
        f"{word}-00000-of-00001.parquet",
        f"x_{word.title()}_2.csv",
        f"{word}2",
    ):
        assert splits_named(name) == {split}
    for name in (f"con{word}.txt", f"{word}s.txt", f"{word}ling", f"é{word}"):
        assert splits_named(name) == set()


@given(before=st.text(alphabet="ab._-0 é", max_size=3), after=st.text(alphabet="ab._-0 é", max_size=3))
def test_a_word_is_one_if_no_letter_touches_it(before, after):
    touched = before[-1:].isalpha() or after[:1].isalpha()
    assert splits_named(f"{before}test{after}") == (set() if touched else {"test"})


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.txt", "train"), ("TRAIN.TXT", "train"), ("contest.txt", None), ("constraints.txt", None),
        ("penn/validation/0000.parquet", "valid"), ("dev.csv", "valid"), ("eval/a.txt", "valid"),
        ("train/test of time.txt", "train"), ("alice/train.txt", "train"), ("test/test.txt", "test"),
        ("wiki.valid.tokens", "valid"), ("latest/news.txt", None), ("train/2019/trainees.txt", "train"),
    ],
)  # fmt: skip
def test_the_split_of_a_path(path, split):
    assert split_of(path.split("/"), path) == split


@pytest.mark.parametrize(
    "path", ["train_and_test.txt", "dev/train.txt", "train/val/a.txt", "train/test-0.txt"]
)
def test_a_path_that_names_several_splits_is_refused(path):
    with pytest.raises(DataError, match="one file names several splits"):
        split_of(path.split("/"), path)


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("alice/train.txt", "alice"), ("train/alice.txt", "alice"), ("train/alice/1.txt", "alice"),
        ("alice/train/1.txt", "alice"), ("alice_train.txt", "alice"), ("train-alice.txt", "alice"),
        ("alice.train.2.txt", "alice-2"), ("train.txt", "train"), ("en/alice/train.txt", "en/alice"),
        ("constraints.txt", "constraints"),
    ],
)  # fmt: skip
def test_whose_a_file_is(path, owner):
    assert owner_of(path.split("/")) == owner


def test_a_name_that_is_a_split_and_nothing_else():
    assert [split_called(n) for n in ("Test", "test 2", "test_tubes", "", "contest")] == [
        "test",
        "test",
        None,
        None,
        None,
    ]


def test_splits_on_the_hub_have_their_exact_names_the_usual_one_first():
    names = ["train", "validation", "val", "test", "unsupervised", "test_sft"]
    assert matched(names) == {"train": "train", "valid": "validation", "test": "test"}
    assert matched(["training", "dev"]) == {"train": "training", "valid": "dev"}
