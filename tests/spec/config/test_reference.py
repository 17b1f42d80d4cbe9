"""What is said of every key: that something is, and that it is right."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from fedsim.cli.app import call
from fedsim.config.experiment import BudgetConfig, Experiment
from fedsim.config.reference.attributes import meanings, prose, summary
from fedsim.config.reference.entries import below, entries, of_key
from fedsim.config.reference.schema import json_schema
from fedsim.files import yaml_file

EVERY = entries(Experiment)
FILLED_IN = {"budget.commits", "population.clients", "local.epochs", "evaluate.every_commits"}
"""Given, or filled in where none of several is given."""


def test_every_key_has_a_meaning_values_and_a_default():
    assert [e.path for e in EVERY if not e.meaning] == []
    assert [e.path for e in EVERY if e.values == "value" or not e.default] == []
    assert len(EVERY) > 400


def test_every_key_of_the_schema_that_editors_read_is_described():
    schema = json_schema(Experiment)

    def keys(part, at=""):
        if isinstance(part, dict):
            for name, inner in part.get("properties", {}).items():
                yield f"{at}/{name}", inner
            for name, inner in part.items():
                yield from keys(inner, f"{at}/{name}")
        elif isinstance(part, list):
            for inner in part:
                yield from keys(inner, at)

    assert [at for at, inner in keys(schema) if "description" not in inner and not at.endswith("/kind")] == []
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "values", "default"),
    [
        ("seed", "whole number >= 0", "0"),
        ("budget.time_s", "number > 0 or null [seconds]", "null"),
        ("network.server_up_mbps", "number > 0 [Mbit/s]", "1000"),
        ("server.compute.flops_per_s", "number > 0 [floating-point operations a second]", "5e+11"),
        ("population.clients", "whole number >= 1", "required"),
        ("population.on_close", "`lost`, `pause`, `partial`", "lost"),
        ("population.outages.per_day", "number > 0, <= 86400", "required"),
        ("population.devices", "file or folder or null", "null"),
        ("evaluate.targets", "list of: number", "[]"),
        ("protocol", "a block with `kind:` buffered, semi-synchronous, synchronous, tiers, timely", "{kind: synchronous}"),
        ("lora.ranks", "mapping of text to whole number >= 1 or list of: whole number >= 1 or null", "null"),
    ],
)  # fmt: skip
def test_values_and_defaults_in_words(path, values, default):
    (entry,) = of_key(Experiment, path)

    assert (entry.values, entry.default) == (values, default)


def test_defaults_are_those_that_an_experiment_has():
    """A second way: an experiment of nothing but what is required."""
    least = Experiment.model_validate(
        {
            "population": {"preset": "mixed_edge_2026", "clients": 2},
            "task": {"kind": "quadratic"},
            "budget": {"commits": 1},
        }
    ).plain()
    for entry in EVERY:
        block, _, name = entry.path.rpartition(".")
        at = least if not block else least.get(block)
        if (
            isinstance(at, dict)
            and entry.kind in ("", at.get("kind"))
            and isinstance(at.get(name), int | float)
        ):
            expected = {True: "true", False: "false"}.get(at[name]) if isinstance(at[name], bool) else None
            if entry.path not in FILLED_IN:
                assert entry.default == (expected or f"{at[name]:g}"), entry.path


def test_a_docstring_is_cut_into_what_it_says_first_what_of_its_fields_and_the_rest():
    class Parent(BudgetConfig):
        """A budget.

        Attributes:
            commits: of the parent.
            time_s, up_bytes: both
                alike.
        """

    class Child(Parent):
        """A child
        in two lines.

        More of it.

        Attributes:
            commits: of the child.
        """

    own = {name: text for name, text in meanings(Child).items() if name != "target"}  # of the grandparent
    assert own == {"time_s": "both alike.", "up_bytes": "both alike.", "commits": "of the child."}
    assert (summary(Child), prose(Child)) == ("A child in two lines.", "More of it.")


def test_keys_below_a_block_are_those_of_all_its_kinds():
    paths = {(e.path, e.kind) for e in below(Experiment, "sampler")}

    assert {kind for _, kind in paths} >= {"oort", "power-of-choice"}
    assert all(path.startswith("sampler.") and path.count(".") == 1 for path, _ in paths)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("protocol.buffer", ["protocol.buffer  (kind: buffered)", "landed updates", "whole number >= 1", "default: 10"]),
        ("buffer", ["protocol.buffer  (kind: buffered)"]),
        ("fedit", ["aggregator: {kind: fedit}", "weighted mean", "aggregator.server_lr"]),
        ("budget", ["when the run ends.", "budget.commits"]),
    ],
)  # fmt: skip
def test_explain_prints_what_a_key_a_block_or_a_kind_is(capsys, typed, said):
    assert call(["explain", typed]) == 0

    out = capsys.readouterr().out
    assert [part for part in said if part not in out] == []


def test_explain_alone_lists_the_blocks(capsys):
    assert call(["explain"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[:1] != " "] == list(Experiment.model_fields)


def test_explain_of_no_key_says_which_was_meant(capsys):
    assert call(["explain", "bufer"]) == 2

    assert (
        capsys.readouterr().err == "error: bufer: is no key of an experiment\n  fix: did you mean 'buffer'?\n"
    )


def test_the_schema_is_printed_with_its_meanings(capsys):
    assert call(["schema"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["properties"]["seed"]["description"] == "of everything that is drawn."


ROOT = Path(__file__).parents[3]
WRITTEN = sorted(
    path
    for folder in ("experiments", "fedsim/cli/templates")
    for path in (ROOT / folder).rglob("*.yaml")
    if "runs" not in path.parts and {"population", "task", "extends"} & yaml_file.read(path).values.keys()
)


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json_schema(Experiment))


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_an_editor_finds_nothing_wrong_with_the_experiments_that_ship(path, validator):
    values = yaml_file.read(path).values

    assert [f"{list(e.absolute_path)}: {e.message[:80]}" for e in validator.iter_errors(values)] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("task: {kind: quadratic}\nbudget: {commits: 1}", []),  # population is missing
        ("extends: base.yaml\nbuget: {commits: 1}", []),
        ("extends: base.yaml\nbudget: {comits: 1}", ["budget"]),
        ("extends: base.yaml\nprotocol: {bufer: 1}", ["protocol"]),
        ("extends: base.yaml\nseed: no", ["seed"]),
        ("population: {preset: world_2026}\ntask: {kind: quadratic}\nbudget: {commits: 1}", ["population"]),
        ("population: {clients: 2}\ntask: {}\nbudget: {commits: 1}", ["task"]),
        ("population: {clients: 2}\ntask: {kind: torch}\nbudget: {commits: 1}", ["task"]),
    ],
)
def test_an_editor_sees_a_wrong_key_and_one_that_is_missing(text, wrong, validator, tmp_path):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    errors = list(validator.iter_errors(yaml_file.read(tmp_path / "mine.yaml").values))

    assert errors
    assert {tuple(e.absolute_path)[:1] for e in errors} == {tuple(wrong)}


@pytest.mark.parametrize(
    "text",
    [
        "extends: base.yaml\npopulation: {preset: world_2026}",
        "extends: base.yaml\nprotocol: {buffer: 1}\ntask: {charge_as: {tokens_per_visit: 5}}",
        "extends: base.yaml\naggregator: {kind: 'mine:Mine', whatever: 1}",
    ],
)
def test_a_file_that_extends_another_says_as_little_as_it_likes(text, validator, tmp_path):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    values = yaml_file.read(tmp_path / "mine.yaml").values

    assert [e.message for e in validator.iter_errors(values)] == []
