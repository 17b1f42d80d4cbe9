"""The clients' chats, cut into batches: clients whose longest rows are about equally long go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsim.arrays import Ints
from fedsim.training.chats.batch import Batch
from fedsim.training.chats.sequences import Sequences, joined
from fedsim.training.feeds import Counted, Feed, Group

if TYPE_CHECKING:
    from fedsim.training.stacked.schedule import Schedule


class Chats(Feed):
    """Rows of unequal length: it hands out `Batch`es that are as long as the longest of their rows."""

    def __init__(self, data: Sequence[Sequences], device: torch.device) -> None:
        self.tokens = max(part.most for part in data)
        self._device = device
        self._rows = joined(data)
        self._first = np.cumsum([0, *map(len, data[:-1])])
        self._packed = any(part.packed for part in data)

    def batch(self, step: int, clients: slice, rows: slice, picked: Tensor, lengths: Sequence[int]) -> Batch:
        """Return rows of neighbouring clients, filled up to the longest of them."""
        who = np.arange(len(self._first))[clients]
        return self._filled(who, picked.cpu().numpy(), None)

    def grouped(self, group: Group, rows: slice, picked: Ints) -> Batch:
        """Return some rows of a group's clients."""
        return self._filled(group.clients, picked, group.width)

    def _filled(self, who: Ints, picked: Ints, width: int | None) -> Batch:
        grid = self._rows[(picked + self._first[who, None]).ravel()].grid(width)

        def put(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).view(*picked.shape, -1).to(self._device)

        places = put(grid.places) if self._packed else None
        return Batch(put(grid.tokens), put(grid.learned), places)

    def groups(self, plan: Schedule, step: int, k: int) -> Iterator[Group]:
        """Yield clients whose batches have equally many rows and one width; what fills a client's rows is its own affair."""
        lengths = plan.lengths[step, :k]
        counts = self._of_rows(self._rows.counts, plan.rows[step, :k])
        real = np.arange(counts.shape[1]) < lengths[:, None]
        longest = np.where(real, counts, 0).max(axis=1)
        widths = [self._rows.width(int(n)) for n in longest]
        groups: dict[tuple[int, int], list[int]] = {}
        for client, key in enumerate(zip(lengths.tolist(), widths, strict=True)):
            groups.setdefault(key, []).append(client)
        for (rows, width), clients in groups.items():
            yield Group(np.array(clients), rows, width)

    def counted(self, plan: Schedule) -> Counted:
        """Return the tokens of all steps: those of answers, and all that a model reads."""
        real = np.arange(plan.rows.shape[2]) < plan.lengths[:, :, None]
        numbers = (self._rows.answers, self._rows.counts)
        return Counted(*(np.where(real, self._of_rows(of, plan.rows), 0).sum(axis=2) for of in numbers))

    def _of_rows(self, numbers: Ints, rows: Ints) -> Ints:
        """Return a number of each row (..., clients, rows) of the first clients."""
        of_rows: Ints = numbers[rows + self._first[: rows.shape[-2], None]]
        return of_rows
