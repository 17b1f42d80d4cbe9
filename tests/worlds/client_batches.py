"""Clients with unequal data and settings, stock PEFT and the module swap to train them, and how far apart two batches end."""

from __future__ import annotations

import itertools
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.jobs import Job
from fedsim.training import hub, local, lora, sequential
from fedsim.training.stacked import batched
from fedsim.training.stacked.swapped import Swapped

ALPHA = 8.0


R4 = LoraConfig(r=4, alpha=ALPHA)


WHOLE = 10**9


HOW = {
    "sgd": {"optimizer": "sgd", "lr": 0.5},
    "momentum": {"optimizer": "sgd", "lr": 0.2, "momentum": 0.9},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "sgd-all": {"optimizer": "sgd", "lr": 0.3, "momentum": 0.5, "weight_decay": 0.1, "prox_mu": 0.2, "clip_norm": 0.2},
    "adamw-all": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3, "prox_mu": 0.2, "clip_norm": 0.2},
}  # fmt: skip


CURVES = [how if how in ("sgd", "adamw-all") else pytest.param(how, marks=pytest.mark.slow) for how in HOW]
"""How clients train whose whole loss curves are compared: the plainest and the fullest way by default."""


@cache
def stored(name):
    return hub.weights(name)


def loaded(name, dtype=torch.float64):
    """A model of one's own, read from its folder once a session."""
    return deepcopy(stored(name)).to(dtype)


def oracle(name, lora_config=R4, dtype=torch.float64):
    return lora.Trainee(loaded(name, dtype), lora.layout(hub.skeleton(name), lora_config), lora_config)


def swapped(name, lora_config=R4, dtype=torch.float64):
    return Swapped(loaded(name, dtype), lora.layout(hub.skeleton(name), lora_config))


def random_start(layout, seed=0, b=0.05):
    """LoRA's A, and a B that is not 0, so that every factor has a gradient from the first step."""
    start = lora.initial(layout, seed)
    noise = np.random.default_rng(seed).normal(0, b, layout.size).astype(np.float32)
    return np.where(local.slots(layout, None, "B"), noise, start)


def token_windows(n, sequence=12, seed=0):
    return np.random.default_rng([n, seed]).integers(0, 320, (n, sequence + 1)).astype(np.uint16)


SIZES = (3, 9, 6, 4, 7, 5, 8)


def clients(layout, how, count=7, **changes):
    """Clients with unequal data, epochs, batch sizes and last batches, and their own starts and rates."""
    jobs, data = [], []
    for i in range(count):
        own = LocalConfig(
            **HOW[how] | {"lr": HOW[how]["lr"] * (1 + i % 3 / 4)}, epochs=1 + i % 2, batch=2 + i % 3
        )
        jobs.append(Job(i, i % 4, random_start(layout, i), own, 0, **changes))
        data.append(token_windows(SIZES[i % 7], seed=i))
    return data, jobs


def ends(updates):
    return np.stack([u.end for u in updates])


def largest_move(updates, jobs):
    return max(np.abs(u.end - j.start).max() for u, j in zip(updates, jobs, strict=True))


def distance(updates, others, jobs):
    """Largest difference, in units of the largest move."""
    return np.abs(ends(updates) - ends(others)).max() / largest_move(others, jobs)


def assert_loss_curves_agree(peft, ours, data, how):
    """Visits of one to five steps, so that every point of the curve is somebody's last."""
    start = lora.initial(ours.layout, 0)
    for made in range(1, 6):
        own = LocalConfig(**HOW[how], steps=made, batch=3)
        jobs = [Job(i, 0, start, own, 0) for i in range(len(data))]
        expected = [u.loss for u in sequential.train(peft, data, jobs)]
        found = [u.loss for u in batched.train(ours, data, jobs, tokens_at_once=WHOLE)]
        assert found == pytest.approx(expected, abs=1e-3)


@cache
def rows_do_not_depend_on_their_neighbours():
    """Whether this machine's product, in the models' shapes, gives a row the same bits whatever their number.

    A weight lies as (in, out) in GPT-2's Conv1D and as (out, in) in a Linear.
    """
    generator = torch.Generator().manual_seed(0)
    conv = [torch.randn(shape, generator=generator) for shape in ((32, 96), (32, 128), (128, 32))]
    shapes = ((16, 32), (48, 32), (32, 48), (320, 32))
    linear = [torch.randn(shape, generator=generator) for shape in shapes]
    with local.one_thread():
        for weight in [way for w in conv + linear for way in (w, w.t())]:
            x = torch.randn(32 * 48, len(weight), generator=generator)
            for size, count in itertools.product((12, 24, 36, 48), (2, 7, 32)):
                rows = x[: count * size]
                if not torch.equal(rows @ weight, torch.cat([part @ weight for part in rows.split(size)])):
                    return False
    return True


def agree(found, expected, jobs):
    """To the bit where a matrix product gives a row the same bits whatever the number of rows; else rounded."""
    if rows_do_not_depend_on_their_neighbours():
        assert ends(found).tobytes() == ends(expected).tobytes()
        assert [u.loss for u in found] == [u.loss for u in expected]
    assert distance(found, expected, jobs) < 1e-5
    assert [u.loss for u in found] == pytest.approx([u.loss for u in expected], rel=1e-6)
