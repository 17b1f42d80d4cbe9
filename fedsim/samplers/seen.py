"""What a sampler may know: what the server has been told, and nothing of what is under way.

When a client was asked, the server knows at once; how long it took, when its update has landed; its
losses, when that update was committed (values are read then). A visit in flight changes nothing but
`asked`. The number of a client's examples is what it said when it joined, and so is how long a visit should take
(`expected_s`). Until when it will be online is what its windows say (`remaining_s`): nobody foresees an outage, a
battery that runs low, or heat, and each may take the device away sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Floats
from fedsim.devices.availability import OnlineTimes

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """The past as it is known at one choice; all arrays have one entry a client and are read-only.

    The arrays are the server's own: a sampler that wants to keep something of them copies it, or better,
    keeps nothing and is a function of what it sees.

    Attributes:
        now_s: virtual time.
        version: commits so far.
        asked: visits that were dispatched.
        landed: visits whose update has landed in time.
        duration_s: of the last of these, from its dispatch to its landing; NaN before.
        reported: updates that were committed with their values.
        last_version: the commit that took the last of these, from 1; 0 before.
        loss: mean training loss per token of the last of these [nats]; NaN before.
        square: mean square of the losses, likewise.
    """

    now_s: float
    version: int
    asked: Counts
    landed: Counts
    duration_s: Floats
    reported: Counts
    last_version: Counts
    loss: Floats
    square: Floats
    _gains: list[float] = field(repr=False)
    _exploited_gains: list[float] = field(repr=False)
    _examples: Callable[[], Counts] = field(repr=False)
    _expected_s: Callable[[], Floats] = field(repr=False)
    _availability: OnlineTimes = field(repr=False)

    @property
    def gains(self) -> tuple[float, ...]:
        """One entry a commit: the sum of examples * sqrt(square) over the updates it took."""
        return tuple(self._gains)

    @property
    def exploited_gains(self) -> tuple[float, ...]:
        """One entry a commit: the mean of examples * sqrt(square) over clients that an earlier commit had taken; 0 of none."""
        return tuple(self._exploited_gains)

    @property
    def expected_s(self) -> Floats:
        """How long a whole visit of each client should take (clients,) [s], as it said when it joined.

        By its device and its link, alone on it, with the messages of the first version; inf where the training
        does not fit its memory.
        """
        return self._expected_s()

    @property
    def examples(self) -> Counts:
        """Training examples of every client (clients,), as it said when it joined."""
        return self._examples()

    def remaining_s(self, clients: Counts) -> Floats:
        """Return for how long these clients, who are online, say that they will stay [s]; inf: for good.

        By their windows alone: outages to come are not in it.
        """
        window = self._availability.plain.window
        return np.array([window(int(client), self.now_s)[1] for client in clients], dtype=float) - self.now_s


class Records:
    """The server's notes, from which `now` makes a view for a sampler."""

    def __init__(
        self,
        availability: OnlineTimes,
        examples: Callable[[int], int],
        expected_s: Callable[[int], float],
    ) -> None:
        """Start with nothing known of anybody; `examples` and `expected_s` are asked only if a sampler wants to know."""
        n = availability.n
        self._availability, self._ask_examples, self._ask_expected_s = availability, examples, expected_s
        self._examples: Counts | None = None
        self._expected_s: Floats | None = None
        self.version = 0
        self.asked, self.landed, self.reported, self.last_version = (
            np.zeros(n, dtype=np.int64) for _ in range(4)
        )
        self.duration_s, self.loss, self.square = (np.full(n, math.nan) for _ in range(3))
        self._gains: list[float] = []
        self._exploited_gains: list[float] = []
        self._gain = 0.0
        self._of_exploited: list[float] = []

    def ask(self, client: int) -> None:
        """A client was sent the model."""
        self.asked[client] += 1

    def land(self, client: int, duration_s: float) -> None:
        """Its update has landed, so long after its dispatch."""
        self.landed[client] += 1
        self.duration_s[client] = duration_s

    def report(self, client: int, loss: float, square: float) -> None:
        """Its update is taken by the commit that is being made, and these were its losses."""
        exploited = 0 < self.last_version[client] <= self.version
        self.reported[client] += 1
        self.last_version[client] = self.version + 1
        self.loss[client], self.square[client] = loss, square
        if square >= 0:  # not NaN
            gain = self._ask_examples(client) * math.sqrt(square)
            self._gain += gain
            self._of_exploited += [gain] if exploited else []

    def commit(self) -> None:
        """The commit is made."""
        self.version += 1
        self._gains.append(self._gain)
        exploited = self._of_exploited
        self._exploited_gains.append(math.fsum(exploited) / len(exploited) if exploited else 0.0)
        self._gain, self._of_exploited = 0.0, []

    def examples(self) -> Counts:
        """Return every client's number of examples, asked once."""
        if self._examples is None:
            count = (self._ask_examples(client) for client in range(self._availability.n))
            self._examples = np.fromiter(count, dtype=np.int64, count=self._availability.n)
            self._examples.flags.writeable = False
        return self._examples

    def expected_s(self) -> Floats:
        """Return every client's expected duration [s], asked once."""
        if self._expected_s is None:
            durations_s = (self._ask_expected_s(client) for client in range(self._availability.n))
            self._expected_s = np.fromiter(durations_s, dtype=np.float64, count=self._availability.n)
            self._expected_s.flags.writeable = False
        return self._expected_s

    def now(self, now_s: float) -> Seen:
        """Return what is known now."""
        return Seen(
            now_s=now_s,
            version=self.version,
            asked=_view(self.asked),
            landed=_view(self.landed),
            duration_s=_view(self.duration_s),
            reported=_view(self.reported),
            last_version=_view(self.last_version),
            loss=_view(self.loss),
            square=_view(self.square),
            _gains=self._gains,
            _exploited_gains=self._exploited_gains,
            _examples=self.examples,
            _expected_s=self.expected_s,
            _availability=self._availability,
        )


def _view(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
