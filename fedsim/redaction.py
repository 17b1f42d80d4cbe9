"""Secrets are not shown and not written: tokens, passwords in addresses, the values of variables that hold some."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cache

HIDDEN = "***"
_TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9]{32,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)
"""Tokens of Hugging Face, GitHub, GitLab, Slack, Amazon and OpenAI, and JSON web tokens, by how they begin."""
_IN_ADDRESSES = re.compile(
    r"(?<=://)[^\s/@]+(?=@)"
    r"|(?<=[?&])(?:access_token|token|password|secret|key|api_key|sig|signature|x-amz-signature)=[^\s&]+",
    re.IGNORECASE,
)
"""Who somebody is, before the host of an address or among its parameters."""
_SECRET_NAME = re.compile(
    r"(?:token|secret|password|passwd|passphrase|credentials?|api_?key|access_?key|private_?key)(?:_|$)",
    re.IGNORECASE,
)
_LEAST = 8
"""Characters that the value of a variable has at least, to be looked for."""


@cache
def is_secret_name(name: str) -> bool:
    """Tell whether what is called so is a secret.

    >>> is_secret_name("HF_TOKEN"), is_secret_name("hf_token"), is_secret_name("TOKENIZERS_PARALLELISM")
    (True, True, False)
    """
    return _SECRET_NAME.search(name) is not None


def redacted(text: str) -> str:
    """Return a text without secrets: each is replaced by `***`, the value of a variable by its name.

    >>> redacted("https://me:abc@host/x"), redacted("of hf_" + 30 * "a")
    ('https://***@host/x', 'of ***')
    """
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """Return what redacts many texts, with the variables that the environment holds now: it is looked through once."""
    held = sorted(_secrets(), key=lambda secret: -len(secret[1]))  # one may be the beginning of another

    def redact(text: str) -> str:
        for name, value in held:
            text = text.replace(value, f"${name}")
        return _TOKENS.sub(HIDDEN, _IN_ADDRESSES.sub(HIDDEN, text))

    return redact


def _secrets() -> Iterator[tuple[str, str]]:
    """Yield name and value of the variables of the environment that hold a secret."""
    for name in os.environ:
        if is_secret_name(name) and len(value := os.environ[name]) >= _LEAST:
            yield name, value
