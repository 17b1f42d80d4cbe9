"""Personalisation in whole runs of the quadratic task, against its closed forms."""

from __future__ import annotations

from dataclasses import replace as replaced

import numpy as np
import pandas as pd
import pytest
from worlds.whole_runs import assert_same, finished

from fedsim.checks.personal import problems
from fedsim.clock.plan import prepare
from fedsim.component import find, kinds
from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.executors.inline import Inline
from fedsim.jobs import Job
from fedsim.runs.simulation import simulate
from fedsim.server.after.personalize import visits_after

SGD = {"optimizer": "sgd", "lr": 0.1, "steps": 3}
BUFFERED = {"kind": "buffered", "concurrency": 4, "buffer": 2}


def quadratic(personal, **blocks):
    base = {
        "task": {"kind": "quadratic"},
        "population": {"preset": "mixed_edge_2025", "clients": 8},
        "protocol": {"kind": "synchronous", "cohort": 4},
        "local": SGD,
        "budget": {"commits": 6},
        "personal": personal,
        "runtime": {"executor": "inline"},
    }
    return Experiment.model_validate({**base, **blocks})


# Ditto on the quadratic -------------------------------------------------------------------------


def committed(run):
    """(client, version downloaded) of every visit in the model, by version that took it."""
    used = run.visits[run.visits.committed_version > 0].sort_values(["committed_version", "client", "visit"])
    return list(zip(used.client, used.version, strict=True))


def models_of(experiment):
    """The shared vector of every version."""
    plan = prepare(experiment.model_copy(update={"personal": quadratic({"kind": "none"}).personal}))
    found = []
    for commits in range(1, 7):
        budget = experiment.budget.model_copy(update={"commits": commits})
        short = replaced(plan, experiment=plan.experiment.model_copy(update={"budget": budget}))
        found.append(finished(short)[1])
    return plan, [plan.task.initial(), *(model.adapter.vector for model in found)]


@pytest.mark.parametrize("lam", [0.0, 0.5, 9.0])
def test_ditto_ends_where_its_recursion_ends(lam):
    """v <- x* + (1 - eta (1 + lam))^3 (v - x*) with x* = (c + lam w) / (1 + lam), one visit after the other."""
    asked = quadratic({"kind": "ditto", "lam": lam})
    run, _ = finished(asked)
    plan, shared = models_of(asked)
    own = {client: plan.task.initial().astype(np.float64) for client in range(8)}
    for client, version in committed(run):
        target = (plan.task.optima[client] + lam * shared[version]) / (1 + lam)
        own[client] = target + (1 - 0.1 * (1 + lam)) ** 3 * (own[client] - target)

    rows = run.personal.set_index("client")
    trained = rows.index[rows.seen > 0]
    assert len(trained) > 4
    for client in trained:
        expected = 0.5 * np.sum((own[client] - plan.task.optima[client]) ** 2)
        assert rows.metric_personal[client] == pytest.approx(expected, rel=1e-5)


def test_ditto_without_the_pull_is_training_alone():
    """lambda = 0: v_k is what a chain of the client's own visits gives, to the bit."""
    run, _ = finished(quadratic({"kind": "ditto", "lam": 0.0}))
    plan, _ = models_of(quadratic({"kind": "none"}))
    rows = run.personal.set_index("client")
    for client in range(8):
        own = plan.task.initial()
        for visit in range(rows.seen[client]):
            (update,) = plan.task.train([Job(client, visit, own, plan.experiment.local, 0)])
            own = update.end
        if rows.seen[client]:
            (probe,) = plan.task.probes("client", client=client)
            assert rows.metric_personal[client] == plan.task.metrics(plan.task.score(own, probe))["loss"]


def test_ditto_with_a_strong_pull_is_the_shared_model():
    """lambda -> infinity, eta = 1 / lambda: every step lands on w, within eta of the gradient."""
    distance = {}
    for lam in (1e1, 1e3, 1e5):
        run, _ = finished(quadratic({"kind": "ditto", "lam": lam, "lr": 1 / lam}))
        plan, shared = models_of(quadratic({"kind": "none"}))
        newest = dict(committed(run))
        rows = run.personal.set_index("client")
        losses = [
            abs(rows.metric_personal[c] - 0.5 * np.sum((shared[v] - plan.task.optima[c]) ** 2))
            for c, v in newest.items()
        ]
        distance[lam] = max(losses)

    assert distance[1e3] < 0.05 * distance[1e1]
    assert distance[1e5] < 1e-3


@pytest.mark.parametrize(
    "protocol", [{"kind": "synchronous", "cohort": 4}, {**BUFFERED, "once_per_buffer": True}]
)
@pytest.mark.parametrize("personal", [{"kind": "fine-tune"}, {"kind": "ditto", "lam": 0.5}])
def test_what_is_personal_has_no_effect_on_the_shared_model(personal, protocol):
    """To the bit, and in the schedule too where the second training is not on the clock."""
    without, plain = finished(quadratic({"kind": "none"}, protocol=protocol))
    with_it, model = finished(quadratic(personal, protocol=protocol))

    if protocol["kind"] == "synchronous":
        assert model.adapter.vector.tobytes() == plain.adapter.vector.tobytes()
        assert with_it.scores[["version", "value"]].equals(without.scores[["version", "value"]])
    if personal["kind"] == "fine-tune":
        assert model.adapter.vector.tobytes() == plain.adapter.vector.tobytes()
        assert_same(with_it, without, "personal")


def test_two_trainings_take_twice_the_time_and_the_operations():
    without, _ = finished(quadratic({"kind": "none"}))
    once, _ = finished(quadratic({"kind": "ditto"}))
    thrice, _ = finished(quadratic({"kind": "ditto", "epochs": 3}, local={"optimizer": "sgd", "epochs": 1}))
    single, _ = finished(quadratic({"kind": "none"}, local={"optimizer": "sgd", "epochs": 1}))

    pd.testing.assert_series_equal(once.visits.flops, 2 * without.visits.flops)
    pd.testing.assert_series_equal(thrice.visits.flops, 4 * single.visits.flops)
    assert (once.visits.trained_s - once.visits.downloaded_s).sum() == pytest.approx(
        2 * (without.visits.trained_s - without.visits.downloaded_s).sum()
    )
    more = once.clients.needed_memory_bytes - without.clients.needed_memory_bytes
    assert set(more.round(3)) == {2 * 4.0 * 8}  # w and what becomes of it: 8 numbers each, in float32
    assert once.visits.tokens.equals(without.visits.tokens)  # the visit's own


# clients that were never asked ------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [{"kind": "synchronous", "cohort": 4}, BUFFERED])
def test_clients_held_out_are_never_asked_and_looked_at_after_the_run(protocol):
    run, _ = finished(quadratic({"kind": "fine-tune", "unseen": 3, "clients": 2}, protocol=protocol))

    held = set(run.personal[run.personal.unseen].client)
    assert len(held) == 3
    assert held.isdisjoint(run.visits.client)
    assert set(run.personal[run.personal.unseen].seen) == {0}
    assert len(run.personal) == 5  # two of the others
    seen = run.visits[run.visits.committed_version > 0].client.value_counts()
    for row in run.personal[~run.personal.unseen].itertuples():
        assert row.seen == seen.get(row.client, 0)
    assert (run.personal.gain > 0).all()


def test_a_client_that_joins_ditto_is_drawn_to_the_last_shared_model():
    run, model = finished(quadratic({"kind": "ditto", "lam": 0.5, "epochs": 2, "unseen": 2}))
    plan, w = prepare(quadratic({"kind": "none"})), model.adapter.vector
    for row in run.personal[run.personal.unseen].itertuples():
        target = (plan.task.optima[row.client] + 0.5 * w) / 1.5
        steps = 2 * 4  # 32 examples in batches of 8
        own = target + (1 - 0.1 * 1.5) ** steps * (w - target)
        expected = 0.5 * np.sum((own - plan.task.optima[row.client]) ** 2)
        assert row.metric_personal == pytest.approx(expected, rel=1e-5)


# what is trained after the run ------------------------------------------------------------------


@pytest.mark.parametrize(("lr", "rate"), [(None, 0.1 * 0.5**3), (0.2, 0.2)], ids=["local", "its own"])
def test_fine_tuning_goes_on_at_the_rate_that_a_visit_would_have(lr, rate):
    """Version 3 of a decay of 0.5: four steps of 0.0125; training alone from version 0 has not decayed."""
    asked = {"kind": "fine-tune", "lr": lr, "local_epochs": 1}
    run, model = finished(quadratic(asked, local={**SGD, "lr_decay": 0.5}, budget={"commits": 3}))
    plan = prepare(quadratic({"kind": "none"}))
    for row in run.personal.itertuples():
        optimum, steps = plan.task.optima[row.client], 4  # 32 examples in batches of 8
        gap = (1 - rate) ** steps * (model.adapter.vector - optimum)
        assert row.metric_personal == pytest.approx(0.5 * np.sum(gap**2), rel=1e-5)
        assert row.metric_local == pytest.approx(0.5 * np.sum((0.9**steps * optimum) ** 2), rel=1e-5)


@pytest.mark.parametrize(("scale", "expected"), [("common", 2.0), ("own", 4.0)])
def test_a_client_of_few_slots_trains_after_the_run_in_the_scale_of_its_visits(scale, expected):
    """alpha 8 and r 4: the server's scale is 2; a client of two slots has it too, or PEFT's 8 / 2."""
    jobs = []

    class Noting(Inline):
        def train(self, batch):
            jobs.extend(batch)
            return super().train(batch)

    asked = quadratic(
        {"kind": "fine-tune", "local_epochs": 1},
        task={"kind": "quadratic", "layout": "lora"},
        lora={
            "r": 4,
            "alpha": 8.0,
            "rank_by": "tier",
            "scale": scale,
            "ranks": dict.fromkeys(CLASSES, 2) | {"laptop": 4},
        },
        budget={"commits": 2},
    )
    simulate(prepare(asked), Noting())

    small = [job for job in jobs if job.rank == 2]
    assert {job.purpose for job in small} == {"train", "personal", "alone"}
    assert {job.scale for job in small} == {expected}


# the table --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fine-tune", "ditto"])
def test_no_epochs_no_gain_exactly(kind):
    run, _ = finished(quadratic({"kind": kind, "epochs": 0, "unseen": 2}))

    assert len(run.personal) == 8
    assert (run.personal.gain == 0.0).all()
    assert run.personal.metric_personal.equals(run.personal.metric_global)


def test_local_training_alone_is_beside_the_others_on_the_same_split():
    """Version 0 is the origin: 2 epochs of 4 steps of 0.1 leave 0.9^8 of the way to the client's optimum."""
    run, model = finished(quadratic({"kind": "none", "local_epochs": 2}))
    plan = prepare(quadratic({"kind": "none"}))
    for row in run.personal.itertuples():
        optimum = plan.task.optima[row.client]
        assert row.metric_local == pytest.approx(0.5 * np.sum((0.9**8 * optimum) ** 2), rel=1e-5)
        assert row.metric_global == pytest.approx(
            0.5 * np.sum((model.adapter.vector - optimum) ** 2), rel=1e-5
        )
        assert row.gain == 0.0


def test_a_rule_under_which_clients_keep_a_part_has_its_own_rows():
    """local-only: the shared model is version 0, a client's own is where its visits led."""
    alone = {"kind": "buffered", "concurrency": 8, "buffer": 1}
    run, _ = finished(
        quadratic({"kind": "none"}, aggregator={"kind": "local-only"}, protocol=alone, budget={"commits": 20})
    )
    plan = prepare(quadratic({"kind": "none"}))
    assert set(run.personal.kind) == {"local-only"}
    for row in run.personal.itertuples():
        optimum = plan.task.optima[row.client]
        assert row.metric_global == pytest.approx(0.5 * np.sum(optimum**2), rel=1e-5)
        left = 0.9 ** (3 * row.seen)
        assert row.metric_personal == pytest.approx(0.5 * np.sum((left * optimum) ** 2), rel=1e-5)


def test_a_run_with_nothing_personal_has_no_rows():
    assert finished(quadratic({"kind": "none"}))[0].personal.empty


def test_the_same_run_with_more_clients_a_call_gives_the_same_rows():
    asked = {"kind": "ditto", "lam": 0.5, "unseen": 2, "local_epochs": 1}
    runs = [finished(quadratic(asked, numerics={"client_batch": k}, protocol=BUFFERED))[0] for k in (1, 3, 8)]

    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


def test_the_timeline_alone_is_charged_the_second_training_too():
    trained, _ = finished(quadratic({"kind": "ditto"}, protocol=BUFFERED))
    alone = simulate(quadratic({"kind": "ditto"}, protocol=BUFFERED), timeline_only=True)

    columns = ["client", "dispatched_s", "landed_s", "flops", "joules", "version"]
    pd.testing.assert_frame_equal(trained.visits[columns], alone.visits[columns], check_exact=True)
    assert alone.personal.empty


# with everything else ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [kind for kind in kinds("protocols") if kind != "synchronous"])
@pytest.mark.parametrize("sampler", kinds("samplers"))
def test_no_protocol_and_no_sampler_asks_who_is_held_out(protocol, sampler):
    sizes = {"cohort": 3, "concurrency": 3, "k": 2, "tiers": 3}
    fields = find("protocols", protocol).model_fields
    few = {name: size for name, size in sizes.items() if name in fields}
    asked = quadratic(
        {"kind": "none", "unseen": 3},
        protocol={"kind": protocol, **few},
        sampler={"kind": sampler},
        population={"preset": "mixed_edge_2025", "clients": 12},
        budget={"commits": 8, "time_s": 1e5},
    )
    run, _ = finished(asked)

    assert not run.visits.empty
    assert set(run.personal[run.personal.unseen].client).isdisjoint(run.visits.client)


# what is refused before anything starts ---------------------------------------------------------


@pytest.mark.parametrize(
    ("personal", "blocks", "says"),
    [
        ({"kind": "none", "clients": 9}, {}, "is more than there are (8)"),
        ({"kind": "none", "unseen": 5}, {}, "leaves 3 of 8 clients to ask, and the protocol asks 4 at once"),
        ({"kind": "none", "unseen": 0.5}, {"protocol": BUFFERED}, None),
        ({"kind": "none", "unseen": 5}, {"protocol": BUFFERED}, "leaves 3 of 8 clients to ask"),
        ({"kind": "ditto", "lam": 20.0}, {}, "overshoot the shared model (lam times lr = 2, not below 2)"),
        ({"kind": "ditto", "lam": 20.0, "lr": 0.05}, {}, None),
        ({"kind": "feddpa"}, {}, "adds products B A, and task quadratic only knows the factors' entries"),
    ],
)
def test_what_the_block_cannot_be_is_said_with_a_fix(personal, blocks, says):
    found = problems(quadratic(personal, **blocks))

    assert len(found) == (says is not None)
    for problem in found:
        assert says in problem.what
        assert problem.fix


def visits_that_follow(personal):
    """In visits of one epoch of clients that all have as many examples."""
    local = {"optimizer": "sgd", "lr": 0.1, "epochs": 1}
    return visits_after(prepare(quadratic(personal, local=local)))


def test_what_is_trained_after_a_run_is_known_before_it():
    """For estimates: eight clients, two of them held out."""
    asked = {"unseen": 2, "local_epochs": 3}
    alone = 8 * 3

    assert visits_that_follow({"kind": "none", **asked}) == alone
    assert visits_that_follow({"kind": "fine-tune", "epochs": 2, **asked}) == 8 * 2 + alone
    assert visits_that_follow({"kind": "ditto", **asked}) == 2 + alone  # those who join train once
    assert visits_that_follow({"kind": "feddpa", "train": "after", "epochs": 2}) == 8 * 2
    assert visits_that_follow({"kind": "fine-tune", "clients": 3}) == 3
