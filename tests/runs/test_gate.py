"""Every refusal of docs/combinations.md, and of every other check, wherever an experiment starts: a file, Python, a sweep, a replay."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from worlds import plan
from worlds.rooms import ROOT, file_of, files, named, syntax, uses

import fedsim
from fedsim.adapters.largest_rank import smaller_side
from fedsim.aggregators.fedit import FedIT
from fedsim.checks import gate
from fedsim.checks.combinations import choice_of, misfits
from fedsim.checks.limits import EVER, LIMITS, Choice, refusals, words
from fedsim.checks.page import Feature, other_features, plain, protocol_features, rules
from fedsim.cli.app import call
from fedsim.component import kinds
from fedsim.errors import ExperimentError, FedsimError
from fedsim.runs.replay import replay
from fedsim.runs.together import run_together

BASE: dict[str, Any] = {
    "name": "base",
    "population": {"preset": "homogeneous", "clients": 100},
    "task": {"kind": "language"},
    "local": {"steps": 1},
    "budget": {"commits": 1},
    "runtime": {"executor": "inline"},
}
QUADRATIC = {
    **BASE,
    "task": {"kind": "quadratic", "layout": "lora"},
    "local": {"optimizer": "sgd", "steps": 1},
}


@dataclass(frozen=True)
class Case:
    """A choice that is refused: the blocks that ask for it, and the sentences."""

    name: str
    blocks: dict[str, Any]
    sentences: tuple[str, ...]


def asked(rule: str, *features: Feature) -> dict[str, Any]:
    """The blocks of an experiment with a rule and some features."""
    blocks: dict[str, Any] = {**BASE, "aggregator": {"kind": rule}}
    for feature in features:
        for name, block in feature.blocks.items():
            blocks[name] = {**blocks.get(name, {}), **block}
    return blocks


def of_the_tables() -> list[Case]:
    """One case for each cell of the page that says no."""
    cases = []
    for kind, traits in rules():
        for feature in (*protocol_features(), *other_features()):
            refused = refusals(replace(Choice(kind, traits), **feature.changes))
            if refused:
                sentences = tuple(what for _, (what, _) in refused)
                cases.append(Case(f"{kind} with {feature.name}", asked(kind, feature), sentences))
    return cases


def whatever_the_rule() -> list[Case]:
    """One case for each line below the tables, and more where several kinds ask for the same."""
    features = {feature.name: feature for feature in (*protocol_features(), *other_features())}
    cuts = [f for f in protocol_features() if f.changes["cuts_ranks"]]
    blends = [f for f in protocol_features() if f.changes["blends"]]
    kept = [k for k in kinds("personal") if plain("personal", k).waits or plain("personal", k).adds_products]
    beside = ("DoRA", "biases", "whole modules")
    patterns = features["patterns of rank and alpha"]
    together = [
        (features["quantised weights"], features["whole models"]),
        *((f, patterns) for f in (*cuts, features["unequal ranks"], features["feddpa"])),
        *((features["feddpa"], features[name]) for name in beside),
        *((f, features["whole models"]) for f in cuts),
        *((f, features["server optimiser"]) for f in blends),
        *((features[kind], features["average of versions"]) for kind in kept),
        *(
            (features[kind], features["best version kept"])
            for kind in kinds("personal")
            if plain("personal", kind).waits
        ),
        *((features["depth by device"], features[name]) for name in ("whole models", "DoRA")),
        *((features["depth by device"], f) for f in blends),
    ]
    cases = []
    for pair in together:
        changes = {**pair[0].changes, **pair[1].changes}
        choice = replace(Choice("fedit", FedIT.traits), **changes)
        sentences = tuple(
            words(limit, choice)[0] for limit in EVER if limit.asked(choice) and not limit.able(choice)
        )
        cases.append(Case(f"{pair[0].name} with {pair[1].name}", asked("fedit", *pair), sentences))
    return cases


CASES = [*of_the_tables(), *whatever_the_rule()]


def said(problem: BaseException) -> str:
    return " ".join(str(problem).split())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_does_not_go_together_is_refused_from_python_and_on_the_command_line(case, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(case.blocks))
    assert case.sentences

    with pytest.raises(ExperimentError) as simulated:
        fedsim.simulate(fedsim.Experiment.model_validate(case.blocks))
    with pytest.raises(ExperimentError) as read:
        fedsim.read(file)
    code = call(["run", str(file), "--out", str(tmp_path / "run")])

    typed = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert not (tmp_path / "run").exists()
    for sentence in case.sentences:
        assert sentence in said(simulated.value)
        assert sentence in said(read.value)
        assert sentence in typed


def test_the_cases_are_as_many_as_the_page_says_and_meet_every_limit():
    page = (ROOT.parent / "docs" / "combinations.md").read_text(encoding="utf-8")
    lines = page.partition("## Whatever the rule")[2].count("\n* ")
    choices = [choice_of(fedsim.Experiment.model_validate(case.blocks)) for case in CASES]
    met = {
        limit
        for limit in (*LIMITS, *EVER)
        for choice in choices
        if limit.asked(choice) and not limit.able(choice)
    }

    assert len(of_the_tables()) == len(re.findall(r"\| no \(", page))
    assert len(EVER) == lines
    assert met >= set(EVER)
    asked_for = {
        limit for limit in LIMITS if any(not limit.able(Choice(k, t)) or not t.stale for k, t in rules())
    }
    assert {limit.path for limit in met} >= {limit.path for limit in asked_for} - {("protocol",)}


@pytest.mark.parametrize("kind", kinds("aggregators"))
def test_what_the_page_allows_is_not_refused(kind):
    traits = dict(rules())[kind]
    for feature in (*protocol_features(), *other_features()):
        if not refusals(replace(Choice(kind, traits), **feature.changes)):
            assert misfits(fedsim.Experiment.model_validate(asked(kind, feature))) == [], feature.name


OTHER = {
    "population.preset": {"population": {"preset": "nobody", "clients": 3}},
    "network.loss": {"network": {"loss": 0.1}},
    "network.sharing": {"network": {"model": "size-over-rate", "sharing": "max-min"}},
    "local.momentum": {"local": {"optimizer": "adamw", "momentum": 0.5}},
    "compute.stack": {"compute": {"stack": "x"}},
    "compute.thermal.tiers": {"compute": {"thermal": {"tiers": ["spaceship"]}}},
    "lora.rank_by": {"lora": {"rank_by": "deadline"}},
    "protocol.cohort": {"protocol": {"kind": "synchronous", "cohort": 101}},
    "personal.clients": {"personal": {"kind": "fine-tune", "clients": 101}},
    "personal.unseen": {"personal": {"kind": "fine-tune", "unseen": 95}},
    "task.data": {"task": {"kind": "language", "data": "/no/such/file"}},
    "population.availability": {
        "population": {"preset": "homogeneous", "clients": 3, "availability": "/no/such"}
    },
    "memory.when_short": {"aggregator": {"kind": "fedex"}, "memory": {"when_short": "rank"}},
}
"""Key -> blocks that the other checks refuse."""


@pytest.mark.parametrize("key", OTHER)
def test_the_other_checks_stand_at_the_same_gate(key, tmp_path, capsys):
    blocks = {**BASE, **OTHER[key]}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(blocks))

    with pytest.raises(ExperimentError, match=rf"(?m)^experiment: {key}: .*$"):
        fedsim.simulate(fedsim.Experiment.model_validate(blocks))
    with pytest.raises(ExperimentError, match=rf"mine.yaml: {key}: "):
        fedsim.read(file)
    assert call(["run", str(file)]) == 2
    assert f"mine.yaml: {key}: " in capsys.readouterr().err


REFUSED = {"aggregator": {"kind": "flora"}, "server_optimizer": {"kind": "adam"}}
SENTENCE = "adam steps along the move of the shared factors"


def test_a_plan_is_no_way_around():
    allowed = gate.prepared(fedsim.Experiment.model_validate(QUADRATIC))
    refused = fedsim.Experiment.model_validate({**QUADRATIC, **REFUSED})

    for smuggled in (replace(allowed, experiment=refused), allowed.alike(refused)):
        with pytest.raises(ExperimentError, match=SENTENCE):
            fedsim.simulate(smuggled)


GROUND = {
    "population": {"preset": "homogeneous", "clients": 6},
    "task": {"kind": "quadratic", "layout": "lora", "dimension": 6},
    "lora": {"r": 4},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
    "protocol": {"kind": "synchronous", "cohort": 2},
    "budget": {"commits": 1},
    "runtime": {"executor": "inline"},
}
LATE = {
    "nothing can land": {"protocol": {"kind": "synchronous", "cohort": 2, "deadline_s": 1e-7}},
    "an endless budget": {"aggregator": {"kind": "local-only"}, "budget": {"up_bytes": 10}},
    "more layers than there are": {"personal": {"kind": "fedper", "layers": 50}},
    "layers that are not known": {
        "aggregator": {"kind": "flora"},
        "server": {"compute": {"flops_per_s": 1e9, "memory_bytes_per_s": 1e9}},
    },
}
"""What only the model, the data and the work of a visit tell."""


@pytest.mark.parametrize("blocks", LATE.values(), ids=LATE)
def test_a_plan_is_no_way_around_what_is_known_late(blocks):
    ground = dict(GROUND)
    if "server" in blocks:
        declared = {
            "preset": "gemma-3-270m",
            "r": 4,
            "tokens_per_visit": 9,
            "params": 10**8,
            "matmul_params": 10**8,
        }
        ground["task"] = ground["task"] | {"charge_as": declared}
    other = fedsim.Experiment.model_validate(ground | blocks)
    with pytest.raises(FedsimError) as whole:
        fedsim.simulate(other, timeline_only=True)
    made = gate.prepared(fedsim.Experiment.model_validate(ground))
    with pytest.raises(FedsimError) as planned:
        fedsim.simulate(made.alike(other), timeline_only=True)

    assert str(planned.value) == str(whole.value)


@pytest.mark.parametrize(
    "line", [["run", "--dry-run"], ["run", "--timeline-only"], ["sweep"], ["profiles", "calibrate", "--task"]]
)
def test_every_command_that_starts_an_experiment_asks(line, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    grid = {"sweep": {"seed": [0, 1]}} if line == ["sweep"] else {}
    file.write_text(yaml.safe_dump({**QUADRATIC, **REFUSED, **grid}))
    command = [*line, str(file)] if line[0] == "profiles" else [line[0], str(file), *line[1:]]

    assert call(command) == 2
    assert SENTENCE in capsys.readouterr().err


def test_experiments_that_run_together_are_all_asked_before_one_starts(tmp_path):
    good = fedsim.Experiment.model_validate(QUADRATIC)
    bad = fedsim.Experiment.model_validate({**QUADRATIC, **REFUSED})

    with pytest.raises(ExperimentError, match=SENTENCE):
        run_together([good, bad], tmp_path, lambda *_: pytest.fail("one has started"))


def test_a_recorded_run_that_would_be_refused_is_not_replayed(tmp_path):
    fedsim.simulate(fedsim.Experiment.model_validate(QUADRATIC), out=tmp_path / "run", report=False)
    file = tmp_path / "run" / "experiment.yaml"
    stored = yaml.safe_load(file.read_text())
    client = int(fedsim.load(tmp_path / "run").visits.client.iloc[0])
    assert replay(tmp_path / "run", client, 0).agreement
    shutil.copytree(tmp_path / "run", tmp_path / "changed")
    changed = {**stored, "aggregator": {"kind": "flora"}, "server_optimizer": {"kind": "adam"}}
    (tmp_path / "changed" / "experiment.yaml").write_text(yaml.safe_dump(changed))

    with pytest.raises(ExperimentError, match=rf"experiment.yaml: .*(?s:.*){SENTENCE}"):
        replay(tmp_path / "changed", client, 0)


class EqualRanks(FedIT):
    """A user's rule that needs equal ranks."""

    kind: str = "equal-ranks"
    traits: ClassVar[Any] = replace(FedIT.traits, unequal_ranks=False, compressible=False)


MODULE = """
from dataclasses import replace
from typing import ClassVar
from fedsim.aggregators import Traits
from fedsim.aggregators.fedit import FedIT

class Equal(FedIT):
    kind: str = "own_rules_of_gate:Equal"
    traits: ClassVar[Traits] = replace(FedIT.traits, unequal_ranks=False, compressible=False)
"""


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ({"lora": {"r": 4, "rank_by": "memory"}}, "needs equal ranks"),
        ({"wire": {"top_k": 0.5}}, "leaving out small entries makes no sense"),
        ({"protocol": {"kind": "timely", "partial": "rank"}}, "asks slow clients for fewer rank slots"),
    ],
)
def test_components_of_a_user_are_held_to_their_traits(blocks, sentence, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_rules_of_gate.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.safe_dump({**QUADRATIC, **blocks, "aggregator": {"kind": "own_rules_of_gate:Equal"}})
    )

    with pytest.raises(ExperimentError, match=sentence):
        fedsim.read(file)
    assert call(["run", str(file)]) == 2
    assert sentence in capsys.readouterr().err
    with pytest.raises(ExperimentError, match=sentence):
        fedsim.simulate(fedsim.Experiment.model_validate({**QUADRATIC, **blocks, "aggregator": EqualRanks()}))


def test_nothing_but_the_gate_makes_a_plan_of_an_experiment():
    users = {
        named(path)
        for path in files()
        for node in syntax(path)
        if isinstance(node, ast.ImportFrom) and node.module == "fedsim.clock.plan"
        if "prepare" in {alias.name for alias in node.names}
    }

    assert users == {"checks/gate.py"}
    assert "fedsim.checks.gate" in set(uses(file_of("fedsim.runs.simulation")))


# ranks and the layers' sides --------------------------------------------------------------------


@pytest.mark.parametrize(("dimension", "r"), [(4, 5), (8, 9), (8, 1000)])
def test_a_rank_above_the_sides_of_a_layer_is_refused_before_the_start(dimension, r, tmp_path, capsys):
    task = {"kind": "quadratic", "layout": "lora", "dimension": dimension}
    blocks = {**QUADRATIC, "task": task, "lora": {"r": r}}
    sentence = f"lora.r: is more than w has ({dimension} x {dimension}): a product B A of it has rank {dimension} at most (got {r})"
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(blocks))

    with pytest.raises(ExperimentError, match=re.escape(sentence)):
        fedsim.simulate(fedsim.Experiment.model_validate(blocks))
    assert call(["run", str(file), "--out", str(tmp_path / "run")]) == 2
    assert f"mine.yaml: {sentence}" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_rank_as_large_as_the_smaller_side_is_allowed():
    blocks = {**QUADRATIC, "task": {"kind": "quadratic", "layout": "lora", "dimension": 5}, "lora": {"r": 5}}

    layout = gate.prepared(fedsim.Experiment.model_validate(blocks)).task.layout
    assert [smaller_side(module) for module in layout.modules] == [5]


def test_the_side_of_a_convolution_counts_its_kernel():
    from fedsim.adapters.adapter import Module

    assert smaller_side(Module("c", 2, (2, 3, 3, 3), (64, 2, 1, 1), 1.0)) == 27
    assert smaller_side(Module("c", 2, (2, 64, 3, 3), (3, 2, 1, 1), 1.0)) == 3


# calls that are no experiment -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("mine.yaml", r"mine.yaml: no such file"),
        (Path("mine.yaml"), r"mine.yaml: no such file"),
        ({"task": {}}, r"experiment: population: is required"),
        (None, r"takes an experiment, a plan, plain values or the name of a file \(got a NoneType\)"),
    ],
)
def test_what_is_no_experiment_is_answered_with_the_call_that_makes_one(value, says):
    with pytest.raises(ExperimentError, match=says):
        fedsim.simulate(value)


def test_a_file_plain_values_and_an_experiment_are_one_run(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(QUADRATIC))
    experiment = fedsim.Experiment.model_validate(QUADRATIC)

    runs = [
        fedsim.simulate(given, timeline_only=True).visits
        for given in (experiment, QUADRATIC, tmp_path / "mine.yaml", str(tmp_path / "mine.yaml"))
    ]

    assert len(runs[0]) > 0
    assert all(run.equals(runs[0]) for run in runs)


@pytest.mark.parametrize("overrides", ["seed=1", {"seed": 1}.items(), [("seed", 1)], [1], {"seed": 1}, 1])
def test_overrides_that_are_no_list_of_texts_are_named(overrides, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(QUADRATIC))

    with pytest.raises(ExperimentError, match=r"overrides must be a list of texts, key.path=value each"):
        fedsim.read(tmp_path / "mine.yaml", overrides)


@pytest.mark.parametrize("path", [{"seed": 1}, None, 3])
def test_what_is_no_path_is_refused_by_read(path):
    with pytest.raises(ExperimentError, match="takes the name of a YAML file"):
        fedsim.read(path)


def test_an_executor_that_is_none_is_a_folder_in_the_wrong_place():
    with pytest.raises(ExperimentError, match=r"executor must be an Executor(?s:.*)out='runs/x'"):
        fedsim.simulate(plan({"kind": "synchronous", "cohort": 1}, [1.0]), "runs/x")
