"""What a poll computes on a device of launches: forward passes over the training data, once."""

from __future__ import annotations

import pytest
from worlds import experiment

from fedsim.adapters.payload import Payload
from fedsim.aggregators._base import Offer
from fedsim.clock.plan import prepare
from fedsim.server.polling import poll_work

POLLS = {"kind": "synchronous", "cohort": 2}
LOCAL = {"optimizer": "sgd", "lr": 0.1, "epochs": 10, "batch": 1}


def works(**charge):
    """The work of a poll, that of the training, and the charged model: ten epochs over two passes of 256 tokens."""
    asked = experiment(
        POLLS,
        4,
        local=LOCAL,
        task={
            "kind": "quadratic",
            "examples": 2,
            "charge_as": {
                "preset": "gemma-3-270m",
                "r": 8,
                "sequence": 256,
                "tokens_per_visit": 5120,
                "batch": 1,
                **charge,
            },
        },
    )
    made = prepare(asked)
    shape = made.training_plan(0).memory.shape
    poll = poll_work(made, 0, 8, Offer(made.task.initial(), Payload(), Payload()))
    return poll, made.work(0), shape


def test_a_poll_goes_through_the_layers_once_a_pass_however_long_its_training_would_be():
    poll, whole, shape = works()

    assert (poll.tokens, poll.steps) == (2 * 256, 2)
    assert poll.layer_passes == 2 * shape.layers
    assert whole.layer_passes == whole.steps * 2 * shape.layers  # forward and backward
    assert poll.expanded_bytes == 0


def test_a_poll_unpacks_quantised_weights_once_a_pass():
    """Four bits are read and two bytes written, forward only."""
    poll, whole, shape = works(weight_bytes=0.5)

    assert poll.expanded_bytes == pytest.approx(2 * shape.matmul_params * (0.5 + 2))
    assert whole.expanded_bytes == pytest.approx(
        whole.steps * shape.matmul_params * (0.5 + 2) * (1 + shape.phi)
    )
