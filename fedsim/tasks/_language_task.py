"""The runtime side of language modelling: implements `fedsim.jobs.Task`.

A task is arrays and settings; it is pickled whole to every worker. Model and tokenizer are not in it:
the worker that first needs the model loads it, once per process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.adapter import Layout, Vector
from fedsim.cost import ModelShape
from fedsim.errors import DataError, message
from fedsim.experiment import LocalConfig, LoraConfig
from fedsim.jobs import Job, Probe, Sums, Update
from fedsim.rng import stream
from fedsim.tasks._tokens import Windows
from fedsim.training import lora as adapters
from fedsim.training.local import device, passes

PIECE = 32
"""Windows of one probe, whatever the number of workers."""
LOGITS = 2**24
"""Numbers in the logits of one forward pass when scoring: 64 MiB of float32."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Shards:
    """All clients' windows, and which of them each client trains on or keeps apart (row numbers)."""

    windows: Windows
    training: tuple[Rows, ...]
    held_out: tuple[Rows, ...]


@dataclass(frozen=True)
class LanguageTask:
    """Who has which windows, and a model by name.

    Attributes:
        model: folder or hub name of the backbone.
        lora: what is trained.
        seed: the experiment's, for the initialisation and the order of probes.
        layout, shape: of what an update holds, of the model that trains.
        shards: the clients' windows.
        test, valid: windows that nobody trains on.
        facts: about corpus and partition, for `describe`.
    """

    model: str
    lora: LoraConfig
    seed: int
    layout: Layout
    shape: ModelShape
    shards: Shards = field(repr=False)
    test: Windows = field(repr=False)
    valid: Windows | None = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    @property
    def clients(self) -> int:
        """Number of clients."""
        return len(self.shards.training)

    @property
    def sequence(self) -> int:
        """Predicted tokens of a window."""
        return int(self.test.tokens.shape[1]) - 1

    def examples(self, client: int) -> int:
        """Return the windows this client trains on, at least one."""
        return len(self.shards.training[client])

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Return the tokens of one visit, exactly: all training windows are full."""
        return passes(self.examples(client), local) * self.sequence

    def initial(self) -> Vector:
        """Return version 0: LoRA's initialisation, or the pretrained weights."""
        if self.layout.full:
            return adapters.pretrained(self.model, self.layout)
        return adapters.initial(self.layout, self.seed)

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train each job, one by one."""
        from fedsim.training import sequential

        data = [self.shards.windows.tokens[self.shards.training[job.client]] for job in jobs]
        return sequential.train(self._trainee(), data, jobs)

    def warm(self) -> None:
        """Load the backbone."""
        self._trainee()

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of 32 windows; with `windows`, of that many drawn once by address.

        Raises:
            DataError: there is no such split.
        """
        rows = self._rows(split, client)[1]
        n = len(rows) if windows is None else min(windows, len(rows))
        return [Probe(split, at, min(at + PIECE, n), client) for at in range(0, n, PIECE)]

    def score(self, vector: Vector, probe: Probe) -> Sums:
        """Return nll [nats], tokens, words (`<eos>` counted) and bytes of one piece."""
        from fedsim.training import sequential

        source, order = self._rows(probe.split, probe.client)
        rows = order[probe.start : probe.stop]
        at_once = max(1, min(PIECE, LOGITS // (self.sequence * self.shape.vocab)))
        nll = sequential.score(self._trainee(), vector, source.tokens[rows], source.counts[rows], at_once)
        return {
            "nll": nll,
            "tokens": float(source.counts[rows].sum()),
            "words": float(source.words[rows].sum()),
            "bytes": float(source.bytes[rows].sum()),
        }

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return perplexity (per token), word_perplexity, bits_per_byte and loss [nats per token]."""
        loss = _ratio(sums["nll"], sums["tokens"])
        return {
            "perplexity": _exp(loss),
            "word_perplexity": _exp(_ratio(sums["nll"], sums["words"])),
            "bits_per_byte": _ratio(sums["nll"], sums["bytes"]) / math.log(2),
            "loss": loss,
        }

    def describe(self) -> dict[str, Any]:
        """Return facts for run.json and the report."""
        sizes = [self.examples(c) for c in range(self.clients)]
        return {
            **self.facts,
            "params": self.shape.params,
            "trainable_params": self.layout.size,
            "adapter_bytes": 4 * self.layout.size,
            "train_windows": sum(sizes),
            "held_out_windows": sum(len(rows) for rows in self.shards.held_out),
            "test_windows": len(self.test),
            "valid_windows": 0 if self.valid is None else len(self.valid),
            "windows_per_client": [min(sizes), int(np.median(sizes)), max(sizes)],
        }

    def save_adapter(self, vector: Vector, folder: Path) -> None:
        """Write the final adapter as a PEFT folder, or the model as a transformers folder."""
        adapters.save(vector, self.model, self.lora, folder)

    def _trainee(self) -> adapters.Trainee:
        return adapters.trainee(self.model, self.lora, device())

    def _rows(self, split: str, client: int | None) -> tuple[Windows, Rows]:
        """Return where a split's windows are and their order; shuffled, so that any first part is a fair sample."""
        if split == "client":
            assert client is not None
            return self.shards.windows, self.shards.held_out[client]
        if split not in self._orders:
            fix = "choose test or clients, or give a folder with a *valid* file"
            raise DataError(message("evaluate.splits", "the data have no such split", got=split, fix=fix))
        return self._orders[split]

    @cached_property
    def _orders(self) -> dict[str, tuple[Windows, Rows]]:
        def shuffled(rows: Rows, split: str) -> Rows:
            return stream(self.seed, "probes", split).permutation(rows)

        found = {
            "test": (self.test, shuffled(np.arange(len(self.test)), "test")),
            "clients": (self.shards.windows, shuffled(np.concatenate(self.shards.held_out), "clients")),
        }
        if self.valid is not None:
            found["valid"] = (self.valid, shuffled(np.arange(len(self.valid)), "valid"))
        return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)
