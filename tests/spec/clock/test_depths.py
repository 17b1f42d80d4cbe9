"""Depth by device: who has adapters in how many layers, what that costs, what travels, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import experiment, plan

from fedsim.checks.blocks import misfits
from fedsim.clock.estimate import estimate
from fedsim.clock.plan import refuse
from fedsim.clock.ranks import largest_pair
from fedsim.config.learning import LoraConfig
from fedsim.cost.formulas import layer_passes, train_flops, train_memory_bytes
from fedsim.cost.shape import with_depth_share, with_rank_share
from fedsim.errors import ExperimentError
from fedsim.records.verify import verify
from fedsim.records.views import depths
from fedsim.runs.simulation import simulate

LAYERS = 4
ROUND = {"kind": "synchronous", "cohort": 3}
TASK = {"kind": "quadratic", "layout": "lora", "dimension": 8, "layers": LAYERS}
CHARGED = {"preset": "gpt2", "r": 16}  # twelve layers: three for each that trains
R8 = {"r": 8, "alpha": 16.0}
RULE = {"kind": "fedit"}
EACH = 4 * 2 * 8 * 8
"""Bytes of one layer's factors: A and B of an 8 x 8 matrix at rank 8."""


def planned(n=3, *, memory=None, train_s=None, tiers=None, charge=True, **blocks):
    """A plan whose clients have this memory, these tiers, and train a whole visit at full depth in these seconds."""
    lora, task = {**R8, **blocks.pop("lora", {})}, {**TASK, **blocks.pop("task", {})}
    protocol = blocks.pop("protocol", ROUND)
    made = plan(
        protocol, train_s or [10.0] * n, memory=memory, task=task, lora=lora, aggregator=RULE, **blocks
    )
    if charge:
        made = replace(made, shape=charged_shape())
        seconds = train_s or [1e-6] * n
        flops = train_flops(made.shape, made.task.tokens(0, made.experiment.local))
        rated = [
            replace(p, flops_per_s=flops / s) for p, s in zip(made.population.profiles, seconds, strict=True)
        ]
        made.population.profiles[:] = rated
    if tiers:
        world = made.population
        world.profiles = [replace(p, tier=t) for p, t in zip(world.profiles, tiers, strict=True)]
    return made


def charged_shape():
    from fedsim.clock.plan import prepare

    return prepare(experiment(ROUND, 3, task={**TASK, "charge_as": CHARGED}, lora=R8, aggregator=RULE)).shape


# what is asked ----------------------------------------------------------------------------------


def test_without_choices_every_depth_may_be_chosen():
    assert LoraConfig(depth_by="memory").depth_choices(4) == (1, 2, 3, 4)
    assert LoraConfig(depth_by="memory", depth=3).depth_choices(4) == (1, 2, 3)
    assert LoraConfig(depth_by="deadline", depths=(2, 4)).depth_choices(4) == (2, 4)
    assert LoraConfig(depth_by="tier", depths={"low": 1, "high": 4, "mid": 1}).depth_choices(4) == (1, 4)
    assert LoraConfig().depth_choices(4) == (4,)
    assert LoraConfig(depth=2).depth_choices(4) == (2,)
    assert [LoraConfig(**c).unequal for c in ({}, {"depth": 2}, {"depth_by": "memory"})] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"depths": [1, 2]}, "`depths` with `depth_by: fixed`"),
        ({"depth_by": "tier"}, "without a depth for each tier"),
        ({"depth_by": "tier", "depths": [1, 2]}, "without a depth for each tier"),
        ({"depth_by": "memory", "depths": {"low": 2}}, "depths by tier with `depth_by: memory`"),
        ({"depth_by": "memory", "depths": [2, 1]}, "do not rise"),
        ({"depth_by": "deadline", "depths": [2, 2]}, "do not rise"),
        ({"depth_by": "memory", "depths": []}, "do not rise"),
        ({"depth_by": "memory", "depth": 4, "depths": [1, 2]}, "depth = 4, and `depths` up to 2"),
        ({"depth_by": "tier", "depths": {"low": 0}}, "greater than or equal to 1"),
        ({"depth": 0}, "greater than or equal to 1"),
        ({"depth_by": "speed"}, "'fixed', 'tier', 'memory' or 'deadline'"),
        ({"first": "width"}, "'depth' or 'rank'"),
        ({"first": "rank", "depth_by": "memory"}, "does not choose both"),
    ],
)
def test_depths_that_make_no_sense_are_refused(asked, says):
    with pytest.raises(ValidationError, match=says):
        LoraConfig(**asked)


@pytest.mark.parametrize(
    ("blocks", "path"),
    [
        ({"lora": {"depth_by": "tier", "depths": {"hihg": 8}}}, ("lora", "depths")),
        ({"lora": {"depth_by": "deadline"}}, ("lora", "depth_by")),
        ({"lora": {"depth_by": "memory"}, "aggregator": {"kind": "flora"}}, ("lora", "depth_by")),
        ({"lora": {"depth": 2}, "aggregator": {"kind": "fedex"}}, ("lora", "depth_by")),
        ({"lora": {"depth_by": "memory", "full": True}}, ("lora", "depth_by")),
        ({"lora": {"depth": 1}, "task": {"kind": "quadratic"}}, ("lora", "depth_by")),
        (
            {"lora": {"depth_by": "memory"}, "protocol": {"kind": "tiers", "across": "asynchronous"}},
            ("lora", "depth_by"),
        ),
    ],
)
def test_what_does_not_go_together_is_named_by_its_field(blocks, path):
    made = {"task": TASK, "protocol": ROUND, **blocks}

    assert path in [p.path for p in misfits(experiment(made.pop("protocol"), 3, **made))]


@pytest.mark.parametrize(
    ("lora", "personal", "says"),
    [
        (
            {"depth": 5},
            {"kind": "none"},
            r"lora.depth: is more than the layers of this model that carry adapters \(4\)",
        ),
        ({"depth_by": "memory", "depths": [2, 9]}, {"kind": "none"}, "lora.depths: is more than the layers"),
        (
            {"depth_by": "memory"},
            {"kind": "fedper", "layers": 2},
            "leaves a client of depth 1 nothing to share",
        ),
    ],
)
def test_what_the_model_s_layers_say_is_refused_before_the_start(lora, personal, says):
    with pytest.raises(ExperimentError, match=says):
        refuse(planned(lora=lora, personal=personal))


def test_a_model_whose_cost_was_counted_as_a_whole_has_no_depth():
    from fedsim.cost.operations import Operations

    made = planned(lora={"depth": 2})
    counted = replace(made, shape=replace(made.shape, operations=Operations(1, 1, 1, 1, 1)))
    with pytest.raises(ExperimentError, match="needs layers in a row"):
        refuse(counted)


# who gets which ---------------------------------------------------------------------------------


def test_everybody_has_all_layers_by_default_and_as_many_as_are_asked_for():
    assert planned().depths.tolist() == [4, 4, 4]
    assert planned().depth(0) is None
    assert planned(lora={"depth": 3}).depths.tolist() == [3, 3, 3]
    assert plan(ROUND, [1.0] * 3).depths.tolist() == [0, 0, 0]


def test_by_tier_every_device_has_the_depth_of_its_tier():
    by = {"depth_by": "tier", "depths": {"low": 1, "mid": 2, "high": 4}}

    assert planned(lora=by, tiers=["high", "low", "mid"]).depths.tolist() == [4, 1, 2]
    with pytest.raises(ExperimentError, match="has no depth for test"):
        planned(lora=by).depths  # noqa: B018


def needs(depth, rank=8):
    whole = charged_shape()
    part = with_rank_share(with_depth_share(whole, depth, LAYERS), rank, 8)
    return train_memory_bytes(part)


def test_by_memory_it_is_the_deepest_whose_training_fits_to_the_byte():
    memory = [needs(4), needs(4) - 1, needs(2), needs(1) - 1]
    made = planned(4, memory=memory, lora={"depth_by": "memory"})

    assert made.depths.tolist() == [4, 3, 2, 1]
    plans = [made.training_plan(c).memory for c in range(4)]
    assert [p.words for p in plans] == ["fits", "depth 3", "depth 2", "refused"]
    assert [p.memory_bytes for p in plans] == [needs(4), needs(3), needs(2), needs(1)]


def test_by_deadline_it_is_the_deepest_that_lands_in_time():
    made = planned(
        3,
        train_s=[9.99, 12.0, 1e4],
        protocol={**ROUND, "deadline_s": 10.0},
        lora={"depth_by": "deadline"},
    )

    def seconds(client, depth):
        part = depth if depth < LAYERS else None
        offer = made.sizing.first_offer(client, 8, part)
        work = made.sizing.work(client, made.experiment.local, 1e12, 8, offer, depth=part)
        return estimate(made.population.profile(client), work, 0.0).total_s

    deepest = max(depth for depth in range(1, 5) if seconds(1, depth) <= 10.0)
    assert 1 < deepest < 4
    assert made.depths.tolist() == [4, deepest, 1]  # the last is too slow whatever its depth


def test_rank_and_depth_by_memory_take_the_first_as_far_as_the_other_s_least_allows():
    room = needs(4, 1)  # all layers at rank 1, or fewer at rank 8
    both = {"depth_by": "memory", "rank_by": "memory"}
    deep = planned(1, memory=[room], lora=both, protocol={**ROUND, "cohort": 1})
    wide = planned(1, memory=[room], lora={**both, "first": "rank"}, protocol={**ROUND, "cohort": 1})

    assert (deep.ranks.tolist(), deep.depths.tolist()) == ([1], [4])
    assert wide.ranks.tolist() == [8]
    assert wide.depths.tolist() == [max(d for d in range(1, 5) if needs(d, 8) <= room)]


def test_a_tier_s_rank_decides_how_deep_it_can_go():
    room = needs(3, 8)
    by = {"rank_by": "tier", "ranks": {"low": 1, "high": 8}, "depth_by": "memory"}
    made = planned(2, memory=[room, room], lora=by, tiers=["low", "high"])

    assert made.ranks.tolist() == [1, 8]
    assert made.depths.tolist() == [max(d for d in range(1, 5) if needs(d, 1) <= room), 3]


def test_a_deadline_for_one_of_the_two_holds_for_the_pair():
    """Depth by deadline, rank by memory: a pair must do both."""
    made = planned(
        2,
        memory=[needs(4), needs(2, 1)],
        train_s=[9.99, 9.99],
        protocol={**ROUND, "deadline_s": 10.0},
        lora={"depth_by": "deadline", "rank_by": "memory"},
    )

    assert (made.depths.tolist(), made.ranks.tolist()) == ([4, 2], [8, 1])


@given(
    ranks=st.sets(st.integers(1, 16), min_size=1),
    depths=st.sets(st.integers(1, 16), min_size=1),
    bar=st.integers(0, 300),
    first=st.sampled_from(["depth", "rank"]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_pair_is_the_first_of_all_in_order_that_will_do(ranks, depths, bar, first):
    ranks, depths = tuple(sorted(ranks)), tuple(sorted(depths))
    order = [(r, d) for d in reversed(depths) for r in reversed(ranks)]
    if first == "rank":
        order = [(r, d) for r in reversed(ranks) for d in reversed(depths)]
    will_do = [pair for pair in order if pair[0] * pair[1] <= bar]

    found = largest_pair(ranks, depths, lambda rank, depth: rank * depth <= bar, first=first)
    assert found == (will_do[0] if will_do else (ranks[0], depths[0]))


# what it costs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_tier():
    made = planned(
        3,
        lora={"depth_by": "tier", "depths": {"iot": 1, "laptop": 4}},
        tiers=["iot", "laptop", "iot"],
    )
    return made, simulate(made, timeline_only=True)


def test_flops_memory_and_bytes_follow_the_depth(by_tier):
    made, run = by_tier
    shallow, whole, part = made.work(0), made.work(1), with_depth_share(made.shape, 1, LAYERS)

    assert (part.lowest, part.layers) == (9, 12)
    assert shallow.flops == train_flops(part, shallow.tokens) < 0.8 * whole.flops
    assert shallow.memory_bytes == train_memory_bytes(part)
    assert shallow.layer_passes == shallow.steps * layer_passes(part) == shallow.steps * (12 + 3)
    visits = run.visits.drop_duplicates("client").set_index("client").sort_index()
    assert visits["serialized_up_bytes"].tolist() == [EACH, 4 * EACH, EACH]
    assert visits["serialized_down_bytes"].tolist() == [EACH, 4 * EACH, EACH]
    assert visits["flops"][0] == shallow.flops


def test_the_tables_say_who_has_which_depth_and_verify_agrees(by_tier):
    _, run = by_tier

    assert run.clients["memory_plan"].tolist() == ["depth 1", "fits", "depth 1"]
    assert run.visits.groupby("client")["memory_plan"].first().tolist() == ["depth 1", "fits", "depth 1"]
    assert run.info.charged.clients_by_depth == {"1": 2, "4": 1}
    assert depths(run)["depth"].tolist() == [1, 4, 1]
    assert not verify(run)


def test_a_run_of_all_layers_says_nothing_of_depths():
    run = simulate(planned(charge=False), timeline_only=True)

    assert run.info.charged.clients_by_depth == {}
    assert depths(run).empty
