"""What fedsim asks of a component of one's own is said when it is picked, and what it may leave out has defaults."""

from __future__ import annotations

import pickle
from typing import ClassVar

import numpy as np
import pytest
from worlds import experiment, plan

from fedsim.adapters.payload import WHOLE
from fedsim.aggregators import Aggregator, Ask, Invitation, Offer, Traits
from fedsim.clock.components import parts_of
from fedsim.component import Component, build, fitted, kinds, placed
from fedsim.errors import ExperimentError
from fedsim.optimizers import ServerOptimizer
from fedsim.personal import Personal
from fedsim.protocols import ServerProtocol
from fedsim.runs.simulation import simulate
from fedsim.samplers import PollingSampler, Sampler
from fedsim.tasks import TaskComponent

SYNC = {"kind": "synchronous", "cohort": 2}
SEAMS = {
    "aggregators": Aggregator,
    "samplers": Sampler,
    "optimizers": ServerOptimizer,
    "personal": Personal,
    "protocols": ServerProtocol,
    "tasks": TaskComponent,
}


class Still(Component):
    """A rule that derives from nothing of fedsim's but `Component`: it never moves."""

    kind: str = "still"
    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, full_model=True, history=False)
    server_lr: float = 1.0

    def init(self, model):
        return None

    def offer(self, state, model, invitation):
        return Offer(model.adapter.vector, WHOLE, WHOLE)

    def apply(self, state, model, contributions):
        return model, state


class Last(Component):
    """A sampler that has a hyperparameter named like a polling sampler's method."""

    kind: str = "last"
    keep: float = 0.5

    def choose(self, idle, n, rng, seen):
        return idle[-n:]


class Tells(Component):
    """A sampler that polls without deriving from anything."""

    kind: str = "tells"

    def choose(self, idle, n, rng, seen):
        return idle

    def keep(self, clients, losses, n):
        return clients[:n]


@pytest.mark.parametrize("package", SEAMS)
def test_what_ships_derives_from_the_base_class_of_its_seam(package):
    for kind in kinds(package):
        assert issubclass(build_class(package, kind), SEAMS[package])


def build_class(package, kind):
    from fedsim.component import find

    return find(package, kind)


def test_a_rule_of_ones_own_gets_the_defaults_of_the_seam_and_keeps_its_fields():
    (rule,) = [build("aggregators", Still(server_lr=0.25))]

    assert isinstance(rule, Aggregator)
    assert isinstance(rule, Still)
    assert (rule.one_pass, rule.reads_values, rule.server_lr) == (False, False, 0.25)
    assert rule.client_model(None, 3) is None


def test_it_takes_part_in_a_run():
    run = simulate(plan(SYNC, [1.0, 2.0, 3.0], aggregator=Still(), budget={"commits": 2}))

    assert run.commits.updates.tolist() == [2, 2]
    assert run.commits.update_norm.tolist() == [0.0, 0.0]


def test_an_adopted_component_survives_a_process_boundary():
    rule = placed("aggregators", Still(server_lr=0.125))
    again = pickle.loads(pickle.dumps(rule))

    assert again == rule == Still(server_lr=0.125) != Still(server_lr=0.5)
    assert Still(server_lr=0.125) == rule
    assert isinstance(again, Aggregator)
    assert again.server_lr == 0.125


def test_a_field_called_keep_makes_no_polling_sampler_and_a_method_does():
    field, method = build("samplers", Last(keep=0.125)), build("samplers", Tells())

    assert not isinstance(field, PollingSampler)
    assert field.keep == 0.125
    assert isinstance(method, PollingSampler)
    assert method.reads_values
    run = simulate(plan(SYNC, [1.0, 2.0, 3.0], sampler=Last(), budget={"commits": 1}), timeline_only=True)
    assert sorted(run.visits.client) == [1, 2]


def without(name):
    """A rule that has all of a rule but one name."""
    fields = {
        "__annotations__": {"kind": str, "traits": ClassVar[Traits]},
        "kind": "odd",
        "__module__": __name__,
    }
    body = {n: value for n, value in vars(Still).items() if n in ("init", "offer", "apply", "traits")}
    body.pop(name)
    return type("Odd", (Component,), {**fields, **body})


@pytest.mark.parametrize("name", ["init", "offer", "apply"])
def test_a_missing_method_is_named_when_the_experiment_is_read(name):
    with pytest.raises(ExperimentError, match=rf"Odd has no method `{name}\(.*\)`"):
        experiment(SYNC, 4, aggregator=without(name)())


def takes_two(self, state, model):
    return model, state


def takes_more_by_default(self, state, model, contributions, *, log=None):
    return model, state


def test_a_method_that_cannot_be_called_as_fedsim_calls_it_is_named_and_one_with_more_defaults_is_taken():
    wrong = type("Wrong", (Still,), {"apply": takes_two, "__module__": __name__})
    wider = type("Wider", (Still,), {"apply": takes_more_by_default, "__module__": __name__})

    said = r"`apply\(state, model\)` that is called with \(state, model, contributions\)"
    with pytest.raises(ExperimentError, match=said):
        fitted("aggregators", wrong, "wrong")
    assert issubclass(fitted("aggregators", wider, "wider"), Aggregator)


def test_a_rule_without_traits_is_told_to_have_some():
    with pytest.raises(ExperimentError, match=r"Odd has no `traits`(?s:.*)traits: ClassVar\[Traits\]"):
        fitted("aggregators", without("traits"), "odd")


def test_a_field_with_the_name_of_a_hook_is_refused():
    class Clash(Component):
        kind: str = "clash"
        stale: float = 1.0

        def run(self, server):
            yield server.timeout(1.0)

    with pytest.raises(ExperimentError, match="has a field `stale`"):
        fitted("protocols", Clash, "clash")


def test_a_method_that_is_no_method_is_refused():
    class Fixed(Component):
        kind: str = "fixed"
        choose: ClassVar[int] = 3

    with pytest.raises(ExperimentError, match="`choose` that is no method"):
        fitted("samplers", Fixed, "fixed")


def test_parts_are_what_the_blocks_name_also_where_a_component_was_put_in_unchecked():
    asked = experiment(SYNC, 4).model_copy(update={"aggregator": Still(), "sampler": Tells()})
    parts = parts_of(asked)

    assert isinstance(parts.aggregator, Aggregator)
    assert isinstance(parts.sampler, PollingSampler)
    with pytest.raises(ExperimentError, match="has no method `choose"):
        parts_of(asked.model_copy(update={"sampler": Still()}))


def test_the_former_name_of_an_invitation_still_leads_to_it():
    assert Ask is Invitation
    assert Invitation(1, 0, 4, 2.0, None).client == 1


def test_values_that_a_default_hook_gives_are_plain():
    protocol = placed("protocols", Silent())

    assert (protocol.stale, protocol.blends, protocol.cuts_ranks, protocol.reads_values) == (
        True,
        False,
        False,
        False,
    )
    assert (protocol.round_deadline_s, protocol.clients_at_work, protocol.updates_per_commit) == (
        None,
        1,
        None,
    )
    assert protocol.problems(0) == []
    assert np.isscalar(protocol.clients_at_work)


class Silent(Component):
    kind: str = "silent"

    def run(self, server):
        yield server.timeout(1.0)
