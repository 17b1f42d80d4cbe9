"""Sixty tampers with a run's tables, settings and `run.json`: each noticed, with table and column, sums made to fit or not.

`ALONE` are noticed by the auditor that knows nothing of the simulator, too (`fedsim verify --accounts-only`); the rest
needs the replay, or the seals of `run.json`. The first fifteen are those that an audit of the clock tried.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.audited import audited, consistent, with_info, with_rows, with_settings
from worlds.cases import tried

from fedsim.config.experiment import Experiment
from fedsim.records.info import Batteries, Refusal
from fedsim.records.tables import TABLES
from fedsim.records.verify import verify
from fedsim.runs.audit import audit
from fedsim.runs.simulation import simulate

RUN = audited()
VISITS = RUN.visits


def those(**values):
    """Numbers of the visits that have these values."""
    mask = np.ones(len(VISITS), dtype=bool)
    for column, value in values.items():
        mask &= (VISITS[column] == value).to_numpy()
    return np.flatnonzero(mask)


def changed(rows=None, *, fitting=True, **values):
    run = with_rows(RUN, "visits", rows, **values)
    return consistent(run) if fitting else run


def halved(column, begin, later):
    """Half the time of a phase, and everything after it earlier by as much."""
    took = (VISITS[column] - VISITS[begin]) / 2
    return {column: VISITS[column] - took} | {name: VISITS[name] - took.fillna(0.0) for name in later}


def slow_downloads():
    took = (VISITS["downloaded_s"] - VISITS["dispatched_s"]) * 19
    return {"downloaded_s": VISITS["downloaded_s"] + took}


def swapped():
    outcome = VISITS["outcome"].replace({"late": "surplus", "surplus": "late"})
    return changed(outcome=lambda rows: outcome.loc[rows.index])


def commit_later():
    return with_rows(RUN, "commits", [7], time_s=lambda rows: rows["time_s"] + 1e-3)


LANDED = those(outcome="landed")
OFFLINE = those(outcome="offline")
SURPLUS = those(outcome="surplus")
LATE = those(outcome="late")
ONE = LANDED[3:4]

ALONE = {
    # fifteen of an audit of the clock
    "all trained_s halved": (lambda: changed(**halved("trained_s", "downloaded_s", ())), "trained_s"),
    "joules doubled, sums made to fit": (lambda: changed(joules=lambda r: r["joules"] * 2), "joules"),
    "no joules": (lambda: changed(joules=0.0), "joules"),
    "a tenth of the FLOPs": (lambda: changed(flops=lambda r: r["flops"] / 10), "flops"),
    "late and surplus swapped": (swapped, "outcome"),
    "offline told as late": (lambda: changed(OFFLINE, outcome="late", away=""), "late"),
    "a deadline of 100 s declared": (lambda: with_settings(RUN, protocol__deadline_s=100), "landed_s"),
    "a cohort of two declared": (lambda: with_settings(RUN, protocol__cohort=2), "round"),
    "another seed declared": (lambda: with_settings(RUN, seed=4), "seed"),
    "an update left out of its commit": (lambda: changed(ONE, committed_version=-1, staleness=-1), "committed_version"),
    "a tenth of the bytes less": (
        lambda: changed(
            **{
                name: lambda r, name=name: (r[name] * 0.9).astype("int64")
                for name in ("up_bytes", "down_bytes", "serialized_up_bytes", "serialized_down_bytes")
            }
        ),
        "bytes",
    ),
    "downloads twenty times slower": (lambda: changed(**slow_downloads()), "downloaded_s"),
    "a battery blamed without one": (lambda: changed(OFFLINE, away="battery"), "away"),
    "a commit a millisecond later": (commit_later, "commit"),
    "bytes doubled": (lambda: changed(down_bytes=lambda r: r["down_bytes"] * 2), "down_bytes"),
    # more of them
    "one trained_s earlier by a second": (lambda: changed(ONE, trained_s=lambda r: r["trained_s"] - 1), "trained_s"),
    "one download quicker": (lambda: changed(ONE, downloaded_s=lambda r: r["dispatched_s"] + 1e-3), "downloaded_s"),
    "one upload of no time": (lambda: changed(ONE, trained_s=lambda r: r["landed_s"]), "trained_s"),
    "one landing an hour late": (
        lambda: changed(ONE, landed_s=lambda r: r["landed_s"] + 3600, ended_s=lambda r: r["ended_s"] + 3600),
        "landed_s",
    ),
    "one joule more": (lambda: changed(ONE, joules=lambda r: r["joules"] + 1), "joules"),
    "joules of late visits forgotten": (lambda: changed(LATE, joules=0.0), "joules"),
    "bytes of lost visits forgotten": (lambda: changed(OFFLINE, down_bytes=0), "down_bytes"),
    "half the FLOPs of lost visits": (lambda: changed(LATE, flops=lambda r: r["flops"] / 2), "flops"),
    "gross joules halved": (lambda: changed(fitting=False, gross_joules=lambda r: r["gross_joules"] / 2), "gross_joules"),
    "surplus told as landed": (lambda: changed(SURPLUS, outcome="landed"), "landed"),
    "late told as surplus": (lambda: changed(LATE, outcome="surplus"), "surplus"),
    "late told as offline": (lambda: changed(LATE, outcome="offline", away="window"), "away"),
    "an outage blamed without outages": (lambda: changed(OFFLINE, away="outage"), "away"),
    "heat blamed without heat": (lambda: changed(OFFLINE, away="heat"), "away"),
    "a level of a battery without one": (lambda: changed(ONE, battery=0.5), "battery"),
    "a visit when its window is closed": (
        lambda: with_rows(RUN, "clients", None, windows=lambda r: ["0.0:1.0"] * len(r)),
        "dispatched_s",
    ),
    "one visit of another round": (lambda: changed(ONE, round=39), "round"),
    "a visit removed": (lambda: with_table(VISITS.drop(index=ONE[0])), "visit"),
    "a commit removed": (lambda: with_table(RUN.commits.iloc[:-1], "commits"), "commit"),
    "a client removed": (lambda: with_table(RUN.clients.iloc[:-1], "clients"), "clients"),
    "a visit twice": (lambda: with_table(VISITS.iloc[[*range(len(VISITS)), 5]]), "visit"),
    "an older version": (lambda: changed(LANDED[-1:], version=lambda r: r["version"] - 1), "version"),
    "staleness of one": (lambda: changed(ONE, staleness=1), "staleness"),
    "over-selection of one declared": (lambda: with_settings(RUN, protocol__over_select=1.0), "round"),
    "slower links declared": (lambda: with_settings(RUN, network__server_up_mbps=0.01), "downloaded_s"),
    "another name": (lambda: with_settings(RUN, name="other"), "name"),
    "a faster device": (lambda: with_rows(RUN, "clients", None, flops_per_s=lambda r: r["flops_per_s"] * 2), "trained_s"),
    "a thriftier device": (lambda: with_rows(RUN, "clients", None, train_w=lambda r: r["train_w"] / 2), "joules"),
    "shorter round trips": (lambda: with_rows(RUN, "clients", None, rtt_s=0.0), "downloaded_s"),
    "no headers on the way": (lambda: with_rows(RUN, "clients", None, framing=1.0), "downloaded_s"),
    "FLOPs of a visit in the clients": (
        lambda: with_rows(RUN, "clients", None, visit_flops=lambda r: r["visit_flops"] * 2),
        "flops",
    ),
    "a loss above the root of its square": (lambda: changed(ONE, loss=lambda r: r["loss"] * 3), "loss_square"),
    "a loss a little less": (lambda: changed(ONE, loss=lambda r: r["loss"] * 0.99), "loss"),
    "an update of negative length": (lambda: with_rows(RUN, "commits", [2], update_norm=-1.0), "update_norm"),
    "a cosine of two": (lambda: with_rows(RUN, "commits", [2], mean_cosine=2.0), "mean_cosine"),
    "a better score": (lambda: with_rows(RUN, "scores", [-1], value=lambda r: r["value"] * 0.5), "value"),
    "a score of another instant": (lambda: with_rows(RUN, "scores", [-1], time_s=lambda r: r["time_s"] - 60), "scored"),
    "a larger gain": (lambda: with_rows(RUN, "personal", [0], gain=lambda r: r["gain"] + 1), "gain"),
    "somebody held out who was asked": (
        lambda: with_rows(RUN, "personal", np.flatnonzero(RUN.personal["seen"] > 0)[:1], unseen=True),
        "unseen",
    ),
    "more visits in the model": (lambda: with_rows(RUN, "personal", [0], seen=99), "seen"),
    "an earlier end": (lambda: with_info(RUN, end_time_s=1.0), "end_time_s"),
    "another saved share": (lambda: with_info(RUN, saved_share=0.99), "saved_share"),
    "a refusal of nobody": (lambda: with_info(RUN, refused=(Refusal(0, 0, "no reason"),)), "refused"),
    "nothing trained": (lambda: with_info(RUN, timeline_only=True), "timeline_only"),
    "wall-clock lines left out": (lambda: with_table(RUN.wall[:-1], "wall"), "wall.jsonl"),
}  # fmt: skip

REPLAYED = {
    "another seed declared everywhere": (lambda: declared_anew(seed=4), ""),
    "faster devices, and trained_s to fit": (
        lambda: with_rows(
            changed(**halved("trained_s", "downloaded_s", ("landed_s", "ended_s"))),
            "clients",
            None,
            flops_per_s=lambda r: r["flops_per_s"] * 2,
        ),
        "flops_per_s",
    ),
    "windows a minute longer": (
        lambda: with_rows(RUN, "clients", [0], windows=lambda r: [f"{w} 9e9:9e9" for w in r["windows"]]),
        "windows",
    ),
    "nobody computed": (lambda: changed(computed=False), "computed"),
    "half of the tokens": (lambda: changed(tokens=lambda r: r["tokens"] // 2), "tokens"),
    "other devices' names": (lambda: with_rows(RUN, "clients", None, device="phone"), "device"),
    "another tier": (lambda: with_rows(RUN, "clients", [3], tier="other"), "tier"),
    "another sampler declared": (lambda: declared_anew(sampler={"kind": "least-available"}), ""),
    "another population's source": (lambda: with_info(RUN, population=dict(RUN.info.population, preset="x")), "population"),
    "another end of the budget": (lambda: with_info(RUN, end_time_s=RUN.info.end_time_s + 1), "end_time_s"),
    "batteries of nobody": (
        lambda: with_info(RUN, batteries=Batteries(1, 1.0, 1.0, 1.0, 1.0, 0.5)),
        "batteries",
    ),
    "the instants of one visit a minute later": (
        lambda: changed(
            LATE[:1], **{n: (lambda r, n=n: r[n] + 60) for n in ("dispatched_s", "downloaded_s", "ended_s")}
        ),
        "dispatched_s",
    ),
}  # fmt: skip
"""Noticed by the replay."""


def with_table(rows, table="visits"):
    from dataclasses import replace

    rows = rows if isinstance(rows, list) else rows.reset_index(drop=True)
    return replace(RUN, **{table: rows})


def declared_anew(**changes):
    """Settings changed in every place where they are written down."""
    from fedsim.records.integrity.seals import settings_sha256

    run = with_settings(RUN, **changes)
    return with_info(run, seed=run.experiment["seed"], digest=settings_sha256(run.experiment))


def test_the_run_itself_has_no_problem():
    assert verify(RUN) == []
    assert audit(RUN).problems == ()


@pytest.mark.parametrize("tamper", ALONE)
def test_a_tamper_is_noticed_by_the_auditor_alone(tamper):
    make, word = ALONE[tamper]
    problems = verify(make())

    assert any(word in problem for problem in problems), problems


@pytest.mark.parametrize("tamper", REPLAYED)
def test_a_tamper_is_noticed_by_the_replay(tamper):
    make, word = REPLAYED[tamper]
    problems = audit(make()).problems

    assert any(word in problem for problem in problems), problems


def test_there_are_tampers_enough():
    assert len(ALONE) + len(REPLAYED) >= 70


# any cell ---------------------------------------------------------------------------------------

SMALL = simulate(
    Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": 6},
            "task": {"kind": "quadratic", "layout": "lora"},
            "lora": {"r": 2, "alpha": 4},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
            "protocol": {"kind": "synchronous", "cohort": 2},
            "personal": {"kind": "fine-tune", "epochs": 1},
            "budget": {"commits": 4},
            "evaluate": {"every_commits": 2},
            "runtime": {"executor": "inline"},
        }
    ),
    report=False,
)


def other(value):
    """Another value of the same type."""
    if isinstance(value, str):
        return st.text("abc", min_size=1, max_size=3).filter(lambda text: text != value)
    if isinstance(value, bool | np.bool_):
        return st.just(not value)
    if isinstance(value, int | np.integer):
        return st.integers(-(2**40), 2**40).filter(lambda number: number != value)
    nearby = [float(np.nextafter(value, math.inf)), value * 1.01 + 1e-9, -value - 1.0]
    numbers = st.floats(-1e12, 1e12) | st.sampled_from([x for x in nearby if not math.isnan(x)] or [0.0])
    return numbers.filter(lambda number: number != value)


@settings(deadline=None, max_examples=tried(25))
@given(data=st.data())
def test_any_cell_of_any_table_that_is_changed_is_noticed(data):
    table = data.draw(st.sampled_from([name for name in TABLES if len(SMALL.tables[name])]))
    column = data.draw(st.sampled_from(list(TABLES[table])))
    row = data.draw(st.integers(0, len(SMALL.tables[table]) - 1))
    value = data.draw(other(SMALL.tables[table][column].iloc[row]))
    problems = audit(with_rows(SMALL, table, [row], **{column: value})).problems

    assert any(table in problem or f"{table[:-1]} " in problem for problem in problems), problems
