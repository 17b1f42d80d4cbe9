"""What a backbone is given of the clients' examples at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedsim.arrays import Ints
from fedsim.training.local import Windows

if TYPE_CHECKING:
    from fedsim.training.stacked.schedule import Schedule


class Group(NamedTuple):
    """Clients whose batches have one shape: (clients,) their numbers, rows of each, tokens of a row."""

    clients: Ints
    rows: int
    width: int


class Counted(NamedTuple):
    """What the steps of clients go through, (steps, clients) each.

    Attributes:
        learned: tokens in the loss, up to one factor for all steps: what a step's mean loss weighs.
        read: tokens that the model reads.
    """

    learned: Ints
    read: Ints


class Feed(ABC):
    """The clients' examples on the device, and what a backbone is given of them at each step."""

    tokens: int
    """Tokens of an example."""

    @abstractmethod
    def batch(self, step: int, clients: slice, rows: slice, picked: Tensor, lengths: Sequence[int]) -> Any:
        """Return some rows of a step's batches, (k, rows, ...).

        Args:
            step: of the visits, from 0.
            clients: which clients.
            rows: which rows of each client's batch.
            picked: (k, rows) the examples, by number in the client's own data.
            lengths: real rows of each client's whole batch; the others only fill the shape.
        """

    def groups(self, plan: Schedule, step: int, k: int) -> Iterable[Group] | None:
        """Return the first k clients by the shape of their batch, if examples differ in length; None: they are all equal."""
        return None

    def grouped(self, group: Group, rows: slice, picked: Ints) -> object:
        """Return what `batch` does of clients that are no neighbours: the rows `picked` (clients, rows) of a group."""
        raise NotImplementedError(f"{type(self).__name__} has examples of one length")

    def counted(self, plan: Schedule) -> Counted:
        """Return the tokens of all steps."""
        return Counted(plan.lengths, plan.lengths * self.tokens)


class Texts(Feed):
    """Windows of token ids (n, T + 1): it hands out the windows themselves."""

    def __init__(self, data: Sequence[Windows], device: torch.device) -> None:
        self.tokens = data[0].shape[1] - 1
        self._windows = torch.from_numpy(np.concatenate(data).astype(np.int64)).to(device)
        self._from = torch.from_numpy(np.cumsum([0, *map(len, data[:-1])])).to(device)

    def batch(self, step: int, clients: slice, rows: slice, picked: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return token ids (k, rows, T + 1)."""
        return self._windows[picked + self._from[clients, None]]
