"""Names of rows that a calibration asks for: of its own, and of the shipped row that this machine is like."""

from __future__ import annotations

import hetero_profiles
from fedsim.devices.stacks.table import unfit_name
from fedsim.errors import ProfileError, message, nearest
from fedsim.files.user_tables import read_rows


def refuse_name(name: str, *, of_a_stack: bool) -> None:
    """Refuse a name that no row can have, before anything is measured.

    Raises:
        ProfileError: it is empty, or `compute.stack` could not name a stack by it.
    """
    if not name.strip() or not name.isprintable():
        raise ProfileError(
            message("--name", "is no name of a row", got=name, fix="name it, as in --name box")
        )
    wrong = unfit_name(name) if of_a_stack else None
    if wrong is not None:
        raise ProfileError(message("--name", wrong[0], got=name, fix=wrong[1]))


def like_row(table: str, like: str) -> dict[str, str]:
    """Return the row of a shipped table that a machine is like in what is not measured.

    Raises:
        ProfileError: no such row.
    """
    cells = read_rows(hetero_profiles.locate(table)).cells
    if like not in cells["device"]:
        raise ProfileError(message("--like", "no such device", got=like, fix=nearest(like, cells["device"])))
    return {name: str(column[cells["device"].index(like)]) for name, column in cells.items()}
