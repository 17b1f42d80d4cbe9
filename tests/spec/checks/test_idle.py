"""A setting that was given and does nothing beside others is named before the run, with what makes it idle."""

from __future__ import annotations

import pytest
from worlds import experiment

from fedsim.checks.gate import prepared
from fedsim.checks.idle import IDLE, idle, value_of
from fedsim.checks.resolved import resolved
from fedsim.config.experiment import Experiment
from fedsim.errors import DataError

SYNC = {"kind": "synchronous", "cohort": 2}
LORA = {"task": {"kind": "quadratic", "layout": "lora"}}
TEXT = {"task": {"kind": "language"}, "local": {"lr": 0.01}}
OUTAGES = {"per_day": 2.0, "mean_s": 60.0, "regions": 3}
POPULATION = {"preset": "mixed_edge_2025", "clients": 6}


def made(**blocks):
    protocol = blocks.pop("protocol", SYNC)
    return prepared(experiment(protocol, 6, **blocks))


@pytest.mark.parametrize(
    ("blocks", "change", "key"),
    [
        ({"population": POPULATION | {"outages": OUTAGES | {"by": "tier"}}},
         {"population": POPULATION | {"outages": OUTAGES | {"by": "region"}}}, "population.outages.regions"),
        ({"sampler": {"kind": "oort", "explore_window": 9.0, "explore_by": "chance"}},
         {"sampler": {"kind": "oort", "explore_window": 9.0}}, "sampler.explore_window"),
        ({"protocol": {"kind": "tiers", "tiers": 2, "cohort": 2, "interval": 7}},
         {"protocol": {"kind": "tiers", "tiers": 2, "cohort": 2, "interval": 7, "probabilities": "adaptive"}},
         "protocol.interval"),
        ({"wire": {"rounding": "nearest"}} | LORA, {"wire": {"rounding": "nearest", "dtype": "int8"}} | LORA,
         "wire.rounding"),
        ({"lora": {"r": 3}}, {"lora": {"r": 3}} | LORA, "lora.r"),
        ({"lora": {"targets": ["q_proj"]}} | LORA, {"lora": {"targets": ["q_proj"]}} | TEXT, "lora.targets"),
        ({"numerics": {"dtype": "bfloat16"}}, {"numerics": {"dtype": "bfloat16"}} | TEXT, "numerics.dtype"),
        ({"runtime": {"executor": "inline", "workers": 3}}, {"runtime": {"executor": "ray", "workers": 3}},
         "runtime.workers"),
        ({"runtime": {"executor": "inline", "address": "auto"}},
         {"runtime": {"executor": "ray", "address": "auto"}}, "runtime.address"),
    ],
)  # fmt: skip
def test_a_setting_is_idle_beside_another_and_not_without_it(blocks, change, key):
    said = list(idle(made(**blocks)))
    assert len(said) == 1
    assert said[0].startswith(f"{key} has no effect: ")
    assert list(resolved(made(**blocks)).notices)[-1] == said[0]
    assert not any(key in text for text in idle(made(**change)))


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ({"partition": {"kind": "quantity", "law": "zipf", "sigma": 0.5}}, "task.partition.sigma"),
        ({"partition": {"kind": "quantity", "exponent": 2.0}}, "task.partition.exponent"),
        ({"partition": {"kind": "dirichlet", "over": "label", "topics": 4}}, "task.partition.topics"),
        ({"data_config": "wikitext-2-raw-v1"}, "task.data_config"),
        ({"data_revision": "main"}, "task.data_revision"),
    ],
)
def test_settings_of_a_task_that_its_data_or_its_law_leave_out(task, key):
    blocks = {"task": {"kind": "language"} | task, "local": {"lr": 0.01}}
    assert [text.split(" has no effect")[0] for text in idle(made(**blocks))] == [key]


@pytest.mark.parametrize(
    ("features", "does_nothing"),
    [
        ({"kind": "digits-cnn"}, True),
        ({"kind": "inception"}, False),
        ({"kind": "digits-cnn", "also": ["inception"]}, False),
    ],
)
def test_weights_of_an_extractor_are_idle_where_no_extractor_has_any(features, does_nothing):
    asked = experiment(
        SYNC, 6, task={"kind": "images", "features": features | {"weights": "mine.safetensors"}}
    )
    reason = next(one for one in IDLE if "task.features.weights" in one.keys)
    assert reason.idle(asked) is does_nothing


def test_nothing_is_said_of_a_plain_file_whatever_its_task():
    for task in ({"kind": "quadratic"}, {"kind": "language"}, {"kind": "images"}):
        local = {"optimizer": "sgd", "lr": 0.1} if task["kind"] == "quadratic" else {"lr": 0.01}
        assert list(idle(made(task=task, local=local))) == []


def test_every_path_is_one_of_a_setting():
    """A key that was renamed would never be idle again."""
    worlds = [
        {"task": {"kind": "images"}},
        {"task": {"kind": "language", "partition": {"kind": "dirichlet"}}},
        {"task": {"kind": "language", "partition": {"kind": "quantity"}}},
        {"sampler": {"kind": "oort"}},
        {"protocol": {"kind": "tiers", "tiers": 2, "cohort": 2}},
        {"population": POPULATION | {"outages": OUTAGES}},
    ]
    made_of = [Experiment.model_validate(experiment(SYNC, 6).plain() | world) for world in worlds]
    for key in (key for one in IDLE for key in one.keys):
        home, _, name = key.rpartition(".")
        assert any(name in getattr(type(value_of(e, home)), "model_fields", {}) for e in made_of), key


@pytest.mark.parametrize("split", ["samples", "answers"])
def test_the_closed_form_has_no_splits_of_what_a_model_generates(split):
    with pytest.raises(DataError, match=f"evaluate.splits: is of another task .got '{split}'"):
        made(evaluate={"every_commits": 1, "splits": ["test", split]})
