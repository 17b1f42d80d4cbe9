"""Frozen hidden states, kept: what lies below the lowest adapter is the same at every visit.

Below the first adapted layer nothing is trained and nothing is random, so what the backbone makes of a
client's windows there depends on the windows alone. It is computed once and kept while there is room.
The states of a client are always computed from its whole shard, whatever the call and the worker, so
a state that was kept and one that is computed again are equal to the bit: the room changes no result.

A visit that is given its states and one that computes them batch by batch may differ in the last bits.
Which of the two a client does therefore depends on its own shard and visit alone, never on its company;
what many clients of one call would hold together is bounded by training them one group after the other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsim.training.backbone import Backbone
from fedsim.training.local import one_thread

if TYPE_CHECKING:
    from torch import Tensor

HELD = {"cpu": 2**26, "other": 2**28}
"""Numbers in the states that clients trained together hold, by device: 256 MiB and 1 GiB of float32."""


class Prefix:
    """The hidden states of the windows seen last, at most `room_bytes` of them."""

    def __init__(self, backbone: Backbone, room_bytes: float) -> None:
        """Take a backbone with `frozen_prefix`."""
        self._backbone, self._room_bytes = backbone, room_bytes
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self.kept_bytes = 0

    def states(self, windows: NDArray[Any], backbone: Backbone | None = None) -> Tensor:
        """Return the hidden states (n, T, width) of all token ids (n, T + 1) of a client.

        `backbone` is the one with fewer adapters that the client trains through (`Backbone.at_depth`): its prefix is
        longer. Clients of all depths share the room.
        """
        import torch

        through = self._backbone if backbone is None else backbone
        key = (through.prefix_layers, windows.shape, blake2b(windows.tobytes()).digest())
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        ids = torch.from_numpy(windows.astype(np.int64)).to(self._backbone.device)
        with one_thread():
            states = through.frozen_prefix(ids)
        size = states.numel() * states.element_size()
        if size <= self._room_bytes:
            self._kept[key] = states
            self.kept_bytes += size
            while self.kept_bytes > self._room_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.kept_bytes -= oldest.numel() * oldest.element_size()
        return states


@lru_cache(maxsize=4)
def of(backbone: Backbone, room_bytes: float) -> Prefix:
    """Return this process's kept states of a backbone."""
    return Prefix(backbone, room_bytes)


def most(backbone: Backbone) -> int:
    """Return the numbers that states of clients trained together may have on this backbone's device."""
    return HELD["cpu" if backbone.device.type == "cpu" else "other"]


def groups(sizes: Sequence[int | None], most: int) -> list[tuple[list[int], bool]]:
    """Return which clients to train together, and whether they are given their states.

    Args:
        sizes: numbers in the states of each client; None: it shall not be given any.
        most: numbers in the states of one group; a client with more of its own is given none.

    >>> groups([3, 4, None, 4, 9], most=8)
    [([0, 1], True), ([3], True), ([2, 4], False)]
    """
    entered: list[list[int]] = []
    without: list[int] = []
    held = 0
    for client, size in enumerate(sizes):
        if size is None or size > most:
            without.append(client)
            continue
        if not entered or held + size > most:
            entered.append([])
            held = 0
        entered[-1].append(client)
        held += size
    parts = [(clients, True) for clients in entered]
    return [*parts, (without, False)] if without else parts
