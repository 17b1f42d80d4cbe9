"""What clients hold out is the end of their text in whole runs, with one seam at most; and scores see one sample."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.jobs import TaskContext
from fedsim.tasks._language.blocks import Cut, in_runs
from fedsim.tasks.language import Language

LABELS = "abc"
PER_LABEL = 400


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A table sorted by label whose rows say their own number, with two owners a label."""
    path = tmp_path_factory.mktemp("numbered") / "rows.jsonl"
    count = PER_LABEL * len(LABELS)
    rows = (
        {"text": f"n{k:05d}x the ship", "label": LABELS[k // PER_LABEL], "who": f"{k // (PER_LABEL // 2)}"}
        for k in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def language(llama, data, clients=4, seed=0, **fields):
    context = TaskContext(clients, seed, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4))
    return Language(model=llama, data=str(data), **({"sequence": 16} | fields)).build(context)


def rows_in(task, tokenizer, numbers):
    """The numbers of the rows that stand whole in some windows."""
    return {
        int(n)
        for w in task.windows.tokens[numbers]
        for n in re.findall(r"n(\d{5})x", tokenizer.decode(w[1:]))
    }


def seams(training, held_out):
    """How many consecutive rows are trained on and held out, one each."""
    return sum((n + 1 in held_out) for n in training - held_out) + sum(
        (n + 1 in training) for n in held_out - training
    )


PARTITIONS = [
    {"kind": "iid"},
    {"kind": "contiguous"},
    {"kind": "natural"},
    {"kind": "quantity"},
    {"kind": "dirichlet", "alpha": 0.3, "over": "label"},
    {"kind": "pathological", "classes": 2, "over": "label"},
]


@pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: p["kind"])
@pytest.mark.parametrize("clients", [3, 8])
def test_no_held_out_text_is_beside_training_text_of_the_client_except_at_one_seam(
    llama, tokenizer, numbered, partition, clients
):
    columns = {"client_column": "who", "label_column": "label"}
    task = language(llama, numbered, clients, partition=partition, **columns)
    for client in range(task.clients):
        training, held_out = task.splits.training[client], task.splits.held_out[client]
        beside = np.isin(held_out + 1, training) | np.isin(held_out - 1, training)
        assert beside.sum() == 1
        assert len(held_out) == max(1, round(0.1 * (len(training) + len(held_out))))
        texts = [rows_in(task, tokenizer, numbers) for numbers in (training, held_out)]
        assert len(texts[0] & texts[1]) == 0
        assert seams(*texts) <= 1


def test_windows_drawn_from_anywhere_are_beside_training_windows_and_can_be_had(llama, tokenizer, numbered):
    task = language(llama, numbered, holdout_from="windows")
    for training, held_out in zip(task.splits.training, task.splits.held_out, strict=True):
        beside = np.isin(held_out + 1, training) | np.isin(held_out - 1, training)
        assert beside.mean() > 0.8


def test_what_all_clients_hold_out_together_is_of_every_label_also_where_the_text_is_sorted(
    llama, tokenizer, numbered
):
    task = language(llama, numbered, 8, label_column="label")
    held_out = rows_in(task, tokenizer, np.concatenate(list(task.splits.held_out)))
    shares = np.bincount([n // PER_LABEL for n in held_out], minlength=3) / len(held_out)
    assert shares.min() > 0.15
    test = {int(n) for w in task.test.tokens for n in re.findall(r"n(\d{5})x", tokenizer.decode(w[1:]))}
    assert {n // PER_LABEL for n in test} == {0, 1, 2}
    assert all(n % PER_LABEL >= 0.9 * PER_LABEL for n in test)  # the end of each label's rows


def test_runs_are_consecutive_blocks_of_one_run_of_text_in_an_order_of_their_own():
    edges = np.arange(0, 110, 10)
    runs_of = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    cut = Cut(edges[:-1], edges[1:], np.zeros(10, np.int64), runs_of, None, [], np.arange(10))
    blocks = np.array([0, 1, 3, 4, 5, 6, 9])
    orders = {tuple(in_runs(cut, blocks, np.random.default_rng(seed)).tolist()) for seed in range(200)}
    runs = [(0, 1), (3, 4), (5, 6), (9,)]
    from itertools import permutations

    assert orders == {sum(order, ()) for order in permutations(runs)}


def test_every_seed_scores_the_same_test_windows(llama, numbered):
    tasks = [language(llama, numbered, seed=seed) for seed in range(3)]
    samples = [task.test.tokens[task.rows("test", None)[:5]].tolist() for task in tasks]
    assert samples[0] == samples[1] == samples[2]
    own = [task.windows.tokens[task.splits.held_out[0]].tolist() for task in tasks]
    assert own[0] != own[1] != own[2]
