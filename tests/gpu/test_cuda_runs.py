"""Runs on a GPU: the schedule of the run on processors to the bit, its losses within what other sums can change."""

import numpy as np
import pytest
import torch

import fedsim
from fedsim.training import gpu_room

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use (CUDA)"),
]
TEXT = {"kind": "language", "model": "builtin", "data": "builtin", "sequence": 32}
VALUES = ["loss", "loss_square"]


def run_on(monkeypatch, device, training):
    """Two rounds of the shipped language model on a device."""
    monkeypatch.setenv("FEDSIM_DEVICE", device)
    experiment = {
        "population": {"preset": "mixed_edge_2025", "clients": 8},
        "task": TEXT,
        "local": {"optimizer": "adamw", "lr": 2.0e-3, "steps": 3, "batch": 4},
        "lora": {"r": 4, "alpha": 8},
        "numerics": {"training": training, "client_batch": 4},
        "protocol": {"kind": "synchronous", "cohort": 4},
        "evaluate": {"every_commits": 1, "windows": 20},
        "budget": {"commits": 2},
        "runtime": {"executor": "inline"},
    }
    return fedsim.simulate(fedsim.Experiment.model_validate(experiment))


@pytest.mark.parametrize("training", ["sequential", "swapped", "fused"])
def test_a_run_on_a_gpu_has_the_schedule_and_nearly_the_losses_of_one_on_processors(monkeypatch, training):
    cpu, cuda = (run_on(monkeypatch, device, training) for device in ("cpu", "cuda"))

    assert cuda.visits.drop(columns=VALUES).equals(cpu.visits.drop(columns=VALUES))
    np.testing.assert_allclose(cuda.visits.loss, cpu.visits.loss, rtol=1e-3)
    np.testing.assert_allclose(cuda.scores.value, cpu.scores.value, rtol=1e-3)


def test_the_free_memory_of_a_gpu_is_shared_by_its_workers(monkeypatch):
    monkeypatch.setenv("FEDSIM_DEVICE", "cuda")

    assert gpu_room.on_gpu(0.0)
    assert 0 < gpu_room.free_bytes(0.25) < gpu_room.free_bytes(1.0)
