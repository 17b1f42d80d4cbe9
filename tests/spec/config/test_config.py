"""YAML, `extends:`, `-s` and `sweep:` become one experiment, or plain words why not."""

from __future__ import annotations

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from worlds.text_files import written

from fedsim.checks.blocks import check
from fedsim.component import kinds
from fedsim.config import loading as config
from fedsim.config.experiment import Experiment
from fedsim.config.reference.schema import json_schema
from fedsim.errors import ExperimentError
from fedsim.files import yaml_file as yamlfile

BASE = {
    "name": "base",
    "population": {"preset": "homogeneous", "clients": 20},
    "task": {"kind": "quadratic"},
    "budget": {"commits": 3},
}


@pytest.fixture
def write(tmp_path):
    return lambda content, name="a.yaml": written(tmp_path / name, content)


def words(call, *args):
    with pytest.raises(ExperimentError) as caught:
        call(*args)
    return str(caught.value)


def changed(**blocks):
    return copy.deepcopy(BASE) | blocks


# scalars ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5E+3", 1500.0),
        ("1e400", float("inf")),
        (".5", 0.5),
        ("12", 12),
        ("1_000", 1000),
        ("0x10", 16),
        ("007", "007"),
        ("1:30", "1:30"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("2025-01-31", "2025-01-31"),
        ("", None),
        ("~", None),
        ("[a, 1e3]", ["a", 1000.0]),
        ("{kind: buffered}", {"kind": "buffered"}),
    ],
)
def test_scalars_follow_yaml_1_2_and_not_the_surprises_of_1_1(text, value):
    assert yamlfile.scalar(text, "-s x") == value
    assert type(yamlfile.scalar(text, "-s x")) is type(value)


@given(
    st.recursive(
        st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.none()
        | st.text("abcxyz-_ ", min_size=1),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_what_pyyaml_writes_is_read_back(value):
    assert yamlfile.scalar(yaml.safe_dump(value), "-s x") == value


def test_lines_of_keys_are_known_through_nested_blocks_and_lists(write):
    document = yamlfile.read(write("a: 1\nb:\n  c: 2\n  d: [x, y]\n"))
    assert document.lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "d"): 4}


def test_anchors_and_merge_keys_still_work(write):
    document = yamlfile.read(write("a: &x {r: 4, alpha: 8}\nb: {<<: *x, r: 2}\n"))
    assert document.values["b"] == {"r": 2, "alpha": 8}


# overrides -------------------------------------------------------------------------------------


def test_an_override_sets_one_value_and_leaves_its_neighbours(write):
    path = write(changed(lora={"r": 4, "alpha": 8}))
    experiment = config.load(path, ["lora.r=2", "local.lr=1e-4", "seed=7"])
    assert (experiment.lora.r, experiment.lora.alpha) == (2, 8)
    assert (experiment.local.lr, experiment.seed) == (1e-4, 7)


def test_the_last_of_two_equal_overrides_wins(write):
    assert config.load(write(BASE), ["seed=1", "seed=2"]).seed == 2


def test_another_kind_drops_what_the_block_had_for_the_old_one(write):
    path = write(changed(protocol={"kind": "synchronous", "cohort": 5, "deadline_s": 60}))
    experiment = config.load(path, ["protocol.kind=buffered"])
    assert experiment.protocol.model_dump() == {
        "kind": "buffered",
        "concurrency": 30,
        "buffer": 10,
        "once_per_buffer": False,
        "max_staleness": None,
    }


@pytest.mark.parametrize("order", [1, -1])
def test_fields_overridden_beside_a_new_kind_stay_in_whatever_order(write, order):
    path = write(changed(protocol={"kind": "synchronous", "cohort": 5}))
    overrides = ["protocol.kind=buffered", "protocol.buffer=2", "protocol.concurrency=4"][::order]
    experiment = config.load(path, overrides)
    assert experiment.protocol.model_dump() == {
        "kind": "buffered",
        "concurrency": 4,
        "buffer": 2,
        "once_per_buffer": False,
        "max_staleness": None,
    }


@pytest.mark.parametrize("given_", [["lora.full=true"], ["lora.full=true", "lora.full=true"]])
def test_a_full_model_drops_the_rank_that_only_adapters_have(write, given_):
    experiment = config.load(write(changed(lora={"r": 4, "alpha": 8})), given_)
    assert (experiment.lora.full, experiment.lora.r, experiment.lora.alpha) == (True, 8, 16)
    check(experiment)
    assert config.load(write(changed(lora={"r": 4})), ["lora.full=false"]).lora.r == 4


def test_a_file_may_choose_the_full_model_over_the_adapters_of_its_base(write):
    write(changed(lora={"r": 4, "targets": ["x"]}), "base.yaml")
    experiment = config.load(write("extends: base.yaml\nlora: {full: true}\n"))
    check(experiment)
    assert (experiment.lora.full, experiment.lora.targets) == (True, "all-linear")


def test_the_same_kind_again_drops_nothing(write):
    path = write(changed(protocol={"kind": "synchronous", "cohort": 5}))
    assert config.load(path, ["protocol.kind=synchronous"]).protocol.cohort == 5


def test_a_block_that_the_file_leaves_out_is_overridden_on_its_default_kind(write):
    experiment = config.load(write(BASE), ["protocol.cohort=4", "aggregator.staleness.kind=constant"])
    assert (experiment.protocol.kind, experiment.protocol.cohort) == ("synchronous", 4)
    assert (experiment.aggregator.kind, experiment.aggregator.staleness.kind) == ("fedit", "constant")


def test_a_whole_block_can_be_given(write):
    experiment = config.load(write(BASE), ["protocol.buffer=2", "protocol={kind: buffered, concurrency: 3}"])
    assert experiment.protocol.model_dump() == {
        "kind": "buffered",
        "concurrency": 3,
        "buffer": 2,
        "once_per_buffer": False,
        "max_staleness": None,
    }


def test_an_unknown_path_names_the_override_and_the_nearest_key(write):
    text = words(config.load, write(BASE), ["lora.alpa=3"])
    assert "lora.alpa: no such key (got 3)" in text
    assert "-s lora.alpa=3" in text
    assert "did you mean 'alpha'?" in text


def test_a_key_of_another_block_is_recognised(write):
    assert "did you mean 'protocol.cohort'?" in words(config.load, write(BASE), ["cohort=3"])


@pytest.mark.parametrize(
    ("block", "key", "says"),
    [
        ({"server_optimizer": {"kind": "adam", "learning_rate": 0.1}}, "learning_rate", "did you mean 'lr'?"),
        ({"server_optimizer": {"kind": "adam", "eta": 0.1}}, "eta", "did you mean 'lr'?"),
        ({"personal": {"kind": "ditto", "learning_rate": 0.1}}, "learning_rate", "did you mean 'lr'?"),
        ({"personal": {"kind": "ditto", "mu": 0.1}}, "mu", "did you mean 'lam'?"),
        (
            {"protocol": {"kind": "buffered", "clients_per_round": 3}},
            "clients_per_round",
            "did you mean 'concurrency'?",
        ),
        (
            {"protocol": {"kind": "buffered", "fraction_fit": 0.3}},
            "fraction_fit",
            "did you mean 'concurrency'?",
        ),
        (
            {"protocol": {"kind": "semi-synchronous", "round_timeout": 3}},
            "round_timeout",
            "did you mean 'beat_s'?",
        ),
        (
            {"protocol": {"kind": "buffered", "min_clients": 3}},
            "min_clients",
            "remove it, or choose one of: buffer",
        ),
        ({"lora": {"rank": 4}}, "rank", "write lora.r"),
        ({"local": {"rank": 4}}, "rank", "write lora.r"),
        (
            {"task": {"kind": "language", "partition": {"kind": "natural", "alpha": 0.5}}},
            "alpha",
            "remove it, or choose one of: ",
        ),
    ],
)
def test_a_known_name_is_pointed_to_the_key_of_its_own_block(block, key, says):
    """A pointer to another block that has a key of that name would change another setting of the experiment."""
    whole = {
        "population": {"preset": "homogeneous", "clients": 6},
        "task": {"kind": "quadratic"},
        "budget": {"commits": 2},
    }
    with pytest.raises(ExperimentError) as caught:
        Experiment.model_validate(whole | block)

    assert f"{key}: no such key" in str(caught.value)
    assert f"fix: {says}" in str(caught.value)


# extends ---------------------------------------------------------------------------------------


def test_a_file_lies_on_the_one_it_extends(write):
    write(changed(lora={"r": 4, "alpha": 32}, seed=5), "base.yaml")
    experiment = config.load(write("extends: base.yaml\nlora: {r: 2}\nname: child\n"))
    assert (experiment.lora.r, experiment.lora.alpha) == (2, 32)
    assert (experiment.seed, experiment.name) == (5, "child")


def test_a_block_of_another_kind_replaces_the_whole_block_of_the_base(write):
    write(changed(protocol={"kind": "synchronous", "cohort": 5}), "base.yaml")
    experiment = config.load(write("extends: base.yaml\nprotocol: {kind: buffered, buffer: 3}\n"))
    assert experiment.protocol.model_dump() == {
        "kind": "buffered",
        "concurrency": 30,
        "buffer": 3,
        "once_per_buffer": False,
        "max_staleness": None,
    }


def test_a_problem_in_the_base_names_its_line_there(write):
    write(changed(lora={"r": -1}), "base.yaml")
    text = words(config.load, write("extends: base.yaml\nseed: 1\n"))
    assert "lora.r: must be at least 1 (got -1)" in text
    assert "of base.yaml" in text


# paths -----------------------------------------------------------------------------------------


def test_paths_start_at_the_file_that_gives_them(write, tmp_path, monkeypatch):
    monkeypatch.setenv("TABLES", "tables")
    write({"population": {"availability": "w.csv"}}, "base/base.yaml")
    path = write(
        changed(
            extends="base/base.yaml",
            population={"devices": "$TABLES/d.csv", "networks": "~/n.csv", "clients": 3},
        )
    )
    monkeypatch.chdir("/")
    population = config.load(path).population
    assert population.devices == tmp_path / "tables" / "d.csv"
    assert str(population.networks).endswith("/n.csv")
    assert "~" not in str(population.networks)
    assert population.availability == str(tmp_path / "base" / "w.csv")


def test_generators_are_not_paths(write):
    assert (
        config.load(write(BASE), ["population.availability=charging"]).population.availability == "charging"
    )


def test_a_path_given_by_s_may_lie_beside_the_file_or_where_the_command_was_typed(
    write, tmp_path, monkeypatch
):
    path = write(BASE, "experiments/a.yaml")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def windows():
        return config.load(path, ["population.availability=w.csv"]).population.availability

    assert windows() == str(tmp_path / "experiments" / "w.csv")
    (here / "w.csv").touch()
    assert windows() == str(here / "w.csv")
    (tmp_path / "experiments" / "w.csv").touch()
    assert windows() == str(tmp_path / "experiments" / "w.csv")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("builtin", "builtin"),
        ("openai-community/gpt2", "openai-community/gpt2"),
        ("notes", "{folder}/notes"),
        ("./gone", "{folder}/gone"),
        ("../gone", "{parent}/gone"),
    ],
)
def test_model_and_data_are_paths_if_they_look_like_one_or_exist(write, tmp_path, given_, expected):
    (tmp_path / "notes").mkdir()
    path = write(changed(task={"kind": "language", "data": given_, "model": given_}))
    task = yamlfile.read(path).values["task"]
    assert task["data"] == given_
    from fedsim.config import paths as places

    resolved = places.absolute({"task": task}, tmp_path, "a")["task"]
    expected = expected.format(folder=tmp_path, parent=tmp_path.parent)
    assert (resolved["data"], resolved["model"]) == (expected, expected)


def test_an_unset_variable_is_an_error(write):
    text = words(config.load, write(BASE), ["population.availability=$NO_SUCH_THING/w.csv"])
    assert "the environment variable NO_SUCH_THING is not set" in text


# Python ----------------------------------------------------------------------------------------


def test_plain_values_from_python_give_the_same_experiment_as_the_file(write):
    assert config.load(write(BASE)) == Experiment.model_validate(BASE)


def test_the_configuration_stored_with_a_run_is_read_back_equal(write):
    experiment = config.load(write(changed(local={"steps": 3, "lr": 1e-5})), ["protocol.kind=buffered"])
    again = config.load(write(experiment.plain(), "stored.yaml"))
    assert again == experiment
    assert again.digest == experiment.digest


# several problems ------------------------------------------------------------------------------


def test_all_problems_are_said_at_once_each_with_file_field_value_and_fix(write):
    path = write("""\
        population: {preset: homogeneous, clients: -3}
        task: {kind: quadratic, dimension: many}
        budget: {commits: 3}
        seed: 1.5
        lora: {rank: 4}
    """)
    text = words(config.load, path)
    assert [line for line in text.splitlines() if not line.startswith("  fix: ")] == [
        f"{path}: seed: must be a whole number (got 1.5)",
        f"{path}: population.clients: must be at least 1 (got -3)",
        f"{path}: task.dimension: must be a whole number (got 'many')",
        f"{path}: lora.rank: no such key (got 4)",
    ]
    assert [line.split(": ")[1] for line in text.splitlines() if line.startswith("  fix: ")] == [
        "line 4",
        "line 1",
        "line 2",
        "line 5",
    ]


def test_a_union_is_named_by_its_field_and_not_by_pydantic_s_words(write):
    text = words(config.load, write(changed(numerics={"client_batch": 0})))
    assert "numerics.client_batch: must be at least 1 or 'auto' (got 0)" in text
    assert "constrained" not in text
    assert "literal" not in text


def test_check_says_everything_that_does_not_fit_together(write):
    protocol = {"kind": "synchronous", "cohort": 21}
    path = write(changed(protocol=protocol, lora={"full": True, "r": 2}, local={"momentum": 0.9}))
    text = words(check, config.load(path), "a.yaml")
    assert "a.yaml: protocol.cohort: asks more clients than there are (20) (got 21)" in text
    assert "a.yaml: lora.r: has no meaning with full: true (got 2)" in text
    assert "a.yaml: local.momentum: has no effect with adamw (got 0.9)" in text


@pytest.mark.parametrize(
    "protocol",
    [
        {"kind": "synchronous", "cohort": 20},
        {"kind": "synchronous", "cohort": 10, "over_select": 2.0, "min_reports": 10},
        {"kind": "buffered", "concurrency": 20, "buffer": 20},
        {"kind": "buffered", "concurrency": 1, "buffer": 50},
    ],
)
def test_check_lets_the_whole_population_be_asked(write, protocol):
    check(config.load(write(changed(protocol=protocol))))


# sweeps ----------------------------------------------------------------------------------------


def test_a_grid_is_the_product_of_its_axes_with_the_last_one_fastest(write):
    path = write(changed(sweep={"protocol.kind": ["synchronous", "buffered"], "seed": [0, 1]}))
    points = config.sweep_points(path)
    assert [changed for changed, _ in points] == [
        {"protocol.kind": kind, "seed": seed} for kind in ("synchronous", "buffered") for seed in (0, 1)
    ]
    assert [(e.protocol.kind, e.seed) for _, e in points] == [
        ("synchronous", 0),
        ("synchronous", 1),
        ("buffered", 0),
        ("buffered", 1),
    ]
    assert points[2][1].name == "base.protocol-buffered_seed-0"


def test_an_override_holds_for_every_point_and_may_replace_an_axis(write):
    path = write(changed(sweep={"seed": [0, 1]}))
    points = config.sweep_points(path, ["lora.r=2", "sweep.seed=[5]"])
    assert [(e.seed, e.lora.r) for _, e in points] == [(5, 2)]
    assert "is swept, and -s sets seed too" in words(config.sweep_points, path, ["seed=3"])


def test_a_point_that_is_no_experiment_is_said_before_any_runs(write):
    path = write(changed(sweep={"lora.r": [1, 0, -1], "seed": [0, 1]}))
    text = words(config.sweep_points, path)
    assert text.count("lora.r: must be at least 1") == 2


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ([1], "must be a block of key paths"),
        ({}, "must be a block of key paths"),
        ({"seed": 3}, "sweep.seed: must be a list of values"),
        ({"seed": []}, "sweep.seed: must be a list of values"),
        ({"seed": [1, 1]}, "sweep.seed: has a value twice"),
    ],
)
def test_a_grid_is_a_block_of_lists(write, grid, expected):
    assert expected in words(config.sweep_points, write(changed(sweep=grid)))


def test_run_and_sweep_name_each_other(write):
    assert "`fedsim sweep " in words(config.load, write(changed(sweep={"seed": [1]})))
    assert "`fedsim run " in words(config.sweep_points, write(BASE))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"protocol.kind": "buffered", "seed": 2}, "protocol-buffered_seed-2"),
        ({"task.partition": {"kind": "dirichlet", "alpha": 0.3}}, "partition-dirichlet-alpha-0.3"),
        ({"protocol.deadline_s": None, "task.data": "/x/y/ptb"}, "deadline-s-none_data-ptb"),
        ({"lora.targets": ["q", "v"]}, "targets-q-v"),
    ],
)
def test_a_label_is_a_safe_folder_name(changes, expected):
    assert config.label(changes) == expected


# schema ----------------------------------------------------------------------------------------


def test_the_json_schema_has_every_kind_and_its_fields():
    schema = json_schema(Experiment)
    protocols = schema["properties"]["protocol"]["anyOf"]
    by_kind = {p["properties"]["kind"].get("const"): p["properties"] for p in protocols[:-1]}
    assert list(by_kind) == kinds("protocols")
    assert "deadline_s" in by_kind["synchronous"]
    optimizers = schema["properties"]["server_optimizer"]["anyOf"]
    assert [o["properties"]["kind"].get("const") for o in optimizers[:-1]] == kinds("optimizers")
    assert "required" not in schema  # of a file that extends another
    assert schema["then"]["required"] == ["population", "task", "budget"]


# from Python ------------------------------------------------------------------------------------

PLAIN = {
    "population": {"preset": "homogeneous", "clients": 20},
    "task": {"kind": "quadratic"},
    "budget": {"commits": 3},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"population": {"preset": "homogeneous"}}, "experiment: population.clients: is required\n  fix: add `clients: 100`"),
        ({"population": None}, "experiment: population: must be a block of keys"),
        ({"budget": {}}, "experiment: budget: has no limit"),
        ({"seed": -1}, "experiment: seed: must be at least 0 (got -1)"),
        ({"seed": True}, "experiment: seed: must be a number (got True)"),
        ({"learning_rate": 0.1}, "experiment: learning_rate: no such key (got 0.1)\n  fix: write local.lr"),
        ({"aggregator": {"kind": "fedavg"}}, "experiment: aggregator.kind: no such kind (got 'fedavg')\n  fix: write aggregator.kind: fedit"),
        ({"aggregator": "fedavg"}, "experiment: aggregator: must be a block with `kind:` (got 'fedavg')\n  fix: write aggregator.kind: fedit"),
        ({"task": 3}, "experiment: task: must be a block with `kind:` (got 3)"),
        ({"local": {"lr": "fast"}}, "experiment: local.lr: must be a number (got 'fast')"),
        ({"protocol": {"kind": "buffered", "cohort": 3}}, "experiment: protocol.cohort: no such key (got 3)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("build", [Experiment.model_validate, lambda blocks: Experiment(**blocks)])
def test_blocks_given_in_python_are_refused_in_the_same_words_as_in_a_file(build, changes, said):
    assert words(build, {**PLAIN, **changes}).startswith(said)


def test_everything_that_is_wrong_in_python_is_said_at_once():
    text = words(Experiment.model_validate, {"seed": -1})

    for key in ("population", "task", "budget", "seed"):
        assert f"experiment: {key}: " in text


def test_what_is_no_mapping_is_refused_in_words():
    assert words(Experiment.model_validate, "mine.yaml").startswith("experiment: must be a block of keys")


def test_a_copy_with_plain_blocks_is_the_experiment_of_a_file_with_them():
    base = Experiment.model_validate(PLAIN)
    copied = base.model_copy(update={"protocol": {"kind": "buffered", "buffer": 3}, "seed": 4})

    assert copied == Experiment.model_validate(
        {**PLAIN, "protocol": {"kind": "buffered", "buffer": 3}, "seed": 4}
    )
    assert base.model_copy() == base
    assert base.model_copy(update={"lora": base.lora}).lora is base.lora


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"protocol": {"kind": "bufferd"}}, "experiment: protocol.kind: no such kind (got 'bufferd')\n  fix: did you mean 'buffered'?"),
        ({"protocol": {"cohort": 3}}, "experiment: protocol: needs `kind:`"),
        ({"seed": "one"}, "experiment: seed: must be a whole number (got 'one')"),
        ({"rounds": 3}, "experiment: rounds: no such key (got 3)\n  fix: write budget.commits"),
    ],
)  # fmt: skip
def test_a_copy_with_wrong_blocks_is_refused_when_it_is_made(update, said):
    assert words(lambda: Experiment.model_validate(PLAIN).model_copy(update=update)).startswith(said)


def test_a_setting_cannot_be_assigned_and_the_way_to_a_changed_copy_is_said():
    experiment = Experiment.model_validate(PLAIN)

    def assign(block, name, value):
        setattr(block, name, value)

    assert words(assign, experiment, "seed", 3) == (
        "seed: cannot be changed: settings are frozen\n  fix: make a copy: model_copy(update={'seed': 3})"
    )
    assert words(assign, experiment.local, "lr", 0.1).startswith("lr: cannot be changed")
    assert (experiment.seed, experiment.local.lr) == (0, 1e-3)
