"""Runs to be tampered with, and what somebody who tampers changes: values, whole columns, settings, with sums made to fit."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache

import fedsim
from fedsim.config.experiment import Experiment
from fedsim.records.info import saved_share, totals_of
from fedsim.records.run import Run
from fedsim.records.verify.papers import columns_of
from fedsim.runs.simulation import simulate

DEADLINE = {
    "name": "audited",
    "seed": 3,
    "population": {"preset": "mixed_edge_2025", "clients": 60, "availability": "charging"},
    "network": {"sharing": "private"},
    "task": {
        "kind": "quadratic",
        "layout": "lora",
        "dimension": 6,
        "charge_as": {"preset": "gemma-3-270m", "r": 8, "targets": "attention", "tokens_per_visit": 60000},
    },
    "lora": {"r": 4, "alpha": 8},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 5},
    "protocol": {"kind": "synchronous", "cohort": 5, "over_select": 1.8, "deadline_s": 2500},
    "personal": {"kind": "fine-tune", "epochs": 1, "unseen": 4},
    "budget": {"commits": 40},
    "evaluate": {"every_commits": 10},
    "runtime": {"executor": "inline"},
}
"""Rounds with over-selection and a deadline while phones charge: landed, late, surplus, offline."""

BUFFERED = DEADLINE | {
    "population": {"preset": "phones_2020", "clients": 30, "availability": "charging", "on_close": "pause"},
    "protocol": {"kind": "buffered", "concurrency": 8, "buffer": 3},
    "energy": {"tail": True},
    "budget": {"commits": 20},
}


@cache
def audited(name: str = "deadline") -> Run:
    """A run of the settings of that name, whose books are right."""
    settings = {"deadline": DEADLINE, "buffered": BUFFERED}[name]
    return simulate(Experiment.model_validate(settings), report=False)


def golden(name: str) -> Run:
    """A golden run of that name."""
    from golden import FOLDER

    return fedsim.simulate(fedsim.read(FOLDER / f"{name}.yaml"), report=False)


def with_rows(run: Run, table: str, rows, **values) -> Run:
    """The run with other values in some rows (a mask or numbers; None: all) of a table."""
    frame = run.tables[table].copy()
    at = frame.index if rows is None else frame.index[rows]
    for column, value in values.items():
        frame.loc[at, column] = value(frame.loc[at]) if callable(value) else value
    return dataclasses.replace(run, **{table: frame})


def with_settings(run: Run, **changes) -> Run:
    """The run with other settings declared: `block__key=value`."""
    experiment = copy.deepcopy(run.experiment)
    for path, value in changes.items():
        *blocks, key = path.split("__")
        place = experiment
        for block in blocks:
            place = place[block]
        place[key] = value
    return dataclasses.replace(run, experiment=experiment)


def with_info(run: Run, **values) -> Run:
    """The run with another `run.json`."""
    return dataclasses.replace(run, info=dataclasses.replace(run.info, **values))


def consistent(run: Run) -> Run:
    """The run with sums in commits and `run.json` that fit its visits again."""
    visits, commits = run.visits, run.commits.copy()
    taken = visits[visits["committed_version"] > 0].groupby("committed_version")
    version = commits["version"]
    commits["updates"] = version.map(taken.size()).fillna(0).astype("int64")
    commits["up_bytes"] = version.map(taken["up_bytes"].sum()).fillna(0).astype("int64")
    commits["mean_staleness"] = version.map(taken["staleness"].mean())
    for name in ("up_bytes", "down_bytes", "joules"):
        sums = [visits.loc[visits["ended_s"] <= at, name].sum() for at in commits["time_s"]]
        commits[f"total_{name}"] = sums
    gross = visits["joules"] + visits["client"].map(run.clients["idle_w"]) * (
        visits["ended_s"] - visits["dispatched_s"] - visits["paused_s"]
    )
    run = dataclasses.replace(run, visits=visits.assign(gross_joules=gross), commits=commits)
    columns = columns_of(run)
    told = run.info.totals
    totals = dataclasses.replace(totals_of(columns), refused=told.refused, handed_over=told.handed_over)
    return with_info(run, totals=totals, saved_share=saved_share(columns))
