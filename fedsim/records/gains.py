"""Views of personalisation: what clients gain from a model of their own, and who is worse off.

A gain is above zero when a client's own model is better than the shared one on the client's held-out part.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from fedsim.metrics.direction import rises
from fedsim.records.run import Run
from fedsim.records.views import tiers

SPREAD = ["clients", "mean", "worst", "q10", "median", "q90", "best", "share_worse"]
"""Columns of every view of gains: `share_worse` is the share of clients whose gain is below zero."""
MODELS = {"metric_global": "shared", "metric_personal": "own", "metric_local": "alone"}
"""Column -> the model: the shared one, the client's own one, one trained on the client's data alone."""


def gains(run: Run) -> pd.DataFrame:
    """Return what clients gain: one row a (kind, metric), and the columns of `SPREAD`."""
    rows = [
        {"kind": kind, "metric": metric, **_spread(part)}
        for (kind, metric), part in run.personal.groupby(["kind", "metric"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["kind", "metric", *SPREAD])


def gains_by_part(run: Run) -> pd.DataFrame:
    """Return what clients gain by their part in the training: one row a part that has clients.

    Parts are `trained` (an update of theirs is in the model), `asked in vain` (in the roster, but nothing of
    them was committed) and `held out` (`personal.unseen`). Columns part and those of `SPREAD`.
    """
    rows = [{"part": part, **_spread(run.personal[mask])} for part, mask in _parts(run) if mask.any()]
    return pd.DataFrame(rows, columns=["part", *SPREAD])


def gains_by_tier(run: Run) -> pd.DataFrame:
    """Return what clients gain by class of device: one row a tier, slowest first; columns of `SPREAD`."""
    people = run.personal.merge(run.frame("clients", "client", "tier"), on="client", validate="many_to_one")
    rows = {
        tier: _spread(people[people["tier"] == tier]) for tier in tiers(run) if (people["tier"] == tier).any()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=SPREAD).rename_axis("tier")


def models(run: Run) -> pd.DataFrame:
    """Compare the models on the same held-out parts: one row a model that was scored.

    Returns:
        Columns model (`shared`, `own`, `alone`), clients, mean, median, share_best: clients for which none
        of the others is better (shares add up to more than 1 where models tie).
    """
    columns = [name for name in MODELS if run.personal[name].notna().any()]
    scores = run.personal[columns].to_numpy(dtype=np.float64)
    if not len(scores):
        return pd.DataFrame(columns=["model", "clients", "mean", "median", "share_best"])
    signed = -scores if rises(str(run.personal["metric"].iloc[0])) else scores
    best = signed <= np.nanmin(signed, axis=1, keepdims=True)
    rows = [
        (MODELS[name], int(np.isfinite(scores[:, i]).sum()), np.nanmean(scores[:, i]), np.nanmedian(scores[:, i]), best[:, i].mean())
        for i, name in enumerate(columns)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "clients", "mean", "median", "share_best"])


def _parts(run: Run) -> Iterator[tuple[str, pd.Series]]:
    held, trained = run.personal["unseen"], run.personal["seen"] > 0
    yield "trained", trained
    yield "asked in vain", ~trained & ~held
    yield "held out", held


def _spread(part: pd.DataFrame) -> dict[str, float]:
    gain = part["gain"].to_numpy()
    low, q10, median, q90, high = np.quantile(gain, [0.0, 0.1, 0.5, 0.9, 1.0])
    values = (len(gain), float(gain.mean()), low, q10, median, q90, high, float(np.mean(gain < 0)))
    return dict(zip(SPREAD, values, strict=True))
