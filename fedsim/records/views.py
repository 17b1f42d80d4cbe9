"""Views of a run: pure functions from its tables to small frames with units in their column names.

Nothing here draws or prints; the report, the notebooks and the command line show what these return.
Costs are those the clock charged; a loss counts with what it had used until then. What is about scores is in
`fedsim.records.scores`, and is found here too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedsim.cost.memory.plan import REFUSED, depth_in
from fedsim.errors import RunFolderError, message
from fedsim.records.rows import OUTCOMES
from fedsim.records.run import Run
from fedsim.records.scores import (
    AXES,
    X,
    at,
    common_target,
    curve,
    headline,
    on_grid,
    scored,
    time_to_target,
)

__all__ = [
    "AXES",
    "X",
    "at",
    "common_target",
    "curve",
    "depths",
    "headline",
    "losses_by_cause",
    "on_grid",
    "participation",
    "participation_by_tier",
    "phase_seconds",
    "scored",
    "staleness",
    "tiers",
    "time_to_target",
    "uplink_reduction",
    "wasted_work",
    "work",
]


def tiers(run: Run) -> list[str]:
    """Return the tiers of the population, slowest (by median FLOP/s) first."""
    speed = run.frame("clients", "tier", "flops_per_s").groupby("tier", sort=True)["flops_per_s"].median()
    return [str(tier) for tier in speed.sort_values(kind="stable").index]


def depths(run: Run) -> pd.DataFrame:
    """Return client and depth: layers, counted from the output, whose adapters it has (`lora.depth_by`); NaN: it refuses to train.

    Empty where all clients have all layers.
    """
    charged = run.info.charged
    clients = run.frame("clients", "client", "memory_plan")
    if charged is None or not charged.clients_by_depth:
        return pd.DataFrame({"client": clients["client"][:0], "depth": np.zeros(0)})
    whole = max(map(int, charged.clients_by_depth))
    words = clients["memory_plan"].tolist()
    layers = [np.nan if plan == REFUSED else depth_in(plan) or whole for plan in words]
    return pd.DataFrame({"client": clients["client"], "depth": np.array(layers, dtype=np.float64)})


def _visits_by_tier(run: Run, *names: str) -> pd.DataFrame:
    """Return some columns of the visits, and their clients' tiers."""
    visits, clients = run.frame("visits", "client", *names), run.frame("clients", "client", "tier")
    return visits.merge(clients, on="client", how="left", validate="many_to_one")


def losses_by_cause(run: Run) -> pd.DataFrame:
    """Return how visits ended: counts, one row a tier (slowest first), one column an outcome that occurred."""
    visits = _visits_by_tier(run, "outcome")
    counts = pd.crosstab(visits["tier"], visits["outcome"])
    occurred = [name for name in OUTCOMES if name in counts.columns]
    table = counts.reindex(index=tiers(run), columns=occurred, fill_value=0)
    return table.rename_axis(index="tier", columns=None)


def participation(run: Run) -> pd.DataFrame:
    """Return who took part: one row a client.

    Returns:
        Columns client, tier, device, online_share, visits (dispatched), landed, committed (landed and
        used by a commit).
    """
    visits = run.frame("visits", "client", "outcome", "committed_version")
    marks = pd.DataFrame(
        {
            "client": visits["client"],
            "visits": 1,
            "landed": visits["outcome"].eq("landed"),
            "committed": visits["committed_version"].ge(0),
        }
    )
    counts = marks.groupby("client")[["visits", "landed", "committed"]].sum().astype("int64").reset_index()
    clients = run.frame("clients", "client", "tier", "device", "online_share")
    known = clients.merge(counts, on="client", how="left")
    return known.fillna({"visits": 0, "landed": 0, "committed": 0}).astype(
        {"visits": "int64", "landed": "int64", "committed": "int64"}
    )


def participation_by_tier(run: Run) -> pd.DataFrame:
    """Return each tier's share of the clients and of the updates that were committed.

    Returns:
        One row a tier, slowest first: clients, never_committed (clients without any update in the
        model), client_share, update_share (NaN if nothing was committed).
    """
    people = participation(run)
    by_tier = people.groupby("tier").agg(
        clients=("client", "size"),
        never_committed=("committed", lambda c: int((c == 0).sum())),
        committed=("committed", "sum"),
    )
    by_tier["client_share"] = by_tier["clients"] / len(people)
    total = int(by_tier["committed"].sum())
    by_tier["update_share"] = by_tier["committed"] / total if total else np.nan
    columns = ["clients", "never_committed", "client_share", "update_share"]
    return by_tier.reindex(tiers(run))[columns].rename_axis("tier")


def staleness(run: Run) -> pd.DataFrame:
    """Return how many committed updates had which staleness [commits between dispatch and use]."""
    visits = run.frame("visits", "committed_version", "staleness")
    used = visits.loc[visits["committed_version"] >= 0, "staleness"]
    counts = used.value_counts().sort_index()
    return pd.DataFrame({"staleness": counts.index.astype("int64"), "updates": counts.to_numpy("int64")})


def phase_seconds(run: Run) -> pd.DataFrame:
    """Return where the time of landed visits goes: mean virtual seconds by tier.

    Returns:
        One row a tier with a landed visit, slowest first: visits, download_s, train_s, upload_s.
    """
    landed = _visits_by_tier(run, "outcome", "dispatched_s", "downloaded_s", "trained_s", "landed_s")
    landed = landed[landed["outcome"] == "landed"]
    phases = pd.DataFrame(
        {
            "tier": landed["tier"],
            "visits": 1,
            "download_s": landed["downloaded_s"] - landed["dispatched_s"],
            "train_s": landed["trained_s"] - landed["downloaded_s"],
            "upload_s": landed["landed_s"] - landed["trained_s"],
        }
    )
    how = {"visits": "sum", "download_s": "mean", "train_s": "mean", "upload_s": "mean"}
    means = phases.groupby("tier").agg(how)
    return means.reindex([tier for tier in tiers(run) if tier in means.index]).rename_axis("tier")


def work(run: Run) -> pd.DataFrame:
    """Return what visits used, by what became of it.

    Returns:
        One row an ending that occurred: `committed`, `uncommitted` (landed, but no commit used it),
        and every other outcome. Columns visits, seconds (virtual device time), down_bytes, up_bytes,
        flops, joules.
    """
    names = ("committed_version", "outcome", "ended_s", "dispatched_s")
    amounts = ("down_bytes", "up_bytes", "flops", "joules")
    visits = run.frame("visits", *names, *amounts)
    used = visits["committed_version"].ge(0).to_numpy()
    landed = visits["outcome"].eq("landed").to_numpy()
    outcomes = visits["outcome"].to_numpy(dtype=object)
    ending = np.where(used, "committed", np.where(landed, "uncommitted", outcomes))
    spent = pd.DataFrame(
        {
            "ending": ending.astype(str),
            "visits": 1,
            "seconds": visits["ended_s"] - visits["dispatched_s"],
            **{name: visits[name] for name in amounts},
        }
    )
    sums = spent.groupby("ending").sum()
    order = ["committed", "uncommitted", *OUTCOMES[1:]]
    return sums.reindex([name for name in order if name in sums.index]).rename_axis("ending")


def wasted_work(run: Run) -> pd.DataFrame:
    """Return what was spent on visits that changed no model, by cause: `work` without `committed` and `polled`.

    Columns as `work`; `attrs["share"]` holds their share of all visits, seconds, bytes, FLOPs and joules.
    """
    everything = work(run)
    wasted = everything.drop(index=["committed", "polled"], errors="ignore")
    total = everything.sum()
    wasted.attrs["share"] = {
        name: float(wasted[name].sum() / total[name]) if total[name] else 0.0 for name in wasted.columns
    }
    return wasted


def uplink_reduction(run: Run) -> pd.DataFrame:
    """Return how many bytes the adapters save on the uplink against full-model FedAvg.

    Full-model FedAvg (McMahan et al., AISTATS 2017) with the same schedule uploads all N_total
    parameters with each update: T |S| N_total 4 bytes for T rounds of |S| updates in float32. T |S| is
    the number of uploads that really landed here.

    Returns:
        One row: uploads, adapter_bytes (of those uploads), full_bytes, reduction (1 - their ratio;
        NaN without uploads), lost_up_bytes (of uploads that did not land), up_bytes (all),
        serialized_up_bytes (of the tensors really serialised), adapter_params, params.

    Raises:
        RunFolderError: the run ended before it wrote down what was charged.
    """
    charged = run.info.charged
    if charged is None:
        raise RunFolderError(message(f"run {run.name}", "run.json does not say which model was charged"))
    visits = run.frame("visits", "outcome", "up_bytes", "serialized_up_bytes")
    landed = visits[visits["outcome"] == "landed"]
    adapter_bytes, up_bytes = int(landed["up_bytes"].sum()), int(visits["up_bytes"].sum())
    full_bytes = len(landed) * charged.full_model_bytes
    row = {
        "uploads": len(landed),
        "adapter_bytes": adapter_bytes,
        "full_bytes": full_bytes,
        "reduction": 1.0 - adapter_bytes / full_bytes if full_bytes else np.nan,
        "lost_up_bytes": up_bytes - adapter_bytes,
        "up_bytes": up_bytes,
        "serialized_up_bytes": int(visits["serialized_up_bytes"].sum()),
        "adapter_params": charged.adapter_params,
        "params": charged.params,
    }
    return pd.DataFrame([row])
