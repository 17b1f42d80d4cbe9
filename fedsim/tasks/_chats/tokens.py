"""Examples to tokens: which of them are answers, what is cut off, and what is left out because no answer remains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Bools, Ints
from fedsim.errors import DataError, message
from fedsim.files.text_file import reason
from fedsim.tasks._chats.examples import Example
from fedsim.tasks._language.tokens import FITTING, id_type
from fedsim.training.chats.sequences import Sequences
from fedsim.training.chats.template import ANSWERS, ChatTemplate, Spans, TemplateError

if TYPE_CHECKING:
    from tokenizers import Encoding

CHUNK = 1000
"""Examples that are cut into tokens at a time."""
Write = Callable[[Example], tuple[str, Spans]]
"""An example -> its text, and where its answers are."""
Encode = Callable[[Sequence[str]], "Sequence[Encoding]"]
"""Texts -> their tokens with the characters that each stands for; special tokens are not added."""


@dataclass(frozen=True)
class Cutting:
    """How examples become tokens.

    Attributes:
        write: makes text of an example.
        encode: makes tokens of texts.
        first: token before each example, None: none; last: token behind each, which is learned, None: none.
        most: predicted tokens of an example.
        vocabulary: tokens that the model knows.
        on_answers: whether answers alone are learned, and not all tokens.
    """

    write: Write
    encode: Encode
    first: int | None
    last: int | None
    most: int
    vocabulary: int
    on_answers: bool


@dataclass(frozen=True)
class Tokenised:
    """The examples of a split as tokens.

    Attributes:
        sequences: one example a row.
        asked: tokens of each row before its last answer; -1 where that was cut.
        kept: which examples these are: others were left out.
        cut: how many examples were longer than allowed.
        lost: how many of those had no answer left, and were left out.
        empty: how many others had nothing to learn, and were left out.
        ends: tokens with which last answers end, the most frequent one first.
    """

    sequences: Sequences
    asked: Ints
    kept: list[int]
    cut: int
    lost: int
    empty: int
    ends: list[int]


@dataclass(frozen=True)
class _Row:
    """One example: ids, which are learned, and tokens before the last answer; `ids` before they are cut."""

    ids: Ints
    learned: Bools
    asked: int


def by_template(template: ChatTemplate, *, on_answers: bool) -> Write:
    """Return what writes examples by a template; where all tokens are learned, answers need not be told apart."""

    def write(example: Example) -> tuple[str, Spans]:
        try:
            return template.answers(example.turns)
        except TemplateError:
            if on_answers:
                raise
            return template.render(example.turns), []

    return write


def plainly(example: Example) -> tuple[str, Spans]:
    """Write a completion: prompt and answer, one behind the other."""
    prompt, answer = (turn["content"] for turn in example.turns)
    return prompt + answer, [(len(prompt), len(prompt) + len(answer))]


def tokenised(examples: Sequence[Example], cutting: Cutting, split: str) -> Tokenised:
    """Return the examples of a split as tokens.

    Raises:
        DataError: the template cannot write an example, a token is beyond the model's vocabulary, or no example has
            anything to learn.
    """
    rows: list[_Row] = []
    kept: list[int] = []
    cut = lost = empty = 0
    ends: dict[int, int] = {}
    for number, row in enumerate(_rows(examples, cutting, split)):
        is_long = row.ids.size > cutting.most + 1
        there = bool(row.learned[1 : cutting.most + 1].any())
        cut += is_long
        lost += is_long and not there
        empty += not is_long and not there
        if there:
            end = int(row.ids[np.flatnonzero(row.learned)[-1]])
            ends[end] = ends.get(end, 0) + 1
            rows.append(row)
            kept.append(number)
    if not rows:
        _refuse_all(split, lost, cutting.most)
    sequences = _laid_out(rows, cutting)
    asked = np.array([row.asked if row.ids.size <= cutting.most + 1 else -1 for row in rows])
    return Tokenised(sequences, asked, kept, cut, lost, empty, sorted(ends, key=lambda end: -ends[end]))


def _refuse_all(split: str, lost: int, most: int) -> None:
    if lost:
        what = f"no example of {split} has an answer left within {most} tokens"
        raise DataError(message("task.sequence", what, got=most, fix="set it to more tokens"))
    what = f"no example of {split} has tokens to learn"
    raise DataError(message("task.data", what, fix="give examples with answers"))


def _laid_out(rows: Sequence[_Row], cutting: Cutting) -> Sequences:
    """Return the rows, cut to what is allowed, as sequences."""
    most = cutting.most + 1
    lengths = np.array([min(row.ids.size, most) for row in rows])
    tokens = np.concatenate([row.ids[:most] for row in rows])
    _check_vocabulary(int(tokens.max()), cutting.vocabulary)
    places = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths.tolist()])
    learned = np.concatenate([row.learned[:most] for row in rows])
    learned &= places > 0
    return Sequences(
        tokens.astype(id_type(cutting.vocabulary)), learned, places, np.cumsum(lengths), cutting.most
    )


def _check_vocabulary(largest: int, vocabulary: int) -> None:
    if largest >= vocabulary:
        what = f"the tokenizer gives token {largest}, the model knows {vocabulary}"
        raise DataError(message("task.model", what, fix=FITTING))


def _rows(examples: Sequence[Example], cutting: Cutting, split: str) -> Iterator[_Row]:
    for at in range(0, len(examples), CHUNK):
        written = [
            _written(e, cutting, f"{split}, example {at + i}")
            for i, e in enumerate(examples[at : at + CHUNK], 1)
        ]
        try:
            encodings = cutting.encode([text for text, _ in written])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as problem:  # a panic in the Rust library is no Exception
            what = f"the tokenizer cannot encode the text ({reason(problem)})"
            fix = "give a tokenizer with a token for the unknown"
            raise DataError(message("task.model", what, fix=fix)) from problem
        for (_, spans), encoding in zip(written, encodings, strict=True):
            yield _row(
                np.array(encoding.ids, dtype=np.int64),
                np.array(encoding.offsets).reshape(-1, 2),
                spans,
                cutting,
            )


def _written(example: Example, cutting: Cutting, where: str) -> tuple[str, Spans]:
    try:
        text, spans = cutting.write(example)
    except TemplateError as problem:
        fix = "change the chat, or give another one: task.chat_template"
        raise DataError(
            message("task.format", f"{where}: the chat template refuses it: {problem}", fix=fix)
        ) from problem
    if cutting.on_answers and not spans and any(turn["role"] == ANSWERS for turn in example.turns):
        what = f"{where}: the chat template marks no answer"
        fix = "put {% generation %} around what the assistant says, or leave it out everywhere"
        raise DataError(message("task.chat_template", what, fix=fix))
    return text, spans


def _row(ids: Ints, offsets: NDArray[np.integer], spans: Spans, cutting: Cutting) -> _Row:
    """Return an example's tokens; one is of an answer if it holds a character of it."""
    starts, ends = offsets[:, 0], np.maximum(offsets[:, 1], offsets[:, 0] + 1)
    answers = np.zeros(ids.size, dtype=bool)
    asked = 0
    for start, stop in spans:
        inside = (ends > start) & (starts < stop)
        answers |= inside
        asked = int(inside.argmax()) if inside.any() else ids.size
    if cutting.first is not None:
        ids, answers, asked = np.append(cutting.first, ids), np.append(False, answers), asked + 1
    if cutting.last is not None:
        ids, answers = np.append(ids, cutting.last), np.append(answers, True)
    learned = answers if cutting.on_answers else np.ones(ids.size, dtype=bool)
    return _Row(ids, learned, asked if spans else -1)
