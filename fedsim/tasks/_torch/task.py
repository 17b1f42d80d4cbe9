"""The runtime side of a user's own task.

What is pickled to a worker is the class by name, its settings, who has which rows, and what the model was like when
it was tried: the worker builds its own model and asks for its own data, and refuses to go on with others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from fedsim.adapters.adapter import Vector
from fedsim.config.learning import LocalConfig
from fedsim.jobs import FileKind, Job, Probe, Sums, Update
from fedsim.rng import seed_of
from fedsim.tasks._dealt import QUICK_FLOPS, Batching, DealtTask
from fedsim.tasks._splits import PIECE

if TYPE_CHECKING:
    from fedsim.training.own.data import Data
    from fedsim.training.own.model import OwnModel, Recipe, Trained

TOGETHER_BYTES = 2**26
"""Activations of a client batch on a CPU: about as much as its caches and memory take at once."""
COUNT = "examples"


@dataclass(frozen=True)
class OwnTask(DealtTask):
    """Who has which examples, and a model by its recipe.

    Attributes:
        recipe: of the model.
        data: where examples are.
    """

    recipe: Recipe
    data: Data = field(repr=False)

    unit: ClassVar[str] = "examples"
    batching: ClassVar[Batching] = Batching(fewest=2, most=32, together=TOGETHER_BYTES)
    choose_split: ClassVar[str] = "choose clients, or define `test` in the class"

    @property
    def example_tokens(self) -> int:
        """What an example counts as."""
        return self.recipe.tokens

    def files(self, kinds: Collection[FileKind]) -> dict[str, Path]:
        """Return nothing: what the class reads it reads by itself, on every machine."""
        return {}

    def moved(self, place: Callable[[str], str]) -> Self:
        """Return the task itself."""
        return self

    def pretrained(self) -> Vector:
        """Return the weights that `model()` gives."""
        from fedsim.training.own.model import pretrained

        return pretrained(self.recipe.source, self.layout)

    def suggested_client_batch(self) -> int:
        """Return how many clients to train in one call: as many as keep `TOGETHER_BYTES`, or as a GPU holds."""
        from fedsim.training import gpu_room

        if self.recipe.path == "sequential":
            return self.batching.fewest
        if gpu_room.on_gpu(self.gpus_per_worker):
            return super().suggested_client_batch()
        operations = self.shape.operations
        assert operations is not None
        return self.batching.clients(max(1, self.shape.batch * operations.kept_bytes))

    def suggested_training(self) -> Trained:
        """Return what `numerics.training` stands for with this class."""
        return self.recipe.path

    def suggested_windows(self, visits: float, local: LocalConfig, splits: Sequence[str]) -> int | None:
        """Return how many examples take as long to score as so many visits to train, if a split has more; None: all.

        What takes no more than `QUICK_FLOPS` is scored whole.
        """
        operations = self.shape.operations
        assert operations is not None
        sizes = self.splits.training.sizes
        examples = visits * sum(map(local.examples_over, sizes)) / len(sizes)
        times = operations.flops(checkpoint=False) / operations.forward
        most = max(PIECE, int(times * examples), int(QUICK_FLOPS / operations.forward))
        largest = max((len(self.rows(split, None)) for split in splits if split != "samples"), default=0)
        return most if largest > most else None

    def warm(self) -> None:
        """Build the model."""
        self.own_model.load()

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs together, or one by one."""
        data = [self.data.at(self.splits.training[job.client]) for job in jobs]
        return self.own_model.train(data, jobs)

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the sums of the loss and of the class's metrics over one piece, and its examples."""
        rows = self.rows(probe.split, probe.client)[probe.start : probe.stop]
        examples = self.data.test(rows) if probe.split == "test" else self.data.at(rows)
        who = -1 if probe.client is None else probe.client
        seed = seed_of(self.seed, "score", probe.split, who, probe.start)
        return self.own_model.score(vector, examples, seed, base)

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return the means: `loss`, and those of the class."""
        n = sums[COUNT]
        return {name: total / n for name, total in sums.items() if name != COUNT}

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the adapter as a PEFT folder, or the weights as `model.safetensors`; return its rank."""
        return self.own_model.save(vector, folder, base)

    @property
    def own_model(self) -> OwnModel:
        """The model, as this process trains and scores it; torch is imported here and not before."""
        from fedsim.training.own.model import OwnModel

        return OwnModel(self.recipe, self.numerics.tokens_at_once)
