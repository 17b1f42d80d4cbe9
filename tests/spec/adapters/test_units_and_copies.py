"""One scale for what is kept and owed, and what clients hold of arrays that came down rounded."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.adapters.adapter import Layout, Module
from fedsim.adapters.payload import WHOLE, Payload
from fedsim.adapters.units import in_client_units, in_server_units, server_units
from fedsim.aggregators._base import Invitation, ServerModel
from fedsim.aggregators.fedsvd import FedSVD
from fedsim.aggregators.fedsvd import Turns as SvdTurns
from fedsim.aggregators.rolora import Phases, RoLoRA
from fedsim.config.network import WireConfig
from fedsim.network.coding import Coder
from fedsim.testing.factors import dense, some_model

LAYOUT = Layout(modules=(Module("w", 4, (4, 6), (5, 4), 2.0), Module("v", 4, (4, 3), (7, 4), 2.0)))
A, B = (Payload((f"w.lora_{f}", f"v.lora_{f}")) for f in "AB")
NOTHING_NEW = Payload(())


def normal(seed):
    return np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32)


def parts(vector, factor):
    return np.concatenate([a.ravel() for name, a in LAYOUT.arrays(vector).items() if name.endswith(factor)])


def coder(**wire):
    return Coder(WireConfig(**{"down_dtype": "int4", **wire}), LAYOUT, 0)


# units -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_a_product_is_the_same_in_both_scales_and_there_and_back_is_the_identity(scale):
    vector = normal(0)
    there = in_client_units(LAYOUT, vector, scale)

    np.testing.assert_allclose(dense(there, scale, LAYOUT), dense(vector, 2.0, LAYOUT), rtol=1e-5)
    np.testing.assert_allclose(in_server_units(LAYOUT, there, scale), vector, rtol=1e-6)
    assert (server_units(LAYOUT, scale) is None) == (scale == 2.0) == (there is vector)
    assert in_client_units(LAYOUT, vector, None) is vector


def test_what_a_client_owes_is_owed_in_one_scale():
    """Visits in three scales: what was understood and what is owed, in the server's units, is what moved."""
    wire = coder(dtype="int8", top_k=0.3, error_feedback=True)
    understood = moved = 0.0
    for visit, scale in enumerate((2.0, 8.0, 0.5, 2.0, 8.0)):
        start, end = normal(100 + visit), normal(visit)
        got = wire.up(7, visit, start, end, WHOLE, scale=scale)
        units = server_units(LAYOUT, scale)
        units = 1.0 if units is None else units
        understood, moved = understood + units * (got - start), moved + units * (end - start)

    np.testing.assert_allclose(understood + wire.residuals.get(7), moved, atol=1e-4)
    assert np.abs(understood - moved).max() > 0.1


# copies ------------------------------------------------------------------------------------------


def test_a_factor_that_came_down_rounded_stays_rounded_until_it_changes():
    wire, model = coder(), normal(1)
    first = wire.down(1, model, WHOLE, client=3)
    changed = np.where(LAYOUT.slots(None, "B"), normal(2), model).astype(np.float32)

    next_start = wire.down(2, changed, B, client=3, last_seen=1)
    stranger = wire.down(2, changed, B, client=4)

    np.testing.assert_array_equal(parts(next_start, "A"), parts(first, "A"))
    assert np.abs(parts(first, "A") - parts(model, "A")).max() > 0.05
    np.testing.assert_array_equal(parts(stranger, "A"), parts(model, "A"))  # a seed gives it exactly
    np.testing.assert_array_equal(parts(next_start, "B"), parts(stranger, "B"))
    nothing = wire.down(3, changed, NOTHING_NEW, client=3, last_seen=2)
    np.testing.assert_array_equal(nothing, next_start)


def test_what_never_arrived_is_not_held():
    wire, model = coder(), normal(1)
    wire.down(1, model, WHOLE, client=3)

    start = wire.down(2, model, B, client=3, last_seen=None)
    later = wire.down(3, model, NOTHING_NEW, client=3, last_seen=2)

    np.testing.assert_array_equal(parts(start, "A"), parts(model, "A"))
    np.testing.assert_array_equal(parts(later, "B"), parts(start, "B"))


def test_a_factor_that_changed_and_was_not_sent_is_the_rules_affair():
    wire, model = coder(), normal(1)
    wire.down(1, model, WHOLE, client=3)

    start = wire.down(2, normal(5), B, client=3, last_seen=1)

    np.testing.assert_array_equal(parts(start, "A"), parts(normal(5), "A"))


def test_an_array_is_coded_once_for_all_who_get_it_until_it_changes():
    wire, model = coder(), normal(1)
    first, later = (wire.down(version, model, WHOLE, client=client) for version, client in ((1, 3), (7, 5)))

    np.testing.assert_array_equal(first, later)
    assert wire.down(7, model, WHOLE, client=6) is later


def test_clients_of_one_past_start_from_one_array():
    wire, model = coder(), normal(1)
    for client in (3, 4):
        wire.down(1, model, WHOLE, client=client)

    starts = [wire.down(2, model, NOTHING_NEW, client=client, last_seen=1) for client in (3, 4)]

    assert starts[0] is starts[1]
    assert not starts[0].flags.writeable


def test_fewer_slots_of_what_came_down_are_those_slots():
    wire, model = coder(), normal(1)
    first = wire.down(1, model, WHOLE, client=3)
    cut = np.where(LAYOUT.slots(2), model, np.float32(0.0))

    start = wire.down(2, cut, Payload((), rank=2), client=3, last_seen=1)

    np.testing.assert_array_equal(start, np.where(LAYOUT.slots(2), first, 0.0))


def test_plain_float32_holds_nothing():
    wire, model = coder(down_dtype="float32"), normal(1)

    assert wire.down(1, model, WHOLE, client=3) is model
    assert wire.down(2, model, B, client=3, last_seen=1) is model


@pytest.mark.parametrize(
    ("rule", "state", "later"),
    [
        (RoLoRA(), Phases(2, changed_a=2, changed_b=1), Phases(3, changed_a=2, changed_b=3)),
        (FedSVD(period=2), SvdTurns(2, 2), SvdTurns(3, 2)),
    ],
    ids=["rolora", "fedsvd"],
)
def test_the_rules_that_send_one_factor_have_the_other_as_it_came(rule, state, later):
    """A client downloads both factors of version 2, then only B of version 3: its A is still the rounded one."""
    model = some_model()
    layout = model.adapter.layout
    wire = Coder(WireConfig(down_dtype="int4"), layout, 0)
    offer = rule.offer(state, model, Invitation(1, 0, 4, 2.0, None))
    first = wire.down(2, offer.start, offer.down, client=1)
    new_b = np.where(layout.slots(None, "B"), 2 * model.adapter.vector, model.adapter.vector)
    after = ServerModel(model.adapter.replace(new_b.astype(np.float32)))

    offer = rule.offer(later, after, Invitation(1, 1, 4, 2.0, 2))
    start = wire.down(3, offer.start, offer.down, client=1, last_seen=2)

    assert {name[-1] for name in offer.down.arrays} == {"B"}
    in_a = layout.slots(None, "A")
    np.testing.assert_array_equal(start[in_a], first[in_a])
    assert np.abs(start[in_a] - model.adapter.vector[in_a]).max() > 0.01


# the largest of what? ----------------------------------------------------------------------------


def test_the_largest_of_every_tensor_or_of_the_message():
    """A moves a tenth as far as B: of the whole message nothing of A is sent."""
    move = np.where(LAYOUT.slots(None, "A"), 0.01, 1.0).astype(np.float32) * normal(0)
    sent = {}
    for by in ("message", "tensor"):
        wire = Coder(WireConfig(top_k=0.1, top_k_by=by), LAYOUT, 0)
        sent[by] = wire.up(0, 0, np.zeros_like(move), move, WHOLE) != 0

    assert not parts(sent["message"], "A").any()
    by_array = {name: int(mask.sum()) for name, mask in LAYOUT.arrays(sent["tensor"]).items()}
    assert by_array == {"w.lora_A": 3, "w.lora_B": 2, "v.lora_A": 2, "v.lora_B": 3}
    for name, mask in LAYOUT.arrays(sent["tensor"]).items():
        sizes = np.abs(LAYOUT.arrays(move)[name])
        assert sizes[mask].min() >= sizes[~mask].max()
