"""The section about personalisation: who gains from a model of their own, and who is worse off."""

from __future__ import annotations

import pandas as pd

from fedsim.records import gains as gain_views
from fedsim.records.quantities import number, percent
from fedsim.records.run import Run
from fedsim.report import gain_figures
from fedsim.report.parts import Section, Table, plural

_HEADER = ("clients", "mean", "worst", "10 %", "median", "90 %", "best", "got worse")
_METHODS = {
    "fine-tune": "After fine-tuning on their own data",
    "fedper": "With their last layers kept at home (FedPer)",
    "ditto": "With a second model drawn to the shared one (Ditto)",
    "feddpa": "With a local adapter added to the shared one (FedDPA)",
    "fedsa": "With one factor kept at home (FedSA-LoRA)",
    "local-only": "With training alone in place of the shared model",
    "none": "With nothing of their own",
}


def gains(run: Run) -> Section:
    """What clients gain from a model of their own."""
    title = "What a personal copy gains"
    spreads = gain_views.gains(run)
    if spreads.empty:
        return Section("gains", title, ["Clients kept no copies of their own in this run."])
    top = spreads.iloc[0]
    metric, kind = str(top["metric"]), str(top["kind"])
    words = metric.replace("_", " ")
    text = (
        f"{_METHODS.get(kind, f'With {kind}')}, {plural(int(top['clients']), 'client')} gained "
        f"{number(top['mean'])} in {words} on average (median {number(top['median'])}); "
        f"{percent(top['share_worse'])} got worse."
    )
    rows = [(f"{kind}, all", *_cells(top))]
    parts = gain_views.gains_by_part(run)
    if len(parts) > 1:
        rows += [(str(row["part"]), *_cells(row)) for _, row in parts.iterrows()]
    tiers = gain_views.gains_by_tier(run)
    if len(tiers) > 1:
        rows += [(f"tier {tier}", *_cells(row)) for tier, row in tiers.iterrows()]
    return Section(
        "gains",
        title,
        [text],
        gain_figures.gains(run, kind, metric),
        "Clients by their gain on their own held-out part, all together and by group; right of zero the personal "
        "model is better than the shared one.",
        tables=[Table(("", *_HEADER), rows), _models(run, words)],
    )


def _cells(row: pd.Series) -> tuple[str, ...]:
    return (*(number(row[name]) for name in gain_views.SPREAD[:-1]), percent(row["share_worse"]))


def _models(run: Run, metric: str) -> Table:
    rows = [
        (str(row["model"]), number(row["mean"]), number(row["median"]), percent(row["share_best"]))
        for _, row in gain_views.models(run).iterrows()
    ]
    caption = f"{metric.capitalize()} of the models on the same held-out parts, mean and median over clients"
    return Table(("model", "mean", "median", "best for"), rows, caption)
