"""The runs that are killed: the golden runs, and others, with checkpoints close together."""

from __future__ import annotations

from pathlib import Path

import yaml

GOLDEN = Path(__file__).parents[2] / "runs" / "golden_runs"

QUADRATIC = {
    "population": {"preset": "mixed_edge_2025", "clients": 16},
    "task": {"kind": "quadratic", "layout": "lora", "dimension": 6, "examples": "unequal"},
    "lora": {"r": 4, "alpha": 8},
    "local": {"optimizer": "sgd", "lr": 0.1, "epochs": 1},
    "protocol": {"kind": "buffered", "concurrency": 6, "buffer": 2},
    "budget": {"commits": 12},
    "evaluate": {"every_commits": 3},
    "runtime": {"executor": "inline"},
}
"""What the quadratic runs of here have in common."""

KINDS = {
    "synchronous": {"extends": "synchronous", "runtime": {"checkpoint_commits": 3}},
    "fedbuff": {"extends": "buffered", "runtime": {"checkpoint_commits": 4}},
    "fedasync": {
        "population": {
            "preset": "mixed_edge_2025",
            "clients": 16,
            "availability": "charging",
            "on_close": "partial",
        },
        "local": {"optimizer": "sgd", "lr": 0.1, "epochs": 1, "prox_mu": 0.1},
        "wire": {"dtype": "int8", "down_dtype": "bfloat16"},
        "protocol": {"kind": "buffered", "concurrency": 8, "buffer": 1},
        "aggregator": {"kind": "mixing"},
        "budget": {"commits": 30},
        "evaluate": {"every_commits": 5, "ema": 0.8},
        "runtime": {"checkpoint_commits": 5},
    },
    "fedat": {"extends": "tiers_asynchronous", "runtime": {"checkpoint_commits": 2}},
    "tifl": {"extends": "tiers_turns", "runtime": {"checkpoint_commits": 2}},
    "oort": {"extends": "oort", "runtime": {"checkpoint_commits": 2}},
    "power-of-choice": {"extends": "power_of_choice", "runtime": {"checkpoint_commits": 1}},
    "ditto": {
        "wire": {"dtype": "int8", "top_k": 0.3, "error_feedback": True},
        "protocol": {"kind": "synchronous", "cohort": 5, "over_select": 1.4},
        "server_optimizer": {"kind": "adam", "lr": 0.05},
        "personal": {"kind": "ditto", "lam": 0.5},
        "evaluate": {"every_commits": 3, "ema": 0.5, "splits": ["test", "clients"]},
        "runtime": {"checkpoint_commits": 2},
    },
    "fedex": {"extends": "timely", "runtime": {"checkpoint_commits": 2}},
    "hetlora": {"extends": "late_finish", "runtime": {"checkpoint_commits": 2}},
    "fedsvd": {"extends": "hot_phones", "runtime": {"checkpoint_commits": 2}},
    "flora": {"extends": "semi_synchronous", "runtime": {"checkpoint_commits": 2}},
    "flexlora": {"extends": "timely_ranks", "runtime": {"checkpoint_commits": 1}},
    "whole-model": {"extends": "whole_model", "runtime": {"checkpoint_commits": 3}},
    "alone": {"extends": "alone", "runtime": {"checkpoint_commits": 7}},
    "resumed-downloads": {"extends": "resumed", "runtime": {"checkpoint_commits": 2}},
    "refusals": {
        "task": {"kind": "worlds.kills.clients:Faulty", "dimension": 5},
        "wire": {"dtype": "int8", "error_feedback": True},
        "server_optimizer": {"kind": "adagrad", "lr": 0.05},
        "runtime": {"checkpoint_commits": 2},
    },
    "few-checkpoints": {"extends": "buffered", "seed": 6, "runtime": {}},
    "fedper": {"extends": "private_layers", "runtime": {"checkpoint_commits": 1}},
    "feddpa": {
        "population": {"preset": "mixed_edge_2025", "clients": 6},
        "task": {"kind": "language", "model": "builtin", "data": "builtin", "sequence": 32},
        "local": {"lr": 1.0e-3, "steps": 2, "batch": 4},
        "protocol": {"kind": "synchronous", "cohort": 3},
        "personal": {"kind": "feddpa", "clients": 2},
        "server_optimizer": {"kind": "momentum", "beta": 0.9},
        "budget": {"commits": 4},
        "evaluate": {"every_commits": 2, "windows": 8},
        "runtime": {"checkpoint_commits": 1},
    },
    "language": {
        "population": {"preset": "mixed_edge_2025", "clients": 8},
        "task": {"kind": "language", "model": "builtin", "data": "builtin", "sequence": 32},
        "local": {"lr": 1.0e-3, "steps": 2, "batch": 4},
        "protocol": {"kind": "buffered", "concurrency": 5, "buffer": 2},
        "server_optimizer": {"kind": "adam", "lr": 0.01},
        "budget": {"commits": 4},
        "evaluate": {"every_commits": 2, "windows": 8, "ema": 0.5},
        "runtime": {"checkpoint_commits": 1},
    },
    "images": {
        "population": {"preset": "homogeneous", "clients": 5},
        "task": {"kind": "images", "partition": {"kind": "pathological", "classes": 1}, "samples": 50}
        | {"sampling_steps": 2, "grid": 4},
        "lora": {"r": 4, "alpha": 4, "targets": ["attention", "resnets"]},
        "local": {"lr": 3e-3, "steps": 2, "batch": 8},
        "protocol": {"kind": "synchronous", "cohort": 3},
        "personal": {"kind": "fine-tune", "epochs": 1, "clients": 2},
        "budget": {"commits": 3},
        "evaluate": {"every_commits": 2, "splits": ["test"], "windows": 48},
        "runtime": {"checkpoint_commits": 1},
    },
}
"""Name -> what it changes: of a golden run, or of `QUADRATIC`."""
REAL_MODELS = ("fedper", "feddpa", "language", "images")
"""Kinds that train a model, and take seconds instead of tenths."""
QUICK = tuple(kind for kind in KINDS if kind not in REAL_MODELS)


def experiment(kind):
    """The plain settings of a kind."""
    own = dict(KINDS[kind])
    name = own.pop("extends", None)
    base = (
        QUADRATIC if name is None else yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))
    )
    settings = {**base, **own, "name": kind, "runtime": {"executor": "inline", **own["runtime"]}}
    rates = settings["population"].get("rates", "")
    if rates.endswith(".csv"):
        settings["population"] = {**settings["population"], "rates": str(GOLDEN / rates)}
    return settings


def write(kind, folder):
    """Write the experiment of a kind; returns its path."""
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(experiment(kind), sort_keys=False), encoding="utf-8")
    return path
