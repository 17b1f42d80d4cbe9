"""How long the server is busy with a commit; sizes alone decide, so that a timeline is the same without training.

bytes: every message is read; one that is coded is also written and read again as float32; the model is read and written
operations: 2 for every number that an update sends, and what the rule says (`Aggregator.commit_flops`)
"""

from __future__ import annotations

from collections.abc import Sequence

from fedsim.adapters.moved_base import dense_shape
from fedsim.adapters.payload import Payload
from fedsim.aggregators._returned import checked_flops
from fedsim.clock.plan import Plan
from fedsim.config.experiment import ServerCompute
from fedsim.errors import ExperimentError, message
from fedsim.network.messages import format_of

FLOAT_BYTES = 4


class CommitTime:
    """The server's time of commits of one experiment."""

    def __init__(self, plan: Plan) -> None:
        """Take the sizes.

        Raises:
            ExperimentError: the rule's work depends on layers of the charged model that are not known.
        """
        compute = plan.experiment.server.compute
        self._compute = compute if isinstance(compute, ServerCompute) else None
        self._plan, self._rule = plan, plan.parts.aggregator
        self._rank = plan.task.layout.rank
        self._shapes, self._charged_rank = _matrices(plan)
        if self._compute is not None and not self._shapes and self._flops([(8, 8)], 1, [1, 1]):
            what = f"the layers of {plan.shape.name} are not known, on which the work of {self._rule.kind} depends"
            fix = "set server.compute: none, or charge_as without params and matmul_params"
            raise ExperimentError(message("server.compute", what, fix=fix))

    def seconds(
        self,
        up_bytes: Sequence[int],
        ranks: Sequence[int],
        depths: Sequence[int | None] = (),
        sent: Sequence[Payload] = (),
    ) -> float:
        """Return how long a commit takes [s]; 0 where it is not charged.

        Args:
            up_bytes: of each update's message.
            ranks: slots of each factor in each update; 0 for whole models.
            depths: layers in each update, counted from the output; None, or nothing: all.
            sent: what each update sends; nothing: all slots of all factors.
        """
        if self._compute is None:
            return 0.0
        whole = self._plan.sizing.adapter_bytes
        parts = [self._part(depth) for depth in depths or [None] * len(ranks)]
        layout = self._plan.task.layout
        payloads = sent or [Payload(rank=rank or None) for rank in ranks]
        sizes = [whole * payload.floats(layout) / layout.size for payload in payloads]
        moved = float(sum(up_bytes)) + 2.0 * whole
        if not format_of(self._plan.experiment.wire, "up").plain:
            moved += 2.0 * sum(sizes)
        flops = 2.0 * sum(sizes) / FLOAT_BYTES + self._of_rule([self._charged(rank) for rank in ranks], parts)
        return flops / self._compute.flops_per_s + moved / self._compute.memory_bytes_per_s

    def _part(self, depth: int | None) -> float:
        """Return the share of an adapter that an update of this depth has."""
        layout = self._plan.task.layout
        return 1.0 if not layout.below(depth) or depth is None else layout.last(depth).size / layout.size

    def _of_rule(self, ranks: Sequence[int], parts: Sequence[float]) -> float:
        """Return what the rule says of its own work: of each matrix with the updates that have it."""
        if all(part == 1.0 for part in parts):
            return self._flops(self._shapes, self._charged_rank, ranks)
        total, count = 0.0, len(self._shapes)
        for at, shape in enumerate(self._shapes):
            above = (
                at + 0.5
            ) / count  # its place from the input; an update has the matrices from 1 - part up
            owners = [rank for rank, part in zip(ranks, parts, strict=True) if above > 1.0 - part]
            total += self._flops([shape], self._charged_rank, owners) if owners else 0.0
        return total

    def _flops(self, shapes: Sequence[tuple[int, int]], rank: int, ranks: Sequence[int]) -> float:
        """Return what the rule says of its own work."""
        return checked_flops(self._rule, self._rule.commit_flops(shapes, rank, ranks))

    def _charged(self, rank: int) -> int:
        """Return the rank in the charged model that stands for one of the model that trains."""
        return max(1, round(self._charged_rank * rank / self._rank)) if rank else 0


def _matrices(plan: Plan) -> tuple[list[tuple[int, int]], int]:
    """Return (outputs, inputs) of every matrix with an adapter, as charged, and its rank; none where they are not known."""
    if not plan.sizing.charged:
        layout = plan.task.layout
        return [dense_shape(module) for module in layout.modules], layout.rank
    maps = [m for block in plan.shape.blocks for m in block.maps if m.rank]
    return [(m.outputs, m.inputs) for m in maps], plan.shape.rank
