"""Three seeds: one of them changes what it draws and nothing else, on the quadratic task and on text."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from worlds.rooms import files, named, syntax
from worlds.whole_runs import finished

from fedsim.clock.plan import ground, prepare
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError
from fedsim.runs.simulation import simulate

BASE = {
    "population": {"preset": "mixed_edge_2025", "clients": 12, "availability": "always"},
    "task": {"kind": "quadratic", "examples": "unequal", "layout": "lora"},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
    "lora": {"r": 2, "alpha": 4.0},
    "compute": {"step_sigma": 0.2},
    "protocol": {"kind": "buffered", "concurrency": 4, "buffer": 2},
    "personal": {"kind": "fine-tune", "unseen": 2},
    "evaluate": {"every_commits": 1},
    "budget": {"commits": 6},
    "runtime": {"executor": "inline"},
}
CLIENTS = ["device", "tier", "network", "flops_per_s", "memory_bytes", "up_bytes_per_s", "online_share"]


def asked(**blocks):
    return Experiment.model_validate({**BASE, **blocks})


def seeded(**seeds):
    return finished(asked(seed=5, seeds=seeds))[0]


@pytest.fixture(scope="module")
def plain():
    return seeded()


def losses(run):
    return run.scores[run.scores["metric"] == "loss"]["value"].to_numpy()


def test_three_seeds_alike_are_one_seed(plain):
    apart = seeded(population=5, data=5, training=5)

    for table in ("clients", "visits", "commits", "scores", "personal"):
        assert_frame_equal(getattr(apart, table), getattr(plain, table), check_exact=True)


def test_another_training_has_the_same_clients_and_data_and_other_losses(plain):
    other = seeded(training=6)

    assert_frame_equal(other.clients, plain.clients, check_exact=True)
    assert sorted(other.personal["client"][other.personal["unseen"]]) == sorted(
        plain.personal["client"][plain.personal["unseen"]]
    )
    assert not np.array_equal(losses(other), losses(plain))
    first = [run.visits.sort_values("order")["client"].head(8).tolist() for run in (plain, other)]
    assert first[0] != first[1]  # whom the server asks


def test_another_training_has_the_optima_of_its_data():
    plans = [prepare(asked(seed=5, seeds=seeds)) for seeds in ({}, {"training": 6}, {"data": 6})]
    first, trained, dealt = (plan.task for plan in plans)

    np.testing.assert_array_equal(first.optima, trained.optima)
    assert not np.array_equal(first.initial(), trained.initial())
    np.testing.assert_array_equal(first.initial(), dealt.initial())
    assert not np.array_equal(first.optima, dealt.optima)


def test_other_data_have_the_same_clients_and_other_examples(plain):
    other = seeded(data=6)

    assert_frame_equal(other.clients[CLIENTS], plain.clients[CLIENTS], check_exact=True)
    assert other.clients["examples"].tolist() != plain.clients["examples"].tolist()


def test_another_population_has_the_same_examples(plain):
    other = seeded(population=6)

    assert other.clients["examples"].tolist() == plain.clients["examples"].tolist()
    assert other.clients["flops_per_s"].tolist() != plain.clients["flops_per_s"].tolist()


def test_text_is_dealt_by_the_seed_of_the_data_and_begun_by_that_of_training():
    text = {
        "task": {"kind": "language", "model": "builtin", "data": "builtin", "sequence": 32},
        "local": {"steps": 1},
        "population": {"preset": "homogeneous", "clients": 6},
        "personal": {"kind": "none"},
    }
    first, trained, dealt = (
        prepare(asked(seeds=seeds, **text)).task for seeds in ({}, {"training": 1}, {"data": 1})
    )

    shards = [[task.splits.training[c].tolist() for c in range(6)] for task in (first, trained, dealt)]
    assert shards[0] == shards[1] != shards[2]
    assert not np.array_equal(first.initial(), trained.initial())
    np.testing.assert_array_equal(first.initial(), dealt.initial())


def test_plans_share_a_ground_if_their_seeds_are_the_same_however_given():
    assert ground(asked(seed=1)) == ground(asked(seed=2, seeds={"population": 1, "data": 1, "training": 1}))
    for name in ("population", "data", "training"):
        assert ground(asked(seed=1)) != ground(asked(seed=1, seeds={name: 2}))


def test_a_stored_experiment_still_follows_its_seed():
    stored = asked(seed=1, seeds={"data": 3}).plain()
    again = Experiment.model_validate({**stored, "seed": 2})

    assert (again.population_seed, again.data_seed, again.training_seed) == (2, 3, 2)


def test_a_seed_below_zero_is_refused():
    with pytest.raises((ExperimentError, ValueError), match=r"at least 0|greater than or equal to 0"):
        asked(seeds={"training": -1})


def test_the_schedule_of_another_training_is_its_timeline(plain):
    bare = simulate(asked(seed=5, seeds={"training": 6}), timeline_only=True)
    trained = seeded(training=6)

    columns = ["client", "visit", "dispatched_s", "landed_s", "outcome", "up_bytes"]
    assert_frame_equal(bare.visits[columns], trained.visits[columns], check_exact=True)


def test_no_room_asks_for_the_one_seed_of_an_experiment():
    """Each draw belongs to one of the three; `seed` itself is for `config` and for the records."""
    asks = {
        named(path)
        for path in files()
        for node in syntax(path)
        if isinstance(node, ast.Attribute)
        and node.attr == "seed"
        and ast.unparse(node.value).endswith("experiment")
    }

    assert asks == {"records/writer.py"}  # written down
