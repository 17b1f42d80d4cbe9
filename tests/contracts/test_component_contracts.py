"""What samplers, optimisers, kinds of personalisation, tasks and executors owe the server; each property has one that breaks it."""

import pytest
from worlds import broken_components as broken
from worlds import own_models
from worlds.contracts import OWN_SAMPLER

from fedsim.component import build, kinds
from fedsim.executors.inline import Inline
from fedsim.testing import (
    check_executor,
    check_optimizer,
    check_personal,
    check_sampler,
    check_task,
    check_torch_task,
)

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.mark.parametrize("kind", [*kinds("samplers"), OWN_SAMPLER])
def test_every_sampler_has_every_property(kind):
    check_sampler(build("samplers", {"kind": kind}))


@pytest.mark.parametrize("kind", kinds("optimizers"))
def test_every_server_optimiser_has_every_property(kind):
    check_optimizer(build("optimizers", {"kind": kind}))


@pytest.mark.parametrize("kind", kinds("personal"))
def test_every_kind_of_personalisation_has_every_property(kind):
    check_personal(build("personal", {"kind": kind}))


TASKS = {
    "quadratic": {},
    "language": {"model": "builtin", "data": "builtin", "sequence": 16},
    "images": {"model": "builtin", "data": "builtin", "sampling_steps": 2, "samples": 4},
    "torch": {"module": "worlds.own_models:Lines"},
}


def test_every_task_that_ships_is_tried():
    assert set(TASKS) == set(kinds("tasks"))


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_has_every_property(kind):
    check_task(build("tasks", {"kind": kind, **TASKS[kind]}))


def test_the_inline_executor_has_every_property():
    check_executor(Inline())


@pytest.mark.parametrize(
    ("check", "component", "sentence"),
    [
        (check_sampler, broken.Repeats(), "returns a client twice"),
        (check_sampler, broken.Strangers(), r"returns \[1\], who are not idle"),
        (check_sampler, broken.TooFew(), "returns 1 clients where 3 were wanted"),
        (check_sampler, broken.Remembers(), "answers otherwise when it is asked again"),
        (check_sampler, broken.Sorts(), "changes the array of idle clients"),
        (check_sampler, broken.GlobalChance(), "draws from NumPy's global generator"),
        (check_sampler, broken.KeepsAll(), "where at most 1 are wanted"),
        (check_sampler, broken.KeepsStrangers(), "clients that did not answer"),
        (check_optimizer, broken.Gathers(), "changes what it is given|answers otherwise"),
        (check_optimizer, broken.Doubles(), "gives float64"),
        (check_optimizer, broken.Creeps(), "that the rule has not moved"),
        (check_optimizer, broken.Against(), "against the rule's move"),
        (check_personal, broken.SendsPrivates(), "sends what is private"),
        (check_personal, broken.LosesPrivates(), "not the shared vector with the client's own parts"),
        (check_personal, broken.Restless(), "after answers otherwise when it is asked again"),
        (check_personal, broken.SecretTraining(), "its `alongside` says otherwise"),
        (check_task, broken.Company(), "depends on company"),
        (check_task, broken.WrongTokens(), "`tokens` says"),
        (check_task, broken.WritesStart(), "changes the jobs or their vectors"),
        (check_task, broken.NotFinite(), "gives loss that are not finite"),
        (check_task, broken.MovingStart(), "another version 0"),
        (check_task, broken.LosesItself(), "trains to other bits"),
        (check_torch_task, own_models.Forgets(), "gives other examples when it is asked again"),
        (check_torch_task, own_models.ReadsCompany(), "gives an example another loss beside others"),
        (check_executor, broken.Reverses(), "gives other updates than the task"),
        (check_executor, broken.Idle(), "is open and has 0 workers"),
        (check_executor, broken.Silent(), "gives a result where the task raised"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_component_is_told_its_property(check, component, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check(component)
