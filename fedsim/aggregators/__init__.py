"""Aggregation rules: pure functions of (state, model, contributions).

A rule is a frozen component with `init` and `apply`; what a client gets and sends is asked of it
too. Sums run in a fixed order (client, then visit) with float64 accumulators.

Contributions come one at a time, as workers finish them, so that a round of 10,000 fits in memory:
a rule with `one_pass = True` gets an iterator and keeps none of them. Others get a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedsim.adapter import Adapter, Vector


@dataclass(frozen=True)
class Contribution:
    """One landed update, as a rule sees it.

    Attributes:
        client, visit: whose, and which visit; contributions come sorted by these, at least one.
        start, end: the snapshot this client trained from and where it ended (float32 vectors).
        weight: number of training examples.
        staleness: versions committed between dispatch and this commit.
        version: the version it was dispatched from.
        rank, scale, phase, base_version: for rules with unequal ranks, phases or a moving base.
    """

    client: int
    visit: int
    start: Vector
    end: Vector
    weight: float
    staleness: int
    version: int
    rank: int
    scale: float
    phase: str = ""
    base_version: int = 0


@dataclass(frozen=True)
class ServerModel:
    """The server's model: the adapter, and what rules that move the base or keep parts at home need.

    Attributes:
        adapter: the shared adapter.
        base_residual: low-rank or dense change of the frozen base by module name, or None.
        base_version: how often the base moved.
        personal: client -> vector, what a rule keeps for each client.
    """

    adapter: Adapter
    base_residual: Any = None
    base_version: int = 0
    personal: Mapping[int, Vector] = field(default_factory=dict)


class Aggregator(Protocol):
    """What the server asks of a rule."""

    def init(self, model: ServerModel) -> Any:
        """Return the rule's first state."""
        ...

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return the next model and state; pure."""
        ...

    def download(self, model: ServerModel, client: int, last_seen: int | None) -> tuple[Vector, int]:
        """Return what this client starts from and how many floats it must download for it."""
        ...

    def upload(self, model: ServerModel, client: int) -> int:
        """Return how many floats this client sends back."""
        ...
