"""What one example costs, where it was counted on the model itself: convolutions and attention at their resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Operations:
    """Matrix products and kept activations of one example (an image), adapters included.

    Attributes:
        forward: floating-point operations of the forward pass.
        backward: of the backward pass: gradients of activations only where one has a gradient, gradients of
            weights only where they train.
        kept_bytes: activations that the backward pass needs, at `number_bytes` a number.
        boundary_bytes: of these, what remains with checkpointing: the inputs of the blocks.
        block_bytes: the most that one block keeps while it is computed again.
        number_bytes: bytes of one activation.
        rank: of the adapters; 0 where there are none.
        slot: what each slot of rank has in these counts, which are linear in the rank.
    """

    forward: int
    backward: int
    kept_bytes: int
    boundary_bytes: int
    block_bytes: int
    number_bytes: int = 4
    rank: int = 0
    slot: Operations | None = None

    def at_rank(self, rank: int) -> Operations:
        """Return what an example costs with adapters of another rank.

        Raises:
            ValueError: it is not known what a slot costs.
        """
        if self.slot is None:
            raise ValueError("the adapters have no known rank")
        fewer = self.rank - rank
        names = ("forward", "backward", "kept_bytes", "boundary_bytes", "block_bytes")
        counts = {name: getattr(self, name) - fewer * getattr(self.slot, name) for name in names}
        return replace(self, rank=rank, **counts)

    def flops(self, *, checkpoint: bool) -> int:
        """Return the operations of training on one example; checkpointing computes the forward pass twice."""
        return self.forward * (1 + int(checkpoint)) + self.backward

    def activation_bytes(self, *, checkpoint: bool, number_bytes: float) -> float:
        """Return what one example keeps until its backward pass."""
        kept_bytes = self.boundary_bytes + self.block_bytes if checkpoint else self.kept_bytes
        return kept_bytes * number_bytes / self.number_bytes
