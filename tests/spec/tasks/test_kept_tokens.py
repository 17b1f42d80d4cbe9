"""Tokens of a long text are kept for the next run, by what they depend on; what is not whole is made anew."""

from dataclasses import fields
from pathlib import Path

import pytest

from fedsim.tasks._language import kept_tokens
from fedsim.tasks._language.kept_tokens import tokenised
from fedsim.tasks._language.tokens import Stream, tokenise
from fedsim.training.direct.tokenizer import tokenizer_of

TEXTS = ["the ship sails", "", "two  spaces\tand a tab", "éÉ 漢😀 and more", "x" * 300]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_tokens, "FEWEST", 1)
    return tmp_path / "cache" / "fedsim"


@pytest.fixture
def cut(llama, monkeypatch):
    """The tokens of some texts, and how often a text was really cut."""
    tokenizer, calls = tokenizer_of(Path(llama)), []

    def counted(*given):
        calls.append(given)
        return tokenise(*given)

    monkeypatch.setattr(kept_tokens, "tokenise", counted)
    return lambda texts=TEXTS, vocabulary=320: (tokenised(tokenizer, texts, 1, vocabulary), len(calls))


def assert_same(stream, other):
    for one in fields(Stream):
        a, b = vars(stream)[one.name], vars(other)[one.name]
        assert a.dtype == b.dtype
        assert a.tolist() == b.tolist()


def test_tokens_that_were_kept_are_those_that_were_cut(place, cut):
    (first, once), (second, twice) = cut(), cut()

    assert (once, twice) == (1, 1)
    assert len(list(place.iterdir())) == 1
    assert_same(first, second)


def test_another_text_or_vocabulary_has_a_file_of_its_own(place, cut):
    cut()
    cut([*TEXTS, "more"])
    cut(["the ship sail", *TEXTS[1:]])

    assert cut(vocabulary=321)[1] == 4
    assert len(list(place.iterdir())) == 4


def spoil(kept, **changes):
    """Write a file with arrays changed by functions of them; one that gives None leaves it out."""
    stored = kept_tokens._unpacked(kept.read_bytes())
    arrays = {name: changes.get(name, lambda same: same)(array) for name, array in stored.items()}
    kept.write_bytes(kept_tokens.packed({name: array for name, array in arrays.items() if array is not None}))


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.write_bytes(kept.read_bytes()[:200]),
        lambda kept: kept.write_bytes(b""),
        lambda kept: kept.write_bytes(kept.read_bytes() + b"more"),
        lambda kept: kept.write_bytes(kept.read_bytes().replace(b"|u1", b"|O1")),
        lambda kept: kept.write_bytes(b"[1, 2]\n"),
        lambda kept: kept.write_bytes(b'{"tokens": 3}\n'),
        lambda kept: spoil(kept, tokens=lambda _: None),
        lambda kept: spoil(kept, tokens=lambda tokens: tokens + 320),
        lambda kept: spoil(kept, words=lambda words: words[:3]),
        lambda kept: spoil(kept, units=lambda units: units[:2]),
        lambda kept: spoil(kept, units=lambda units: units[:0]),
    ],
)
def test_a_file_that_is_not_whole_is_made_anew(place, cut, change):
    expected, _ = cut()
    (kept,) = place.iterdir()
    change(kept)

    stream, calls = cut()
    assert_same(stream, expected)
    assert calls == 2
    assert cut()[1] == 2


def test_a_folder_that_cannot_be_written_is_done_without(place, cut):
    place.parent.mkdir()
    place.write_text("in the way")

    assert cut()[1] == 1
    assert cut()[1] == 2


def test_short_texts_are_cut_each_time(place, cut, monkeypatch):
    monkeypatch.setattr(kept_tokens, "FEWEST", 10_000)
    cut()

    assert cut()[1] == 2
    assert not place.exists()
