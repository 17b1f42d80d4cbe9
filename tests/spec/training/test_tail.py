"""HetLoRA's regulariser against autograd and by hand."""

import pytest
import torch
from worlds.factors import LAYERS, slot_mask

from fedsim.adapters.adapter import Layout, Module
from fedsim.training.slot_penalty import gradient


def objective(vector, first):
    """sum over modules of |B[:, t:]| |A[t:]|, through torch."""
    total = 0.0
    for m in LAYERS.modules:
        (a, shape_a), (b, shape_b) = (LAYERS.slices[f"{m.name}.lora_{f}"] for f in "AB")
        total = total + vector[a].view(shape_a)[first:].norm() * vector[b].view(shape_b)[:, first:].norm()
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_gradient_of_the_product_of_norms_for_every_client_by_itself(dtype):
    factors = torch.randn(3, LAYERS.size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    strength, first = torch.tensor([[0.5], [2.0], [0.0]], dtype=dtype), [2, 1, 3]
    found = gradient(LAYERS, factors, strength, first)

    for k in range(3):
        leaf = factors[k].clone().requires_grad_()
        (strength[k, 0] * objective(leaf, first[k])).backward()
        torch.testing.assert_close(found[k], leaf.grad)
    assert not found[0][torch.from_numpy(slot_mask(0, 2))].any()
    assert found.dtype == dtype


def test_the_penalty_is_the_product_of_the_norms_of_the_last_slots_by_hand():
    """Slot 1 holds A = (3, 4) and B = 2: a = 5, b = 2; the gradient is (b / a) A and (a / b) B."""
    layout = Layout(modules=(Module("w", 2, (2, 2), (1, 2), 1.0),))
    factors = torch.tensor([[9.0, 9.0, 3.0, 4.0, 9.0, 2.0]])

    found = gradient(layout, factors, torch.tensor([[10.0]]), [1])

    assert found.tolist() == [[0, 0, pytest.approx(12), pytest.approx(16), 0, pytest.approx(50)]]


def test_where_lora_begins_nothing_is_pulled_and_nothing_is_nan():
    factors = torch.ones(1, LAYERS.size) * torch.from_numpy(slot_mask(0, which="A"))

    assert torch.equal(gradient(LAYERS, factors, torch.ones(1, 1), [0]), torch.zeros_like(factors))
