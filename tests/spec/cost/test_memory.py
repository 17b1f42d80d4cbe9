"""What a device of too little memory does: by hand, the mildest way, and what a run records of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import experiment, plan

from fedsim.checks.blocks import misfits
from fedsim.config.devices import MemoryConfig
from fedsim.config.loading import changed
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.memory.plan import plan_memory
from fedsim.devices.population import draw_devices
from fedsim.errors import ExperimentError
from fedsim.records.verify import verify
from fedsim.report.visit_sections import clients
from fedsim.runs.simulation import simulate

MEASURES = ("micro-batch", "checkpoint", "rank")
CHARGE = {"layers": 24, "width": 1024, "ffn": 4096, "heads": 16, "vocab": 8000}
CHARGE |= {"batch": 8, "r": 16, "sequence": 256}
SHAPE = charged(ChargeAs(**CHARGE), full=False)
NEEDED = train_memory_bytes(SHAPE)


def memory(**changes):
    return train_memory_bytes(replace(SHAPE, **changes))


# by hand ----------------------------------------------------------------------------------------


def test_the_peak_by_hand():
    layer = 4 * 1024 * 1024 + 3 * 1024 * 4096
    params = 24 * (layer + 2 * 1024) + 1024 + 8000 * 1024  # two norms a layer and one at the end; a tied head
    adapters = 24 * 16 * (4 * 2048 + 3 * 5120)
    tokens = 8 * 256
    activations, logits = 24 * 24 * tokens * 1024, 6 * tokens * 8000
    assert NEEDED == 2 * params + 16 * adapters + activations + logits + 0.25e9


def test_what_fits_is_trained_as_it_was_asked_for():
    for measures in ((), ("micro-batch",), MEASURES):
        found = plan_memory(SHAPE, NEEDED, measures)
        assert (found.shape, found.words, found.memory_bytes) == (SHAPE, "fits", NEEDED)


def test_without_a_measure_that_helps_it_is_refused_and_needs_what_it_needed():
    refused = plan_memory(SHAPE, NEEDED - 1, ())
    assert (refused.words, refused.fits, refused.memory_bytes) == ("refused", False, NEEDED)
    assert plan_memory(SHAPE, 0.5e9, MEASURES).words == "refused"


def test_the_largest_micro_batch_that_fits_is_taken():
    for batch in (7, 4, 1):
        found = plan_memory(SHAPE, memory(batch=batch), ("micro-batch",))
        assert found.words == f"micro-batch {batch}"
        assert found.memory_bytes == memory(batch=batch)
    assert plan_memory(SHAPE, memory(batch=1) - 1, ("micro-batch",)).words == "refused"


def test_measures_are_tried_in_the_order_given():
    room = memory(batch=8, checkpoint=True)
    assert plan_memory(SHAPE, room, ("checkpoint", "micro-batch")).words == "checkpoint"
    first = plan_memory(SHAPE, room, ("micro-batch", "checkpoint"))
    assert first.words.startswith("micro-batch")
    assert "checkpoint" not in first.words


def test_what_one_measure_cannot_do_two_may_and_then_the_first_is_relaxed_again():
    room = memory(batch=2, checkpoint=True)
    assert room < memory(batch=1)
    assert plan_memory(SHAPE, room, ("micro-batch", "checkpoint")).words == "micro-batch 2, checkpoint"
    assert plan_memory(SHAPE, room, ("checkpoint", "micro-batch")).words == "micro-batch 2, checkpoint"


def test_a_rank_is_halved_until_it_fits():
    wide = charged(ChargeAs(preset="gpt2", r=64), full=False)
    narrow = charged(ChargeAs(preset="gpt2", r=16), full=False)
    found = plan_memory(wide, train_memory_bytes(narrow), ("rank",))
    assert (found.words, found.shape.adapter_params) == ("rank 16", narrow.adapter_params)


@given(
    share=st.floats(0.2, 1.2),
    measures=st.lists(st.sampled_from(MEASURES), max_size=3, unique=True),
)
@settings(deadline=None, max_examples=60)
def test_a_plan_fits_or_is_refused_and_more_measures_never_refuse_more(share, measures):
    usable = share * NEEDED
    found = plan_memory(SHAPE, usable, measures)
    assert found.fits == (found.memory_bytes <= usable)
    assert found.memory_bytes == train_memory_bytes(found.shape)
    assert plan_memory(SHAPE, usable, measures[:1]).fits <= found.fits
    assert plan_memory(SHAPE, usable * 1.1, measures).fits >= found.fits


# in a run ---------------------------------------------------------------------------------------


def made(when_short, usable, **blocks):
    charge = CHARGE | {"tokens_per_visit": 16_384}
    blocks = {"task": {"kind": "quadratic", "charge_as": charge}, "budget": {"commits": 1}} | blocks
    found = plan(
        {"kind": "synchronous", "cohort": len(usable)}, [10.0] * len(usable), memory=usable, **blocks
    )
    found.population.profiles[:] = [replace(p, flops_per_s=1e12) for p in found.population.profiles]
    measures = {"memory": MemoryConfig(when_short=when_short)}
    return replace(found, shape=SHAPE, experiment=found.experiment.model_copy(update=measures))


def test_clients_do_what_they_must_and_the_tables_say_so():
    usable = [1e12, memory(batch=4), memory(batch=2, checkpoint=True), 0.5e9]
    run = simulate(made(["micro-batch", "checkpoint"], usable), timeline_only=True)
    words = ["fits", "micro-batch 4", "micro-batch 2, checkpoint", "refused"]
    assert verify(run) == []
    assert run.clients.memory_plan.tolist() == words
    assert run.visits.sort_values("client").memory_plan.tolist() == words
    assert run.visits.sort_values("client").outcome.tolist() == ["landed", "landed", "landed", "memory"]
    assert (run.clients.needed_memory_bytes <= run.clients.usable_memory_bytes).tolist() == [
        True,
        True,
        True,
        False,
    ]


def test_the_report_says_how_devices_held_the_model():
    usable = [1e12, 1e12, memory(batch=4), 0.5e9]
    run = simulate(made(["micro-batch"], usable), timeline_only=True)
    [table] = [t for t in clients(run).tables if t.header[0] == "memory"]
    assert sorted(table.rows) == [
        ("fits", "2", "50.0 %", "2"), ("micro-batch 4", "1", "25.0 %", "1"), ("refused", "1", "25.0 %", "1")
    ]  # fmt: skip
    as_asked = simulate(made("refuse", usable), timeline_only=True)
    assert [t for t in clients(as_asked).tables if t.header[0] == "memory"] == []


def test_by_default_a_device_that_is_short_refuses():
    run = simulate(made("refuse", [1e12, memory(batch=4)]), timeline_only=True)
    assert run.visits.sort_values("client").outcome.tolist() == ["landed", "memory"]


def test_a_smaller_micro_batch_costs_passes_and_checkpointing_costs_flops():
    found = made(["micro-batch", "checkpoint"], [1e12, memory(batch=4), memory(batch=2, checkpoint=True)])
    whole, parts, again = (found.work(c) for c in range(3))
    assert [w.steps for w in (whole, parts, again)] == [8, 16, 32]  # 64 sequences of 256 tokens
    assert parts.flops == whole.flops < again.flops < 1.5 * whole.flops
    assert parts.moved_bytes > whole.moved_bytes
    layers = 2 * (SHAPE.matmul_params - SHAPE.head_params + SHAPE.adapter_params)
    attention = 4 * 24 * 256 * 1024 * 0.5
    assert again.flops - whole.flops == pytest.approx(16_384 * (layers + attention))


def test_each_pass_of_a_smaller_micro_batch_pays_the_overhead():
    room = [memory(batch=4), 1e12]
    run = simulate(made("micro-batch", room, compute={"step_overhead_s": 0.5}), timeline_only=True)
    seconds = (run.visits.trained_s - run.visits.downloaded_s)[run.visits.client.argsort()].tolist()
    assert seconds[0] - seconds[1] == pytest.approx(0.5 * (16 - 8))


def test_more_phones_train_a_0_5b_model_when_they_may_split_their_batch():
    shape = charged(ChargeAs(preset="qwen-0.5b", sequence=256, batch=4), full=False)
    usable = draw_devices("mixed_edge_2025", 2000, seed=0).usable_memory_bytes
    able = {m: sum(plan_memory(shape, u, m).fits for u in usable) for m in ((), ("micro-batch",))}
    assert able[()] < 0.5 * 2000 < 0.8 * 2000 < able[("micro-batch",)]


def test_a_smaller_rank_is_refused_where_the_rule_needs_equal_ones():
    asked = experiment(
        {"kind": "synchronous", "cohort": 2},
        2,
        aggregator={"kind": "fedex"},
        memory={"when_short": ["micro-batch", "rank"]},
    )
    problem = next(p for p in misfits(asked) if p.name == "memory.when_short")
    assert problem.what == "rank needs a rule for unequal ranks, and fedex needs equal ones"
    assert problem.fix.startswith("remove rank (micro-batch and checkpoint need no other rank)")


def test_a_measure_that_does_not_exist_is_named():
    plain = experiment({"kind": "synchronous", "cohort": 2}, 2)
    with pytest.raises(
        ExperimentError, match=r"memory\.when_short: must be .*'micro-batch', 'checkpoint' or 'rank'"
    ):
        changed(plain, ["memory.when_short=swap"])
