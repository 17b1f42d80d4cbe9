"""What tasks on one causal language model have in common, whatever an example is: the model, and how much of a split is scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fedsim.adapters.adapter import Vector
from fedsim.config.learning import LocalConfig
from fedsim.cost.quantised import Quantise
from fedsim.tasks._dealt import QUICK_FLOPS, Batching, DealtTask
from fedsim.tasks._splits import PIECE

if TYPE_CHECKING:
    from fedsim.training.paths import Trained
    from fedsim.training.text_model import TextModel

SAMPLE = 100
"""Clients that tell how long a visit is."""
LARGEST_LOSS = 700.0
"""A loss above which perplexity is called infinite; the logarithm of the largest float is 709.8."""


@dataclass(frozen=True)
class CausalTask(DealtTask):
    """A causal language model by name, and who has which of its examples.

    Attributes:
        cache_bytes: room for frozen hidden states in each worker.
        quantise: how the frozen weights are held; None: as the model has them.
    """

    cache_bytes: float
    quantise: Quantise | None

    batching: ClassVar[Batching] = Batching(fewest=8, most=64, together=2**17)
    uncut: ClassVar[frozenset[str]] = frozenset({"samples"})
    """Splits that have a bound of their own."""

    def pretrained(self) -> Vector:
        """Return the model's own weights."""
        return self.text_model.pretrained()

    def suggested_training(self) -> Trained:
        """Return what `numerics.training` stands for with this model and these targets."""
        return self.text_model.path()

    def suggested_windows(self, visits: float, local: LocalConfig, splits: Sequence[str]) -> int | None:
        """Return how many examples take as long to score as so many visits to train, if a split has more; None: all.

        A token costs a training about twice what it costs a score: forward, and backward by the states. What takes no
        more than `QUICK_FLOPS` is scored whole. How long a visit is, some clients tell.
        """
        clients = range(0, self.clients, max(1, self.clients // SAMPLE))
        tokens = visits * sum(self.tokens(client, local) for client in clients) / len(clients)
        score_flops = 2.0 * self.shape.matmul_params * self.example_tokens
        most = max(PIECE, int(2.0 * tokens / self.example_tokens), int(QUICK_FLOPS / score_flops))
        sizes = [len(self.rows(split, None)) for split in splits if split not in self.uncut]
        return most if max(sizes, default=0) > most else None

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the final adapter as a PEFT folder, or the model as a transformers folder; return its rank."""
        return self.text_model.save(vector, folder, base)

    @property
    def text_model(self) -> TextModel:
        """The model, as this process trains and scores it; torch is imported here and not before."""
        from fedsim.training.text_model import TextModel

        width, vocabulary = self.shape.width, self.shape.vocab
        return TextModel(
            self.model,
            self.lora,
            self.numerics,
            self.layout,
            width,
            vocabulary,
            self.cache_bytes,
            self.quantise,
        )


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN of nothing."""
    return part / whole if whole else math.nan


def exponential(value: float) -> float:
    """Return e to a loss, infinite above `LARGEST_LOSS`."""
    return math.inf if value > LARGEST_LOSS else math.exp(value)
