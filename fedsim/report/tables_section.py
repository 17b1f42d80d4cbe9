"""The section about the tables beside the page: what is drawn here is summed up, there every row is."""

from __future__ import annotations

from fedsim.records.quantities import number
from fedsim.records.run import Run
from fedsim.records.tables import TABLES
from fedsim.report.parts import Section, Table

ROWS = {
    "clients": "a client: its device, link, memory and data",
    "visits": "a visit: its instants, how it ended, bytes, FLOPs and joules",
    "commits": "a server step: when, of how many updates, totals until then",
    "scores": "a metric of a version on a split",
    "personal": "what a client gains from a model of its own",
}
"""Table -> what one row of it is."""


def section(run: Run) -> Section:
    """The tables that the page is made of."""
    rows = [(f"{table}.parquet", number(run.count(table)), ROWS[table]) for table in TABLES]
    text = "Every figure is made of these tables, which lie beside this page in the folder of the run."
    code = 'fedsim.load("FOLDER").frame("visits", "client", "outcome")   # some columns, whatever the size'
    return Section(
        "tables", "The tables", [text], formula=[code], tables=[Table(("file", "rows", "one row is"), rows)]
    )
