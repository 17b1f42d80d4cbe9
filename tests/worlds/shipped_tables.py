"""Tables of the package with one change, and what is then said of them."""

from __future__ import annotations

import hetero_profiles
from fedsim.devices.table_checks import check


def said_of_changed(folder, name, old, new):
    """Change a table's text once, in a copy; return the problems that are found, as one text."""
    text = hetero_profiles.locate(name).read_text("utf-8")
    assert old in text
    path = folder / "table.csv"
    path.write_text(text.replace(old, new, 1))
    return " ".join(check(path))
