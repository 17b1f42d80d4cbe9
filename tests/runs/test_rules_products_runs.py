"""Whole runs of FLoRA, FlexLoRA, FedEx-LoRA and FedSVD, against algebra and against what they were given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import World, plan
from worlds.factored import apart, changed, close, dense_matrices, matrices
from worlds.whole_runs import finished, run_on

from fedsim.aggregators.fedex import FedEx
from fedsim.aggregators.fedsvd import FedSVD
from fedsim.aggregators.flexlora import FlexLoRA
from fedsim.aggregators.flora import FLoRA
from fedsim.metrics.sums import add_sums

RULES = {rule.__name__: rule for rule in (FLoRA, FlexLoRA, FedEx, FedSVD)}
TRAIN_S = [1.0, 2.0, 3.0, 5.0]
ALL_FOUR = {"kind": "synchronous", "cohort": 4}
BUFFERED = {"kind": "buffered", "concurrency": 3, "buffer": 2}
COMMITS = 6


def planned(protocol, aggregator, *, lr=0.1, rank=2, **blocks):
    """Four clients on factors of one 5 x 5 matrix of scale 4 / rank, each drawn to its own optimum."""
    return plan(
        protocol,
        TRAIN_S,
        **{
            "task": {"kind": "quadratic", "layout": "lora", "dimension": 5, "examples": "unequal"},
            "lora": {"r": rank, "alpha": 4.0},
            "local": {"optimizer": "sgd", "lr": lr, "epochs": 2, "batch": 10_000},  # two steps
            "aggregator": aggregator,
            "budget": {"commits": COMMITS},
            **blocks,
        },
    )


def shares(task):
    examples = np.array([task.examples(k) for k in range(task.clients)], float)
    return examples / examples.sum()


def optima(task):
    """Every client's optimum as (B, A)."""
    found = []
    for c in task.optima:
        arrays = task.layout.arrays(c)
        found.append((arrays["w.lora_B"], arrays["w.lora_A"]))
    return found


def mean(p, values):
    return sum(w * v for w, v in zip(p, values, strict=True))


# closed forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_fedex_ends_with_the_mean_factors_and_a_base_that_holds_every_rounds_covariance(lr):
    """Ends differ by (1 - q)(c_k - mean c), q = (1 - lr)^2, whatever the start: each commit adds s (1 - q)^2 Cov."""
    world = planned(ALL_FOUR, {"kind": "fedex"}, lr=lr)
    task, p, q = world.task, shares(world.task), (1 - lr) ** 2
    b, a = (mean(p, side) for side in zip(*optima(task), strict=True))
    covariance = mean(p, [(b_k - b) @ (a_k - a) for b_k, a_k in optima(task)])

    _, model = finished(world)

    middle = mean(p, task.optima)
    expected = middle + q**COMMITS * (task.initial() - middle)
    np.testing.assert_allclose(model.adapter.vector, expected, atol=1e-5)
    (base,) = (x for _, x in model.base.matrices())
    close([base], [COMMITS * 2.0 * (1 - q) ** 2 * covariance], rtol=1e-5)
    assert model.base.version == COMMITS


@pytest.mark.parametrize("lr", [0.1, 1.0])
def test_flora_adds_the_same_product_in_every_round_that_begins_alike(lr):
    """From (A_0, 0) client k ends at (q A_0 + (1 - q) A*_k, (1 - q) B*_k)."""
    world = planned(ALL_FOUR, {"kind": "flora", "reinit": "first"}, lr=lr)
    task, p, q = world.task, shares(world.task), (1 - lr) ** 2
    a_0 = task.layout.arrays(task.initial())["w.lora_A"]
    product = mean(p, [2.0 * (1 - q) * b @ (q * a_0 + (1 - q) * a) for b, a in optima(task)])

    _, model = finished(world)

    close(changed(model), [COMMITS * product], rtol=1e-5)
    assert np.array_equal(model.adapter.vector, task.initial())


@pytest.mark.parametrize("rank", [1, 2])
def test_flexlora_settles_at_the_best_approximation_of_the_clients_mean_product(rank):
    """With lr = 1 everybody ends at its optimum: D = sum p s B*_k A*_k, cut to the rank. FedIT settles elsewhere."""
    world = planned(ALL_FOUR, {"kind": "flexlora"}, lr=1.0, rank=rank)
    task, p = world.task, shares(world.task)
    product = mean(p, [4.0 / rank * b @ a for b, a in optima(task)])
    u, s, vt = np.linalg.svd(product)

    _, model = finished(world)

    close(changed(model), [(u[:, :rank] * s[:rank]) @ vt[:rank]], rtol=1e-5)
    _, fedit = finished(planned(ALL_FOUR, {"kind": "fedit"}, lr=1.0, rank=rank))
    off = apart(changed(fedit), [product])
    assert off > apart(changed(model), [product]) - 1e-6
    assert off > 1e-3


def test_fedsvd_settles_at_the_mean_b_over_the_direction_of_the_first_a():
    """Rank 1: A is +-A_0/|A_0| from the first commit on; B = (1 - q) m |A_0| (same sign), then b <- m + q (b - m)."""
    world = planned(ALL_FOUR, {"kind": "fedsvd"}, rank=1)
    task, p, q = world.task, shares(world.task), 0.9**2
    a_0 = task.layout.arrays(task.initial())["w.lora_A"].astype(float)
    size = np.linalg.norm(a_0)
    direction = a_0 / size * np.sign(a_0[0, np.abs(a_0).argmax()])
    m = mean(p, [b for b, _ in optima(task)])
    b = (1 - q) * m * float((a_0 @ direction.T)[0, 0])
    for _ in range(COMMITS - 1):
        b = m + q * (b - m)

    _, model = finished(world)

    ((_, a, found),) = matrices(model.adapter)
    np.testing.assert_allclose(a, direction, atol=1e-6)
    np.testing.assert_allclose(found, b, atol=1e-5)


# what a run gave the rule, and what came out ------------------------------------------------------


@pytest.fixture
def given(monkeypatch):
    """Every (model, contributions, weights, model after) that the rules of a run saw."""
    seen = []

    def watch(rule):
        apply = rule.apply

        def watched(self, state, model, contributions):
            contributions = list(contributions)
            new, after = apply(self, state, model, contributions)
            seen.append((model, contributions, self.shares(contributions, model), new))
            return new, after

        monkeypatch.setattr(rule, "apply", watched)

    for rule in RULES.values():
        watch(rule)
    return seen


def moves(contributions, weights, layout):
    """Sum of w s (B_k A_k - B_v A_v), dense."""
    found = [0.0] * len(layout.modules)
    for c, w in zip(contributions, weights, strict=True):
        ends, starts = dense_matrices(c.end, layout, c.scale), dense_matrices(c.start, layout, c.scale)
        found = [f + w * (e - s) for f, e, s in zip(found, ends, starts, strict=True)]
    return found


@pytest.mark.parametrize("kind", ["flora", "fedex", "fedsvd"])
@pytest.mark.parametrize("protocol", [ALL_FOUR, BUFFERED], ids=lambda p: p["kind"])
def test_in_a_run_base_and_adapter_move_by_the_weighted_moves_of_the_products(kind, protocol, given):
    world = planned(protocol, {"kind": kind, "staleness": {"kind": "product"}})

    run, model = finished(world)

    assert len(given) == COMMITS
    for before, contributions, weights, after in given:
        expected = zip(changed(before), moves(contributions, weights, world.task.layout), strict=True)
        close(changed(after), [x + m for x, m in expected], rtol=1e-5)
        for c in contributions:
            then = given[c.version][0]
            assert np.array_equal(c.start, then.adapter.vector)
            assert (c.base.version if c.base else 0) == (c.version if kind in ("flora", "fedex") else 0)
    stale = [c.staleness for _, contributions, *_ in given for c in contributions]
    assert (max(stale) > 0) == (protocol is BUFFERED)
    assert given[-1][3] is model
    assert len(run.commits) == COMMITS


def test_the_adapter_of_fedex_goes_the_way_of_fedit_also_when_updates_are_late():
    _, fedex = finished(planned(BUFFERED, {"kind": "fedex"}))
    _, fedit = finished(planned(BUFFERED, {"kind": "fedit"}))

    np.testing.assert_allclose(fedex.adapter.vector, fedit.adapter.vector, rtol=1e-5, atol=1e-6)
    assert np.any(fedex.base.vector)
    assert fedit.base is None


# bytes ------------------------------------------------------------------------------------------


def test_a_late_client_downloads_the_residuals_that_it_missed():
    """By hand: adapter 2 x (5 + 5) = 20 floats; a residual of 2 clients is 1 x 2 slots of 10, dense 25."""
    run, model = finished(planned(BUFFERED, {"kind": "fedex", "staleness": {"kind": "constant"}}))
    seen: dict[int, int] = {}

    for visit in run.visits.sort_values("order").itertuples():
        ranks = model.base.ranks[seen.get(visit.client, 0) : visit.version]
        assert visit.serialized_down_bytes == 4 * (20 + min(10 * sum(ranks), 25))
        if visit.outcome == "landed":
            assert visit.serialized_up_bytes == 4 * 20
        if visit.downloaded_s == visit.downloaded_s:
            seen[visit.client] = visit.version
    assert len({len(model.base.ranks[seen[k] :]) for k in seen}) > 1


@pytest.mark.parametrize("kind", ["flora", "flexlora", "fedex", "fedsvd"])
@pytest.mark.parametrize("protocol", [ALL_FOUR, BUFFERED], ids=lambda p: p["kind"])
def test_the_timeline_alone_has_the_same_bytes_as_the_trained_run(kind, protocol):
    world = planned(protocol, {"kind": kind})
    trained, _ = finished(world)
    timeline, _ = run_on(world, None)
    columns = ["client", "version", "landed_s", "down_bytes", "up_bytes", "serialized_down_bytes"]

    assert timeline.visits[columns].equals(trained.visits[columns])


# unequal ranks ----------------------------------------------------------------------------------


def unequal(protocol, aggregator, **blocks):
    """The same with ranks 1, 2, 2, 1 by tier."""
    ranks = {"rank_by": "tier", "ranks": {"low": 1, "high": 2}, "r": 2, "alpha": 4.0}
    world = planned(protocol, aggregator, lora=ranks | blocks.pop("lora", {}), **blocks)
    tiers = ["low", "high", "high", "low"]
    profiles = [replace(p, tier=t) for p, t in zip(world.population.profiles, tiers, strict=True)]
    return replace(world, population=World(profiles, world.population.availability))


def cut(matrix, rank):
    u, s, vt = np.linalg.svd(matrix)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def promised(kind, before, contributions, weights):
    """What the rule says the next model is, with dense matrices."""
    layout, now = before.adapter.layout, changed(before)
    if kind == "flora":
        return [x + m for x, m in zip(now, moves(contributions, weights, layout), strict=True)]
    mixed = [(1 - sum(weights)) * d for d in now]
    for c, w in zip(contributions, weights, strict=True):
        ends, starts = dense_matrices(c.end, layout, c.scale), dense_matrices(c.start, layout, c.scale)
        said = [
            e if c.staleness == 0 else cut(d, c.rank) + e - s
            for d, e, s in zip(now, ends, starts, strict=True)
        ]
        mixed = [m + w * x for m, x in zip(mixed, said, strict=True)]
    return [cut(m, layout.rank) for m in mixed]


@pytest.mark.parametrize("scale", ["common", "own"])
@pytest.mark.parametrize("kind", ["flora", "flexlora"])
@pytest.mark.parametrize("protocol", [ALL_FOUR, BUFFERED], ids=lambda p: p["kind"])
def test_small_devices_train_their_slots_and_count_with_their_product(kind, protocol, scale, given):
    world = unequal(protocol, {"kind": kind}, lora={"scale": scale})

    run, _ = finished(world)

    assert run.visits.groupby("client")["rank"].first().tolist() == [1, 2, 2, 1]
    for before, contributions, weights, after in given:
        close(changed(after), promised(kind, before, contributions, weights), rtol=1e-5)
        for c in contributions:
            assert c.scale == (4.0 / c.rank if scale == "own" else 2.0)
            assert not np.any(c.end[~world.task.layout.slots(c.rank)])


# language models --------------------------------------------------------------------------------


def language(model, data):
    """The blocks of a tiny language model, in steps so small that the last bit of a product stays small."""
    return {
        "task": {"kind": "language", "model": model, "data": str(data), "sequence": 16},
        "local": {"lr": 0.005, "steps": 12, "batch": 4},
        "evaluate": {"splits": ["test"], "every_commits": COMMITS, "windows": 16},
    }


@pytest.mark.parametrize(
    ("kind", "protocol"), [(k, p) for k in ("flora", "flexlora") for p in (ALL_FOUR, BUFFERED)]
)
def test_unequal_devices_teach_a_language_model_together(kind, protocol, gpt2, text_folder, given):
    world = unequal(protocol, {"kind": kind}, **language(gpt2, text_folder))

    run, _ = finished(world)

    first, last = run.scores.query("metric == 'perplexity'").sort_values("version")["value"].iloc[[0, -1]]
    assert last < 0.95 * first, "0.90 to 0.93; weights perturbed by 1e-7 move it by less than 1e-6"
    assert {c.rank for _, contributions, *_ in given for c in contributions} == {1, 2}
    for before, contributions, weights, after in given:
        close(changed(after), promised(kind, before, contributions, weights), rtol=1e-4)


@pytest.mark.parametrize("kind", ["flora", "fedex"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_last_score_is_that_of_a_plain_model_with_the_change_in_its_weights(
    kind, family, text_folder, tmp_path, request
):
    """GPT-2's Conv1D weights are (in, out), so the change is transposed there, and only there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = request.getfixturevalue(family)
    world = planned(BUFFERED, {"kind": kind}, **language(folder, text_folder))
    run, model = finished(world)
    score = run.scores.query("version == @COMMITS and metric == 'perplexity'")["value"].item()

    plain = AutoModelForCausalLM.from_pretrained(folder)
    weights = dict(plain.named_parameters())
    with torch.no_grad():
        for module, change in zip(model.adapter.layout.modules, changed(model), strict=True):
            turned = change.T if family == "gpt2" else change
            weights[f"{module.name}.weight"] += torch.from_numpy(turned.copy()).float()
    plain.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    task = planned(ALL_FOUR, {"kind": "fedit"}, **language(str(tmp_path), text_folder)).task
    sums = [task.score(task.initial(), probe) for probe in task.probes("test", 16)]

    assert task.metrics(add_sums(sums))["perplexity"] == pytest.approx(score, rel=1e-5)
