"""The names of splits, one list for text, images and the hub: whole words between separators, never parts of words."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from fedsim.errors import DataError, message

SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""Split -> what it may be called, the usual name first."""

_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_WORD = re.compile(r"[^\W\d_]+")
"""Letters; digits, dots, dashes, underscores and spaces stand between words."""


def splits_named(name: str) -> set[str]:
    """Return the splits that the name of a file or folder has as a word of its own.

    >>> [sorted(splits_named(name)) for name in ("tiny.Train-00001.txt", "contest.txt", "constraints", "dev2")]
    [['train'], [], [], ['valid']]
    """
    return {_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF}


def split_called(name: str) -> str | None:
    """Return the split whose name this is, numbers apart; None where other words are in it.

    >>> [split_called(name) for name in ("Test", "train-0", "test_tubes")]
    ['test', 'train', None]
    """
    words = _words(name)
    return _SPLIT_OF.get(words[0]) if len(words) == 1 else None


def split_of(parts: Sequence[str], shown: str) -> str | None:
    """Return the split of a file by its path below the data folder: by its folders, else by its own name.

    Args:
        parts: names of its folders, then its own.
        shown: its path, for the message.

    Raises:
        DataError: folders, or the file's name, say several splits, or its name is another split than its folders.
    """
    *folders, name = parts
    splits = {split for folder in folders for split in splits_named(folder)}
    alone = split_called(name.partition(".")[0])
    if not splits:
        splits = splits_named(name)
    elif alone is not None:
        splits.add(alone)
    if len(splits) > 1:
        fix = "name it after one of train, valid, test"
        raise DataError(message("task.data", "one file names several splits", got=shown, fix=fix))
    return next(iter(splits), None)


def owner_of(parts: Sequence[str]) -> str:
    """Return whose a file is by its path without what names the split: its folders, else its own name.

    >>> [owner_of(p) for p in (["alice", "train.txt"], ["train", "bob.txt"], ["eve_train.txt"], ["train.txt"])]
    ['alice', 'bob', 'eve', 'train']
    """
    *folders, name = parts
    named = [folder for folder in folders if not splits_named(folder)]
    if named:
        return "/".join(named)
    stem = name.rpartition(".")[0] or name
    pattern = rf"[\W_]*(?<![^\W\d_])(?:{'|'.join(_SPLIT_OF)})(?![^\W\d_])[\W_]*"
    return re.sub(pattern, "-", stem, flags=re.IGNORECASE).strip("-") or stem


def matched(names: Collection[str]) -> dict[str, str]:
    """Return split -> the name of it among those of a data set on the hub; splits that are not there are left out."""
    found = {split: next((w for w in words if w in names), None) for split, words in SPLIT_WORDS.items()}
    return {split: name for split, name in found.items() if name is not None}


def _words(name: str) -> list[str]:
    return _WORD.findall(name.lower())
