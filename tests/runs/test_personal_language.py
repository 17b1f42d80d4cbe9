"""Personalisation with real adapters: a GPT-2 of two blocks, four clients."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from worlds.whole_runs import finished

from fedsim.adapters.folding import adapter_into_base
from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.executors.inline import Inline
from fedsim.files.client_vectors import ClientVectors
from fedsim.jobs import Job
from fedsim.metrics.sums import add_sums
from fedsim.personal.folding import weighted
from fedsim.records.writer import Writer
from fedsim.runs.course import run_to_the_end, world
from fedsim.runs.replay import replay
from fedsim.runs.simulation import simulate


@pytest.fixture(scope="module")
def language(gpt2, text_folder):
    """A GPT-2 of two blocks, adapters of rank 2 on c_attn: A (2, 32) and B (96, 2) in each block."""

    def build(personal, **blocks):
        base = {
            "task": {"kind": "language", "model": gpt2, "data": str(text_folder), "sequence": 16},
            "lora": {"r": 2, "alpha": 4.0, "targets": ["c_attn"]},
            "population": {"preset": "homogeneous", "clients": 4},
            "protocol": {"kind": "synchronous", "cohort": 2},
            "local": {"optimizer": "adamw", "lr": 0.02, "steps": 2, "batch": 4},
            "budget": {"commits": 3},
            "evaluate": {"every_commits": 3, "windows": 2},
            "personal": personal,
            "runtime": {"executor": "inline"},
        }
        return Experiment.model_validate({**base, **blocks})

    return build


BLOCK = 2 * 32 + 96 * 2
"""Floats of one block's adapter."""


def test_fedpers_last_layer_never_travels_and_never_reaches_the_shared_model(language, tmp_path):
    run, model = finished(language({"kind": "fedper", "unseen": 1}), folder=tmp_path / "run")
    whole, other = finished(language({"kind": "none", "unseen": 1}))
    plan = prepare(language({"kind": "none"}))

    assert set(run.visits.up_bytes) == set(run.visits.down_bytes) == {4 * BLOCK}
    assert set(whole.visits.up_bytes) == {4 * 2 * BLOCK}
    initial = plan.task.initial()
    assert (
        model.adapter.vector[BLOCK:].tobytes() == initial[BLOCK:].tobytes()
    )  # the private block: as in version 0
    assert model.adapter.vector[:BLOCK].tobytes() != initial[:BLOCK].tobytes()
    assert other.adapter.vector[BLOCK:].tobytes() != initial[BLOCK:].tobytes()

    kept = ClientVectors.read(tmp_path / "run" / "kept" / "personal.f32")
    trained = set(run.visits[run.visits.committed_version > 0].client)
    assert set(kept) == trained
    assert {kept.get(client).shape for client in kept} == {(BLOCK,)}
    assert len({kept.get(client).tobytes() for client in kept}) == len(trained)


def test_fedpers_private_layer_is_trained_on_from_visit_to_visit(language):
    """Two visits by hand with the task alone: the second starts from the shared block and the own last one."""
    asked = language({"kind": "fedper"}, protocol={"kind": "synchronous", "cohort": 4}, budget={"commits": 2})
    run, model = finished(asked)
    plan = prepare(asked)
    initial, ends = plan.task.initial(), {}
    shared, own = initial, dict.fromkeys(range(4), initial[BLOCK:])
    for visit in range(2):
        jobs = [
            Job(c, visit, np.concatenate([shared[:BLOCK], own[c]]), plan.experiment.local, 0)
            for c in range(4)
        ]
        ends = dict(enumerate(plan.task.train(jobs)))
        own = {c: update.end[BLOCK:] for c, update in ends.items()}
        weights = np.array([plan.task.examples(c) for c in ends], np.float64)
        moves = np.array([u.end[:BLOCK].astype(np.float64) - shared[:BLOCK] for u in ends.values()])
        mean = weights @ moves / weights.sum()
        shared = np.concatenate([(shared[:BLOCK] + mean).astype(np.float32), initial[BLOCK:]])

    np.testing.assert_allclose(model.adapter.vector, shared, rtol=1e-5, atol=1e-7)
    for row in run.personal.itertuples():
        vector = np.concatenate([shared[:BLOCK], own[row.client]])
        probes = plan.task.probes("client", client=row.client)

        metrics = plan.task.metrics(add_sums([plan.task.score(vector, probe) for probe in probes]))
        assert row.metric_personal == pytest.approx(metrics[row.metric], rel=1e-5)


def test_feddpa_with_all_weight_on_the_local_adapter_is_training_alone(language):
    """a = 1 is Ditto with lambda = 0: the same chain of visits, scored over weights that nobody moved."""
    local, _ = finished(language({"kind": "feddpa", "a": 1.0}))
    alone, _ = finished(language({"kind": "ditto", "lam": 0.0}))

    seen = local.personal.seen > 0
    assert seen.sum() >= 2
    columns = ["client", "metric_global", "metric_personal", "seen"]
    pd.testing.assert_frame_equal(
        local.personal[seen][columns], alone.personal[seen][columns], check_exact=True
    )


def test_feddpa_with_no_weight_on_the_local_adapter_is_the_shared_model(language):
    run, _ = finished(language({"kind": "feddpa", "a": 0.0, "unseen": 1}))

    np.testing.assert_allclose(run.personal.metric_personal, run.personal.metric_global, rtol=1e-5)


@pytest.mark.parametrize("train", ["each", "after"])
def test_feddpa_adds_two_adapters_and_leaves_the_shared_one_alone(language, train):
    run, model = finished(language({"kind": "feddpa", "train": train, "lr": 0.02}))
    plain, other = finished(language({"kind": "none"}))

    assert model.adapter.vector.tobytes() == other.adapter.vector.tobytes()
    assert run.scores.drop(columns="time_s").equals(plain.scores.drop(columns="time_s"))
    assert (run.personal.metric_personal != run.personal.metric_global).all()
    assert (run.visits.flops.sum() > plain.visits.flops.sum()) == (train == "each")


@pytest.mark.parametrize("kind", ["fine-tune", "ditto", "feddpa"])
def test_no_epochs_no_gain_exactly_on_text(language, kind):
    run, _ = finished(language({"kind": kind, "epochs": 0}))

    assert (run.personal.gain == 0.0).all()


def test_fedsa_has_rows_of_its_own(language):
    run, _ = finished(
        language({"kind": "none", "unseen": 1, "local_epochs": 1}, aggregator={"kind": "fedsa"})
    )

    assert set(run.personal.kind) == {"fedsa"}
    rows = run.personal.set_index("client")
    trained = rows.index[rows.seen > 0]
    assert (rows.gain[trained] != 0).all()
    held = rows[rows.unseen]
    assert (held.gain == 0).all()  # a stranger's B is 0: until it tunes, the adapter does nothing
    assert rows.metric_local.notna().all()


# with everything else ---------------------------------------------------------------------------


def test_under_fedper_no_client_is_asked_again_before_its_private_layers_are_known(language):
    """A buffer of 2 that fills slowly: a client that has landed waits for the commit."""
    asked = language(
        {"kind": "fedper"},
        protocol={"kind": "buffered", "concurrency": 2, "buffer": 2},
        budget={"commits": 6},
        population={"preset": "mixed_edge_2025", "clients": 4},
    )
    run, _ = finished(asked)
    when = run.commits.set_index("version").time_s
    used = run.visits[run.visits.committed_version > 0].sort_values(["client", "visit"])
    pairs = 0
    for _, visits in used.groupby("client"):
        for earlier, later in zip(visits.itertuples(), list(visits.itertuples())[1:], strict=False):
            assert later.dispatched_s >= when[earlier.committed_version]
            pairs += 1
    assert pairs > 3


@pytest.mark.parametrize(("personal", "rule"), [("fedper", "fedit"), ("none", "fedsa")])
def test_the_timeline_alone_is_that_of_clients_who_wait_for_their_own_part(language, personal, rule):
    asked = language(
        {"kind": personal},
        aggregator={"kind": rule},
        protocol={"kind": "buffered", "concurrency": 2, "buffer": 2},
        budget={"commits": 4},
    )
    trained, _ = finished(asked)
    alone = simulate(asked, timeline_only=True)

    columns = ["client", "version", "dispatched_s", "landed_s", "up_bytes", "down_bytes", "flops", "joules"]
    pd.testing.assert_frame_equal(trained.visits[columns], alone.visits[columns], check_exact=True)


def test_what_stays_at_home_is_not_rounded_by_the_wire(language):
    """int8 both ways: the shared block changes, the private one of a first visit is that of exact numbers."""
    with_fedper = language({"kind": "fedper"}, budget={"commits": 1})
    coarse = language({"kind": "fedper"}, budget={"commits": 1}, wire={"dtype": "int8"})
    kept = []
    for asked in (with_fedper, coarse):
        plan, executor = prepare(asked), Inline()
        server = world(plan, executor, Writer(None, plan.experiment), lambda *_: None)
        run_to_the_end(server, lambda *_: None)
        kept.append((server.private_parts.finish(), server.model.adapter.vector))
        executor.close()
    (exact, vector), (rounded, other) = kept

    assert vector.tobytes() != other.tobytes()
    assert len(exact) == 2
    for client in exact:
        assert exact.get(client).tobytes() == rounded.get(client).tobytes()


def test_a_visit_with_private_layers_is_replayed_to_the_bit(language, tmp_path):
    run, _ = finished(language({"kind": "fedper"}, budget={"commits": 3}), folder=tmp_path / "run")
    again = run.visits[(run.visits.visit > 0) & (run.visits.committed_version > 0)].iloc[-1]

    found = replay(tmp_path / "run", int(again.client), int(again.visit))

    assert found.update.loss == found.recorded_loss
    first = ClientVectors.read(tmp_path / "run" / "kept" / "personal.f32").get(int(again.client))
    assert found.update.end[BLOCK:].tobytes() == first.tobytes()  # its last visit: what it keeps now


def test_feddpa_goes_over_weights_that_the_rule_moves(language, tmp_path):
    """FedEx-LoRA folds its residual into the weights; h is made over them, by hand here."""
    asked = language({"kind": "feddpa", "a": 0.5}, aggregator={"kind": "fedex"})
    run, model = finished(asked, folder=tmp_path / "run")
    plan, kept = prepare(asked), ClientVectors.read(tmp_path / "run" / "kept" / "personal.f32")
    layout = plan.task.layout

    assert model.base.version == 3
    base = adapter_into_base(layout, model.adapter.vector, 0.5 * 2.0, model.base.vector)  # (1 - a) alpha / r
    for row in run.personal[run.personal.seen > 0].itertuples():
        local = weighted(layout, kept.get(row.client), 0.5)
        probes = plan.task.probes("client", client=row.client)
        sums = add_sums([plan.task.score(local, probe, base) for probe in probes])
        assert row.metric_personal == pytest.approx(plan.task.metrics(sums)[row.metric], rel=1e-6)


def test_what_a_rule_keeps_for_its_clients_is_in_the_run_folder_too(language, tmp_path):
    run, model = finished(language({"kind": "none"}, aggregator={"kind": "fedsa"}), folder=tmp_path / "run")

    found = ClientVectors.read(tmp_path / "run" / "kept" / "rule.f32")
    assert set(found) == set(run.visits[run.visits.committed_version > 0].client)
    for client in found:
        assert found.get(client).tobytes() == model.personal.get(client).tobytes()


@pytest.mark.parametrize("scale", ["common", "own"])
def test_clients_of_several_ranks_have_personal_models_of_theirs(language, scale):
    """Without a second training a client's own model is the shared one, whatever its rank and scale."""
    mixed = {
        "lora": {"r": 2, "alpha": 4.0, "targets": ["c_attn"], "rank_by": "memory", "ranks": [1, 2], "scale": scale},
        "aggregator": {"kind": "flexlora"},
        "population": {"preset": "mixed_edge_2025", "clients": 6},
    }  # fmt: skip
    run, _ = finished(language({"kind": "fine-tune", "epochs": 0}, **mixed))
    tuned_, _ = finished(language({"kind": "fine-tune", "local_epochs": 1}, **mixed))

    assert (run.personal.gain == 0.0).all()
    assert tuned_.personal[["metric_personal", "metric_local"]].notna().all(axis=None)
