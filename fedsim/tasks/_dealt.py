"""What tasks have in common whose examples are dealt to clients: text and images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.cost.shape import ModelShape
from fedsim.errors import DataError, message
from fedsim.jobs import FileKind, FileTask, Probe
from fedsim.tasks._splits import Rows, Splits, pieces


@dataclass(frozen=True)
class Batching:
    """How many clients to train in one call on a CPU.

    Together they pay for what a step costs whatever its size, so small steps want many clients: as many as
    fill `together` numbers. Many more only need memory.

    Attributes:
        fewest, most: clients.
        together: numbers of a hidden state in a step of all of them.
    """

    fewest: int
    most: int
    together: int

    def clients(self, step: int) -> int:
        """Return the clients of a call if one client's step has so many numbers."""
        return max(self.fewest, min(self.most, self.together // step))


QUICK_FLOPS = 2e12
"""An evaluation of fewer operations takes some seconds of a core, and is never cut."""


@dataclass(frozen=True)
class DealtTask(FileTask):
    """A model by name, and who has which of its examples; weights are loaded where they are first needed.

    Attributes:
        model: folder or hub name.
        lora: what is trained; `numerics`: by which path.
        gpus_per_worker: share of a GPU that each worker has.
        seed: of the data, for the noise of scores; `training_seed`: for the initialisation.
        layout, shape: of what an update holds, of the model that trains.
        splits: who trains on what.
        facts: about data and partition, for `describe`.
    """

    model: str
    lora: LoraConfig
    numerics: NumericsConfig
    gpus_per_worker: float
    seed: int
    training_seed: int
    layout: Layout
    shape: ModelShape
    splits: Splits = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    unit: ClassVar[str]
    """What an example is called, in the plural."""
    batching: ClassVar[Batching]
    choose_split: ClassVar[str]
    """What to do about a split that there is not."""

    @property
    @abstractmethod
    def example_tokens(self) -> int:
        """Tokens of one example."""

    @abstractmethod
    def pretrained(self) -> Vector:
        """Return the model's own values of the whole tensors that train: version 0 where all of it does."""

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.splits.training)

    def examples(self, client: int) -> int:
        """Return the examples this client trains on, at least one."""
        return len(self.splits.training[client])

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Return the tokens of one visit, exactly."""
        return local.examples_over(self.examples(client)) * self.example_tokens

    def files(self, kinds: Collection[FileKind]) -> dict[str, Path]:
        """Return where the model lies, fetched from the hub if need be; the data are in the task."""
        from fedsim.training.hub import local_copy

        return {self.model: local_copy(self.model)} if "model" in kinds else {}

    def moved(self, place: Callable[[str], str]) -> Self:
        """Return the task with another place of its model."""
        return replace(self, model=place(self.model))

    def initial(self) -> Vector:
        """Return version 0: LoRA's initialisation, a saved adapter (`lora.start_from`), or the pretrained weights.

        What is trained beside the factors begins as it is in the pretrained model.
        """
        if self.layout.full:
            return self.pretrained()
        if self.lora.start_from is not None:
            from fedsim.training.beside.saved_adapter import read_saved

            return read_saved(self.lora.start_from, self.layout)
        from fedsim.training.lora import initial

        vector = initial(self.layout, self.training_seed)
        if self.layout.beside:
            vector[self.layout.slices[self.layout.beside[0].name][0].start :] = self.pretrained()
        return vector

    def suggested_client_batch(self) -> int:
        """Return how many clients to train in one call: as `batching` says, or as many as a GPU holds."""
        from fedsim.training import gpu_room

        if gpu_room.on_gpu(self.gpus_per_worker):
            free = gpu_room.free_bytes(self.gpus_per_worker)
            return gpu_room.clients_that_fit(self.shape, self.layout, self.numerics.tokens_at_once, free)
        rows = max(1, min(self.shape.batch, max(self.splits.training.sizes)))
        return self.batching.clients(rows * self.example_tokens * self.shape.width)

    def rows(self, split: str, client: int | None) -> Rows:
        """Return the row numbers of a split, in the order in which probes cover them.

        Raises:
            DataError: there is no such split.
        """
        order = self.splits.order(split, client)
        if order is None:
            what = "the data have no such split"
            raise DataError(message("evaluate.splits", what, got=split, fix=self.choose_split))
        return order

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of 32 examples; with `windows`, of that many drawn once by address.

        Raises:
            DataError: there is no such split.
        """
        return pieces(split, len(self.rows(split, client)), windows, client)

    def _origin(self) -> dict[str, str]:
        """Return what tells a saved adapter from others."""
        if self.lora.start_from is None:
            return {}
        from fedsim.training.beside.saved_adapter import digest

        return {"start_from_sha256": digest(self.lora.start_from)}

    def describe(self) -> dict[str, Any]:
        """Return facts for run.json and the report."""
        sizes = self.splits.training.sizes
        return {
            **self.facts,
            "params": self.shape.params,
            "trainable_params": self.layout.size,
            "adapter_bytes": 4 * self.layout.size,
            **self._origin(),
            f"train_{self.unit}": sum(sizes),
            f"held_out_{self.unit}": sum(self.splits.held_out.sizes),
            **{f"{split}_{self.unit}": count for split, count in self.splits.apart.items()},
            f"{self.unit}_per_client": [min(sizes), int(np.median(sizes)), max(sizes)],
        }
