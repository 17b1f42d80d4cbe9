"""Client batches against stock PEFT one client at a time, and the parts they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.client_batches import (
    ALPHA,
    CURVES,
    HOW,
    R4,
    WHOLE,
    assert_loss_curves_agree,
    clients,
    distance,
    ends,
    largest_move,
    loaded,
    oracle,
    random_start,
    rows_do_not_depend_on_their_neighbours,
    swapped,
    token_windows,
)

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import ExperimentError
from fedsim.jobs import Job
from fedsim.training import hub, local, lora, noise, paths, sequential
from fedsim.training.backbone import Backbone
from fedsim.training.stacked import batched
from fedsim.training.stacked import optimizers as steps
from fedsim.training.stacked.schedule import order, pieces, schedule
from fedsim.training.stacked.swapped import Swapped

R16 = LoraConfig(r=16, alpha=ALPHA)


# equal to stock PEFT ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_in_float64_a_batch_is_stock_peft_one_by_one_to_1e_9_of_the_largest_move(model, how):
    peft, ours = oracle(model), swapped(model)
    data, jobs = clients(peft.layout, how)
    expected = sequential.train(peft, data, jobs)
    found = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    assert largest_move(expected, jobs) > 0.01
    assert distance(found, expected, jobs) < 1e-9
    for one, other in zip(found, expected, strict=True):
        assert (one.steps, one.tokens, one.examples) == (other.steps, other.tokens, other.examples)
        assert one.loss == pytest.approx(other.loss, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 32])
def test_so_it_is_for_one_two_and_thirty_two_clients_of_mixed_ranks(gpt2, count):
    peft, ours = oracle(gpt2, R16), swapped(gpt2, R16)
    data, jobs = clients(peft.layout, "adamw-all", count)
    jobs = [replace(job, rank=2 + job.client % 15) for job in jobs]
    expected = sequential.train(peft, data, jobs)
    assert distance(batched.train(ours, data, jobs, tokens_at_once=WHOLE), expected, jobs) < 1e-9


def test_in_float32_sgd_is_stock_peft_to_1e_5_of_the_largest_move(model):
    peft, ours = oracle(model, dtype=torch.float32), swapped(model, dtype=torch.float32)
    data, jobs = clients(peft.layout, "sgd")
    expected = sequential.train(peft, data, jobs)
    found = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    assert all(u.end.dtype == np.float32 for u in found)
    assert distance(found, expected, jobs) < 1e-5


@pytest.mark.parametrize("how", CURVES)
def test_in_float32_every_loss_curve_is_stock_peft_s_to_1e_3(model, how):
    peft, ours = oracle(model, dtype=torch.float32), swapped(model, dtype=torch.float32)
    assert_loss_curves_agree(peft, ours, [token_windows(6, seed=i) for i in range(3)], how)


@pytest.mark.parametrize("how", [pytest.param("sgd-all", marks=pytest.mark.slow), "adamw-all"])
def test_ranks_2_to_16_in_one_batch_are_each_stock_peft_of_that_rank(model, how):
    ranks = (2, 16, 4, 8, 3, 16, 5)
    ours = swapped(model, R16)
    data, jobs = clients(ours.layout, how)
    jobs = [replace(job, rank=rank) for job, rank in zip(jobs, ranks, strict=True)]
    found = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    for job, own, update in zip(jobs, data, found, strict=True):
        peft = oracle(model, LoraConfig(r=job.rank, alpha=ALPHA))
        alone = replace(job, start=cut(ours.layout, job.start, peft.layout), rank=None)
        expected = sequential.visit(peft, own, alone)
        gap = np.abs(cut(ours.layout, update.end, peft.layout) - expected.end).max()
        assert gap < 1e-9 * largest_move([expected], [alone])
        assert update.loss == pytest.approx(expected.loss, rel=1e-9)
        above = ~local.slots(ours.layout, job.rank)
        assert above.any() == (job.rank < 16)
        assert not update.end[above].any()


def cut(layout, vector, small):
    """The first slots of every module, as a vector of the smaller layout."""
    arrays, result = layout.arrays(vector), np.zeros(small.size, vector.dtype)
    for m in small.modules:
        small.arrays(result)[f"{m.name}.lora_A"][...] = arrays[f"{m.name}.lora_A"][: m.rank]
        small.arrays(result)[f"{m.name}.lora_B"][...] = arrays[f"{m.name}.lora_B"][:, : m.rank]
    return result


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("trains", ["A", "B"])
@pytest.mark.parametrize("how", ["sgd-all", "adamw-all"])
def test_a_frozen_factor_does_not_move_and_the_other_moves_as_in_stock_peft(gpt2, how, trains, rank):
    peft, ours = oracle(gpt2), swapped(gpt2)
    data, jobs = clients(peft.layout, how, trains=trains, rank=rank)
    expected = sequential.train(peft, data, jobs)
    found = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    assert distance(found, expected, jobs) < 1e-9
    inside = local.slots(peft.layout, rank)
    moving = local.slots(peft.layout, rank, trains)
    for job, update in zip(jobs, found, strict=True):
        assert np.array_equal(update.end[~moving], (job.start * inside)[~moving])
        assert (update.end != job.start)[moving].mean() > 0.99


@pytest.mark.parametrize("how", ["sgd-all", "adamw-all"])
def test_what_a_client_does_not_train_stays_whatever_gradient_a_backbone_gives(gpt2, how):
    noisy = Noisy(swapped(gpt2))
    data, jobs = clients(noisy.layout, how, 2, trains="B", rank=2)
    for job, update in zip(jobs, batched.train(noisy, data, jobs, tokens_at_once=WHOLE), strict=True):
        still = ~local.slots(noisy.layout, 2, "B")
        assert noisy.added[:, torch.from_numpy(still)].all()
        assert np.array_equal(update.end[still], (job.start * local.slots(noisy.layout, 2))[still])


def test_a_rank_that_the_layout_does_not_have_is_refused(gpt2):
    ours = swapped(gpt2)
    job = Job(0, 0, random_start(ours.layout), LocalConfig(), 0, rank=5)
    with pytest.raises(ExperimentError, match="give ranks from 1 to 4"):
        batched.train(ours, [token_windows(2)], [job], tokens_at_once=WHOLE)


def test_frozen_factors_and_ranks_leave_no_trace_in_the_sequential_path(gpt2):
    peft = oracle(gpt2)
    data, jobs = clients(peft.layout, "adamw", count=2)
    before = ends(sequential.train(peft, data, jobs))
    sequential.train(peft, data, [replace(job, rank=2, trains="A") for job in jobs], dropout=0.3)
    assert ends(sequential.train(peft, data, jobs)).tobytes() == before.tobytes()


# AdamW in float32 -------------------------------------------------------------------------------


class Noisy(Backbone):
    """A backbone whose gradients carry float32's relative rounding, 1e-7 of the largest."""

    def __init__(self, inner):
        self.inner, self.layout, self.device, self.dtype = inner, inner.layout, inner.device, inner.dtype

    def rebase(self, base):
        assert base is None

    def gradients(self, *args):
        losses, self.exact = self.inner.gradients(*args)
        generator = torch.Generator().manual_seed(0)
        self.added = torch.randn(self.exact.shape, generator=generator, dtype=self.dtype)
        self.added *= 1e-7 * self.exact.abs().max()
        return losses, self.exact + self.added

    def losses(self, *args):
        return self.inner.losses(*args)


def test_adamw_amplifies_the_sign_of_tiny_gradients_where_b_is_0_and_sgd_does_not(gpt2):
    """From B = 0 the gradient of A is exactly 0: any rounding in it moves A by up to a learning rate."""
    ours = swapped(gpt2)
    noisy = Noisy(ours)
    start = lora.initial(ours.layout, 0)

    def one_step(on, how):
        job = Job(0, 0, start, LocalConfig(**HOW[how], steps=1, batch=4), 0)
        return batched.train(on, [token_windows(4)], [job], tokens_at_once=WHOLE)[0].end

    gap = one_step(noisy, "sgd") - one_step(ours, "sgd")
    largest = np.abs(one_step(ours, "sgd") - start).max()
    assert np.abs(gap).max() < 1e-6 * largest

    gap = one_step(noisy, "adamw") - one_step(ours, "adamw")
    exact, added = noisy.exact[0].numpy(), noisy.added[0].numpy()
    lr = HOW["adamw"]["lr"]
    in_a = local.slots(ours.layout, None, "A")
    assert not exact[in_a].any()
    np.testing.assert_allclose(gap[in_a], -lr * added[in_a] / (np.abs(added[in_a]) + 1e-8), rtol=1e-6)
    assert np.abs(gap[in_a]).max() > 0.25 * lr
    large = np.abs(exact) > 1e-2 * np.abs(exact).max()
    assert large.sum() > 1000
    assert np.abs(gap[large]).max() < 1e-5 * lr


def test_in_float32_nearly_all_of_an_adamw_visit_is_the_float64_visit_and_the_rest_is_close(model):
    exact, narrow = swapped(model), swapped(model, dtype=torch.float32)
    data = [token_windows(6, seed=i) for i in range(3)]
    start = lora.initial(exact.layout, 0)
    jobs = [Job(i, 0, start, LocalConfig(**HOW["adamw"], epochs=2, batch=3), 0) for i in range(3)]
    expected = ends(batched.train(exact, data, jobs, tokens_at_once=WHOLE))
    gap = np.abs(ends(batched.train(narrow, data, jobs, tokens_at_once=WHOLE)) - expected)
    move = np.abs(expected - start).max()
    assert np.quantile(gap, 0.99) < 1e-4 * move
    assert gap.max() < 0.05 * move


# how clients are grouped ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sgd-all", "adamw-all"])
@pytest.mark.parametrize("count", [2, 7, 32])
def test_on_one_thread_a_client_ends_at_the_same_bits_in_a_batch_of_any_size(model, how, count):
    """Float32. Where the library's matrix product picks its kernel by the number of rows, to rounding."""
    ours = swapped(model, dtype=torch.float32)
    data, jobs = clients(ours.layout, how, count)
    together = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    some = range(0, count, max(1, count // 4))
    alone = [batched.train(ours, [data[i]], [jobs[i]], tokens_at_once=WHOLE)[0] for i in some]
    picked = [together[i] for i in some]
    if rows_do_not_depend_on_their_neighbours():
        assert ends(picked).tobytes() == ends(alone).tobytes()
        assert [u.loss for u in picked] == [u.loss for u in alone]
    else:
        assert distance(picked, alone, [jobs[i] for i in some]) < (1e-5 if how == "sgd-all" else 0.05)


def test_a_client_that_diverges_leaves_the_others_at_the_same_bits(gpt2):
    ours = swapped(gpt2)
    data, jobs = clients(ours.layout, "adamw-all", 3)
    sound = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    jobs[1] = replace(jobs[1], start=np.full_like(jobs[1].start, np.nan))
    found = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    assert np.isnan(found[1].loss)
    assert np.isnan(found[1].end).all()
    assert ends(found[::2]).tobytes() == ends(sound[::2]).tobytes()


def test_unlike_clients_are_trained_in_groups_and_come_back_in_their_order(gpt2):
    ours = swapped(gpt2)
    sgd, adamw = clients(ours.layout, "sgd", 3), clients(ours.layout, "adamw", 3)
    data = [sgd[0][0], adamw[0][0], sgd[0][1], adamw[0][1], token_windows(5, sequence=7), sgd[0][2]]
    jobs = [sgd[1][0], adamw[1][0], replace(sgd[1][1], trains="A"), adamw[1][1], adamw[1][2], sgd[1][2]]
    together = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    alone = [batched.train(ours, [d], [j], tokens_at_once=WHOLE)[0] for d, j in zip(data, jobs, strict=True)]
    assert distance(together, alone, jobs) < 1e-12
    assert [u.tokens for u in together] == [u.tokens for u in alone]


class Recorder(Backbone):
    """A backbone that notes what it is asked for."""

    def __init__(self, inner):
        self.inner, self.layout, self.device, self.dtype = inner, inner.layout, inner.device, inner.dtype
        self.tokens, self.hidden = [], []

    def rebase(self, base):
        assert base is None

    def gradients(self, stack, tokens, weights, hidden=None):
        self.tokens.append(tokens)
        self.hidden.append(hidden)
        return self.inner.gradients(stack, tokens, weights)

    def losses(self, *args):
        return self.inner.losses(*args)


@pytest.mark.parametrize("at_once", [12, 24, 40, 100])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_splitting_a_step_bounds_the_tokens_of_a_pass_and_changes_rounding_only(gpt2, at_once, dropout):
    """Sums of fewer rows are added in another order: in float64 1e-12 of the largest move."""
    ours = Recorder(swapped(gpt2))
    data, jobs = clients(ours.layout, "sgd-all")
    whole = batched.train(ours, data, jobs, tokens_at_once=WHOLE, dropout=dropout)
    ours.tokens.clear()
    split = batched.train(ours, data, jobs, tokens_at_once=at_once, dropout=dropout)
    assert max(t[..., 1:].numel() for t in ours.tokens) <= at_once
    assert distance(split, whole, jobs) < 1e-12
    assert [u.loss for u in split] == pytest.approx([u.loss for u in whole], rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(k=st.integers(1, 12), rows=st.integers(1, 9), tokens=st.integers(1, 20), at_once=st.integers(1, 300))
def test_the_pieces_of_a_step_cover_it_once_and_are_as_large_as_allowed(k, rows, tokens, at_once):
    covered = np.zeros((k, rows), int)
    for clients_, rows_ in pieces(k, rows, tokens, at_once):
        covered[clients_, rows_] += 1
        size = covered[clients_, rows_].size
        assert size * tokens <= at_once or size == 1
    assert (covered == 1).all()
    assert len(list(pieces(k, rows, tokens, k * rows * tokens))) == 1


def test_only_real_rows_of_active_clients_are_computed_and_only_equal_batches_together(gpt2):
    """Clients of 1, 3, 2 and 2 steps: batches of unlike length are apart, so that nothing fills them up."""
    ours = Recorder(swapped(gpt2))
    start = random_start(ours.layout)
    jobs = [
        Job(i, 0, start, LocalConfig(optimizer="sgd", steps=n, batch=b), 0)
        for i, (n, b) in enumerate([(1, 4), (3, 2), (2, 3), (2, 3)])
    ]
    batched.train(ours, [token_windows(6)] * 4, jobs, tokens_at_once=WHOLE)
    assert [tuple(t.shape[:2]) for t in ours.tokens] == [(1, 2), (2, 3), (1, 4), (1, 2), (2, 3), (1, 2)]


def test_a_shorter_last_batch_gives_the_same_bits_alone_and_in_company(gpt2):
    ours = paths.choose(hub.weights(gpt2), lora.layout(hub.skeleton(gpt2), R4), "fused")
    start = random_start(ours.layout)
    data = [token_windows(n) for n in (9, 7, 8, 5)]
    jobs = [Job(i, 0, start, LocalConfig(epochs=2, batch=4), 0) for i in range(4)]
    together = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    for own, job, update in zip(data, jobs, together, strict=True):
        (alone,) = batched.train(ours, [own], [job], tokens_at_once=WHOLE)
        assert alone.end.tobytes() == update.end.tobytes()
        assert alone.loss == update.loss


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=6))
def test_the_schedule_is_every_client_s_own_batches_with_the_active_ones_in_front(many):
    jobs = [Job(i, 0, None, LocalConfig(batch=b, epochs=e), 0) for i, (_, b, e) in enumerate(many)]
    counts = [local.steps(n, job.local) for (n, _, _), job in zip(many, jobs, strict=True)]
    turn = order(counts, [n for n, _, _ in many])
    sizes, jobs = [many[i][0] for i in turn], [jobs[i] for i in turn]
    plan = schedule(sizes, jobs)
    assert plan.active == sorted(plan.active, reverse=True)
    for client, (n, job) in enumerate(zip(sizes, jobs, strict=True)):
        for step, rows in enumerate(local.batches(n, job)):
            assert client < plan.active[step]
            assert plan.rows[step, client, : rows.size].tolist() == rows.tolist()
            expected = np.arange(plan.rows.shape[2]) < rows.size
            np.testing.assert_array_equal(plan.weights[step, client], expected / rows.size)
            assert rows.size <= plan.longest[step]
    assert plan.lengths.sum() == sum(e * n for n, _, e in many)


def test_hidden_states_reach_the_backbone_with_the_tokens_they_belong_to(gpt2):
    ours = Recorder(swapped(gpt2))
    data, jobs = clients(ours.layout, "sgd", 4)
    hidden = [torch.from_numpy(d[:, :-1].astype(float))[..., None] for d in data]
    given_ = batched.train(ours, data, jobs, tokens_at_once=40, hidden=hidden)
    for tokens, states in zip(ours.tokens, ours.hidden, strict=True):
        assert torch.equal(states[..., 0], tokens[..., :-1].double())
    ours.hidden.clear()
    without = batched.train(ours, data, jobs, tokens_at_once=40)
    assert set(ours.hidden) == {None}
    assert ends(given_).tobytes() == ends(without).tobytes()


# optimisers -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["sgd", "adamw"]),
    many=st.lists(
        st.tuples(st.sampled_from([1e-3, 0.1]), st.sampled_from([0, 0.1]), st.sampled_from([0, 0.9])),
        min_size=1, max_size=5,
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_one_step_on_the_stack_is_a_step_of_torch_s_optimiser_a_client(kind, many, seed):
    rng = np.random.default_rng(seed)
    how = [LocalConfig(optimizer=kind, lr=lr, weight_decay=wd, momentum=m) for lr, wd, m in many]
    factors = torch.from_numpy(rng.normal(size=(len(how), 11)))
    parameters = [row.clone().requires_grad_() for row in factors]
    theirs = [local.optimizer([p], own) for p, own in zip(parameters, how, strict=True)]
    ours = (steps.Sgd if kind == "sgd" else steps.AdamW)(factors, how, None)
    for step in range(6):
        active = len(how) if step < 3 else 1
        gradients = torch.from_numpy(rng.normal(size=(active, 11)))
        for i in range(active):
            parameters[i].grad = gradients[i].clone()
            theirs[i].step()
        ours.step(gradients)
    expected = torch.stack([p.detach() for p in parameters])
    torch.testing.assert_close(factors, expected, rtol=1e-12, atol=1e-12)


# dropout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", ["AB", "B"])
def test_dropout_in_a_batch_is_the_same_dropout_in_peft_s_own_layers(model, trains):
    peft, ours = oracle(model), swapped(model)
    data, jobs = clients(peft.layout, "adamw", trains=trains)
    expected = sequential.train(peft, data, jobs, dropout=0.3)
    assert distance(batched.train(ours, data, jobs, tokens_at_once=WHOLE, dropout=0.3), expected, jobs) < 1e-9
    plain = sequential.train(peft, data, jobs)
    assert distance(expected, plain, jobs) > 0.01


def test_a_mask_zeroes_a_share_p_and_lifts_the_rest_and_has_one_address():
    jobs = [Job(c, v, None, LocalConfig(), 0) for c, v in ((3, 0), (4, 0), (3, 1))]
    like = torch.zeros(1, dtype=torch.float64)
    whole = noise.dropout(0.25, jobs, [6, 4, 6], 2, slice(0, 6), like)(1, (3, 6, 50, 20))
    assert set(whole[0].unique().tolist()) == {0.0, 1 / 0.75}
    assert whole[0].mean() == pytest.approx(1, abs=5 * np.sqrt(0.25 / 0.75 / 6000))
    assert not whole[1, 4:].any()  # only fills the shape
    assert not torch.equal(whole[0], whole[2])
    alone = noise.dropout(0.25, jobs[1:2], [4], 2, slice(0, 4), like)(1, (1, 4, 50, 20))
    assert torch.equal(alone[0], whole[1, :4])
    part = noise.dropout(0.25, jobs, [6, 4, 6], 2, slice(3, 6), like)(1, (3, 3, 50, 20))
    assert torch.equal(part, whole[:, 3:])
    flat = noise.dropout(0.25, jobs, [6, 4, 6], 2, slice(3, 6), like)(1, (3, 3 * 50, 20))
    assert torch.equal(flat.view(part.shape), part)
    for step, module in ((3, 1), (2, 0)):
        other = noise.dropout(0.25, jobs, [6, 4, 6], step, slice(0, 6), like)(module, (3, 6, 50, 20))
        assert not torch.equal(other, whole)


# scores -----------------------------------------------------------------------------------------


def test_several_vectors_are_scored_at_once_each_on_its_own_windows(model):
    peft, ours = oracle(model), swapped(model)
    vectors = [random_start(peft.layout, seed) for seed in range(4)]
    data = [token_windows(n, seed=n) for n in (5, 2, 7, 1)]
    counts = [np.random.default_rng(len(d)).integers(0, 13, len(d)) for d in data]
    expected = [sequential.score(peft, v, d, c, 100) for v, d, c in zip(vectors, data, counts, strict=True)]
    for rows in (1, 4, 14, 100):
        assert batched.score(ours, vectors, data, counts, rows) == pytest.approx(expected, rel=1e-12)
    assert batched.score(ours, vectors[:1], [data[0][:0]], [counts[0][:0]], 4) == [0.0]


# which path -------------------------------------------------------------------------------------


def test_the_path_is_the_fused_decoder_where_there_is_one_else_the_swap(model):
    layout = lora.layout(hub.skeleton(model), R4)
    assert paths.resolved(hub.skeleton(model), layout, "auto") == "fused"
    assert paths.resolved(hub.skeleton(model), layout, "swapped") == "swapped"
    assert paths.choose(loaded(model), layout, "sequential") is None
    assert isinstance(paths.choose(loaded(model), layout, "swapped"), Swapped)
    full = lora.layout(hub.skeleton(model), LoraConfig(full=True))
    assert paths.choose(loaded(model), full) is None
    with pytest.raises(ExperimentError, match=r"fix: set numerics\.training: sequential"):
        paths.choose(loaded(model), full, "fused")


def test_a_family_without_a_fused_decoder_is_swapped_and_says_so_if_fused_is_asked_for():
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    config = GPTNeoXConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    neox = AutoModelForCausalLM.from_config(config).double().eval()
    layout = lora.layout(neox, R4)
    assert isinstance(paths.choose(neox, layout), Swapped)
    with pytest.raises(ExperimentError, match="no fused decoder for gpt_neox"):
        paths.resolved(neox, layout, "fused")
    peft = lora.Trainee(neox, layout, R4)
    data, jobs = clients(layout, "momentum", 3)
    ours = Swapped(AutoModelForCausalLM.from_config(config).double().eval(), layout)
    ours.swap.model.load_state_dict(
        {
            n.replace("base_layer.", ""): p
            for n, p in peft.model.base_model.model.state_dict().items()
            if "lora_" not in n
        }
    )
    expected = sequential.train(peft, data, jobs)
    assert distance(batched.train(ours, data, jobs, tokens_at_once=WHOLE), expected, jobs) < 1e-9
