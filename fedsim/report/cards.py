"""The verdict in large figures: a function a card; one that has nothing to say gives None."""

from __future__ import annotations

from collections.abc import Callable

from fedsim.records import gains as gain_views
from fedsim.records import views
from fedsim.records.quantities import number, percent, said
from fedsim.records.run import Run
from fedsim.report.parts import Card, listing, plural
from fedsim.report.style import ENDINGS


def cards(run: Run) -> list[Card]:
    """Return the verdict on a run."""
    return [card for make in CARDS if (card := make(run)) is not None]


def _headline(run: Run) -> Card | None:
    metric = views.headline(run)
    if metric is None:
        return None
    values = views.scored(run, metric)["value"]
    moved = f"{number(values.iloc[0])} → {number(values.iloc[-1])}"
    return Card(moved, metric.replace("_", " "), f"test, {plural(len(values), 'score')}")


def _virtual_time(run: Run) -> Card:
    note = f"{plural(run.count('commits'), 'commit')}, {plural(run.count('visits'), 'visit')}"
    return Card(said("time_s", run.info.end_time_s), "virtual time", note)


def _uploaded(run: Run) -> Card:
    note = ""
    if run.info.charged is not None:
        reduction = float(views.uplink_reduction(run)["reduction"].iloc[0])
        note = f"{percent(reduction)} less than full-model FedAvg" if reduction > 0 else ""
    return Card(said("bytes", int(run.columns("visits")["up_bytes"].sum())), "uploaded", note)


def _lost(run: Run) -> Card | None:
    if not run.count("visits"):
        return None
    lost = (
        run.frame("visits", "outcome")["outcome"]
        .value_counts()
        .drop(["landed", "polled", "in_flight"], errors="ignore")
    )
    causes = listing([f"{n:,} {ENDINGS[str(name)][0]}" for name, n in lost.items()][:3])
    return Card(percent(float(lost.sum()) / run.count("visits")), "of visits were lost", causes)


def _in_the_model(run: Run) -> Card | None:
    if not run.count("visits"):
        return None
    inside = views.participation(run)["committed"].gt(0)
    note = f"{int(inside.sum()):,} of {plural(len(inside), 'client')} have an update in it"
    return Card(percent(float(inside.mean())), "of clients are in the model", note)


def _energy(run: Run) -> Card | None:
    if not run.count("visits"):
        return None
    share = views.wasted_work(run).attrs["share"]["joules"]
    used = said("joules", float(run.columns("visits")["joules"].sum()))
    return Card(used, "energy of the devices", f"{percent(share)} of it in vain")


def _saved(run: Run) -> Card | None:
    if not run.count("visits") or run.info.timeline_only:
        return None
    note = "visits lost in virtual time are never really trained"
    return Card(percent(run.info.saved_share), "of training saved", note)


def _gain(run: Run) -> Card | None:
    gains = gain_views.gains(run)
    if not run.count("visits") or gains.empty:
        return None
    first = gains.iloc[0]
    note = f"mean over {plural(int(first['clients']), 'client')}; {percent(first['share_worse'])} got worse"
    return Card(f"{first['mean']:+.3g}", f"personal gain in {str(first['metric']).replace('_', ' ')}", note)


CARDS: tuple[Callable[[Run], Card | None], ...] = (
    _headline,
    _virtual_time,
    _uploaded,
    _lost,
    _in_the_model,
    _energy,
    _saved,
    _gain,
)
"""In the order in which they are shown."""
