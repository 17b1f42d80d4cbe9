"""One thing that is wrong with a configuration: where, what, and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import ABSENT, Message, Shown


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
    got: object = ABSENT

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)

    def located(self, where: str, origin: str = "") -> Message:
        """Return it as the message of a file.

        Args:
            where: the file, or another name of the experiment.
            origin: where the value was given, as `line 7: `.
        """
        at = f"{where}: {self.name}" if self.path else where
        return Message(self.what, at, _shortened(self.got), f"{origin}{self.fix}")


def _shortened(value: object) -> object:
    """Return a value that fits a message; a path is no use without its end."""
    if value is ABSENT:
        return value
    shown, longest = repr(value), 1000 if isinstance(value, str | Path) else 80
    return value if len(shown) <= longest else Shown(shown[: longest - 3] + "...")
