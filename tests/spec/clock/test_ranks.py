"""Ranks by device: who trains how many slots, what that costs, and visits that do a part of the work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import experiment, plan

from fedsim.checks.blocks import misfits
from fedsim.clock.estimate import estimate
from fedsim.clock.plan import prepare
from fedsim.clock.ranks import largest
from fedsim.component import Component
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.cost.formulas import train_flops, train_memory_bytes
from fedsim.cost.shape import with_rank
from fedsim.errors import ExperimentError
from fedsim.runs.simulation import simulate

ROUND = {"kind": "synchronous", "cohort": 3}
TASK = {"kind": "quadratic", "layout": "lora", "dimension": 8}
CHARGED = {"preset": "smollm2-135m", "r": 16}
R8 = {"r": 8, "alpha": 16.0}
RULE = {"kind": "fedit"}


def planned(n=3, memory=None, train_s=None, tiers=None, **blocks):
    lora = {**R8, **blocks.pop("lora", {})}
    task = {**TASK, **blocks.pop("task", {})}
    made = plan(
        blocks.pop("protocol", ROUND),
        train_s or [10.0] * n,
        memory=memory,
        task=task,
        lora=lora,
        aggregator=RULE,
        **blocks,
    )
    if "charge_as" in task:
        asked = experiment(ROUND, n, task=task, lora=R8, aggregator=RULE)
        made = replace(made, shape=prepare(asked).shape)
        fast = [replace(p, flops_per_s=1e15) for p in made.population.profiles]
        made.population.profiles[:] = fast
    if tiers:
        world = made.population
        world.profiles = [replace(p, tier=t) for p, t in zip(world.profiles, tiers, strict=True)]
    return made


# what is asked ----------------------------------------------------------------------------------


def test_without_choices_ranks_are_halves_of_r():
    assert LoraConfig(r=12, rank_by="memory").choices == (1, 3, 6, 12)
    assert LoraConfig(r=8, rank_by="memory").choices == (1, 2, 4, 8)
    assert LoraConfig(r=8, rank_by="memory", ranks=(2, 8)).choices == (2, 8)
    assert LoraConfig(r=8, rank_by="tier", ranks={"low": 2, "high": 8, "mid": 2}).choices == (2, 8)
    assert LoraConfig(r=8).choices == (8,)


def test_a_common_scale_is_the_servers_and_an_own_one_peft_s():
    assert LoraConfig(r=8, alpha=16).scale_of(2) == 2.0
    assert LoraConfig(r=8, alpha=16, scale="own").scale_of(2) == 8.0


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"ranks": [4, 8]}, "rank_by: fixed"),
        ({"rank_by": "tier"}, "without a rank for each tier"),
        ({"rank_by": "tier", "ranks": [4, 8]}, "without a rank for each tier"),
        ({"rank_by": "memory", "ranks": {"low": 8}}, "ranks by tier with `rank_by: memory`"),
        ({"rank_by": "memory", "ranks": [8, 4]}, "do not rise"),
        ({"rank_by": "memory", "ranks": [4, 4, 8]}, "do not rise"),
        ({"rank_by": "memory", "ranks": [2, 4]}, "r = 8, and `ranks` up to 4"),
        ({"rank_by": "tier", "ranks": {"high": 16}}, "r = 8, and `ranks` up to 16"),
        ({"rank_by": "memory", "ranks": []}, "up to 0"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(given_, says):
    with pytest.raises(ValidationError, match=says):
        LoraConfig(r=8, **given_)


@pytest.mark.parametrize(
    ("blocks", "path"),
    [
        ({"lora": {**R8, "rank_by": "tier", "ranks": {"hihg": 8}}}, ("lora", "ranks")),
        ({"lora": {**R8, "rank_by": "deadline"}}, ("lora", "rank_by")),
        ({"memory": {"when_short": "rank"}, "aggregator": {"kind": "fedex"}}, ("memory", "when_short")),
        ({"memory": {"when_short": "rank"}, "lora": {"full": True}}, ("memory", "when_short")),
        ({"lora": {**R8, "rank_by": "memory"}, "aggregator": {"kind": "fedex"}}, ("lora", "rank_by")),
    ],
)
def test_what_does_not_go_together_is_named_by_its_field(blocks, path):
    assert path in [problem.path for problem in misfits(experiment(ROUND, 3, task=TASK, **blocks))]


def test_a_smaller_rank_when_memory_is_short_goes_with_a_rule_for_unequal_ranks():
    asked = experiment(ROUND, 3, task=TASK, memory={"when_short": "rank"}, aggregator={"kind": "flexlora"})

    assert not misfits(asked)


def work_at(made, client, rank):
    """A whole visit's work if the client had this rank and its memory were what it is."""
    room, offer = made.population.profile(client).usable_memory_bytes, made.sizing.first_offer(client, rank)
    return made.sizing.work(client, made.experiment.local, room, rank, offer)


# who gets which ---------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 64), min_size=1), st.integers(0, 70))
def test_the_largest_that_will_do_or_the_smallest(choices, bar):
    ordered = tuple(sorted(choices))
    found = largest(ordered, lambda rank: rank <= bar)

    assert found == max((r for r in ordered if r <= bar), default=ordered[0])


def test_everybody_has_r_by_default_and_whole_models_have_no_rank():
    assert planned().ranks.tolist() == [8, 8, 8]
    assert plan(ROUND, [1.0] * 3).ranks.tolist() == [0, 0, 0]


def test_rank_by_tier_gives_every_device_the_rank_of_its_tier():
    by = {"rank_by": "tier", "ranks": {"low": 2, "mid": 4, "high": 8}}

    assert planned(lora=by, tiers=["high", "low", "mid"]).ranks.tolist() == [8, 2, 4]


def test_a_tier_without_a_rank_is_named():
    with pytest.raises(ExperimentError, match="has no rank for mid"):
        planned(lora={"rank_by": "tier", "ranks": {"low": 2, "high": 8}}, tiers=["high", "low", "mid"]).ranks  # noqa: B018


def test_by_memory_it_is_the_largest_whose_training_fits_to_the_byte():
    shape = planned(task={"charge_as": CHARGED}).shape
    needs = {r: train_memory_bytes(with_rank(shape, 2 * r)) for r in (1, 2, 4, 8)}  # declared 16 for r = 8
    memory = [needs[8], needs[8] - 1, needs[2], needs[1] - 1]

    made = planned(4, memory=memory, task={"charge_as": CHARGED}, lora={"rank_by": "memory"})

    assert made.ranks.tolist() == [8, 4, 2, 1]
    fits = [made.training_plan(c).memory.memory_bytes <= memory[c] for c in range(4)]
    assert fits == [True, True, True, False]  # nothing fits the last: it has the smallest, and will refuse


def test_by_deadline_it_is_the_largest_that_lands_in_time():
    protocol = {**ROUND, "deadline_s": 10.0}
    made = planned(
        train_s=[9.99, 11.0, 1e4], protocol=protocol, lora={"rank_by": "deadline", "ranks": [1, 4, 8]}
    )
    seconds = {
        (c, rank): estimate(
            made.population.profile(c),
            work_at(made, c, rank),
            0.0,
        ).total_s
        for c in range(3)
        for rank in (1, 4, 8)
    }

    assert made.ranks[0] == 8
    assert made.ranks[1] == max(rank for rank in (1, 4, 8) if seconds[1, rank] <= 10.0) == 4
    assert made.ranks[2] == 1  # too slow whatever its rank


def test_when_memory_is_short_a_client_takes_a_smaller_rank_and_says_so():
    shape = planned(task={"charge_as": CHARGED}).shape
    half = train_memory_bytes(with_rank(shape, 8))
    made = _with_measures(planned(2, memory=[1e12, half], task={"charge_as": CHARGED}))

    assert made.ranks.tolist() == [8, 4]
    assert made.work(1).memory_bytes == half
    assert made.work(1).memory_plan == "rank 8"  # of the declared 16
    run = simulate(replace_protocol(made, cohort=2), timeline_only=True)
    assert run.clients["rank"].tolist() == [8, 4]
    assert set(zip(run.visits["client"], run.visits["rank"], strict=True)) == {(0, 8), (1, 4)}
    assert (run.visits["outcome"] == "landed").all()


def _with_measures(made):
    memory = made.experiment.memory.model_copy(update={"when_short": "rank"})
    return replace(made, experiment=made.experiment.model_copy(update={"memory": memory}))


def replace_protocol(made, **changes):
    protocol = made.experiment.protocol.model_copy(update=changes)
    return replace(made, experiment=made.experiment.model_copy(update={"protocol": protocol}))


# what it costs ----------------------------------------------------------------------------------


def test_flops_memory_and_bytes_follow_the_rank():
    made = planned(
        3,
        task={"charge_as": CHARGED},
        lora={"rank_by": "tier", "ranks": {"iot": 2, "laptop": 8}},
        tiers=["iot", "laptop", "iot"],
    )
    small, whole = (
        made.work(0),
        made.work(1),
    )
    low = with_rank(made.shape, 4)

    assert small.flops == train_flops(low, small.tokens)
    assert whole.flops == train_flops(made.shape, whole.tokens)
    assert small.memory_bytes == train_memory_bytes(low)
    run = simulate(made, timeline_only=True)
    visits = run.visits.drop_duplicates("client").set_index("client")
    assert visits["up_bytes"][0] == visits["down_bytes"][0] == 4 * low.adapter_params
    assert visits["up_bytes"][1] == 4 * made.shape.adapter_params
    serialised = visits["serialized_up_bytes"][[0, 1, 2]].tolist()  # A 8 wide, B 8 high, float32
    assert serialised == [4 * 2 * 16, 4 * 8 * 16, 4 * 2 * 16]
    assert run.info.charged.clients_by_rank == {"2": 2, "8": 1}


# a part of the work -----------------------------------------------------------------------------


class Partial(Component):
    """Asks every client once, for one step of rank 2, then once for a whole visit."""

    kind: Literal["test_ranks:Partial"] = "test_ranks:Partial"
    steps: int | None = 1
    rank: int | None = 2

    def run(self, server):
        """Two rounds."""
        for part in ({"steps": self.steps, "rank": self.rank}, {}):
            clients = yield from server.sample(3)
            expected = [server.estimate(client, **part) for client in clients]
            visits = [server.dispatch(client, **part) for client in clients]
            yield from server.wait(visits, want=3)
            for visit, alone in zip(visits, expected, strict=True):
                assert visit.landed_s - visit.dispatched_s == pytest.approx(alone.total_s, rel=1e-5)
            server.commit(server.collect(visits, want=3))


@pytest.mark.parametrize("timeline_only", [True, False])
def test_a_visit_of_fewer_steps_and_slots_is_charged_and_trained_as_that(timeline_only):
    made = planned(protocol={"kind": "test_ranks:Partial"}, budget={"commits": 2})
    run = simulate(made, timeline_only=timeline_only)
    part, whole = run.visits[run.visits["version"] == 0], run.visits[run.visits["version"] == 1]

    assert set(part["rank"]) == {2}
    assert set(whole["rank"]) == {8}
    assert (part["tokens"].to_numpy() * 2 == whole["tokens"].to_numpy()).all()  # one of two steps
    assert (part["up_bytes"].to_numpy() * 4 == whole["up_bytes"].to_numpy()).all()
    assert (part["flops"] < whole["flops"].to_numpy() / 2 + 1).all()


def test_a_visit_may_have_other_steps_and_fewer_slots_than_a_whole_one():
    made = planned()

    assert made.steps(0) == 2
    assert made.local(0, 2) is made.local(0) is made.experiment.local
    assert [made.local(0, steps).steps for steps in (0, 1, 5)] == [1, 1, 5]  # a visit does something
    assert made.rank(0, 0) == 1
    assert made.rank(0, 99) == 8


@pytest.mark.parametrize(("epochs", "batch", "n"), [(1, 4, 10), (3, 5, 10), (2, 16, 3)])
def test_the_steps_of_a_visit_follow_from_epochs_batch_and_examples(epochs, batch, n):
    assert LocalConfig(epochs=epochs, batch=batch).steps_over(n) == epochs * math.ceil(n / batch)
    assert LocalConfig(steps=7, batch=batch).steps_over(n) == 7


def test_declared_tokens_of_a_visit_shrink_with_its_steps():
    made = planned(task={"charge_as": {**CHARGED, "tokens_per_visit": 1000}})

    assert made.tokens(0) == 1000
    assert made.tokens(0, 1) == 500
