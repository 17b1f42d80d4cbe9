"""Names that people bring: every pointer leads to something that exists, and no method is answered with another one."""

from __future__ import annotations

import re

import pytest
import yaml

import fedsim
from fedsim.cli.app import call
from fedsim.component import PACKAGES, find, kind_pointer, kinds
from fedsim.config.experiment import Experiment
from fedsim.config.reference.schema import key_meant, model_at
from fedsim.errors import ExperimentError
from fedsim.known_names import ABSENT_METHODS, KEYS, METHODS, WORDS, nearest_kind, squashed

BLOCKS = {f"{package.rstrip('s')}": package for package in PACKAGES} | {"server_optimizer": "optimizers"}
BASE = {
    "population": {"preset": "homogeneous", "clients": 20},
    "task": {"kind": "quadratic"},
    "local": {"optimizer": "sgd"},
    "budget": {"commits": 1},
    "runtime": {"executor": "inline"},
}
EXAMPLES = re.compile(r"[a-z_]+(?:\.[a-z_]+)+(?:: [\w.-]+)?|^seed$|^name$|[a-z_]+: \{[^}]*\}")


def exists(text):
    """Whether `block.key`, `block.key: value` or `block: {...}` is something an experiment may say."""
    key, _, value = text.partition(": ")
    if value.startswith("{"):
        given = yaml.safe_load(value)
        if "kind" in given:
            cls = find(BLOCKS[key], given["kind"])
            return set(given) <= set(cls.model_fields)
        return set(given) <= set(Experiment.model_fields[key].annotation.model_fields)
    path = key.split(".")
    if path[-1] == "kind":
        return value == "" or path[0] == "task" or value in kinds(BLOCKS[path[0]])
    package = BLOCKS.get(path[0])
    raws = [{path[0]: {"kind": kind}} for kind in kinds(package)] if package else [{}]
    models = [model_at(Experiment, path[:-1], raw) for raw in raws]
    if path[:2] == ["task", "partition"]:
        models = [
            model_at(
                Experiment, path[:-1], {"task": {"kind": "language", "partition": {"kind": "dirichlet"}}}
            )
        ]
    return any(model is not None and path[-1] in model.model_fields for model in models)


@pytest.mark.parametrize("pointer", sorted({*METHODS.values(), *KEYS.values()}))
def test_every_pointer_leads_to_something_that_an_experiment_may_say(pointer):
    named = EXAMPLES.findall(pointer)

    assert named
    assert [text for text in named if text not in ("seed", "name") and not exists(text)] == []


def test_names_are_written_squashed_and_are_in_one_list_only():
    for name in (*METHODS, *KEYS, *ABSENT_METHODS, *WORDS):
        assert squashed(name) == name
    assert set(METHODS) & ABSENT_METHODS == set()
    shipped = {squashed(kind) for package in PACKAGES for kind in kinds(package)}
    assert shipped & ABSENT_METHODS == set()
    assert shipped & {*METHODS} == {"finetune"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_method_is_answered_with_another_one(package):
    known = {*METHODS, *ABSENT_METHODS} - {squashed(kind) for kind in kinds(package)}

    assert {
        name: hint for name in known if (hint := kind_pointer(package, name)).startswith("did you mean")
    } == {}


@pytest.mark.parametrize(
    ("package", "typed", "hint"),
    [
        ("aggregators", "fedavg", "write aggregator.kind: fedit"),
        ("aggregators", "FedAvg", "write aggregator.kind: fedit"),
        ("aggregators", "Fed-Avg", "write aggregator.kind: fedit"),
        ("aggregators", "fedbuff", "write protocol.kind: buffered"),
        ("aggregators", "fedprox", "write local.prox_mu: 0.01"),
        ("aggregators", "fedadam", "write server_optimizer.kind: adam"),
        ("aggregators", "FedYogi", "write server_optimizer.kind: yogi"),
        ("aggregators", "fedasync", "write aggregator.kind: mixing"),
        ("aggregators", "buffered", "write protocol.kind: buffered"),
        ("aggregators", "scaffold", "choose one of: fedex"),
        ("aggregators", "fedrep", "choose one of: fedex"),
        ("aggregators", "flex_lora", "did you mean 'flexlora'?"),
        ("aggregators", "hetlor", "did you mean 'hetlora'?"),
        ("protocols", "async", "write protocol.kind: buffered"),
        ("protocols", "fedbuff", "write protocol.kind: buffered"),
        ("protocols", "semi_synchronous", "did you mean 'semi-synchronous'?"),
        ("protocols", "sync", "write protocol.kind: synchronous"),
        ("samplers", "random", "write sampler.kind: uniform"),
        ("samplers", "uniforn", "did you mean 'uniform'?"),
        ("optimizers", "fedavgm", "write server_optimizer.kind: momentum"),
        ("personal", "fedrep", "choose one of: ditto"),
        ("tasks", "text", "write task.kind: language"),
    ],
)  # fmt: skip
def test_a_kind_by_another_name_is_pointed_to(package, typed, hint):
    assert kind_pointer(package, typed).startswith(hint)


TYPED = {
    "learning_rate": "write local.lr",
    "learningRate": "write local.lr",
    "local.learning_rate": "write local.lr",
    "protocol.rounds": "write budget.commits",
    "rounds": "write budget.commits",
    "num_rounds": "write budget.commits",
    "budget.rounds": "write budget.commits",
    "batch_size": "write local.batch",
    "local.batch_size": "write local.batch",
    "epochs": "write local.epochs",
    "clients_per_round": "write protocol.cohort",
    "protocol.clients_per_round": "write protocol.cohort",
    "fraction_fit": "write protocol.cohort (a number",
    "rank": "write lora.r",
    "lora.rank": "write lora.r",
    "lora.lora_alpha": "write lora.alpha",
    "lora.target_modules": "write lora.targets",
    "dirichlet_alpha": "write task.partition.alpha",
    "population.seed": "did you mean",
    "random_seed": "write seed",
    "fedprox_mu": "write local.prox_mu",
    "local.epoch": "did you mean 'epochs'?",
}
"""Key as people type it -> the way out."""


@pytest.mark.parametrize("key", TYPED)
def test_a_key_by_another_name_is_pointed_to(key, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(BASE))

    with pytest.raises(ExperimentError) as refused:
        fedsim.read(file, [f"{key}=1"])

    assert f"a.yaml: {key}: no such key (got 1)\n  fix: -s {key}=1: {TYPED[key]}" in str(refused.value)


@pytest.mark.parametrize(
    ("block", "way_out"),
    [
        ("aggregator=fedavg", "write aggregator.kind: fedit"),
        ("aggregator=flexlora", "write {kind: flexlora}"),
        ("protocol=async", "write protocol.kind: buffered"),
        ("sampler=nobody", "write `kind:` and one of: least-available"),
        ("local.optimizer=adam", "did you mean 'adamw'?"),
        ("wire.dtype=bf16", "did you mean 'bfloat16'?"),
        ("evaluate.splits=[val]", "did you mean 'valid'?"),
    ],
)
def test_a_word_in_the_place_of_a_block_or_of_another_word_is_understood(block, way_out, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(BASE))

    with pytest.raises(ExperimentError) as refused:
        fedsim.read(file, [block])

    assert way_out in str(refused.value)


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        (["--seed", "1"], "write `-s seed=1`"),
        (["--seed=1"], "write `-s seed=1`"),
        (["seed=1"], "write `-s seed=1`"),
        (["--workers", "2"], "write `-s runtime.workers=2`"),
        (["--num-rounds", "5"], "write `-s budget.commits=5`"),
        (["--local.lr", "0.1"], "write `-s local.lr=0.1`"),
        (["--learning-rate=0.1"], "write `-s local.lr=0.1`"),
        (["--async"], "write `-s protocol.kind=buffered`"),
        (["-s", "seed=2", "protocol.cohort=3"], "write `-s protocol.cohort=3`"),
        (["--fraction-fit", "0.1"], "settings are given as -s KEY=VALUE; here: protocol.cohort (a number"),
        (["-s", "seed", "1"], "write `-s seed=1`"),
        (["-seed", "1"], "write `-s seed=1`"),
        (["--set", "lora.r", "4"], "write `-s lora.r=4`"),
        (["--nonsense"], "see `fedsim run --help`"),
        (["nonsense"], "see `fedsim run --help`"),
    ],
)
def test_settings_typed_as_options_or_without_s_are_shown_with_s(line, way_out, tmp_path, capsys):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(BASE))

    assert call(["run", str(file), *line]) == 2
    assert f"fix: {way_out}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "way_out"),
    [
        ("server_optimizer.lr", "set server_optimizer.kind to one that has it (adagrad, adam, fadas, "),
        ("aggregator.alpha", "set aggregator.kind to one that has it (mixing), or remove it"),
        ("protocol.buffer", "set protocol.kind to one that has it (buffered), or remove it"),
    ],
)
def test_a_key_of_another_kind_names_the_kinds_that_have_it(key, way_out, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(BASE))

    with pytest.raises(ExperimentError) as refused:
        fedsim.read(file, [f"{key}=1"])

    assert way_out in str(refused.value)


def test_a_key_is_found_by_its_path_its_name_or_a_known_one():
    assert key_meant(Experiment, "seed") == "seed"
    assert key_meant(Experiment, "local.lr") == "local.lr"
    assert key_meant(Experiment, "local.nothing") is None
    assert key_meant(Experiment, "cohort") == "protocol.cohort"
    assert key_meant(Experiment, "batch-size") == "local.batch"


def test_a_slip_of_the_pen_is_corrected_and_another_word_is_not():
    assert nearest_kind("bufferd", ["buffered"]) == "did you mean 'buffered'?"
    assert nearest_kind("fedxyz", ["fedsa", "fedit"]) == "choose one of: fedit, fedsa"
