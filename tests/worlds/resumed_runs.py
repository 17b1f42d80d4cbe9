"""Runs of every kind that is resumed in its own way, on the closed-form task: whole, interrupted, and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import fedsim
from fedsim.config.experiment import Experiment
from fedsim.errors import RunError
from fedsim.records.tables import TABLES

BASE = {
    "name": "resumed",
    "population": {"preset": "mixed_edge_2025", "clients": 12},
    "task": {"kind": "quadratic", "layout": "lora", "examples": "unequal", "dimension": 6},
    "lora": {"r": 4, "alpha": 8.0},
    "local": {"optimizer": "sgd", "lr": 0.05, "steps": 3, "batch": 8},
    "budget": {"commits": 9},
    "evaluate": {"every_commits": 2, "splits": ["test", "clients"]},
    "numerics": {"client_batch": 3},
    "runtime": {"executor": "inline", "checkpoint_commits": 2},
}
SYNC = {"protocol": {"kind": "synchronous", "cohort": 4, "over_select": 1.5}}
FEDBUFF = {"protocol": {"kind": "buffered", "concurrency": 7, "buffer": 3}}
TIERS = dict.fromkeys(
    ["desktop", "iot", "jetson", "laptop", "laptop-dgpu", "mcu", "phone-low", "sbc", "server"], 4
) | {
    "phone-high": 2,
    "phone-mid": 1,
    "tablet": 2,
}
RANKS = {"lora": {"r": 4, "alpha": 8.0, "rank_by": "tier", "ranks": TIERS}}
CODED = {"dtype": "int8", "down_dtype": "int8"}

KINDS = {
    "sync": SYNC,
    "late-finish": {"protocol": {**SYNC["protocol"], "deadline_s": 0.5, "late": "finish"}},
    "fedbuff": FEDBUFF,
    "fedbuff-adam": {**FEDBUFF, "server_optimizer": {"kind": "adam", "lr": 0.05}},
    "fadas": {**FEDBUFF, "server_optimizer": {"kind": "fadas", "lr": 0.05}},
    "momentum": {**SYNC, "server_optimizer": {"kind": "momentum", "lr": 0.5}},
    "fedasync": {
        "protocol": {"kind": "buffered", "concurrency": 5, "buffer": 1},
        "aggregator": {"kind": "mixing"},
    },
    "fedat": {"protocol": {"kind": "tiers", "tiers": 3, "cohort": 2, "across": "asynchronous"}},
    "fedat-stale": {
        "protocol": {"kind": "tiers", "tiers": 3, "cohort": 2, "across": "asynchronous", "max_staleness": 2},
        "wire": CODED,
        **RANKS,
    },
    "tifl": {
        "protocol": {"kind": "tiers", "tiers": 3, "cohort": 2, "probabilities": "adaptive", "interval": 2}
    },
    "oort": {**SYNC, "sampler": {"kind": "oort"}},
    "oort-fedbuff": {**FEDBUFF, "sampler": {"kind": "oort"}},
    "power-of-choice": {**SYNC, "sampler": {"kind": "power-of-choice", "candidates": 8}},
    "power-of-choice-fedbuff": {**FEDBUFF, "sampler": {"kind": "power-of-choice", "candidates": 3}},
    "home-links": {
        **FEDBUFF,
        "population": {
            "preset": "mixed_edge_2026",
            "clients": 12,
            "shared_links": {
                "homes": {"clients": 3.0},
                "cells": {"clients": 3.0},
                "regions": {"regions": 2, "down_mbps": 0.02, "up_mbps": 0.01},
            },
        },
        "network": {
            "congestion": "loss-based",
            "loss_bursts": {"loss": 0.05, "share": 0.3},
            "tls": {"version": "1.2", "ticket_s": 60.0},
            "connection": "persistent",
        },
    },
    "semi-synchronous": {"protocol": {"kind": "semi-synchronous", "concurrency": 8}},
    "timely": {"protocol": {"kind": "timely", "k": 3}},
    "ditto": {
        **FEDBUFF,
        "personal": {"kind": "ditto"},
        "wire": {"top_k": 0.3, "error_feedback": True},
        "evaluate": {"every_commits": 2, "ema": 0.9},
    },
    "fine-tune": {**SYNC, "personal": {"kind": "fine-tune", "local_epochs": 1, "unseen": 2}},
    "fedex": {**FEDBUFF, "aggregator": {"kind": "fedex"}},
    "fedex-coded": {**FEDBUFF, "aggregator": {"kind": "fedex"}, "wire": CODED},
    "flora": {**FEDBUFF, **RANKS, "aggregator": {"kind": "flora"}},
    "flexlora": {**FEDBUFF, **RANKS, "aggregator": {"kind": "flexlora"}},
    "fedsvd": {**FEDBUFF, "aggregator": {"kind": "fedsvd", "period": 2}},
    "fedsvd-coded": {**FEDBUFF, "aggregator": {"kind": "fedsvd", "period": 2}, "wire": CODED},
    "hetlora": {**FEDBUFF, **RANKS, "aggregator": {"kind": "hetlora", "prune": 0.7, "penalty": 0.01}},
    "rolora": {**FEDBUFF, "aggregator": {"kind": "rolora"}},
    "rolora-coded": {**FEDBUFF, **RANKS, "aggregator": {"kind": "rolora"}, "wire": CODED},
    "fedsa": {**FEDBUFF, **RANKS, "aggregator": {"kind": "fedsa"}},
    "ffa": {**SYNC, "aggregator": {"kind": "ffa"}},
    "local-only": {
        "protocol": {"kind": "buffered", "concurrency": 5, "buffer": 1},
        "aggregator": {"kind": "local-only"},
    },
    "coded": {**FEDBUFF, "wire": {**CODED, "top_k": 0.5, "error_feedback": True}},
    "coded-ranks": {**FEDBUFF, **RANKS, "wire": CODED},
    "partial": {
        **FEDBUFF,
        "population": {
            "preset": "mixed_edge_2025",
            "clients": 12,
            "availability": "charging",
            "on_close": "partial",
        },
        "local": {"optimizer": "sgd", "lr": 0.05, "epochs": 2, "batch": 4},
        "task": {**BASE["task"], "tokens_per_example": 200_000},
    },
    "paused": {
        **FEDBUFF,
        "population": {
            "preset": "mixed_edge_2025",
            "clients": 12,
            "availability": "charging",
            "on_close": "pause",
        },
        "task": {**BASE["task"], "tokens_per_example": 200_000},
    },
    "whole": {**FEDBUFF, "task": {**BASE["task"], "layout": "whole"}, "lora": {"full": True}},
    "shared-links": {**FEDBUFF, "network": {"sharing": "max-min"}},
    "batteries": {**FEDBUFF, "energy": {"battery": {}}},
    "time-budget": {**FEDBUFF, "budget": {"time_s": 0.6}},
    "busy-server": {**FEDBUFF, "server": {"compute": {"flops_per_s": 1e6}}},
}
"""What a run has that is restored in a way of its own -> its blocks."""


class PulledPlugError(Exception):
    """Somebody has pulled the plug."""


def experiment_of(kind: str, **blocks) -> Experiment:
    return Experiment.model_validate({**BASE, **KINDS[kind], **blocks})


def started(experiment, folder, *, stop=None):
    """A run in a folder; with `stop`, one that ends with the event of that commit."""
    return gone_through(
        lambda watch: fedsim.simulate(experiment, out=folder, on_event=watch, report=False), stop
    )


def resumed(folder, *, stop=None, **arguments):
    return gone_through(lambda watch: fedsim.resume(folder, on_event=watch, report=False, **arguments), stop)


def gone_through(act, stop):
    """The run, None if it was interrupted; its events are in `gone_through.events`."""
    events = gone_through.events = []

    def watch(kind, facts):
        events.append((kind, facts))
        if kind == "commit" and facts["version"] == stop:
            raise PulledPlugError

    try:
        return act(watch)
    except PulledPlugError:
        return None
    except RunError as problem:  # where a component of one's own is on the way, it is named
        if not isinstance(problem.__cause__, PulledPlugError):
            raise
        return None


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all that must be equal, by name."""
    paths = [folder / f"{table}.parquet" for table in TABLES]
    paths += [path for inner in ("adapter", "samples") for path in sorted((folder / inner).rglob("*"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))
