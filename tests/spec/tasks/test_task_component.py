"""What a task component and its task may leave out, and what is said about one that leaves out too much."""

import pytest

from fedsim.adapters.adapter import Layout, Tensor
from fedsim.component import Component
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import ExperimentError
from fedsim.jobs import Task, TaskContext, missing
from fedsim.tasks._base import TaskComponent, built
from fedsim.tasks.quadratic import Quadratic

CONTEXT = TaskContext(2, 0, LoraConfig(), LocalConfig(optimizer="sgd", lr=0.1))


class Half:
    """A task of one's own that has a layout and knows its examples, and nothing else."""

    clients = 2
    layout = Layout(tensors=(Tensor("x", (3,)),))

    def examples(self, client):
        return 1


class Halved(Component):
    kind: str = "halved"

    def build(self, context):
        return Half()


class Nothing(TaskComponent):
    kind: str = "nothing"

    def build(self, context):
        return Half()


def test_a_task_that_lacks_methods_is_told_which_when_it_is_built():
    with pytest.raises(ExperimentError) as error:
        built(Halved(), CONTEXT)
    said = str(error.value)
    assert "build() returns a Half, which lacks shape, tokens, initial, train, probes, score" in said
    assert "warm" in said
    assert "fix: derive it from fedsim.jobs.Task" in said


def test_a_task_that_has_everything_need_not_derive_from_the_base_class():
    task = Quadratic().build(CONTEXT)

    class Stand:
        def __getattr__(self, name):
            return getattr(task, name)

    class Ducks(Nothing):
        def build(self, context):
            return Stand()

    assert missing(Stand()) == []
    assert isinstance(built(Ducks(), CONTEXT), Stand)


def test_a_task_without_a_method_cannot_be_made():
    class Short(Task):
        def examples(self, client):
            return 1

    with pytest.raises(TypeError, match="abstract"):
        Short()


def test_a_component_is_charged_as_itself_and_names_no_sources_unless_it_says_so():
    plain = Nothing()
    assert plain.charge(full=False) is None
    assert plain.sources() == {}
    assert plain.worker_modules == ()
    assert not plain.whole()
    assert not plain.over_factors


def test_a_task_suggests_nothing_and_warms_nothing_unless_it_says_so():
    task = Quadratic().build(CONTEXT)
    assert task.suggested_client_batch() is None
    assert task.suggested_training() is None
    assert task.warm() is None
