"""Special tokens of a tokenizer: what they must be, or it does not come to an end."""

from __future__ import annotations

from typing import Any

from fedsim.errors import DataError, message


def check_unknown_token(tokenizer: Any) -> None:
    """Raise a DataError if what stands for unknown words is unknown itself: its number would be its own, for ever."""
    unknown = tokenizer.special_tokens_map.get("unk_token")
    if unknown is not None and str(unknown) not in tokenizer.get_vocab():
        what = "the tokenizer's unknown token is not one of its tokens"
        fix = "mend unk_token in its tokenizer_config.json"
        raise DataError(message("task.model", what, got=str(unknown), fix=fix))
