"""What a client counts as, what divides a sum, and clients that make unequal numbers of steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from worlds import experiment, plan
from worlds.factors import FRESH, after, landed, model_of, some_model, visited

from fedsim.adapters.adapter import Layout, Tensor
from fedsim.aggregators._base import Setting
from fedsim.aggregators._factors import Averaging
from fedsim.aggregators._staleness import Polynomial
from fedsim.aggregators._steps import effective_steps
from fedsim.aggregators._weighting import Weighting
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.hetlora import HetLoRA
from fedsim.aggregators.rolora import RoLoRA
from fedsim.clock.auto import with_auto_as_stored
from fedsim.component import build, kinds
from fedsim.config.learning import LocalConfig
from fedsim.runs.simulation import simulate

ONE = Layout(tensors=(Tensor("x", (1,)),))
SYNC = {"kind": "synchronous", "cohort": 3}
BUFFERED = {"kind": "buffered", "concurrency": 4, "buffer": 2}
SGD = {"optimizer": "sgd", "lr": 0.1}


def moved(*facts):
    """Contributions on one number that moved from 0 to `end`, with further facts."""
    return [
        replace(landed([0.0], [end], client=k, rank=0, scale=1.0), **more)
        for k, (end, more) in enumerate(facts)
    ]


def one(rule, *facts):
    return float(after(rule, model_of([0.0], ONE), moved(*facts))[0])


# n_k ---------------------------------------------------------------------------------------------

SHARDS = ((1.0, {"examples": 30.0, "used": 8.0}), (5.0, {"examples": 10.0, "used": 2.0}))


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("auto", (30 * 1 + 10 * 5) / 40),
        ("examples", (30 * 1 + 10 * 5) / 40),
        ("used", (8 * 1 + 2 * 5) / 10),
        ("uniform", (1 + 5) / 2),
    ],
)
def test_a_client_counts_as_it_is_told(weight, expected):
    assert one(FedIT(weight=weight), *SHARDS) == pytest.approx(expected)


@pytest.mark.parametrize("kind", kinds("aggregators"))
def test_every_rule_of_weighted_moves_counts_alike(kind):
    """All of them: twice the weight is what two equal clients have."""
    rule = build("aggregators", {"kind": kind})
    if not isinstance(rule, Weighting):
        pytest.skip("its weights are its own")
    counts = {"examples": (3.0, 1.0, 1.0), "used": (1.0, 3.0, 1.0), "uniform": (1.0, 1.0, 1.0)}
    c = visited(rule, rule.init(some_model()), some_model(), 0)
    for weight, expected in counts.items():
        told = rule.model_copy(update={"weight": weight, "staleness": FRESH})
        raw = [
            told.raw(replace(c, examples=n, used=m), some_model())
            for n, m in ((3.0, 1.0), (1.0, 3.0), (1.0, 1.0))
        ]
        assert raw == list(expected), weight
    for normalize in ("K", "none"):
        told = rule.model_copy(update={"normalize": normalize, "staleness": FRESH})
        assert told.raw(replace(c, examples=7.0, used=9.0), some_model()) == 1.0


def test_hetlora_counts_by_norm_or_as_others_do():
    model = some_model()
    ends = [visited(HetLoRA(), {}, model, k) for k in range(2)]
    given = [replace(c, examples=n, used=m) for c, n, m in zip(ends, (3.0, 1.0), (1.0, 1.0), strict=True)]

    for weights in ("examples", "used", "uniform"):
        expected = after(FedIT(weight=weights), model, given)
        np.testing.assert_allclose(after(HetLoRA(weights=weights), model, given), expected, rtol=1e-6)


@pytest.mark.parametrize("weight", ["examples", "used"])
@pytest.mark.parametrize("normalize", ["K", "none"])
def test_a_weight_that_nobody_looks_at_is_refused(weight, normalize):
    with pytest.raises(ValidationError, match="counts every update alike"):
        FedIT(weight=weight, normalize=normalize)


# what `auto` stands for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "sampler", "asked", "decided"),
    [
        (SYNC, "uniform", {}, ("examples", "weights")),
        (SYNC, "power-of-choice", {}, ("uniform", "weights")),
        (SYNC, "power-of-choice", {"weight": "examples"}, ("examples", "weights")),
        (BUFFERED, "uniform", {}, ("uniform", "K")),
        (BUFFERED, "uniform", {"weight": "examples"}, ("examples", "weights")),
        (BUFFERED, "uniform", {"weight": "used"}, ("used", "weights")),
        (BUFFERED, "uniform", {"weight": "uniform"}, ("uniform", "K")),
        (BUFFERED, "uniform", {"normalize": "weights"}, ("examples", "weights")),
        (BUFFERED, "uniform", {"normalize": "none"}, ("uniform", "none")),
        ({"kind": "semi-synchronous", "concurrency": 3}, "uniform", {}, ("examples", "weights")),
        (
            {"kind": "tiers", "tiers": 2, "cohort": 2, "across": "asynchronous"},
            "uniform",
            {},
            ("examples", "weights"),
        ),
    ],
)
def test_auto_is_decided_by_protocol_and_sampler_and_written_down(protocol, sampler, asked, decided):
    made = plan(
        protocol,
        [1.0] * 6,
        sampler={"kind": sampler},
        aggregator={"kind": "fedit", **asked},
        local=SGD,
    )
    rule = made.experiment.plain()["aggregator"]

    assert (rule["weight"], rule["normalize"]) == decided
    assert made.parts.aggregator == made.experiment.aggregator


def test_a_stored_run_is_recognised_by_what_auto_was():
    asked = experiment(BUFFERED, 4, aggregator={"kind": "fedit"})
    stored = plan(BUFFERED, [1.0] * 4, aggregator={"kind": "fedit"}).experiment.plain()

    assert with_auto_as_stored(asked, stored).aggregator.normalize == "K"
    assert Setting().fedbuff is Setting().chosen_by_size is False


def test_fedbuff_is_the_sum_of_discounted_moves_over_their_number():
    """Two updates, one of them three versions old: (1 * 1 + 5 * (1 + 3)^-1/2) / 2; the shards play no part."""
    rule = FedIT(staleness=Polynomial(a=0.5)).suited(Setting(fedbuff=True))

    made = one(rule, (1.0, {"examples": 30.0}), (5.0, {"examples": 10.0, "staleness": 3}))

    assert made == pytest.approx((1.0 + 5.0 / 2.0) / 2)


# what is counted ---------------------------------------------------------------------------------


def seen_by_the_rule(monkeypatch, protocol, *, timeline_only, rule=RoLoRA, **blocks):
    """What a rule is told of each contribution of a run: client, visit -> (examples, used, effective steps)."""
    told, real = {}, rule.apply

    def spying(self, state, model, contributions):
        everything = list(contributions)
        told.update({(c.client, c.visit): (c.examples, c.used, c.effective_steps) for c in everything})
        return real(self, state, model, everything)

    monkeypatch.setattr(rule, "apply", spying)
    made = plan(
        protocol,
        [1.0, 2.0, 3.0, 9.0],
        task={"kind": "quadratic", "layout": "lora", "examples": "unequal"},
        aggregator={"kind": rule.model_fields["kind"].default},
        budget={"commits": 4},
        **blocks,
    )
    simulate(made, timeline_only=timeline_only)
    monkeypatch.undo()
    return made, told


@pytest.mark.parametrize(
    "local",
    [{"epochs": 2, "batch": 8}, {"steps": 3, "batch": 8}, {"steps": 50, "batch": 3}],
    ids=["epochs", "few steps", "many steps"],
)
@pytest.mark.parametrize(
    "protocol", [SYNC, {"kind": "timely", "cohort": 4, "k": 2}], ids=["whole", "partial"]
)
def test_a_rule_counts_the_same_with_and_without_training(monkeypatch, protocol, local):
    blocks = {"local": {**SGD, **local}}
    made, trained = seen_by_the_rule(monkeypatch, protocol, timeline_only=False, **blocks)
    _, timeline = seen_by_the_rule(monkeypatch, protocol, timeline_only=True, **blocks)

    assert trained == timeline
    sizes = [made.task.examples(client) for client in range(4)]
    assert len(set(sizes)) == 4
    for (client, _), (examples, used, steps) in trained.items():
        assert examples == sizes[client], "n_k is the shard, whatever a visit used of it"
        assert used == min(sizes[client], steps * made.experiment.local.batch)


# unequal steps -----------------------------------------------------------------------------------


def nova(**facts):
    return FedIT(unequal_steps="fednova", staleness=FRESH, **facts)


def test_fednova_by_hand():
    """p = 3/4, 1/4; tau = 2, 8: tau_eff = 3.5, and the move is 3.5 (3/4 * 6/2 + 1/4 * 16/8)."""
    clients = (
        (6.0, {"examples": 3.0, "effective_steps": 2.0}),
        (16.0, {"examples": 1.0, "effective_steps": 8.0}),
    )

    assert one(nova(), *clients) == pytest.approx(3.5 * (0.75 * 3.0 + 0.25 * 2.0))
    assert one(nova(normalize="K"), *clients) == pytest.approx(5.0 * (3.0 + 2.0) / 2)
    assert one(FedIT(staleness=FRESH), *clients) == pytest.approx(0.75 * 6.0 + 0.25 * 16.0)


@pytest.mark.parametrize("kind", [k for k in kinds("aggregators") if k != "fedsa"])
def test_with_equal_steps_it_changes_nothing(kind):
    rule = build("aggregators", {"kind": kind})
    if not isinstance(rule, Averaging):
        with pytest.raises(ValidationError, match="unequal_steps"):
            type(rule)(unequal_steps="fednova")
        return
    model = some_model()
    given = [
        replace(visited(rule, rule.init(model), model, k, rank=4 - k), effective_steps=5.0) for k in range(3)
    ]
    for padding in ("zeros", "moves", "rows"):
        told = [
            rule.model_copy(update={"unequal_steps": how, "padding": padding})
            for how in ("ignore", "fednova")
        ]
        plain, normalised = (after(r, model, given) for r in told)
        np.testing.assert_allclose(normalised, plain, rtol=1e-5, atol=1e-6)


def test_a_visit_without_a_step_counts_as_one_that_moved_nothing():
    still = (0.0, {"examples": 1.0, "effective_steps": 0.0})

    assert one(nova(), (6.0, {"examples": 1.0, "effective_steps": 2.0}), still) == pytest.approx(
        1.0 * 3.0 / 2
    )


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ({}, 6.0),
        ({"momentum": 0.9}, (6 - 0.9 * (1 - 0.9**6) / (1 - 0.9)) / (1 - 0.9)),
        ({"prox_mu": 2.0}, (1 - (1 - 0.1 * 2.0) ** 6) / (0.1 * 2.0)),
        ({"schedule": "linear"}, sum(1 - t / 6 for t in range(6))),
        ({"optimizer": "adamw"}, 6.0),
    ],
    ids=str,
)
def test_how_far_the_steps_of_a_visit_carry(local, expected):
    """The closed forms of a_k for SGD, momentum and a proximal term of the paper's section 4."""
    settings = LocalConfig.model_validate({**SGD, "steps": 6, **local})

    assert effective_steps(settings, 6, 6) == pytest.approx(expected, rel=1e-12)
    assert effective_steps(settings, 3, 6) < expected


def fixed_point(how):
    """Where a federation on the quadratic task stands still, and what it must be: optima weighed by n_k a_k."""
    made = plan(
        {"kind": "synchronous", "cohort": 3},
        [1.0, 1.0, 1.0],
        task={"kind": "quadratic", "examples": "unequal", "dimension": 4},
        local={**SGD, "epochs": 1, "batch": 4},
        aggregator={"kind": "fedit", "unequal_steps": how},
        budget={"commits": 400},
        evaluate={"every_commits": 400},
    )
    from fedsim.executors.inline import Inline
    from fedsim.records.writer import Writer
    from fedsim.runs.simulation import course

    _, model = course(made, Inline(), Writer(None, made.experiment), lambda *_: None)
    n = np.array([made.task.examples(k) for k in range(3)], dtype=float)
    tau = np.array([made.steps(k) for k in range(3)], dtype=float)
    assert len(set(tau)) == 3
    pull = n * (1 - 0.9**tau) / (tau if how == "fednova" else 1.0)
    return model.adapter.vector, pull @ made.task.optima / pull.sum(), n @ made.task.optima / n.sum()


@pytest.mark.parametrize("how", ["ignore", "fednova"])
def test_the_fixed_point_on_the_quadratic(how):
    end, expected, _ = fixed_point(how)

    np.testing.assert_allclose(end, expected, rtol=1e-4, atol=1e-5)


def test_small_steps_lead_fednova_to_the_optimum_of_the_objective():
    """The bias of unequal steps goes with the learning rate; without the normalisation it stays."""
    rng = np.random.default_rng(0)
    optima, n, tau = rng.standard_normal((3, 2)), np.array([30.0, 10.0, 5.0]), np.array([9.0, 3.0, 1.0])
    layout = Layout(tensors=(Tensor("x", (2,)),))
    ends = {}
    for how in ("ignore", "fednova"):
        x, rule = np.zeros(2, np.float32), FedIT(unequal_steps=how, staleness=FRESH)
        for _ in range(3000):
            given = [
                replace(
                    landed(x, c + (1 - 0.003) ** t * (x - c), client=k, rank=0, scale=1.0, weight=n[k]),
                    effective_steps=t,
                )
                for k, (c, t) in enumerate(zip(optima, tau, strict=True))
            ]
            x = after(rule, model_of(x, layout), given)
        ends[how] = x
    best = n @ optima / n.sum()
    assert np.abs(ends["fednova"] - best).max() < 0.02
    assert np.abs(ends["ignore"] - best).max() > 0.05
