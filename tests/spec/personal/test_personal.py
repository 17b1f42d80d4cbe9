"""The kinds of personalisation as pure parts: what travels, what trains beside, what a client ends with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.adapters.adapter import Layout, Module, Tensor
from fedsim.adapters.folding import adapter_into_base
from fedsim.adapters.moved_base import Base
from fedsim.adapters.payload import WHOLE, Payload
from fedsim.aggregators._base import Offer, Traits
from fedsim.component import find, kinds
from fedsim.config.learning import LocalConfig
from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.shape import ModelShape
from fedsim.cost.work import Work
from fedsim.errors import ExperimentError
from fedsim.jobs import Job
from fedsim.personal import Home, tuned, values, with_values
from fedsim.personal.ditto import Ditto
from fedsim.personal.feddpa import FedDPA
from fedsim.personal.fedper import FedPer
from fedsim.personal.fine_tune import FineTune
from fedsim.personal.folding import Fold, scale_of, weighted
from fedsim.personal.none import Nothing

# three blocks: 2 (3 + 4), 2 (4 + 3) and a convolution 2 (2 3 3 + 5) with 2 slots each: 14 + 14 + 46 floats
LAYOUT = Layout(
    modules=(
        Module("h.0.up", 2, (2, 3), (4, 2), 0.5),
        Module("h.1.down", 2, (2, 4), (3, 2), 0.5),
        Module("out", 2, (2, 2, 3, 3), (5, 2, 1, 1), 0.5),
    )
)
LOCAL = LocalConfig(optimizer="sgd", lr=0.1, steps=3, prox_mu=0.7)
EVERY_KIND = [find("personal", kind)() for kind in kinds("personal")]


def numbers(seed, size=LAYOUT.size):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def home(seed=0):
    return Home(LAYOUT, numbers(seed))


def job(start=1, **changes):
    return replace(Job(3, 5, numbers(start), LOCAL, seed=0), **changes)


# FedPer -----------------------------------------------------------------------------------------


def test_a_block_is_what_shares_the_path_up_to_the_first_number():
    names = ("wte", "h.0.attn.q", "h.0.attn.v", "h.1.mlp.up", "h.10.mlp.up", "ln_f")
    layout = Layout(modules=tuple(Module(name, 1, (1, 2), (2, 1), 1.0) for name in names))

    assert layout.blocks == (
        ("wte",), ("h.0.attn.q", "h.0.attn.v"), ("h.1.mlp.up",), ("h.10.mlp.up",), ("ln_f",)
    )  # fmt: skip


def test_fedper_keeps_the_factors_of_the_last_blocks():
    assert FedPer(layers=1).private(LAYOUT) == ("out.lora_A", "out.lora_B")
    assert FedPer(layers=2).private(LAYOUT)[:2] == ("h.1.down.lora_A", "h.1.down.lora_B")


@pytest.mark.parametrize("layers", [3, 4])
def test_fedper_refuses_to_share_nothing(layers):
    with pytest.raises(ExperimentError, match=r"personal\.layers: leaves nothing to share: .* 3 blocks"):
        FedPer(layers=layers).private(LAYOUT)


def test_fedper_sends_neither_way_what_is_private():
    offer = Offer(
        numbers(1), Payload(extra_floats=9), Payload(arrays=("h.0.up.lora_A", "out.lora_A"), rank=1)
    )

    found = FedPer(layers=2).offer(home(), offer)

    assert found.start is offer.start
    assert found.down.arrays == ("h.0.up.lora_A", "h.0.up.lora_B")
    assert found.down.floats(LAYOUT) == 2 * (3 + 4) + 9  # what a moved base costs is none of the split's
    assert found.up == Payload(arrays=("h.0.up.lora_A",), rank=1)
    assert found.up.floats(LAYOUT) == 3


def test_fedper_joins_the_clients_last_layers_to_the_shared_ones():
    kind, theirs, own = FedPer(layers=1), numbers(1), numbers(2)

    mixed = kind.composed(home(), theirs, kind.keeps(home(), own))

    assert mixed.tobytes() == np.concatenate([theirs[:28], own[28:]]).tobytes()
    assert not mixed.flags.writeable


@given(st.integers(0, 99), st.sets(st.sampled_from(sorted(LAYOUT.slices)), min_size=1))
@settings(max_examples=30, deadline=None)
def test_values_and_with_values_are_inverse(seed, names):
    vector, other = numbers(seed), numbers(seed + 1)
    names = sorted(names)

    assert with_values(LAYOUT, vector, names, values(LAYOUT, vector, names)).tobytes() == vector.tobytes()
    mixed = LAYOUT.arrays(with_values(LAYOUT, vector, names, values(LAYOUT, other, names)))
    for name, array in mixed.items():
        source = other if name in names else vector
        np.testing.assert_array_equal(array, LAYOUT.arrays(source)[name])


def test_a_client_that_joins_fedper_trains_everything_and_keeps_its_last_layers_only():
    kind, end = FedPer(layers=1, epochs=2), numbers(7)

    after = kind.after(home(), job(), None)

    assert (after.local.epochs, after.local.steps, after.local.prox_mu) == (2, None, 0.7)
    used = kind.model(home(), job(), None, end)
    assert used.vector.tobytes() == np.concatenate([numbers(1)[:28], end[28:]]).tobytes()
    assert (
        kind.after(home(), job(), private=numbers(2)[28:]) is None
    )  # who has private layers uses them as they are


# Ditto ------------------------------------------------------------------------------------------


def test_ditto_trains_its_own_model_drawn_to_the_one_it_downloaded_on_the_same_batches():
    visit = job(trains="B", rank=1, base=numbers(9, 3), slot_penalty=(0.1, 1))

    first, later = (Ditto(lam=0.3).beside(home(), visit, own) for own in (None, numbers(8)))

    assert first.start.tobytes() == numbers(0).tobytes()  # version 0
    assert later.start.tobytes() == numbers(8).tobytes()
    for made in (first, later):
        assert made.anchor is visit.start
        assert made.local == LOCAL.model_copy(update={"prox_mu": 0.3})  # FedProx of the visit is not Ditto's
        assert (made.client, made.visit, made.purpose, made.seed) == (3, 5, "train", 0)  # the same batches
        assert (made.trains, made.rank, made.slot_penalty) == ("B", 1, None)
        assert made.base is visit.base


def test_ditto_may_train_its_own_model_longer_or_not_at_all():
    assert Ditto().alongside(LOCAL).steps == 3
    longer = Ditto(epochs=4, lr=0.01).alongside(LOCAL)
    assert (longer.epochs, longer.steps, longer.lr) == (4, None, 0.01)
    assert Ditto(epochs=0).beside(home(), job(), None) is None


def test_ditto_of_a_client_that_joins_starts_at_the_shared_model():
    visit = job()
    after = Ditto(lam=0.3).after(home(), visit, None)

    assert after.start is visit.start
    assert after.anchor is visit.start
    assert (after.local.epochs, after.local.prox_mu) == (1, 0.3)
    assert Ditto().after(home(), visit, numbers(8)) is None
    assert Ditto().model(home(), visit, numbers(8), None).vector.tobytes() == numbers(8).tobytes()


# FedDPA -----------------------------------------------------------------------------------------


def test_folding_an_adapter_into_the_weights_is_the_adapter():
    """On a Linear, a non-square one and a Conv2d, over weights that have moved already."""
    vector, before = numbers(1), Base(LAYOUT, 0, numbers(2, 4 * 3 + 3 * 4 + 5 * 18))
    found = Base(LAYOUT, 0, adapter_into_base(LAYOUT, vector, 0.3, before.vector))
    arrays = LAYOUT.arrays(vector.astype(np.float64))

    for (module, change), (_, there) in zip(found.matrices(), before.matrices(), strict=True):
        a, b = arrays[f"{module.name}.lora_A"], arrays[f"{module.name}.lora_B"]
        product = np.einsum("or,ri...->oi...", b.reshape(len(b), -1), a)  # another way to multiply
        np.testing.assert_allclose(change, there + 0.3 * product.reshape(change.shape), rtol=1e-5, atol=1e-6)


def test_clients_of_one_version_share_one_folded_base():
    fold, shared, other = Fold(), numbers(1), numbers(2)

    first = fold(LAYOUT, shared, 0.3)
    assert fold(LAYOUT, shared, 0.3) is first
    assert fold(LAYOUT, shared, 0.4) is not first
    assert fold(LAYOUT, other, 0.3) is not first
    assert fold(LAYOUT, shared, 0.3) is first  # a few are remembered: versions and ranks under way
    for seed in range(10):
        fold(LAYOUT, numbers(seed), 0.3)
    again = fold(LAYOUT, shared, 0.3)
    assert again is not first
    assert again.tobytes() == first.tobytes()


def test_feddpa_trains_the_local_adapter_over_the_shared_one():
    """h = W0 x + a s B_l A_l x + (1 - a) s B_g A_g x, with a = 0.25 and s = 0.5."""
    kind, visit = FedDPA(a=0.25), job(trains="B", slot_penalty=(0.1, 1))

    made = kind.beside(home(), visit, None)

    assert made.start.tobytes() == numbers(0).tobytes()
    assert made.scale == 0.125
    assert made.base.tobytes() == adapter_into_base(LAYOUT, visit.start, 0.375).tobytes()
    assert (made.trains, made.anchor, made.slot_penalty, made.local.prox_mu) == ("AB", None, None, 0.0)
    assert kind.beside(home(), visit, numbers(8)).start.tobytes() == numbers(8).tobytes()


def test_feddpa_at_its_ends():
    """a = 1: the local adapter alone, on weights that nothing has moved. a = 0: the shared one alone."""
    alone, none = FedDPA(a=1.0), FedDPA(a=0.0)

    made = alone.beside(home(), job(), None)
    assert (made.base, made.scale) == (None, 0.5)
    used = alone.model(home(), job(), numbers(8), None)
    assert (used.vector.tobytes(), used.base) == (numbers(8).tobytes(), None)

    assert none.beside(home(), job(), None).scale == 0.0
    used = none.model(home(), job(), numbers(8), None)
    assert not any(b.any() for name, b in LAYOUT.arrays(used.vector).items() if name.endswith("B"))
    assert used.base.tobytes() == adapter_into_base(LAYOUT, numbers(1), 0.5).tobytes()


def test_a_smaller_rank_has_its_own_scale():
    assert scale_of(LAYOUT, job()) == 0.5
    assert scale_of(LAYOUT, job(rank=1)) == 1.0  # alpha / r is twice as large
    assert scale_of(LAYOUT, job(rank=1, scale=0.5)) == 0.5
    uneven = replace(LAYOUT, modules=(*LAYOUT.modules, Module("more", 2, (2, 3), (4, 2), 0.9)))
    with pytest.raises(ExperimentError, match="modules of one scale"):
        scale_of(uneven, job())


def test_feddpa_f_trains_after_the_run_from_a_copy_of_the_shared_adapter():
    kind = FedDPA(train="after", epochs=2)

    assert kind.alongside(LOCAL) is None
    assert (kind.resting, kind.frozen) == (0, 0)
    made = kind.after(home(), job(), None)
    assert made.start.tobytes() == numbers(1).tobytes()
    assert made.local.epochs == 2
    used = kind.model(home(), job(), None, numbers(1))  # a copy that has not moved is what it was
    total = adapter_into_base(LAYOUT, used.vector, 0.5, used.base)
    np.testing.assert_allclose(total, adapter_into_base(LAYOUT, numbers(1), 0.5), rtol=1e-5, atol=1e-6)


# all kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.kind)
def test_without_training_a_client_uses_what_it_downloads(kind):
    idle = kind if isinstance(kind, Nothing) else kind.model_copy(update={"epochs": 0})
    visit = job()

    assert idle.after(home(), visit, None) is None
    assert idle.beside(home(), visit, None) is None
    assert idle.model(home(), visit, None, None).vector is visit.start


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.kind)
def test_hooks_leave_what_they_are_given(kind):
    visit, given_ = job(), home()
    before = (visit.start.tobytes(), given_.initial.tobytes())

    kind.beside(given_, visit, None)
    kind.after(given_, visit, None)
    kind.model(given_, visit, None, numbers(4))
    kind.offer(given_, Offer(visit.start, WHOLE, WHOLE))

    assert (visit.start.tobytes(), given_.initial.tobytes()) == before


@pytest.mark.parametrize("kind", [k for k in EVERY_KIND if k.kind != "fedper"], ids=lambda kind: kind.kind)
def test_where_nothing_is_private_offers_are_as_they_were(kind):
    offer = Offer(numbers(1), WHOLE, WHOLE)

    assert kind.offer(home(), offer) is offer
    assert kind.keeps(home(), numbers(1)) is None


def test_fine_tuning_is_local_training_without_the_proximal_term():
    assert tuned(LOCAL, 0, None) is None
    made = FineTune(epochs=3, lr=0.02).after(home(), job(), numbers(8))
    assert (made.local.epochs, made.local.steps, made.local.lr, made.local.prox_mu) == (3, None, 0.02, 0.0)
    assert made.start.tobytes() == numbers(1).tobytes()


# what it costs ----------------------------------------------------------------------------------


def test_two_adapters_are_charged_in_operations_passes_traffic_and_memory():
    shape = ModelShape("m", 2, 8, 10, 1000, 900, adapter_params=100, sequence=16, batch=4)
    visit = Work(
        1, 1, 1e6, 5e5, tokens=64, serialized_down_bytes=1, serialized_up_bytes=1, steps=2, moved_bytes=10.0
    )
    second = replace(visit, flops=3e6, tokens=192, steps=6, moved_bytes=30.0)

    ditto, feddpa = (kind.charged(visit, second, shape) for kind in (Ditto(), FedDPA()))

    assert (ditto.flops, ditto.steps, ditto.moved_bytes, ditto.tokens) == (4e6, 8, 40.0, 64)
    assert feddpa.flops == 4e6 + 4 * 100 * 192  # the shared adapter: forward, and backward through it
    assert train_memory_bytes(Ditto().held(shape)) == train_memory_bytes(shape) + 2 * 4 * 100
    assert train_memory_bytes(FedDPA().held(shape)) == train_memory_bytes(shape) + 4 * 100
    for kind in (Nothing(), FineTune(), FedPer(), Ditto(epochs=0), FedDPA(train="after")):
        assert train_memory_bytes(kind.held(shape)) == train_memory_bytes(shape)


# what they go with ------------------------------------------------------------------------------

PLAIN = Traits(exact=False, unequal_ranks=False)


@pytest.mark.parametrize(
    ("traits", "full", "good"),
    [
        (PLAIN, False, {"none", "fine-tune", "fedper", "ditto", "feddpa"}),
        (PLAIN, True, {"none", "fine-tune", "ditto"}),
        (replace(PLAIN, moves_base=True), False, {"none", "fine-tune", "feddpa"}),
        (replace(PLAIN, refactors=True), False, {"none", "fine-tune", "feddpa"}),
        (replace(PLAIN, personal=True), False, {"none", "fine-tune"}),
    ],
)
def test_which_rules_a_kind_goes_with(traits, full, good):
    problems = {kind.kind: kind.misfit(traits, full=full) for kind in EVERY_KIND}

    assert {name for name, problem in problems.items() if problem is None} == good
    for what, fix in filter(None, problems.values()):
        assert what
        assert fix


def test_a_whole_model_has_no_two_adapters_to_add():
    whole = Layout(tensors=(Tensor("x", (3,)),))

    assert (
        Ditto().beside(Home(whole, numbers(0, 3)), replace(job(), start=numbers(1, 3)), None).anchor
        is not None
    )
    assert weighted(whole, numbers(0, 3), 0.5).tobytes() == numbers(0, 3).tobytes()
