"""A user's own component that goes wrong is named: its class, the file and the line, in one sentence."""

import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from worlds import plan

from fedsim import blame
from fedsim.cli.app import call
from fedsim.component import find
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, FedsimError, RunError
from fedsim.runs.simulation import simulate

SYNC = {"kind": "synchronous", "cohort": 2}
HEAD = """
    from typing import Any, ClassVar
    import numpy as np
    from dataclasses import replace
    from fedsim.aggregators import WHOLE, Aggregator, Offer, ServerModel, Traits
    from fedsim.optimizers import ServerOptimizer
    from fedsim.protocols import ServerProtocol
    from fedsim.samplers import PollingSampler, Sampler
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a module of the user's, under a name that no other test has, and return the import path of `Mine`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(body, name):
        text = textwrap.dedent(HEAD) + textwrap.dedent(body)
        (tmp_path / f"{name}.py").write_text(text)
        sys.modules.pop(name, None)
        return f"{name}:Mine"

    return write


def run(blocks, *, commits=2, **rest):
    protocol = blocks.pop("protocol", SYNC)
    return simulate(
        plan(
            protocol, [1.0] * 6, budget={"commits": commits}, runtime={"executor": "inline"}, **blocks, **rest
        ),
        timeline_only=False,
    )


SAMPLERS = {
    "too many": ("return idle[: n + 1]", "returned 3 clients where 2 were asked for"),
    "too few": ("return idle[:1]", "returned 1 clients where 2 were asked for"),
    "one twice": ("return np.repeat(idle[0], n)", "returned client 0 more than once"),
    "out of range": ("return np.array([0, 99])", "returned client 99, who is not idle"),
    "negative": ("return np.array([0, -1])", "returned client -1, who is not idle"),
    "nobody": ("return None", "returned no array of client numbers"),
    "floats": ("return idle[:n] + 0.5", "returned no array of client numbers"),
    "booleans": ("return idle >= 0", "returned no array of client numbers"),
    "a table": ("return np.stack([idle[:n], idle[:n]])", "returned no array of client numbers"),
    "words": ("return ['a', 'b']", "returned no array of client numbers"),
    "an index": ("return idle[[99, 100]]", "raised IndexError"),
    "a name": ("return idel[:n]", "raised NameError: name 'idel' is not defined"),
    "a key": ("return {}['stak']", "raised KeyError: 'stak'"),
    "a compiled call": (
        "return rng.choice(idle, size=99, replace=False)",
        "raised ValueError: Cannot take a larger sample",
    ),
    "ragged": ("return [idle[:n], idle[:1]]", "returned no array of client numbers"),
}


@pytest.mark.parametrize(("body", "said"), SAMPLERS.values(), ids=SAMPLERS)
def test_a_sampler_is_checked_at_each_choice(written, body, said):
    kind = written(
        f"""
        class Mine(Sampler):
            def choose(self, idle, n, rng, seen):
                {body}
        """,
        "own_samplers",
    )
    with pytest.raises(RunError) as caught:
        run({"sampler": {"kind": kind}})
    text = str(caught.value)
    assert said in text
    assert "Mine.choose" in text
    assert "own_samplers.py, line" in text


def test_a_busy_client_is_not_idle(written):
    """The first choice is right, the second asks for somebody who is at work."""
    kind = written(
        """
        class Mine(Sampler):
            def choose(self, idle, n, rng, seen):
                return np.arange(n)
        """,
        "own_samplers",
    )
    with pytest.raises(RunError, match="who is not idle"):
        run({"sampler": {"kind": kind}, "protocol": {"kind": "buffered", "concurrency": 3, "buffer": 2}})


def test_a_list_of_clients_will_do(written):
    kind = written(
        """
        class Mine(Sampler):
            def choose(self, idle, n, rng, seen):
                return [int(client) for client in idle[:n]]
        """,
        "own_samplers",
    )
    assert len(run({"sampler": {"kind": kind}}).commits) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return clients[:0]", "returned 0 clients where 1 to 2 were asked for"),
        ("return np.array([99])", "returned client 99, who is not among the candidates"),
        ("return clients", "returned 4 clients where 1 to 2 were asked for"),
    ],
)
def test_a_polling_sampler_keeps_some_of_its_candidates(written, body, said):
    kind = written(
        f"""
        class Mine(PollingSampler):
            def choose(self, idle, n, rng, seen):
                return idle[:4]
            def keep(self, clients, losses, n):
                {body}
        """,
        "own_pollers",
    )
    with pytest.raises(RunError, match=said):
        run({"sampler": {"kind": kind}})


RULES = {
    "no pair": ("return model", "returned no pair of a model and a state"),
    "nothing": ("return None", "returned no pair of a model and a state"),
    "a vector": ("return vector, state", "returned no pair of a model and a state"),
    "doubles": ("return replace(model, adapter=Odd(vector)), state", "float64 numbers, not float32"),
    "short": ("return replace(model, adapter=Odd(vector[:2])), state", "returned a model of shape (2,)"),
    "its own": ("raise KeyError('stak')", "KeyError: 'stak'"),
    "a compiled call": (
        "np.random.default_rng(0).choice(3, size=9, replace=False)",
        "ValueError: Cannot take a larger",
    ),
}


@pytest.mark.parametrize(("body", "said"), RULES.values(), ids=RULES)
def test_a_rule_is_checked_at_each_commit(written, body, said):
    kind = written(
        f"""
        class Odd:
            def __init__(self, vector): self.vector = vector

        class Mine(Aggregator):
            traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, full_model=True, history=False)
            def init(self, model): return None
            def offer(self, state, model, invitation): return Offer(model.adapter.vector, down=WHOLE, up=WHOLE)
            def apply(self, state, model, contributions):
                vector = np.mean([c.end.astype(float) for c in contributions], axis=0)
                {body}
        """,
        "own_rules",
    )
    with pytest.raises(RunError) as caught:
        run({"aggregator": {"kind": kind}})
    assert said in str(caught.value)
    assert "own_rules.py, line" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return model.adapter.vector", "returned no Offer"),
        ("return Offer(model.adapter.vector[:1], down=WHOLE, up=WHOLE)", "returned a start of shape (1,)"),
    ],
)
def test_a_rule_is_checked_at_each_offer(written, body, said):
    kind = written(
        f"""
        class Mine(Aggregator):
            traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, full_model=True, history=False)
            def init(self, model): return None
            def offer(self, state, model, invitation): {body}
            def apply(self, state, model, contributions): return model, state
        """,
        "own_rules",
    )
    with pytest.raises(RunError) as caught:
        run({"aggregator": {"kind": kind}})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return after", "returned no pair of a vector and a state"),
        ("return after.astype(float), state", "float64 numbers, not float32"),
        ("return after[:1], state", "returned a model of shape (1,)"),
        ("return after @ before, state", "returned a model of shape ()"),
    ],
)
def test_a_server_optimiser_is_checked_at_each_step(written, body, said):
    kind = written(
        f"""
        class Mine(ServerOptimizer):
            def init(self, size): return None
            def step(self, state, before, after, max_staleness): {body}
        """,
        "own_optimizers",
    )
    with pytest.raises(RunError) as caught:
        run({"server_optimizer": {"kind": kind}})
    assert said in str(caught.value)
    assert "own_optimizers.py, line" in str(caught.value)


PROTOCOLS = {
    "no generator": ("return None", "`Mine.run` is no generator"),
    "no event": ("yield 5", '`run` yields "5", which is no event'),
    "nobody": ("yield from server.sample(0)", "0 clients are asked for, of 6"),
    "more than all": ("yield from server.sample(7)", "7 clients are asked for, of 6"),
    "a stranger": ("yield server.dispatch(6).process", "there is no client 6 to dispatch to, only 0 to 5"),
    "twice": (
        "yield [server.dispatch(0), server.dispatch(0)][0].process",
        "client 0 is at work on another visit",
    ),
    "too early": (
        "clients = yield from server.sample(1); server.commit([server.dispatch(c) for c in clients])",
        "visit 0 of client",
    ),
    "again": (
        "v = server.dispatch(0); yield v.process; server.commit([v]); server.commit([v])",
        "has been committed or refused already",
    ),
    "two at once": (
        "v = server.dispatch(0); yield v.process; server.commit([v, v])",
        "committed twice in one",
    ),
    "a bug": ("yield server.timeout('soon')", "raised"),
}


@pytest.mark.parametrize(("body", "said"), PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_protocol_is_checked_at_each_verb(written, body, said):
    kind = written(
        f"""
        class Mine(ServerProtocol):
            def run(self, server):
                {body}
                {"" if body.startswith("return") else "yield server.timeout(1.0)"}
        """,
        "own_protocols",
    )
    with pytest.raises(RunError) as caught:
        run({"protocol": {"kind": kind}})
    assert said in str(caught.value)
    assert "own_protocols.py, line" in str(caught.value)


TASKS = {
    "no update": ("train", "return [None] * len(jobs)", "Mine.train gives NoneType, not an Update"),
    "too few updates": ("train", "return []", "the task returned 0 results for"),
    "a bug in training": ("train", "return jobs.stak", "AttributeError"),
    "no sums": ("score", "return None", "Mine.score gives NoneType, not a dict of sums"),
    "no metrics": ("metrics", "return {}", "`Mine.metrics` returned no metrics"),
    "words for numbers": ("metrics", "return {'loss': 'low'}", "`Mine.metrics` returned no metrics"),
    "half a model": (
        "initial",
        "return super().initial()[:1]",
        "`Mine.initial` returned a model of shape (1,)",
    ),
    "doubles": ("initial", "return super().initial().astype(float)", "float64 numbers, not float32"),
    "a bug in counting": ("tokens", "raise KeyError('stak')", "KeyError: 'stak'"),
}
ARGUMENTS = {
    "train": "jobs",
    "score": "vector, probe, base=None",
    "metrics": "sums",
    "initial": "",
    "tokens": "client, local",
}


@pytest.mark.parametrize(("method", "body", "said"), TASKS.values(), ids=TASKS)
def test_a_task_is_checked_at_each_call(written, method, body, said):
    path = written(
        f"""
        from fedsim.tasks import TaskComponent
        from fedsim.tasks.quadratic import Quadratic, QuadraticTask

        class Mine(QuadraticTask):
            def {method}(self, {ARGUMENTS[method]}):
                {body}

        class Block(TaskComponent):
            def build(self, context):
                return Mine(**vars(Quadratic().build(context)))
        """,
        "own_tasks",
    )
    experiment = Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": 4},
            "task": {"kind": path.replace("Mine", "Block")},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
            "protocol": SYNC,
            "budget": {"commits": 1},
            "runtime": {"executor": "inline"},
        }
    )
    with pytest.raises(FedsimError) as caught:
        simulate(experiment)
    assert said in str(caught.value)
    assert (
        "Mine" in str(caught.value) or "own_tasks.py" in str(caught.value) or "the task" in str(caught.value)
    )


def test_a_task_that_cannot_be_built_says_its_line(written):
    path = written(
        """
        from fedsim.tasks import TaskComponent

        class Mine(TaskComponent):
            def build(self, context):
                return open('no-such-file')
        """,
        "own_tasks",
    )
    experiment = Experiment.model_validate(
        {"population": {"preset": "homogeneous", "clients": 4}, "task": {"kind": path}, "protocol": SYNC}
        | {"budget": {"commits": 1}, "runtime": {"executor": "inline"}}
    )
    with pytest.raises(ExperimentError, match=r"`Mine.build` raised FileNotFoundError: .*own_tasks.py, line"):
        simulate(experiment)


def test_what_is_not_the_user_s_passes(monkeypatch):
    """A fault of ours is not laid at the user's door, nor that of a callback, which is no component."""

    def boom(kind, facts):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        simulate(plan(SYNC, [1.0] * 3, budget={"commits": 1}), on_event=boom)


def test_a_place_is_shown_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(blame.Place(str(tmp_path / "a" / "b.py"), 3, "f")) == "a/b.py, line 3"
    assert str(blame.Place("/elsewhere/b.py", 3, "f")) == "/elsewhere/b.py, line 3"


# the class itself -----------------------------------------------------------------------------------


def test_a_wrong_class_name_is_answered_with_those_that_are_there(written):
    written(
        "class Median(Sampler):\n            def choose(self, idle, n, rng, seen): return idle\n", "own_names"
    )
    with pytest.raises(ExperimentError, match="has no class 'Medain'") as caught:
        find("samplers", "own_names:Medain")
    assert caught.value.message.fix == "did you mean 'Median'?"
    with pytest.raises(ExperimentError, match="there is no module 'own_namse'"):
        find("samplers", "own_namse:Median")
    with pytest.raises(ExperimentError, match=r"there is no module 'own_names.other'"):
        find("samplers", "own_names.other:Median")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package_at_all\n", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
        ("class Mine(:\n", "SyntaxError"),
        ("stak\n", "NameError: name 'stak' is not defined"),
        ("raise RuntimeError('not today')\n", "RuntimeError: not today"),
    ],
)
def test_a_module_that_cannot_be_imported_says_its_line(tmp_path, monkeypatch, text, said):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_broken.py").write_text("\n\n" + text)
    sys.modules.pop("own_broken", None)
    with pytest.raises(ExperimentError) as caught:
        find("samplers", "own_broken:Mine")
    assert said in str(caught.value)
    assert "own_broken.py, line 3" in str(caught.value)


def test_the_command_line_says_the_same_and_leaves_no_traceback(written, tmp_path, capsys):
    kind = written(
        """
        class Mine(Sampler):
            def choose(self, idle, n, rng, seen):
                return idle[[99]]
        """,
        "own_cli",
    )
    (tmp_path / "a.yaml").write_text(
        "task: {kind: quadratic}\npopulation: {preset: homogeneous, clients: 4}\n"
        "local: {optimizer: sgd, lr: 0.1, steps: 1}\nprotocol: {kind: synchronous, cohort: 2}\n"
        f"budget: {{commits: 1}}\nruntime: {{executor: inline}}\nsampler: {{kind: '{kind}'}}\n"
    )
    assert call(["run", "a.yaml", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert re.search(r"own_cli.py, line \d+: `Mine.choose` raised IndexError", said)
    assert "unexpected" not in said
    assert "Traceback" not in said
    assert np.all([line.count("report it") == 0 for line in said.splitlines()])


RULE = """
    class Mine(Aggregator):
        traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, full_model=True, history=False)
        def init(self, model): return None
        def offer(self, state, model, invitation): return Offer(model.adapter.vector, down=WHOLE, up=WHOLE)
        def apply(self, state, model, contributions): return model, state
"""
RETURNED = {
    "an array that is not there": (
        "offer",
        "def offer(self, state, model, invitation): return Offer(model.adapter.vector, Payload(('nope',)), WHOLE)",
        "whose `down` has an array that the layout does not have",
    ),
    "no payload": (
        "offer",
        "def offer(self, state, model, invitation): return Offer(model.adapter.vector, WHOLE, None)",
        "whose `up` is no Payload",
    ),
    "no rank": (
        "offer",
        "def offer(self, state, model, invitation): return Offer(model.adapter.vector, Payload(rank=0), WHOLE)",
        "whose `down` has no rank of at least 1",
    ),
    "no factors": (
        "offer",
        "def offer(self, state, model, invitation): return Offer(model.adapter.vector, WHOLE, WHOLE, trains='C')",
        "returned an offer that trains no factors",
    ),
    "flops in words": (
        "commit_flops",
        "def commit_flops(self, shapes, rank, ranks): return 'many'",
        "returned no number of operations",
    ),
    "flops below 0": (
        "commit_flops",
        "def commit_flops(self, shapes, rank, ranks): return -1.0",
        "returned no number of operations",
    ),
    "suited to nothing": (
        "suited",
        "def suited(self, setting): return None",
        "returned no rule of its own class",
    ),
}


@pytest.mark.parametrize(("method", "body", "said"), RETURNED.values(), ids=RETURNED)
def test_whatever_a_rule_returns_is_held_against_what_its_methods_promise(written, method, body, said):
    source = f"{textwrap.dedent(RULE)}    {body}\n"
    kind = written("from fedsim.aggregators import Payload\n" + source, "own_returns")
    with pytest.raises(RunError) as caught:
        run(
            {
                "aggregator": {"kind": kind},
                "server": {"compute": {"flops_per_s": 1e9, "memory_bytes_per_s": 1e9}},
            }
        )
    assert said in str(caught.value)
    line = len(Path("own_returns.py").read_text().splitlines())
    assert f"own_returns.py, line {line}: " in str(caught.value)
    assert f"Mine.{method}" in str(caught.value)


@pytest.mark.parametrize("told", ["None", "['too many']", "'too many'"])
def test_what_a_protocol_says_of_its_problems_is_held_as_well(written, told):
    kind = written(
        f"""
        class Mine(ServerProtocol):
            def problems(self, clients): return {told}
            def run(self, server): yield server.timeout(1.0)
        """,
        "own_problems",
    )
    with pytest.raises(
        RunError, match=r"own_problems.py, line \d+: `Mine.problems` returned no list of problems"
    ):
        run({"protocol": {"kind": kind}})


def test_a_protocol_that_raises_before_the_start_is_blamed(written):
    kind = written(
        """
        class Mine(ServerProtocol):
            def problems(self, clients): return {}["stak"]
            def run(self, server): yield server.timeout(1.0)
        """,
        "own_problems",
    )
    with pytest.raises(RunError, match=r"own_problems.py, line \d+: `Mine.problems` raised KeyError: 'stak'"):
        simulate(
            Experiment.model_validate(
                {
                    "protocol": {"kind": kind},
                    "task": {"kind": "quadratic"},
                    "budget": {"commits": 1},
                    "population": {"preset": "homogeneous", "clients": 4},
                }
            )
        )


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_who_makes_a_model_infinite_is_named(written):
    """The rule's move is finite: the server's optimiser makes too much of it, one of fedsim's or one of the user's."""
    with pytest.raises(RunError, match="server_optimizer adam: made version 1 infinite") as caught:
        run({"server_optimizer": {"kind": "adam", "lr": 1e39}})
    assert "lower server_optimizer.lr" in str(caught.value)

    kind = written(
        """
        class Mine(ServerOptimizer):
            def init(self, vector): return None
            def step(self, state, before, after, staleness=0): return after * np.float32("inf"), state
        """,
        "own_steps",
    )
    with pytest.raises(
        RunError, match=r"server_optimizer own_steps:Mine \(own_steps.py, line \d+\): made version 1"
    ):
        run({"server_optimizer": {"kind": kind}})


def test_a_rule_derived_from_one_of_ours_is_told_to_declare_its_own_kind(written):
    """To give `kind: fedit` instead would run FedIT."""
    kind = written("from fedsim.aggregators.fedit import FedIT\nclass Mine(FedIT):\n    pass\n", "own_kinds")
    with pytest.raises(ExperimentError) as caught:
        run({"aggregator": {"kind": kind}})
    assert "aggregator.kind: is that of the class which Mine is derived from, 'fedit'" in str(caught.value)
    assert "fix: declare `kind: str` in class Mine" in str(caught.value)
