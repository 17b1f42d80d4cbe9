"""What an importer is: one foreign format, what it reads and what it needs to be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.errors import ProfileError, message
from fedsim.importers.options import CHOICES, MAY_BE_ZERO, OF_ALL, Options, flag

if TYPE_CHECKING:
    from fedsim.importers.table import Table


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        about: what it is, for `--help`.
        read: files and options to a table.
        uses: options that have a meaning, besides licence and source.
        many: several files may be given, a trace each.
    """

    about: str
    read: Callable[[Sequence[Path], Options], Table]
    uses: tuple[str, ...]
    many: bool = False


def refuse_unfit(name: str, foreign: Format, options: Options) -> None:
    """Check that every option given belongs to the format and has a value that it can have.

    Raises:
        ProfileError: the first that does not.
    """
    for field in fields(Options):
        value = getattr(options, field.name)
        if value is None or value == () or field.name in OF_ALL:
            continue
        option = flag(field.name)
        if field.name not in foreign.uses:
            used = ", ".join(flag(use) for use in foreign.uses) or "none of its own"
            raise ProfileError(
                message(option, f"has no meaning for {name}", fix=f"remove it; {name} takes {used}")
            )
        if field.name in CHOICES and value not in CHOICES[field.name]:
            raise ProfileError(
                message(
                    option,
                    "no such choice",
                    got=value,
                    fix=f"choose one of: {', '.join(CHOICES[field.name])}",
                )
            )
        if isinstance(value, float) and not (0 < value < 1e10 or (value == 0 and field.name in MAY_BE_ZERO)):
            bound = "at least 0" if field.name in MAY_BE_ZERO else "greater than 0"
            raise ProfileError(message(option, f"must be {bound} and finite", got=value, fix="give seconds"))
