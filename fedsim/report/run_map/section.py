"""The section of the page that shows the map of a run."""

from __future__ import annotations

from fedsim.records.quantities import number, said
from fedsim.records.run import Run
from fedsim.report.parts import Section
from fedsim.report.run_map.figure import MOST_CLIENTS, maps

TITLE = "Who did what when"


def section(run: Run) -> Section:
    """Stretches of a run as bars, the first one first: the reader chooses one, and how close."""
    shown = [(f"{said('time_s', begin)} to {said('time_s', end)}", end - begin, figure) for begin, end, figure in maps(run)]  # fmt: skip
    if not shown:
        return Section("map", TITLE, ["Nobody was asked."])
    clients, end_s = run.count("clients"), float(run.info.end_time_s)
    who = f"the {MOST_CLIENTS} of {number(clients)} clients with most visits in it"
    if clients <= MOST_CLIENTS:
        who = "all clients"
    covered_s = sum(length for _, length, _ in shown)
    what = "The whole run"
    if len(shown) > 1 and covered_s > 0.999 * end_s:
        what = f"The run in {len(shown)} stretches to choose from"
    elif len(shown) > 1:
        what = f"{len(shown)} stretches of {said('time_s', covered_s / len(shown))}, spread over {said('time_s', end_s)}, to choose from"
    text = (
        f"{what}, {who}. Drag to look closer, double-click to come back. Any other stretch: "
        f"fedsim.plots.gantt(run, start_s=..., stop_s=...); the whole run in a viewer: fedsim timeline."
    )
    reading = "A row a client, a bar a phase of a visit: download, training, upload; grey where a visit was lost; thin lines are commits."
    stretches = [(name, figure) for name, _, figure in shown]
    return Section("map", TITLE, [text], shown[0][2], reading, stretches=stretches)
