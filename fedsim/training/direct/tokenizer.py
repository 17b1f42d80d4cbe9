"""A tokenizer that is one `tokenizer.json` and nothing else, without transformers: what `TokenizersBackend` makes of such a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.files.opened import FACTS_BYTES, UnreadableError, bytes_of
from fedsim.training.loading.safety import TEXT_BYTES

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

FILE, SETTINGS, MODEL = "tokenizer.json", "tokenizer_config.json", "config.json"
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that take the file as it is; those of single families build their own from parts of it."""
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
KNOWN = frozenset(
    {*NAMED, "backend", "clean_up_tokenization_spaces", "is_local", "model_max_length", "tokenizer_class"}
)
"""Keys of `tokenizer_config.json` with which the file says it all."""
BESIDE = (
    *("added_tokens.json", "special_tokens_map.json", "vocab.json", "merges.txt", "tokenizer.model"),
    "tekken.json",
)
"""Files that would have a say in it."""
REBUILT = frozenset({"qwen2"})
"""Families (`model_type`) whose tokenizer transformers makes anew from parts of the file, whatever class is named beside it."""
MOST_WORDS = 100_000
"""Of larger vocabularies transformers looks whether their pattern of words is one that was wrong."""


@dataclass(frozen=True)
class Encoded:
    """What the tokenizer makes of several texts.

    Attributes:
        encodings: one a text, with `ids` and `offsets`.
    """

    encodings: list[Encoding]


class FolderTokenizer:
    """The part of a transformers tokenizer that is used here, under its names.

    Attributes:
        eos_token_id, bos_token_id: of the tokens that `tokenizer_config.json` names; None: it names none.
        is_fast: it is made of the library `tokenizers`.
        digest: SHA-256 of its files, with the version of that library: equal digests, equal tokens.
    """

    is_fast = True

    def __init__(self, tokenizer: Tokenizer, eos: int | None, bos: int | None, digest: str) -> None:
        """Take a tokenizer; it neither cuts texts nor fills them up."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = eos, bos
        self.digest = digest

    def __call__(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool,
        return_attention_mask: bool = False,
        verbose: bool = False,
    ) -> Encoded:
        """Return the encodings of some texts."""
        return Encoded(self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens))

    def convert_ids_to_tokens(self, number: int) -> str | None:
        """Return a token's text, None if there is none of this number."""
        return self._tokenizer.id_to_token(number)


def tokenizer_of(folder: Path) -> FolderTokenizer | None:
    """Return the tokenizer of a model's folder, None where it is more than one plain file, or nothing that ends a text is named."""
    try:
        family = json.loads(bytes_of(folder / MODEL, FACTS_BYTES))["model_type"]
        settings = json.loads(bytes_of(folder / SETTINGS, FACTS_BYTES))
        data = bytes_of(folder / FILE, TEXT_BYTES)
        added = _added_tokens(data)
    except (UnreadableError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if (
        family in REBUILT
        or not isinstance(settings, dict)
        or settings.keys() - KNOWN
        or settings.get("tokenizer_class") not in PLAIN_CLASSES
        or settings.get("clean_up_tokenization_spaces", False) is not False
        or any((folder / name).exists() for name in BESIDE)
        or any(not _is_added(settings.get(name), added) for name in NAMED)
    ):
        return None
    eos, bos = (added.get(settings.get(name, "")) for name in ("eos_token", "bos_token"))
    if eos is None and bos is None:
        return None
    about = json.dumps(settings, sort_keys=True).encode()
    return _loaded(data, about, eos, bos, words=len(added))


def _is_added(token: object, added: Mapping[str, int]) -> bool:
    """Tell whether a token that is named is one of those added, so that naming it adds nothing; none named is, too."""
    return token is None or (isinstance(token, str) and token in added)


def _added_tokens(data: bytes) -> dict[str, int]:
    """Return text -> number of the special tokens that a `tokenizer.json` adds; all are as transformers adds such tokens."""
    stored = json.loads(data)
    entries = stored["added_tokens"]
    if any(not entry["special"] or entry["normalized"] for entry in entries):
        raise ValueError("words are added, too")
    return {str(entry["content"]): int(entry["id"]) for entry in entries}


def _loaded(
    data: bytes, about: bytes, eos: int | None, bos: int | None, words: int
) -> FolderTokenizer | None:
    from tokenizers import Tokenizer, __version__

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in the Rust library is no Exception; transformers says what is wrong
        return None
    if not words < tokenizer.get_vocab_size() <= MOST_WORDS:
        return None
    whole = hashlib.sha256(data + about + __version__.encode())
    return FolderTokenizer(tokenizer, eos, bos, whole.hexdigest())
