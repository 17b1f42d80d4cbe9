"""What travels: formats by hand, bytes that are the length of real messages, error feedback that loses nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from worlds import plan

from fedsim.adapters.adapter import Layout, Module, Tensor
from fedsim.adapters.payload import NOTHING, WHOLE, Payload
from fedsim.config.network import WireConfig
from fedsim.network.coding import Coder
from fedsim.network.messages import Format, bytes_of, charged_bytes, decode, encode, extent, largest
from fedsim.network.number_formats import LEVELS, pack, scales, unpack
from fedsim.records.verify import verify
from fedsim.rng import stream
from fedsim.runs.simulation import simulate

LAYOUT = Layout(
    (
        Module("up", 3, (3, 5), (4, 3), 2.0),
        Module("conv", 3, (3, 2, 3, 3), (6, 3, 1, 1), 2.0),
    )
)
"""A 15, B 12, A 54, B 18: 99 numbers in four arrays."""
WHOLE_MODEL = Layout(tensors=(Tensor("w", (7, 3)), Tensor("b", (7,))))
ONLY_A = Payload(arrays=("up.lora_A", "conv.lora_A"))
RANK_2 = Payload(rank=2)
PAYLOADS = [WHOLE, ONLY_A, RANK_2, Payload(("conv.lora_B", "up.lora_B"), rank=1, extra_floats=7), NOTHING]
DTYPES = ["float32", "bfloat16", "int8", "int4"]
FINITE = st.floats(-1e6, 1e6, width=32)


def normal(*address, layout=LAYOUT):
    return stream(1, "test", *address).standard_normal(layout.size).astype(np.float32)


def sent(layout, payload):
    """True where a payload's numbers are; written again from the layout's own words."""
    mask = layout.slots(payload.rank)
    for name, (place, _) in layout.slices.items():
        if payload.arrays is not None and name not in payload.arrays:
            mask[place] = False
    return mask


# number formats -----------------------------------------------------------------------------------


def test_int8_by_hand_scale_by_row_and_rounded_codes():
    """Largest 2.54: the scale is 0.02, and 1.0 is 50 steps of it."""
    values = np.array([2.54, -2.54, 1.0, 0.0, 0.011], np.float32)
    scale = np.repeat(scales(np.array([2.54], np.float32), "int8"), 5)

    data = pack(values, scale, "int8", None)

    assert np.frombuffer(data, np.int8).tolist() == [127, -127, 50, 0, 1]
    assert np.allclose(unpack(data, 5, scale, "int8"), [2.54, -2.54, 1.0, 0.0, 0.02])


def test_int4_puts_two_numbers_in_a_byte_the_first_below():
    scale = np.ones(3, np.float32)

    data = pack(np.array([7.0, -7.0, 2.0], np.float32), scale, "int4", None)

    assert data == bytes([(1 << 4) | 15, 10])  # 7 + 8, -7 + 8; 2 + 8 and nothing
    assert unpack(data, 3, scale, "int4").tolist() == [7.0, -7.0, 2.0]


@given(codes=st.lists(st.integers(-7, 7), max_size=9))
def test_int4_comes_back_whole(codes):
    values, scale = np.array(codes, np.float32), np.ones(len(codes), np.float32)
    assert unpack(pack(values, scale, "int4", None), len(codes), scale, "int4").tolist() == codes


@given(arrays(np.float32, 20, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
@settings(max_examples=50, deadline=None)
def test_bfloat16_is_that_of_torch(values):
    import torch

    expected = torch.from_numpy(values.copy()).to(torch.bfloat16).float().numpy()
    assert np.array_equal(unpack(pack(values, None, "bfloat16", None), 20, None, "bfloat16"), expected)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@given(values=arrays(np.float32, 12, elements=FINITE), seed=st.integers(0, 9))
@settings(max_examples=50)
def test_integers_err_by_half_a_step_to_nearest_and_by_less_than_one_by_chance(dtype, values, seed):
    scale = np.repeat(scales(np.abs(values).max(keepdims=True), dtype), 12)
    slack = 1e-6 * np.abs(values) + 1e-44  # the product q * scale is rounded to float32

    def error(rng):
        return np.abs(unpack(pack(values, scale, dtype, rng), 12, scale, dtype) - values.astype(np.float64))

    assert np.all(error(None) <= scale / 2 + slack)
    assert np.all(error(stream(seed, "x")) < scale + slack + (scale == 0))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_rounding_by_chance_is_right_on_average(dtype):
    """The mean of n roundings is off by at most half a step over sqrt(n), times 5."""
    values = np.array([1.0, 0.3337, -0.7219, 0.051], np.float32)
    n = 20_000
    many = np.repeat(values, n)
    scale = None if dtype == "bfloat16" else np.repeat(scales(np.float32([1.0]), dtype), 4 * n)
    step = np.float64([2**-7, 2**-9, 2**-8, 2**-12]) if scale is None else np.full(4, 1.0 / LEVELS[dtype])

    means = unpack(pack(many, scale, dtype, stream(0, "chance")), 4 * n, scale, dtype)
    means = means.astype(np.float64).reshape(4, n).mean(axis=1)

    assert np.all(np.abs(means - values) < 5 * step / 2 / math.sqrt(n) + 1e-7)
    assert np.any(np.abs(unpack(pack(values, scale if scale is None else scale[:4], dtype, None), 4, scale if scale is None else scale[:4], dtype) - values) > 1e-4)  # fmt: skip


def test_an_array_of_zeros_has_scale_zero_and_stays_zero():
    """B starts at zero: no division by its scale."""
    wire = WireConfig(dtype="int8")
    with np.errstate(all="raise"):
        data = encode(wire, LAYOUT, WHOLE, "up", np.zeros(99, np.float32), stream(0, "x"))
    assert data == bytes(16 + 99)
    assert not decode(wire, LAYOUT, WHOLE, "up", data).any()


# messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "payload", "bytes_"),
    [
        ({}, WHOLE, 396),
        ({}, ONLY_A, 276),  # 15 + 54 numbers
        ({}, RANK_2, 264),  # two thirds
        ({}, Payload(extra_floats=10), 436),
        ({"dtype": "bfloat16"}, WHOLE, 198),
        ({"dtype": "int8"}, WHOLE, 99 + 4 * 4),
        ({"dtype": "int4"}, WHOLE, 50 + 4 * 4),
        ({"dtype": "int4"}, Payload(extra_floats=10), 50 + 16 + 40),  # the extra ones stay float32
        ({"top_k": 0.1}, WHOLE, 10 * 4 + 13),  # 10 numbers and a bitmap of 99 bits: shorter than 10 indices
        ({"top_k": 0.02}, WHOLE, 2 * 4 + 2 * 4),  # 2 numbers and their indices
        ({"top_k": 0.1, "dtype": "int4"}, WHOLE, 5 + 13 + 16),
        ({"top_k": 0.1}, NOTHING, 0),
        ({"dtype": "int8"}, NOTHING, 0),
    ],
)
def test_bytes_up_by_hand(wire, payload, bytes_):
    assert bytes_of(WireConfig(**wire), LAYOUT, payload, "up") == bytes_


def test_what_comes_down_is_dense_and_has_a_format_of_its_own():
    wire = WireConfig(dtype="int4", top_k=0.1, down_dtype="bfloat16")
    assert bytes_of(wire, LAYOUT, WHOLE, "down") == 198


@pytest.mark.parametrize("share", [1.0, 0.5, 0.03, 1e-6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_message_is_as_long_as_it_was_said_to_be_whatever_it_says(dtype, share, payload):
    wire = WireConfig(dtype=dtype, top_k=share)
    said = bytes_of(wire, LAYOUT, payload, "up")
    for vector in (normal(0), np.zeros(99, np.float32), 1e30 * normal(1)):
        data = encode(wire, LAYOUT, payload, "up", vector, stream(0, "x"))
        assert len(data) + 4 * payload.extra_floats == said


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_float32_says_the_numbers_of_the_payload_and_nothing_else(payload):
    vector = normal(2)
    data = encode(WireConfig(), LAYOUT, payload, "up", vector, None)
    assert np.array_equal(decode(WireConfig(), LAYOUT, payload, "up", data), vector * sent(LAYOUT, payload))


@given(values=arrays(np.float32, 99, elements=FINITE), share=st.floats(0.01, 1.0))
@settings(max_examples=50)
def test_top_k_keeps_the_largest_of_the_message(values, share):
    wire = WireConfig(top_k=share)
    k = Format("float32", share).sent(99)

    found = decode(wire, LAYOUT, WHOLE, "up", encode(wire, LAYOUT, WHOLE, "up", values, None))

    order = sorted(range(99), key=lambda i: (-abs(values[i]), i))
    expected = np.zeros(99, np.float32)
    expected[order[:k]] = values[order[:k]]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_both_ends_agree_on_the_index_where_its_two_forms_are_equally_long(k):
    """Of 64 numbers: 4 k bytes of indices against a bitmap of 8; at k = 2 the indices are used."""
    layout, wire = Layout(tensors=(Tensor("w", (64,)),)), WireConfig(top_k=k / 64)
    vector = np.arange(64, dtype=np.float32)
    data = encode(wire, layout, WHOLE, "up", vector, None)
    assert len(data) == min(4 * k, 8) + 4 * k
    assert np.array_equal(decode(wire, layout, WHOLE, "up", data), np.where(vector > 63 - k, vector, 0))
    if k == 2:
        assert np.frombuffer(data, "<u4", 2).tolist() == [62, 63]


def test_of_equal_magnitudes_the_first_are_kept():
    assert largest(np.array([-1, 2, 1, -2, 2], np.float32), 2).tolist() == [1, 3]


def test_scales_are_those_of_the_numbers_that_are_sent_array_by_array():
    """One large number in each factor: each array's own scale, and the largest of each is exact."""
    vector = np.full(99, 1e-3, np.float32)
    for at, value in zip((0, 15, 27, 81), (1.0, 10.0, 100.0, 1000.0), strict=True):
        vector[at] = value
    wire = WireConfig(dtype="int4", top_k=4 / 99, rounding="nearest")

    data = encode(wire, LAYOUT, WHOLE, "up", vector, None)

    assert np.allclose(np.frombuffer(data, "<f4", 4), np.array([1, 10, 100, 1000]) / 7)
    bits = np.unpackbits(np.frombuffer(data, np.uint8, 13, 16), bitorder="little")
    assert np.flatnonzero(bits).tolist() == [0, 15, 27, 81]
    assert data[16 + 13 :] == bytes([0xFF, 0xFF])  # four times 7 + 8
    found = decode(wire, LAYOUT, WHOLE, "up", data)
    assert np.allclose(found[[0, 15, 27, 81]], [1, 10, 100, 1000])
    assert np.count_nonzero(found) == 4


def test_whole_models_travel_by_the_same_formats():
    wire = WireConfig(dtype="int8", rounding="nearest")
    vector = normal(layout=WHOLE_MODEL)
    data = encode(wire, WHOLE_MODEL, WHOLE, "up", vector, None)
    assert len(data) == bytes_of(wire, WHOLE_MODEL, WHOLE, "up") == 28 + 8
    step = np.repeat([np.abs(vector[:21]).max(), np.abs(vector[21:]).max()], [21, 7]) / 127
    assert np.all(np.abs(decode(wire, WHOLE_MODEL, WHOLE, "up", data) - vector) <= step / 2 + 1e-7)


def test_an_unknown_array_is_refused():
    with pytest.raises(ValueError, match=r"no array 'down\.lora_A'"):
        extent(LAYOUT, Payload(("down.lora_A",)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_an_adapter_of_the_same_size_is_charged_what_it_serialises(dtype, payload):
    wire = WireConfig(dtype=dtype, top_k=0.2)
    assert charged_bytes(wire, LAYOUT, payload, "up", 99) == bytes_of(wire, LAYOUT, payload, "up")


def test_a_declared_adapter_is_charged_by_the_same_format():
    """A thousand times as many numbers in as many arrays: 99,000 codes, 19,800 of them sent."""
    wire = WireConfig(dtype="int8", top_k=0.2)
    assert charged_bytes(wire, LAYOUT, WHOLE, "up", 99_000) == 19_800 + 12_375 + 16
    assert charged_bytes(WireConfig(), LAYOUT, ONLY_A, "up", 99_000) == 4 * 69_000
    assert charged_bytes(WireConfig(), LAYOUT, Payload((), extra_floats=2), "down", 99_000) == 4 * 2_000


def test_the_oracle_of_gpt2():
    """gpt2, r = 8, c_attn of 12 layers: 294,912 numbers are 1,179,648 bytes, and 24 scales at 4 bits."""
    gpt2 = Layout(tuple(Module(f"h.{i}", 8, (8, 768), (2304, 8), 2.0) for i in range(12)))
    assert bytes_of(WireConfig(), gpt2, WHOLE, "up") == 1_179_648
    assert bytes_of(WireConfig(dtype="int4"), gpt2, WHOLE, "up") == 147_456 + 96


# the link -----------------------------------------------------------------------------------------


def link(layout=LAYOUT, **wire):
    return Coder(WireConfig(**wire), layout, 0)


def test_plain_float32_hands_on_the_very_arrays():
    start, end = normal("start"), normal("end")
    assert link().up(0, 0, start, end, WHOLE) is end
    assert link().up(0, 0, start, end, ONLY_A) is end
    assert link().down(1, start, WHOLE) is start
    assert link(dtype="int8", top_k=0.1).down(1, start, WHOLE) is start


def test_all_numbers_of_the_largest_are_all_numbers():
    assert link(top_k=1.0).up(0, 0, normal(0), (end := normal(1)), WHOLE) is end


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_only_what_is_in_the_payload_is_coded(payload):
    """The rest is the client's own: exact, for whoever keeps it."""
    start, end, mask = normal("start"), normal("end"), sent(LAYOUT, payload)
    found = link(dtype="int4").up(0, 0, start, end, payload)
    assert np.array_equal(found[~mask], end[~mask])
    assert np.sum(found[mask] == end[mask]) <= 0.5 * np.sum(mask)  # the largest of an array is exact


def test_the_server_gets_start_plus_what_the_message_says():
    start, end, wire = normal("start"), normal("end"), WireConfig(dtype="int8", top_k=0.3)
    message = encode(wire, LAYOUT, WHOLE, "up", end - start, stream(0, "wire", 4, 2))
    expected = start + decode(wire, LAYOUT, WHOLE, "up", message)
    assert np.array_equal(Coder(wire, LAYOUT, 0).up(4, 2, start, end, WHOLE), expected)


def test_stochastic_rounding_draws_by_client_and_visit_not_by_order():
    start, end = normal("start"), normal("end")
    one = link(dtype="int4").up(3, 1, start, end, WHOLE)
    assert np.array_equal(one, link(dtype="int4").up(3, 1, start, end, WHOLE))
    assert not np.array_equal(one, link(dtype="int4").up(3, 2, start, end, WHOLE))
    assert not np.array_equal(one, link(dtype="int4").up(2, 1, start, end, WHOLE))


@pytest.mark.parametrize("by", ["message", "tensor"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("payload", [WHOLE, ONLY_A, RANK_2], ids=["whole", "A", "rank 2"])
def test_error_feedback_loses_nothing(dtype, rounding, payload, by):
    """Sum of what was understood + what is still owed = sum of the moves."""
    wire = link(dtype=dtype, rounding=rounding, top_k=0.15, top_k_by=by, error_feedback=True)
    mask = sent(LAYOUT, payload)
    understood, moved = np.zeros(99), np.zeros(99)
    for visit in range(12):
        start, end = normal("start", visit), normal("end", visit)
        got = wire.up(7, visit, start, end, payload)
        understood += np.where(mask, got.astype(np.float64) - start, 0.0)
        moved += np.where(mask, end.astype(np.float64) - start, 0.0)

    assert np.abs(moved - understood).max() > 0.1  # something is owed
    assert np.allclose(understood + wire.residuals.get(7), moved, atol=2e-5)
    assert not wire.residuals.get(7)[~mask].any()


def test_without_feedback_what_was_left_out_is_lost():
    wire = link(top_k=0.15)
    for visit in range(3):
        wire.up(7, visit, normal(visit), normal(visit + 1), WHOLE)
    assert wire.residuals.get(7) is None


def test_clients_owe_for_themselves():
    alone, both = (link(top_k=0.1, error_feedback=True) for _ in range(2))
    start, end = normal("start"), normal("end")
    both.up(1, 0, end, start, WHOLE)
    alone.up(0, 0, start, end, WHOLE)
    both.up(0, 0, start, end, WHOLE)
    assert np.array_equal(alone.up(0, 1, start, end, WHOLE), both.up(0, 1, start, end, WHOLE))


def test_phases_owe_for_their_own_factor():
    """What the A phase left out waits while B is sent."""
    wire = link(top_k=0.1, error_feedback=True)
    wire.up(0, 0, normal(0), normal(1), ONLY_A)
    owed = wire.residuals.get(0)
    only_b = Payload(("up.lora_B", "conv.lora_B"))
    wire.up(0, 1, normal(2), normal(3), only_b)

    in_a = sent(LAYOUT, ONLY_A)
    assert owed[in_a].any()
    assert np.array_equal(wire.residuals.get(0)[in_a], owed[in_a])
    assert wire.residuals.get(0)[~in_a].any()


@pytest.mark.parametrize(
    ("frames", "kept"),
    [
        ([(3, ""), (3, "")], True),
        ([(3, ""), (4, "")], False),  # factors of another version
        ([(3, "svd-1"), (5, "svd-1")], True),  # the same factorisation
        ([(3, "svd-1"), (4, "svd-2")], False),
    ],
)
def test_a_residual_is_forgotten_when_the_factors_change_their_meaning(frames, kept):
    start, end = normal("start"), normal("end")
    fresh = link(top_k=0.1, error_feedback=True).up(0, 1, start, end, WHOLE)
    wire = Coder(WireConfig(top_k=0.1, error_feedback=True), LAYOUT, 0, refactors=True)
    wire.up(0, 0, normal(0), normal(1), WHOLE, frame=frames[0])

    found = wire.up(0, 1, start, end, WHOLE, frame=frames[1])

    assert np.array_equal(found, fresh) != kept


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_end_that_is_not_finite_is_handed_on_and_owes_nothing(bad):
    wire = link(dtype="int8", error_feedback=True)
    end = normal("end")
    end[3] = bad
    assert wire.up(0, 0, normal("start"), end, WHOLE) is end
    assert wire.residuals.get(0) is None


def test_the_model_comes_down_coded_once_a_version():
    wire = link(down_dtype="int4")
    start = normal("start")

    got = wire.down(5, start, WHOLE)

    assert wire.down(5, start, WHOLE) is got
    assert wire.down(5, start, Payload(extra_floats=9)) is got
    message = encode(WireConfig(down_dtype="int4"), LAYOUT, WHOLE, "down", start, stream(0, "wire-down", 5))
    assert np.array_equal(got, decode(WireConfig(down_dtype="int4"), LAYOUT, WHOLE, "down", message))
    assert np.array_equal(wire.down(6, start, WHOLE), got)  # nothing has changed, so it is not coded anew
    assert not np.array_equal(
        link(down_dtype="int4").down(6, start, WHOLE), got
    )  # another version, another chance
    assert np.array_equal(link(down_dtype="int4").down(5, start.copy(), WHOLE), got)


def test_a_client_of_smaller_rank_gets_zeros_beyond_it():
    start = normal("start") * LAYOUT.slots(2)
    got = link(down_dtype="int4").down(1, start, RANK_2)
    assert not got[~LAYOUT.slots(2)].any()
    assert got[LAYOUT.slots(2)].any()


def test_what_does_not_come_down_is_exact():
    start, mask = normal("start"), sent(LAYOUT, ONLY_A)
    got = link(down_dtype="int4").down(1, start, ONLY_A)
    assert np.array_equal(got[~mask], start[~mask])
    assert not np.array_equal(got[mask], start[mask])


def test_feedback_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"nothing is lost on the way up\n  fix: set wire.top_k below 1"):
        WireConfig(error_feedback=True)


# in a run -------------------------------------------------------------------------------------------

SYNC = {"kind": "synchronous", "cohort": 3}
SMALL = {"dtype": "int8", "top_k": 0.25, "error_feedback": True, "down_dtype": "bfloat16"}


def run_of(wire, *, protocol=SYNC, train_s=(1.0, 2.0, 3.0, 4.0), timeline_only=False, **rest):
    run = simulate(plan(protocol, train_s, wire=wire, **rest), timeline_only=timeline_only)
    assert verify(run) == []
    return run


def loss(run):
    scores = run.scores[(run.scores.metric == "loss") & (run.scores.split == "test")]
    return scores.value.iloc[-1]


def test_every_visit_is_charged_the_length_of_its_messages():
    """8 numbers: 16 bytes down; up 2 of them, a scale and a bitmap of one byte."""
    v = run_of(SMALL).visits
    assert set(v.down_bytes) == set(v.serialized_down_bytes) == {16}
    assert set(v.up_bytes) == set(v.serialized_up_bytes) == {4 + 1 + 2}


def test_fewer_bytes_are_sooner_there():
    """8 bytes/s and no delays: 4 s a way in float32, 2 s in bfloat16."""
    slow, fast = (
        run_of({"dtype": d, "down_dtype": d}, train_s=(1.0,), protocol={**SYNC, "cohort": 1}, rate=8.0)
        for d in ("float32", "bfloat16")
    )
    assert (slow.commits.time_s.iloc[0], fast.commits.time_s.iloc[0]) == pytest.approx((9.0, 5.0))


@pytest.mark.parametrize("protocol", [SYNC, {"kind": "buffered", "concurrency": 3, "buffer": 2}])
def test_the_timeline_does_not_depend_on_what_was_coded(protocol):
    trained, alone = (run_of(SMALL, protocol=protocol, timeline_only=alone) for alone in (False, True))
    columns = ["client", "dispatched_s", "landed_s", "ended_s", "up_bytes", "down_bytes", "joules"]
    assert trained.visits[columns].equals(alone.visits[columns])


def test_plain_float32_is_the_run_without_a_wire():
    assert run_of({}).scores.equals(run_of({"rounding": "nearest", "top_k": 1.0}).scores)


def test_the_model_is_made_of_what_was_understood():
    """One client, one commit: version 1 is what the link makes of start and end."""
    from fedsim import jobs

    prepared = plan({**SYNC, "cohort": 1}, [1.0], wire=SMALL, budget={"commits": 1})
    run, task, local = simulate(prepared), prepared.task, prepared.experiment.local
    wire = Coder(prepared.experiment.wire, task.layout, prepared.experiment.seed)
    start = wire.down(0, task.initial(), WHOLE)
    (update,) = task.train([jobs.Job(0, 0, start, local, prepared.experiment.seed)])
    model = wire.up(0, 0, start, update.end, WHOLE)
    expected = 0.5 * np.sum((model.astype(np.float64) - task.optima[0]) ** 2)
    assert loss(run) == pytest.approx(expected, rel=1e-6)
    assert not np.array_equal(model, update.end)


def test_error_feedback_reaches_what_sparsity_alone_reaches_later():
    """All clients pull to one optimum, one number in eight is sent: what is owed is sent in the end."""
    common = {"task": {"kind": "quadratic", "spread": 0.0, "dimension": 64}, "budget": {"commits": 40}}
    plain, owed = (run_of({"top_k": 1 / 8, "error_feedback": f}, **common) for f in (False, True))
    assert loss(owed) < loss(plain)
    assert loss(run_of({}, **common)) < loss(owed)


def test_four_bits_rounded_by_chance_find_the_optimum():
    """Moves shrink with the distance, and so do the scales: the error goes to zero."""
    found = run_of({"dtype": "int4"}, task={"kind": "quadratic", "spread": 0.0}, budget={"commits": 60})
    assert loss(found) < 1e-3


@pytest.mark.parametrize(
    ("wire", "up"), [({}, 400_000), ({"dtype": "int4"}, 50_000 + 2 * 4), ({"top_k": 0.25}, 112_500)]
)
def test_a_declared_model_is_charged_in_the_same_format(wire, up):
    """An adapter of 100,000 declared numbers; the layout that trains has two arrays."""
    layout = Layout((Module("w", 2, (2, 8), (8, 2), 1.0),))
    assert charged_bytes(WireConfig(**wire), layout, WHOLE, "up", 100_000) == up


@pytest.mark.parametrize("by", ["message", "tensor"])
def test_one_number_is_sent_however_small_the_share(by):
    how = Format("float32", 5e-324, by_array=by == "tensor")
    assert [how.sent(n) for n in (0, 1, 128)] == [0, 1, 1]
    assert how.sent_of([128, 128]) == (2 if by == "tensor" else 1)
