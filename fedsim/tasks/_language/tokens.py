"""Text to tokens, tokens to windows. A window predicts `sequence` tokens and sees one more before them.

Every unit ends with `<eos>`, which stands for its newline: it counts as one token, one word and one
byte. Words are separated by white space. A token is credited with the words and bytes that end in it,
so sums over any windows are right to a word, and over a whole split exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Bools, Ints
from fedsim.errors import DataError, message

CHUNK = 2000
FITTING = "give a folder whose tokenizer fits its model"


@dataclass(frozen=True)
class Stream:
    """All units of a split as one row of tokens.

    Attributes:
        tokens, words, bytes: per token (N,).
        ends: characters of `lines(units)` covered up to and with each token (N,).
        stops: tokens up to and with each unit (U,).
    """

    tokens: NDArray[Any]
    words: NDArray[np.int32]
    bytes: NDArray[np.int32]
    ends: Ints
    stops: Ints


@dataclass(frozen=True)
class Windows:
    """Fixed windows of tokens.

    Attributes:
        tokens: (W, sequence + 1); the first column is context, the others are predicted.
        counts: predicted tokens of each window; the rest of it is padding.
        words, bytes: what the predicted tokens stand for, each (W,).
    """

    tokens: NDArray[Any]
    counts: NDArray[np.int32]
    words: NDArray[np.int32]
    bytes: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.tokens)


def id_type(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type that holds every id."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.int32)


def tokenise(tokenizer: Any, texts: Sequence[str], eos: int, vocabulary: int) -> Stream:
    """Return the tokens of all units, each followed by `<eos>`.

    Raises:
        DataError: a token beyond the model's vocabulary, or a text that the tokenizer does not take.
    """
    parts = [_chunk(tokenizer, texts[at : at + CHUNK], eos) for at in range(0, len(texts), CHUNK)]
    largest = max(int(ids.max()) for ids, *_ in parts)
    if largest >= vocabulary:  # before they are narrowed: 65,536 would be 0
        token = str(tokenizer.convert_ids_to_tokens(largest))
        what = f"the tokenizer gives token {largest} ({token[:40]!r}), the model knows {vocabulary}"
        raise DataError(message("task.model", what, fix=FITTING))
    starts = np.cumsum([0] + [ends[-1] for _, ends, _, _, _ in parts])
    return Stream(
        np.concatenate([ids for ids, *_ in parts]).astype(id_type(vocabulary)),
        np.concatenate([words for _, _, words, _, _ in parts]).astype(np.int32),
        np.concatenate([size for _, _, _, size, _ in parts]).astype(np.int32),
        np.concatenate([ends + start for (_, ends, *_), start in zip(parts, starts, strict=False)]),
        np.cumsum(np.concatenate([lengths for *_, lengths in parts])),
    )


def lines(texts: Sequence[str]) -> str:
    """Return the units as one text; `Stream.ends` are places in it."""
    return "".join(f"{text}\n" for text in texts)


def _chunk(tokenizer: Any, texts: Sequence[str], eos: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return ids, ends, words, bytes of every token and the lengths of the units, `<eos>` included."""
    encoded = _encode(tokenizer, texts)
    lengths = np.array([len(ids) + 1 for ids, _ in encoded])
    stops = np.cumsum(lengths)
    size = np.array([len(text) + 1 for text in texts])  # the newline that <eos> stands for
    first = np.cumsum(size) - size
    ids, ends = np.full(stops[-1], eos), np.empty(stops[-1], dtype=np.int64)
    for (unit_ids, unit_ends), stop, length, start, chars in zip(
        encoded, stops, lengths, first, size, strict=True
    ):
        ids[stop - length : stop - 1] = unit_ids
        ends[stop - length : stop - 1] = unit_ends
        ends[stop - length : stop - 1] += start
        ends[stop - 1] = start + chars
    ends = np.maximum.accumulate(ends)  # a character cut into several tokens is credited to the first
    joined = lines(texts)
    code = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    space = _spaces(code)
    words = _sums(~space[:-1] & space[1:], np.minimum(ends, code.size - 1))
    total = _sums(1 + (code > 0x7F).astype(np.int64) + (code > 0x7FF) + (code > 0xFFFF), ends)
    words[stops - 1] += 1
    return ids, ends, words, total, lengths


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[tuple[list[int], NDArray[Any]]]:
    """Return ids and character ends of each text; without offsets the ends are spread evenly.

    Through transformers' own call, which knows of no truncation and no padding whatever the files of the tokenizer say.
    """
    try:
        if tokenizer.is_fast:
            batch = tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
            )
            return [
                (e.ids, np.array(e.offsets, dtype=np.int64).reshape(-1, 2)[:, 1]) for e in batch.encodings
            ]
        plain = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:  # a panic in the Rust library is no Exception
        from fedsim.files.text_file import reason  # a worker, which cuts no tokens, goes without it

        what = f"the tokenizer cannot encode the text ({reason(problem)})"
        raise DataError(
            message("task.model", what, fix="give a tokenizer with a token for the unknown")
        ) from problem
    return [
        (ids, len(text) * np.arange(1, len(ids) + 1) // max(1, len(ids)))
        for ids, text in zip(plain, texts, strict=True)
    ]


def _spaces(code: NDArray[np.uint32]) -> Bools:
    codes = np.unique(code)
    white = np.array([chr(c).isspace() for c in codes.tolist()], dtype=bool)
    return np.isin(code, codes[white])


def _sums(values: NDArray[Any], ends: Ints) -> Ints:
    """Return the sum of `values` between one token's end and the next one's."""
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.diff(total[ends], prepend=0)


def whole(stream: Stream, sequence: int, context: int) -> Windows:
    """Cut a whole split into windows without overlap; the last one is padded, so every token counts."""
    n = stream.tokens.size
    return _windows(stream, np.arange(n), -(-n // sequence), sequence, context)


def full(stream: Stream, where: Ints, sequence: int, context: int) -> Windows:
    """Cut the tokens at `where` into full windows; fewer than `sequence` tokens at the end are left out."""
    return _windows(stream, where, where.size // sequence, sequence, context)


def _windows(stream: Stream, where: Ints, count: int, sequence: int, context: int) -> Windows:
    used = where[: count * sequence]
    padding = count * sequence - used.size
    row = np.concatenate([[context], stream.tokens[used], [context] * padding]).astype(stream.tokens.dtype)
    tokens = np.lib.stride_tricks.sliding_window_view(row, sequence + 1)[::sequence].copy()
    counts = np.full(count, sequence, dtype=np.int32)
    counts[-1:] -= padding

    def added(values: NDArray[np.int32]) -> NDArray[np.int32]:
        padded = np.concatenate([values[used], np.zeros(padding, dtype=np.int32)])
        total: NDArray[np.int32] = padded.reshape(count, sequence).sum(axis=1, dtype=np.int32)
        return total

    return Windows(tokens, counts, added(stream.words), added(stream.bytes))


def joined(parts: Sequence[Windows]) -> Windows:
    """Return the windows of all parts, one after the other."""
    return Windows(
        np.concatenate([p.tokens for p in parts]),
        np.concatenate([p.counts for p in parts]),
        np.concatenate([p.words for p in parts]),
        np.concatenate([p.bytes for p in parts]),
    )


def cuts(starts: Ints, stops: Ints, unit_stops: Ints, size: int, minimum: int) -> Iterator[tuple[int, int]]:
    """Cut runs of tokens [start, stop) into blocks of about `size` tokens, at the ends of units where possible.

    Every block has at least `minimum` tokens if its run has.
    """
    slack = max(0, (size - minimum) // 2)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        places = np.linspace(start, stop, max(1, (stop - start) // size) + 1).astype(np.int64)
        inner = places[1:-1]
        near = unit_stops[np.clip(np.searchsorted(unit_stops, inner), 0, unit_stops.size - 1)]
        before = unit_stops[np.clip(np.searchsorted(unit_stops, inner) - 1, 0, unit_stops.size - 1)]
        near = np.where(np.abs(before - inner) < np.abs(near - inner), before, near)
        places[1:-1] = np.where(np.abs(near - inner) <= slack, near, inner)
        yield from zip(places[:-1].tolist(), places[1:].tolist(), strict=True)
