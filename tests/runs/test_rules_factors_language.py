"""Rules over the factors on the shipped language model, synchronous and buffered, equal and unequal ranks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from worlds.whole_runs import run_on

from fedsim.aggregators._base import Contribution, Invitation
from fedsim.aggregators.hetlora import norm_beyond
from fedsim.clock.auto import with_auto_filled
from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig
from fedsim.jobs import Job

PROTOCOLS = {
    "synchronous": {"kind": "synchronous", "cohort": 2},
    "buffered": {"kind": "buffered", "concurrency": 3, "buffer": 2},
}
RULES = [
    {"kind": "fedit"},
    {"kind": "fedit", "padding": "rows"},
    {"kind": "ffa"},
    {"kind": "rolora"},
    {"kind": "fedsa"},
    {"kind": "hetlora", "prune": 0.5, "penalty": 0.01},
    {"kind": "mixing"},
]
COMMITS = 6
TIERS = {"laptop": 4, "phone-high": 2, "phone-low": 1, "sbc": 1}


def experiment(data, rule, protocol, **lora):
    return Experiment.model_validate(
        {
            "task": {"kind": "language", "data": data, "sequence": 16},
            "population": {"preset": "mixed_edge_2025", "clients": 4},
            "lora": {"r": 4, "alpha": 8.0, "targets": ["q_proj", "down_proj"], **lora},
            "local": {"lr": 0.01, "steps": 2, "batch": 4},
            "aggregator": rule,
            "protocol": PROTOCOLS[protocol],
            "evaluate": {"every_commits": COMMITS, "windows": 8},
            "budget": {"commits": COMMITS},
            "runtime": {"executor": "inline"},
        }
    )


@pytest.fixture(scope="module")
def begun(text_folder):
    """A plan whose text, model and clients all tests share."""
    return prepare(
        experiment(str(text_folder), {"kind": "fedit"}, "synchronous", rank_by="tier", ranks=TIERS)
    )


@pytest.fixture(scope="module")
def executor():
    from fedsim.executors.inline import Inline

    made = Inline()
    yield made
    made.close()


def planned(begun, rule, protocol, **lora):
    asked = experiment(begun.experiment.task.data, rule, protocol, **lora)
    return replace(begun, experiment=with_auto_filled(asked, begun.task))


def perplexities(run):
    scores = run.scores[run.scores.metric == "perplexity"].sort_values("version")
    return scores.value.tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_run_learns_from_clients_of_unequal_ranks(begun, executor, rule, protocol):
    plan = planned(begun, rule, protocol, rank_by="tier", ranks=TIERS)
    run, model = run_on(plan, executor)
    first, last = perplexities(run)[0], perplexities(run)[-1]

    assert len(set(plan.ranks.tolist())) > 1
    assert last < first
    assert math.isfinite(last)
    a0, b0 = split(plan, plan.task.initial())
    a, b = split(plan, model.adapter.vector)
    if rule["kind"] == "ffa":
        assert a.tobytes() == a0.tobytes(), "not a bit of A has changed"
    if rule["kind"] == "fedsa":
        assert b.tobytes() == b0.tobytes(), "no B has come to the server"
        assert len(model.personal) > 1
        assert any(
            np.any(split(plan, plan.experiment.aggregator.client_model(model, k))[1]) for k in range(4)
        )
    assert (a.tobytes() != a0.tobytes()) == (rule["kind"] != "ffa")


def split(plan, vector):
    """All A and all B of a vector."""
    arrays = plan.task.layout.arrays(np.asarray(vector))
    return tuple(
        np.concatenate([v.ravel() for k, v in arrays.items() if k.endswith(f"lora_{f}")]) for f in "AB"
    )


def test_a_is_the_same_bits_in_every_version_of_a_run_of_ffa(begun, executor):
    """And in every start and end of every client."""
    plan = planned(begun, {"kind": "ffa"}, "buffered")
    first = split(plan, plan.task.initial())[0].tobytes()
    seen = []
    rule = type(plan.experiment.aggregator)
    before = rule.apply

    def apply(self, state, model, contributions):
        given = list(contributions)
        seen.extend(split(plan, v)[0].tobytes() for c in given for v in (c.start, c.end))
        seen.append(split(plan, model.adapter.vector)[0].tobytes())
        return before(self, state, model, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule, "apply", apply)
        run_on(plan, executor)

    assert len(seen) == COMMITS * (2 * 2 + 1)
    assert set(seen) == {first}


def test_training_a_alone_from_b_0_moves_nothing(begun, executor):
    """dL/dA = s B'G = 0, which is why RoLoRA begins with B."""
    plan = planned(begun, {"kind": "rolora"}, "synchronous")
    local = LocalConfig(lr=0.01, steps=2, batch=4)
    ends = {
        which: plan.task.train([Job(0, 0, plan.task.initial(), local, 0, trains=which)])[0].end
        for which in "AB"
    }

    assert ends["A"].tobytes() == plan.task.initial().tobytes()
    assert ends["B"].tobytes() != plan.task.initial().tobytes()


def test_the_penalty_makes_the_last_slots_smaller_and_hetlora_then_drops_them(begun, executor):
    """Beside the same visit without it; by client batches and by stock PEFT, one client after the other."""
    plan = planned(begun, {"kind": "hetlora", "prune": 0.5, "penalty": 1.0}, "synchronous")
    _, model = run_on(plan, executor)
    rule, task = plan.experiment.aggregator, plan.task
    offer = rule.offer({}, model, Invitation(0, 9, 4, 2.0, None))
    local = LocalConfig(optimizer="sgd", lr=0.1, steps=4, batch=4)
    plain, held = (
        Job(0, 9, offer.start, local, 0, slot_penalty=given) for given in (None, offer.slot_penalty)
    )

    ends = [update.end for update in task.train([plain, held])]
    sizes = [norm_beyond(task.layout, v, 2, 4) for v in (offer.start, *ends)]

    assert offer.slot_penalty == (1.0, 2)
    assert 0 < sizes[2] < 0.9 * sizes[1]
    landed = [
        Contribution(k, 9, offer.start, end, 8.0, 0, 0, 4, 2.0, phase=offer.phase)
        for k, end in enumerate(ends)
    ]
    assert 1 in rule.apply({}, model, landed)[1], "it shrank beneath what it began with"
    sequential = replace(task, numerics=task.numerics.model_copy(update={"training": "sequential"}))
    np.testing.assert_allclose(sequential.train([held])[0].end, ends[1], rtol=1e-4, atol=1e-5)
