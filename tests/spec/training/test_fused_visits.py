"""Whole visits through the written-out decoders: against stock PEFT, alone and in company, and replayed."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles.fused_oracle import VOCAB, Case, agree_in_company, perturbed
from worlds.client_batches import (
    CURVES,
    WHOLE,
    assert_loss_curves_agree,
    clients,
    distance,
    largest_move,
    token_windows,
)
from worlds.decoders import small_gpt2, small_llama, widen_norms
from worlds.whole_runs import finished

from fedsim.cli.printing import replayed
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.jobs import Job, Update
from fedsim.runs.replay import Replay, replay
from fedsim.training import local, lora, sequential
from fedsim.training.fused import fused
from fedsim.training.stacked import batched

R16 = LoraConfig(r=16, alpha=8.0, targets="all-linear")
MODELS = {"gpt2": lambda: small_gpt2(n_layer=2), "llama": lambda: small_llama(num_hidden_layers=2)}
SEVERAL = 40
"""Tokens of a pass: most steps are split."""


@pytest.fixture(params=MODELS)
def both(request, monkeypatch):
    """What makes stock PEFT and the decoder of one model in a dtype."""

    def build(dtype):
        if dtype == torch.float64:
            widen_norms(monkeypatch)
        model = perturbed(MODELS[request.param](), dtype)
        layout = lora.layout(model, R16)
        return lora.Trainee(copy.deepcopy(model), layout, R16), fused(model, layout)

    return build


def mixed(layout, how, count):
    """Clients with their own data, steps, batches, rates and starts, of ranks 2 to 16."""
    data, jobs = clients(layout, how, count)
    return [w % VOCAB for w in data], [replace(job, rank=2 + 7 * job.client % 15) for job in jobs]


# equal to stock PEFT ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "counts"),
    [(how, (1, 2, 7, 32)) for how in ("sgd", "momentum", "adamw")] + [("sgd-all", (7,)), ("adamw-all", (7,))],
)
def test_in_float64_a_batch_of_visits_is_stock_peft_one_by_one_to_1e_9_of_the_largest_move(both, how, counts):
    peft, ours = both(torch.float64)
    data, jobs = mixed(ours.layout, how, counts[-1])
    expected = sequential.train(peft, data, jobs)
    for n in counts:
        found = batched.train(ours, data[:n], jobs[:n], tokens_at_once=SEVERAL)

        assert largest_move(expected[:n], jobs[:n]) > 0.01
        assert distance(found, expected[:n], jobs[:n]) < 1e-9
        for one, other in zip(found, expected[:n], strict=True):
            assert (one.steps, one.tokens, one.examples) == (other.steps, other.tokens, other.examples)
            assert one.loss == pytest.approx(other.loss, rel=1e-9)


@pytest.mark.parametrize("trains", ["AB", "B"])
def test_so_it_is_with_dropout(both, trains):
    peft, ours = both(torch.float64)
    data, jobs = mixed(ours.layout, "adamw", 4)
    jobs = [replace(job, trains=trains) for job in jobs]
    expected = sequential.train(peft, data, jobs, dropout=0.2)

    assert (
        distance(batched.train(ours, data, jobs, tokens_at_once=SEVERAL, dropout=0.2), expected, jobs) < 1e-9
    )
    assert distance(expected, sequential.train(peft, data, jobs), jobs) > 0.01


def test_in_float32_sgd_is_stock_peft_to_1e_5_of_the_largest_move(both):
    peft, ours = both(torch.float32)
    data, jobs = mixed(ours.layout, "sgd", 7)
    found = batched.train(ours, data, jobs, tokens_at_once=SEVERAL)

    assert all(u.end.dtype == np.float32 for u in found)
    assert distance(found, sequential.train(peft, data, jobs), jobs) < 1e-5


@pytest.mark.parametrize("how", CURVES)
def test_in_float32_every_loss_curve_is_stock_peft_s_to_1e_3(both, how):
    peft, ours = both(torch.float32)
    assert_loss_curves_agree(peft, ours, [token_windows(6, seed=i) % VOCAB for i in range(2)], how)


# company ----------------------------------------------------------------------------------------


WIDE = {
    "gpt2": lambda width: small_gpt2(n_embd=width, n_layer=2, n_head=4),
    "llama": lambda width: small_llama(hidden_size=width, num_hidden_layers=2, intermediate_size=4 * width),
}


@pytest.mark.parametrize("length", [32, 13])
@pytest.mark.parametrize("width", [128, 256])
@pytest.mark.parametrize("name", WIDE)
def test_company_changes_no_bit_if_the_matrix_product_treats_rows_alike_and_else_rounds(name, width, length):
    model = perturbed(WIDE[name](width), torch.float32)
    with local.one_thread():
        agree_in_company(Case(model, LoraConfig(r=8, alpha=16.0), k=8, rows=1, length=length))


def test_sgd_leaves_what_company_changes_at_1e_5_of_the_largest_move():
    model = perturbed(WIDE["gpt2"](256), torch.float32)
    layout = lora.layout(model, R16)
    ours, start = fused(model, layout), lora.initial(layout, 0)
    data = [token_windows(4, sequence=32, seed=i) % VOCAB for i in range(8)]
    jobs = [Job(i, 0, start, LocalConfig(optimizer="sgd", lr=0.1, steps=4, batch=1), 0) for i in range(8)]
    together = batched.train(ours, data, jobs, tokens_at_once=WHOLE)
    alone = [batched.train(ours, [d], [j], tokens_at_once=WHOLE)[0] for d, j in zip(data, jobs, strict=True)]

    assert distance(together, alone, jobs) < 1e-5


# replay -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("wide")
    small_gpt2(n_embd=256, n_layer=2, n_head=4, vocab_size=320).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_visit_of_a_wide_model_trained_in_a_batch_is_replayed_alone_to_rounding(
    wide_folder, text_folder, tmp_path
):
    asked = Experiment.model_validate(
        {
            "task": {"kind": "language", "model": wide_folder, "data": str(text_folder), "sequence": 32},
            "lora": {"r": 4, "alpha": 8.0},
            "population": {"preset": "homogeneous", "clients": 8},
            "protocol": {"kind": "synchronous", "cohort": 8},
            "local": {"optimizer": "adamw", "lr": 1e-3, "steps": 2, "batch": 1},
            "budget": {"commits": 2},
            "evaluate": {"every_commits": 2, "windows": 2},
            "numerics": {"client_batch": 8},
            "runtime": {"executor": "inline"},
        }
    )
    run, _ = finished(asked, folder=tmp_path / "run")
    for row in run.visits[run.visits.version == 1].head(3).itertuples():
        again = replay(tmp_path / "run", row.client, row.visit)

        assert again.update.loss == pytest.approx(row.loss, rel=1e-6)
        assert again.agreement.startswith("the same to ")


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (4.0, "the same to the bit"),
        (4.0000001, "the same to rounding"),
        (4.01, "apart by more than 0.1%"),
        (float("nan"), "nothing to compare with"),
    ],
)
def test_a_replay_says_how_its_loss_compares_with_the_recorded_one(recorded, says):
    vector = np.zeros(1, np.float32)
    update = Update(vector, examples=1, tokens=1, steps=1, loss=4.0)

    assert f"training loss 4.0, recorded {recorded!r}: {says}" in replayed(
        Replay(vector, update, recorded, ({}, {}))
    )
