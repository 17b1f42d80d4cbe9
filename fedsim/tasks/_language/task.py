"""The runtime side of language modelling.

A task is arrays and settings; it is pickled whole to every worker. Model and tokenizer are not in it:
the worker that first needs the model loads it, once per process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fedsim.adapters.adapter import Vector
from fedsim.config.learning import LocalConfig
from fedsim.cost.quantised import Quantise
from fedsim.jobs import Job, Probe, ScoreJob, Sums, Update
from fedsim.tasks._dealt import Batching, DealtTask
from fedsim.tasks._language.tokens import Windows
from fedsim.tasks._splits import PIECE, Rows

if TYPE_CHECKING:
    from fedsim.training.paths import Trained
    from fedsim.training.text_model import TextModel

QUICK_FLOPS = 2e12
"""An evaluation of fewer operations takes some seconds of a core, and is never cut."""
SAMPLE = 100
"""Clients that tell how long a visit is."""
LARGEST_LOSS = 700.0
"""A loss above which perplexity is called infinite; the logarithm of the largest float is 709.8."""


@dataclass(frozen=True)
class LanguageTask(DealtTask):
    """Who has which windows, and a model by name.

    Attributes:
        cache_bytes: room for frozen hidden states in each worker.
        windows: the clients' windows.
        test, valid: windows that nobody trains on.
        quantise: how the frozen weights are held; None: as the model has them.
    """

    cache_bytes: float
    windows: Windows = field(repr=False)
    test: Windows = field(repr=False)
    valid: Windows | None = field(repr=False)
    quantise: Quantise | None = None

    unit: ClassVar[str] = "windows"
    batching: ClassVar[Batching] = Batching(fewest=8, most=64, together=2**17)
    choose_split: ClassVar[str] = "choose test or clients, or give a folder with a *valid* file"

    @property
    def example_tokens(self) -> int:
        """Predicted tokens of a window: all that clients train on are full."""
        return int(self.test.tokens.shape[1]) - 1

    def pretrained(self) -> Vector:
        """Return the model's own weights."""
        return self.text_model.pretrained()

    def suggested_training(self) -> Trained:
        """Return what `numerics.training` stands for with this model and these targets."""
        return self.text_model.path()

    def warm(self) -> None:
        """Load the weights."""
        self.text_model.load()

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs together, or one by one if no backbone takes several clients."""
        data = [self.windows.tokens[self.splits.training[job.client]] for job in jobs]
        return self.text_model.train(data, jobs)

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return nll [nats], tokens, words (`<eos>` counted) and bytes of one piece."""
        return self.score_together([ScoreJob(vector, probe, base)])[0]

    def score_together(self, jobs: Sequence[ScoreJob]) -> list[Sums]:
        """Return the sums of several pieces; those on one base go through the model together."""
        of_base: dict[int, list[int]] = {}
        for at, job in enumerate(jobs):
            of_base.setdefault(id(job.base), []).append(at)
        sums: dict[int, Sums] = {}
        for group in of_base.values():
            sums.update(zip(group, self._scored([jobs[at] for at in group]), strict=True))
        return [sums[at] for at in range(len(jobs))]

    def _scored(self, jobs: Sequence[ScoreJob]) -> list[Sums]:
        """Return the sums of pieces on one base."""
        places = [self._place(job.probe) for job in jobs]
        nll = self.text_model.score(
            [job.vector for job in jobs],
            [windows.tokens[rows] for windows, rows in places],
            [windows.counts[rows] for windows, rows in places],
            PIECE,
            jobs[0].base,
        )
        return [
            {
                "nll": total,
                "tokens": float(windows.counts[rows].sum()),
                "words": float(windows.words[rows].sum()),
                "bytes": float(windows.bytes[rows].sum()),
            }
            for total, (windows, rows) in zip(nll, places, strict=True)
        ]

    def _place(self, probe: Probe) -> tuple[Windows, Rows]:
        """Return the windows that a piece is of, and which of them."""
        windows = {"test": self.test, "valid": self.valid}.get(probe.split, self.windows)
        assert windows is not None
        return windows, self.rows(probe.split, probe.client)[probe.start : probe.stop]

    def suggested_windows(self, visits: float, local: LocalConfig, splits: Sequence[str]) -> int | None:
        """Return how many windows take as long to score as so many visits to train, if a split has more; None: all.

        A token costs a training about twice what it costs a score: forward, and backward by the states. What takes no
        more than `QUICK_FLOPS` is scored whole. How long a visit is, some clients tell.
        """
        clients = range(0, self.clients, max(1, self.clients // SAMPLE))
        tokens = visits * sum(self.tokens(client, local) for client in clients) / len(clients)
        score_flops = 2.0 * self.shape.matmul_params * self.example_tokens
        most = max(PIECE, int(2.0 * tokens / self.example_tokens), int(QUICK_FLOPS / score_flops))
        sizes = [len(self.rows(split, None)) for split in splits if split != "samples"]
        return most if max(sizes, default=0) > most else None

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return perplexity (per token), word_perplexity, bits_per_byte and loss [nats per token]."""
        loss = ratio(sums["nll"], sums["tokens"])
        return {
            "perplexity": exponential(loss),
            "word_perplexity": exponential(ratio(sums["nll"], sums["words"])),
            "bits_per_byte": ratio(sums["nll"], sums["bytes"]) / math.log(2),
            "loss": loss,
        }

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
