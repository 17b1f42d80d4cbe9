"""Synchronous rounds with over-selection and a deadline (Bonawitz et al., MLSys 2019, section 2)."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from fedsim.component import Component
from fedsim.errors import invalid

if TYPE_CHECKING:
    from fedsim.server.server import Server


class Synchronous(Component):
    """Ask a cohort, wait for it, commit, repeat.

    A round asks ceil(cohort * over_select) clients and ends when `cohort` of them have landed,
    when all of them have ended, or at the deadline, whichever is first. An update that lands at
    the deadline counts. Fewer than `min_reports` landed: the round is dropped, its updates are
    `rejected`. Devices still at work when the round ends are told to stop, or go on to their end
    and are busy until then (`late: stop | finish`); both are charged.
    """

    stale: ClassVar[bool] = False
    kind: Literal["synchronous"] = "synchronous"
    cohort: Annotated[int, Field(ge=1)] = 10
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    over_select: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    min_reports: Annotated[int, Field(ge=1)] = 1
    late: Literal["stop", "finish"] = "stop"

    @model_validator(mode="after")
    def _reachable(self) -> Synchronous:
        if self.min_reports > self.cohort:
            raise invalid(f"`min_reports` ({self.min_reports}) cannot exceed `cohort` ({self.cohort})")
        return self

    @property
    def asked(self) -> int:
        """Clients asked at once."""
        return math.ceil(self.cohort * self.over_select - 1e-9)

    def run(self, server: Server) -> Generator[Any, Any, None]:
        """Run rounds for ever; the server's budget ends them."""
        round_ = 0
        while True:
            clients = yield from server.sample(self.asked)
            visits = [server.dispatch(client, round_) for client in clients]
            yield from server.wait(visits, want=self.cohort, deadline_s=self.deadline_s)
            landed = server.collect(visits, want=self.cohort, late=self.late)
            if len(landed) >= self.min_reports:
                server.commit(landed)
            else:
                server.reject(landed)
            round_ += 1
