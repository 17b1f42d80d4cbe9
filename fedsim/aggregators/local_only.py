"""Local only: nobody shares anything; the baseline of every federation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from fedsim.adapter import Vector
from fedsim.aggregators import Contribution, ServerModel
from fedsim.component import Component


class LocalOnly(Component):
    """Each client goes on from its own last adapter; nothing is downloaded or uploaded.

    The shared adapter stays at version 0. Use it with `buffered` and `buffer: 1`, so that a
    client's own result is there before its next visit. Scores are means over the clients' own
    adapters.
    """

    one_pass: ClassVar[bool] = True
    kind: Literal["local-only"] = "local-only"

    def init(self, model: ServerModel) -> None:
        """Return the state: none."""

    def apply(
        self, state: Any, model: ServerModel, contributions: Iterable[Contribution]
    ) -> tuple[ServerModel, Any]:
        """Return a model that remembers each contributor's own end."""
        personal = {**model.personal, **{c.client: c.end for c in contributions}}
        return ServerModel(model.adapter, model.base_residual, model.base_version, personal), state

    def download(self, model: ServerModel, client: int, last_seen: int | None) -> tuple[Vector, int]:
        """Return the client's own adapter; nothing is sent."""
        return model.personal.get(client, model.adapter.vector), 0

    def upload(self, model: ServerModel, client: int) -> int:
        """Return 0."""
        return 0
