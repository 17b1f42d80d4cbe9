"""Learning rates that change within a visit and from version to version, against torch's own schedulers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import plan
from worlds.client_batches import WHOLE, clients, distance, ends, largest_move, oracle, swapped

from fedsim.config.learning import LocalConfig
from fedsim.executors.inline import Inline
from fedsim.runs.simulation import simulate
from fedsim.tasks._descent import descend
from fedsim.training import sequential
from fedsim.training.stacked import batched

SCHEDULES = {
    "linear": lambda o, n: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 - t / n),
    "cosine": lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_shares_are_those_of_torch_s_schedulers(schedule, steps):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    theirs, ours = SCHEDULES[schedule](optimiser, steps), LocalConfig(lr=0.3, schedule=schedule)

    for step in range(steps):
        assert 0.3 * ours.lr_share(step, steps) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        optimiser.step()
        theirs.step()


def test_a_constant_rate_is_the_whole_one_at_every_step():
    assert [LocalConfig().lr_share(step, 5) for step in range(5)] == [1.0] * 5


@pytest.mark.parametrize("how", ["sgd-all", "adamw-all"])
def test_a_batch_of_clients_with_schedules_of_their_own_is_stock_peft_one_by_one(gpt2, how):
    peft = oracle(gpt2)
    data, jobs = clients(peft.layout, how)
    kinds = ("linear", "cosine", "constant")
    jobs = [
        replace(job, local=job.local.model_copy(update={"schedule": kinds[i % 3]}))
        for i, job in enumerate(jobs)
    ]

    expected = sequential.train(peft, data, jobs)
    found = batched.train(swapped(gpt2), data, jobs, tokens_at_once=WHOLE)

    assert largest_move(expected, jobs) > 0.01
    assert distance(found, expected, jobs) < 1e-9
    plain = [replace(job, local=job.local.model_copy(update={"schedule": "constant"})) for job in jobs]
    assert np.abs(ends(sequential.train(peft, data[:1], plain[:1])) - ends(expected[:1])).max() > 1e-4


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_quadratic_s_closed_form_is_gradient_descent_step_by_step(schedule):
    local = LocalConfig(optimizer="sgd", lr=0.2, prox_mu=0.3, weight_decay=0.1, schedule=schedule)
    start, optimum = np.array([1.0, -2.0]), np.array([3.0, 0.5])
    x, losses = start.copy(), []
    for step in range(5):
        losses.append(0.5 * np.sum((x - optimum) ** 2))
        gradient = (x - optimum) + 0.3 * (x - start) + 0.1 * x
        x = x - 0.2 * local.lr_share(step, 5) * gradient

    end, loss, square = descend(start, optimum, local, 5)

    np.testing.assert_allclose(end, x, rtol=1e-12)
    assert loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert square == pytest.approx(np.mean(np.square(losses)), rel=1e-12)


def test_a_visit_from_version_v_has_the_rate_times_the_decay_to_the_v():
    rates = {}

    class Noting(Inline):
        def train(self, batch):
            rates.update({job.visit: job.local.lr for job in batch})
            return super().train(batch)

    decayed = {"optimizer": "sgd", "lr": 0.4, "steps": 1, "lr_decay": 0.5}
    simulate(plan({"kind": "synchronous", "cohort": 2}, [1.0, 1.0], local=decayed), executor=Noting())

    assert rates == {visit: 0.4 * 0.5**visit for visit in range(5)}
    kept = LocalConfig(lr=0.4)
    assert kept.at_version(7) is kept
