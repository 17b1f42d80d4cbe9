"""One thing that is wrong with a configuration: where, what, and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: keys from the top of the configuration.
        what: the sentence, without path and value.
        fix: one way out.
        got: the offending value, or `ABSENT`.
    """

    path: tuple[str, ...]
    what: str
    fix: str
    got: Any = _ABSENT

    @property
    def has_value(self) -> bool:
        """Whether there is a value to show."""
        return self.got is not _ABSENT

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)
