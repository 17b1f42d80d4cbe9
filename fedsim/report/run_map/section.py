"""The section of the page that shows the map of a run."""

from __future__ import annotations

from fedsim.records.quantities import number, said
from fedsim.records.run import Run
from fedsim.report.parts import Section
from fedsim.report.run_map.figure import MOST_CLIENTS, gantt, stretch

TITLE = "Who did what when"


def section(run: Run) -> Section:
    """The first stretch of a run as bars; the function that draws any other one."""
    figure = gantt(run)
    if figure is None:
        return Section("map", TITLE, ["Nobody was asked."])
    _, until_s = stretch(run)
    whole = until_s >= run.info.end_time_s
    what = "The whole run" if whole else f"The first {said('time_s', until_s)}"
    clients = run.count("clients")
    who = (
        "all clients"
        if clients <= MOST_CLIENTS
        else f"the {MOST_CLIENTS} of {number(clients)} clients with most visits"
    )
    text = [
        (
            f"{what}, {who}. Drag to look closer, double-click to come back. Another stretch: "
            f"fedsim.plots.gantt(run, start_s=..., stop_s=...); the whole run in a viewer: fedsim timeline."
        )
    ]
    reading = "A row a client, a bar a phase of a visit: download, training, upload; grey where a visit was lost; thin lines are commits."
    return Section("map", TITLE, text, figure, reading)
