"""Frozen hidden states, kept: what lies below the lowest adapter is the same at every visit.

Below the first adapted layer nothing is trained and nothing is random, so what the backbone makes of a
client's windows there depends on the windows alone. It is computed once and kept while there is room.
The states of a client are always computed from its whole shard, whatever the call and the worker, so
a state that was kept and one that is computed again are equal to the bit: the room changes no result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.training.local import one_thread


class Prefix:
    """The hidden states of the windows seen last, at most `room_bytes` of them."""

    def __init__(self, backbone: Any, room_bytes: float) -> None:
        """Take a backbone with `frozen_prefix`."""
        self._backbone, self._room_bytes = backbone, room_bytes
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.kept_bytes = 0

    def states(self, windows: NDArray[Any]) -> Any:
        """Return the hidden states (n, T, width) of all token ids (n, T + 1) of a client."""
        import torch

        key = (windows.shape, blake2b(windows.tobytes()).digest())
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        ids = torch.from_numpy(windows.astype(np.int64)).to(self._backbone.device)
        with one_thread():
            found = self._backbone.frozen_prefix(ids)
        size = found.numel() * found.element_size()
        if size <= self._room_bytes:
            self._kept[key] = found
            self.kept_bytes += size
            while self.kept_bytes > self._room_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.kept_bytes -= oldest.numel() * oldest.element_size()
        return found


@lru_cache(maxsize=4)
def of(backbone: Any, room_bytes: float) -> Prefix:
    """Return this process's kept states of a backbone."""
    return Prefix(backbone, room_bytes)
