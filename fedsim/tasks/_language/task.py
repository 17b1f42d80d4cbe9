"""The runtime side of language modelling.

A task is arrays and settings; it is pickled whole to every worker. Model and tokenizer are not in it:
the worker that first needs the model loads it, once per process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from fedsim.adapters.adapter import Vector
from fedsim.jobs import Job, Probe, ScoreJob, Sums, Update
from fedsim.tasks._language.causal import CausalTask, exponential, ratio
from fedsim.tasks._language.tokens import Windows
from fedsim.tasks._splits import PIECE, Rows


@dataclass(frozen=True)
class LanguageTask(CausalTask):
    """Who has which windows, and a model by name.

    Attributes:
        windows: the clients' windows.
        test, valid: windows that nobody trains on.
    """

    windows: Windows = field(repr=False)
    test: Windows = field(repr=False)
    valid: Windows | None = field(repr=False)

    unit: ClassVar[str] = "windows"
    choose_split: ClassVar[str] = "choose test or clients, or give a folder with a *valid* file"

    @property
    def example_tokens(self) -> int:
        """Predicted tokens of a window: all that clients train on are full."""
        return int(self.test.tokens.shape[1]) - 1

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

    def metric_names(self, split: str) -> tuple[str, ...]:
        """Return the names of `metrics`, which are those of every split."""
        return "perplexity", "word_perplexity", "bits_per_byte", "loss"

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return perplexity (per token), word_perplexity, bits_per_byte and loss [nats per token]."""
        loss = ratio(sums["nll"], sums["tokens"])
        return {
            "perplexity": exponential(loss),
            "word_perplexity": exponential(ratio(sums["nll"], sums["words"])),
            "bits_per_byte": ratio(sums["nll"], sums["bytes"]) / math.log(2),
            "loss": loss,
        }
