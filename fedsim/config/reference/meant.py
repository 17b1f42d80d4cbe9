"""What was meant by a word where a block of keys belongs: a kind, or the value of one of its keys."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedsim.config.reference.schema import models_of
from fedsim.config.words import WORDS


def block_meant(field: FieldInfo | None, name: str, word: str) -> str | None:
    """Return how a block is written for which a file has a word; None: nothing there takes it.

    Args:
        field: the field whose block it is; None: it is not known, and blocks have kinds.
        name: its key.
        word: what the file has.
    """
    if not re.fullmatch(r"[\w.-]+", word):
        return None
    blocks = [] if field is None else models_of(field.annotation)
    if not blocks or any("kind" in block.model_fields for block in blocks):
        return f"{name}: {{kind: {word}}}"
    for block in blocks:
        written = _written(block, name, word)
        if written is not None:
            return f"{name}: {{{written}}}"
    return None


def keys_of(field: FieldInfo | None) -> list[str]:
    """Return the keys of a field's block, or of all that it may be."""
    blocks = [] if field is None else models_of(field.annotation)
    return sorted({key for block in blocks for key in block.model_fields})


def _written(block: type[BaseModel], name: str, word: str) -> str | None:
    """Return the key of a block that a word names, or that takes it, with its value; None: there is none."""
    if word in block.model_fields:
        return f"{word}: {'true' if block.model_fields[word].annotation is bool else '...'}"
    for key, field in block.model_fields.items():
        of_files = dict.fromkeys(WORDS.get(f"{name}.{key}", ()), False)
        words = of_files | dict(_words(field.annotation, listed=False))
        if word in words:
            return f"{key}: [{word}]" if words[word] else f"{key}: {word}"
    return f"preset: {word}" if "preset" in block.model_fields else None


def _words(annotation: object, *, listed: bool) -> Iterator[tuple[str, bool]]:
    """Yield the words that a field takes, and whether in a list."""
    if typing.get_origin(annotation) is typing.Literal:
        yield from ((word, listed) for word in typing.get_args(annotation) if isinstance(word, str))
        return
    inside = listed or typing.get_origin(annotation) in (tuple, list)
    for part in typing.get_args(annotation):
        yield from _words(part, listed=inside)
