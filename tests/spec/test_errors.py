"""Errors are data: what, where, got, fix and blamed are fields, the text is only rendered, and all cross processes."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from pydantic import ValidationError, model_validator

from fedsim import errors
from fedsim.component import Config, build
from fedsim.config.experiment import Experiment
from fedsim.config.loading import load, naming
from fedsim.config.validation import problems
from fedsim.errors import (
    ABSENT,
    DataError,
    ExperimentError,
    FedsimError,
    Message,
    Shown,
    WorkerError,
    invalid,
    message,
    several,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FedsimError)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (Message("is wrong"), "is wrong"),
        (message("a.yaml", "is wrong"), "a.yaml: is wrong"),
        (message("a.yaml", "is wrong", got=None), "a.yaml: is wrong (got None)"),
        (message("", "is wrong", got="x"), "is wrong (got 'x')"),
        (Message("is wrong", got=Shown("2 and 3"), fix="as in 3"), "is wrong (got 2 and 3)\n  fix: as in 3"),
        (several([Message("a", fix="b"), Message("c", others=(Message("d"),))]), "a\n  fix: b\nc\nd"),
        (
            message("a\nb\ufeff", "is\x1b[31m odd", got=Shown("\ud800")),
            "a\\nb\\ufeff: is\\x1b[31m odd (got \\ud800)",
        ),
    ],
)
def test_the_text_is_rendered_from_the_fields(content, text):
    assert str(content) == text == str(FedsimError(content))
    assert str(FedsimError(text)) == str(FedsimError(text).message) == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_rebuilt_from_its_one_argument(kind):
    content = Message("is wrong", "here", [1, "two"], "do this", ((3, 0), (4, 1)), (Message("also"),))
    raised = kind(content)
    assert raised.args == (content,)
    assert type(raised)(*raised.args).message == content  # as SimPy and Ray do
    again = pickle.loads(pickle.dumps(raised))
    assert (type(again), again.message, str(again)) == (kind, content, str(raised))
    assert pickle.loads(pickle.dumps(kind(Message("no value")))).message.got is ABSENT


def _fails():
    raise WorkerError(Message("failed", "client 3", got=_fails, blamed=((3, 1),)))


def test_an_error_crosses_processes_with_its_data_whatever_was_given():
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.raises(WorkerError, match="client 3: failed \\(got <function _fails") as raised,
    ):
        pool.submit(_fails).result()
    assert raised.value.blamed == ((3, 1),)


class Odd(Config):
    n: int

    @model_validator(mode="after")
    def _odd(self):
        if self.n % 2 == 0:
            raise invalid("is even; (got this far): no", got=self.n, fix="add 1: or\n  fix: nothing")
        return self


def test_what_a_validator_says_arrives_as_data_whatever_words_it_uses():
    with pytest.raises(ValidationError) as refused:
        Odd(n=2)
    [problem] = problems(refused.value, {"n": 2}, Odd)
    assert (problem.what, problem.got) == ("is even; (got this far): no", 2)
    assert problem.fix == "add 1: or\n  fix: nothing"


@pytest.mark.parametrize(
    ("block", "path", "what", "got"),
    [
        ({"kind": "fedot"}, ("aggregator", "kind"), "no such kind", "fedot"),
        ({"kind": 7}, ("aggregator", "kind"), "must be text", 7),
        ({}, ("aggregator",), "needs `kind:`", {}),
        ("fedit", ("aggregator",), "must be a block with `kind:`", "fedit"),
        ({"kind": "nowhere:Rule"}, ("aggregator", "kind"), "there is no module", "nowhere:Rule"),
    ],
)
def test_a_wrong_kind_is_named_at_its_key(block, path, what, got):
    with pytest.raises(ExperimentError) as refused:
        Experiment.model_validate({"aggregator": block})
    content = refused.value.message
    [problem] = [m for m in (content, *content.others) if m.where.startswith("experiment: aggregator")]
    assert problem.where == f"experiment: {'.'.join(path)}"
    assert problem.what.startswith(what)
    assert problem.got == got
    with pytest.raises(ValueError, match=what):
        build("aggregators", block)


def test_an_error_of_a_field_gets_its_file_and_its_value(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "task: {kind: quadratic}\npopulation: {preset: phones_2020, clients: 3}\nbudget: {commits: 1}\nseed: 5\n"
    )
    experiment = load(path)

    def said(content):
        with pytest.raises(DataError) as raised, naming(experiment, "a.yaml"):
            raise DataError(content)
        return raised.value.message

    assert said(message("seed", "is: odd")) == message("a.yaml: seed", "is: odd", got=5)
    assert said(message("seed", "is odd", got=7)).got == 7
    assert said(message("population", "is odd")).got is ABSENT  # a block is no value
    assert said(message("elsewhere", "is odd")).where == "elsewhere"
    assert said("seed: is odd").what == "seed: is odd"  # a text is not read
