"""What a federation's records say: rounds, arrivals, updates, staleness; and how far a prediction is off."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fidelity.federation import Federation, Protocol, Work

Records = dict[str, Any]
"""{visits, commits} as the real server and `expected.records` report them."""
Figures = dict[str, float]

BOUNDS_PERCENT: dict[tuple[Work, Protocol], float] = {
    ("spin", "synchronous"): 2.0,
    ("spin", "buffered"): 5.0,
    ("torch", "synchronous"): 5.0,
    ("torch", "buffered"): 10.0,
}
HEADLINE: dict[Protocol, str] = {"synchronous": "round_s", "buffered": "updates"}
"""The figure that a bound is on: mean seconds a round, updates landed in the time given."""


def figures(records: Records, federation: Federation, protocol: Protocol) -> Figures:
    """Return the figures of one run: `round_s`, or `updates`, `commits` and `staleness`; `visit_s`, `download_s`."""
    visits = records["visits"]
    if protocol == "synchronous":
        times = [commit["time_s"] for commit in records["commits"]]
        found = {"round_s": times[-1] / len(times)}
    else:
        inside = [visit for visit in visits if visit["landed_s"] <= federation.time_s]
        committed = [visit["staleness"] for visit in inside if visit["staleness"] >= 0]
        found = {
            "updates": float(len(inside)),
            "commits": float(sum(c["time_s"] <= federation.time_s for c in records["commits"])),
            "staleness": statistics.fmean(committed),
        }
    durations = {"visit_s": "landed_s", "download_s": "downloaded_s"}
    return found | {
        key: statistics.fmean(visit[end] - visit["dispatched_s"] for visit in visits)
        for key, end in durations.items()
    }


def by_client(records: Records) -> dict[int, float]:
    """Return each client's mean seconds from the dispatch to the landing."""
    took: dict[int, list[float]] = {}
    for visit in records["visits"]:
        took.setdefault(int(visit["client"]), []).append(visit["landed_s"] - visit["dispatched_s"])
    return {client: statistics.fmean(seconds) for client, seconds in took.items()}


def arrival_percent(predicted: Records, measured: Records) -> float:
    """Return the mean over clients of the absolute error of their mean arrival [%]."""
    expected, seen = by_client(predicted), by_client(measured)
    return 100 * statistics.fmean(abs(expected[client] / seen[client] - 1) for client in seen)


def summary(
    federation: Federation,
    protocol: Protocol,
    work: Work,
    measured: Sequence[Records],
    predicted: Mapping[str, Sequence[Records]],
) -> dict[str, Any]:
    """Return measured repetitions beside predictions, one of each model for each repetition.

    Returns:
        For JSON. Under `measured` and each model, every figure's mean over repetitions; `noise_percent`:
        standard deviation over repetitions of the headline figure, relative to its mean; each model's
        `error_percent` (signed, of the mean headline figure), `worst_percent` (of a repetition), and
        `arrival_percent` (mean absolute error of a client's arrival).
    """
    key = HEADLINE[protocol]
    seen = [figures(records, federation, protocol) for records in measured]
    headline = [one[key] for one in seen]
    bound = BOUNDS_PERCENT[work, protocol]
    models = {}
    for name, runs in predicted.items():
        expected = [figures(records, federation, protocol) for records in runs]
        errors = [100 * (e[key] / h - 1) for e, h in zip(expected, headline, strict=True)]
        models[name] = {
            **_means(expected),
            "error_percent": 100 * (_means(expected)[key] / statistics.fmean(headline) - 1),
            "worst_percent": max(errors, key=abs),
            "arrival_percent": statistics.fmean(
                arrival_percent(p, m) for p, m in zip(runs, measured, strict=True)
            ),
        }
    return {
        "federation": federation.name,
        "clients": len(federation.devices),
        "protocol": protocol,
        "work": work,
        "repetitions": len(seen),
        "headline": key,
        "measured": _means(seen),
        "each": headline,
        "noise_percent": 100 * statistics.stdev(headline) / statistics.fmean(headline)
        if len(seen) > 1
        else None,
        "bound_percent": bound,
        "models": models,
        "ok": abs(models["fedsim"]["error_percent"]) <= bound,
    }


def _means(runs: Sequence[Figures]) -> Figures:
    return {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
