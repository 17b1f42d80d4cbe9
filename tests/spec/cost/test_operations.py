"""Counted operations: linear in the rank, recomputed once with checkpointing, activations in their own bytes."""

from __future__ import annotations

import pytest

from fedsim.cost.operations import Operations

SLOT = Operations(forward=10, backward=20, kept_bytes=4, boundary_bytes=2, block_bytes=1)
COUNTED = Operations(1000, 2000, 400, 100, 60, rank=8, slot=SLOT)


def test_checkpointing_pays_the_forward_pass_twice_and_keeps_inputs_and_one_block():
    assert (COUNTED.flops(checkpoint=False), COUNTED.flops(checkpoint=True)) == (3000, 4000)
    assert COUNTED.activation_bytes(checkpoint=False, number_bytes=4) == 400
    assert COUNTED.activation_bytes(checkpoint=True, number_bytes=4) == 160


def test_half_the_bytes_of_a_number_are_half_the_bytes_of_the_activations():
    assert COUNTED.activation_bytes(checkpoint=False, number_bytes=2) == 200


@pytest.mark.parametrize("rank", [1, 8, 13])
def test_counts_move_by_a_slot_for_each_rank(rank):
    moved = COUNTED.at_rank(rank)
    assert moved.rank == rank
    assert moved.forward == 1000 + 10 * (rank - 8)
    assert moved.backward == 2000 + 20 * (rank - 8)
    assert (moved.kept_bytes, moved.boundary_bytes, moved.block_bytes) == (
        400 + 4 * (rank - 8),
        100 + 2 * (rank - 8),
        60 + rank - 8,
    )
    assert moved.at_rank(8) == COUNTED


def test_without_a_known_slot_no_other_rank_is_known():
    with pytest.raises(ValueError, match="no known rank"):
        SLOT.at_rank(4)
