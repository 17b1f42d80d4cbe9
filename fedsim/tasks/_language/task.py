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
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.cost.shape import ModelShape
from fedsim.errors import DataError, message
from fedsim.jobs import Job, Probe, Sums, Task, Update
from fedsim.rng import stream
from fedsim.tasks._language.tokens import Windows
from fedsim.training import frozen_prefix as prefix
from fedsim.training import gpu_room as room
from fedsim.training import hub
from fedsim.training import lora as adapters
from fedsim.training.backbone import Backbone
from fedsim.training.local import device, passes
from fedsim.training.paths import resolved

PIECE = 32
"""Windows of one probe, whatever the number of workers."""
FEWEST, MOST, TOGETHER = 8, 64, 2**17
"""Clients in a client batch by default, and numbers of a hidden state in a step of all of them."""
LOGITS = 2**24
"""Numbers in the logits of one forward pass when scoring: 64 MiB of float32."""
SWAPPED = 2**26
"""The same of a training pass through a swapped model, where they are in memory about three times."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Ragged(Sequence[Rows]):
    """Row numbers of each client, in one array: 10,000 clients are two objects and not 10,000.

    Attributes:
        rows: of all clients, one after the other.
        stops: where each client's end in `rows`.
    """

    rows: Rows
    stops: Rows

    @classmethod
    def of(cls, parts: Sequence[Rows]) -> Ragged:
        """Join the rows of each client."""
        return cls(np.concatenate(parts), np.cumsum([len(part) for part in parts]))

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.stops)

    @overload
    def __getitem__(self, client: int) -> Rows: ...
    @overload
    def __getitem__(self, client: slice) -> Sequence[Rows]: ...
    def __getitem__(self, client: int | slice) -> Rows | Sequence[Rows]:
        """Return a client's rows, as a view."""
        if isinstance(client, slice):
            return [self[i] for i in range(*client.indices(len(self)))]
        at = range(len(self))[client]
        return self.rows[self.stops[at - 1] if at else 0 : self.stops[at]]

    @property
    def longest(self) -> int:
        """Rows of the client that has most."""
        return int(np.diff(self.stops, prepend=0).max())


@dataclass(frozen=True)
class Shards:
    """All clients' windows, and which of them each client trains on or keeps apart (row numbers)."""

    windows: Windows
    training: Ragged
    held_out: Ragged


@dataclass(frozen=True)
class LanguageTask(Task):
    """Who has which windows, and a model by name.

    Attributes:
        model: folder or hub name of the backbone.
        lora: what is trained; `numerics`: by which path.
        cache_bytes: room for frozen hidden states in each worker.
        gpus_per_worker: share of a GPU that each worker has.
        seed: the experiment's, for the initialisation and the order of probes.
        layout, shape: of what an update holds, of the model that trains.
        shards: the clients' windows.
        test, valid: windows that nobody trains on.
        facts: about corpus and partition, for `describe`.
    """

    model: str
    lora: LoraConfig
    numerics: NumericsConfig
    cache_bytes: float
    gpus_per_worker: float
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

    def suggested_training(self) -> Literal["fused", "swapped", "sequential"]:
        """Return what `numerics.training` stands for with this model and these targets."""
        return resolved(hub.skeleton(self.model), self.layout, self.numerics.training)

    def suggested_client_batch(self) -> int:
        """Return how many clients to train in one call.

        Together they pay for what a step costs whatever its size, so small steps want many clients:
        as many as fill `TOGETHER` numbers of a hidden state. Many more only need memory. A GPU wants as
        many as it holds.
        """
        if room.on_gpu(self.gpus_per_worker):
            free = room.free_bytes(self.gpus_per_worker)
            return room.clients_that_fit(self.shape, self.layout, self.numerics.tokens_at_once, free)
        step = max(1, min(self.shape.batch, self.shards.training.longest)) * self.sequence
        return max(FEWEST, min(MOST, TOGETHER // (step * self.shape.width)))

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs together, or one by one if no backbone takes several clients."""
        data = [self.shards.windows.tokens[self.shards.training[job.client]] for job in jobs]
        backbone = self._backbone()
        if backbone is None:
            from fedsim.training import sequential

            return sequential.train(self._trainee(), data, jobs, dropout=self.lora.dropout)
        from fedsim.training import batched

        kept = prefix.of(backbone, self.cache_bytes)
        updates: dict[int, Update] = {}
        for clients, entered in prefix.groups(self._sizes(backbone, data, jobs), prefix.most(backbone)):
            own = [data[i] for i in clients]
            done = batched.train(
                backbone,
                own,
                [jobs[i] for i in clients],
                tokens_at_once=self._tokens_at_once(backbone),
                dropout=self.lora.dropout,
                hidden=[kept.states(windows) for windows in own] if entered else None,
            )
            updates.update(zip(clients, done, strict=True))
        return [updates[i] for i in range(len(jobs))]

    def _tokens_at_once(self, backbone: Backbone) -> int:
        """Return the tokens of one pass; the fused decoder bounds its logits itself, a swapped model does not."""
        from fedsim.training.swapped import Swapped

        asked = self.numerics.tokens_at_once
        if not isinstance(backbone, Swapped):
            return asked
        return min(asked, max(self.sequence, SWAPPED // self.shape.vocab))

    def _sizes(
        self, backbone: Backbone, data: Sequence[NDArray[Any]], jobs: Sequence[Job]
    ) -> list[int | None]:
        """Return the numbers in each client's frozen states, None where they are not worth computing.

        They are where a visit goes through the whole shard at least once.
        """
        return [
            len(own) * self.sequence * self.shape.width
            if backbone.prefix_layers and passes(len(own), job.local) >= len(own)
            else None
            for own, job in zip(data, jobs, strict=True)
        ]

    def warm(self) -> None:
        """Load the backbone."""
        if self._backbone() is None:
            self._trainee()

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of 32 windows; with `windows`, of that many drawn once by address.

        Raises:
            DataError: there is no such split.
        """
        rows = self._rows(split, client)[1]
        n = len(rows) if windows is None else min(windows, len(rows))
        return [Probe(split, at, min(at + PIECE, n), client) for at in range(0, n, PIECE)]

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return nll [nats], tokens, words (`<eos>` counted) and bytes of one piece."""
        from fedsim.training import batched, sequential

        source, order = self._rows(probe.split, probe.client)
        rows = order[probe.start : probe.stop]
        at_once = max(1, min(PIECE, LOGITS // (self.sequence * self.shape.vocab)))
        tokens, counts, backbone = source.tokens[rows], source.counts[rows], self._backbone()
        if backbone is None:
            nll = sequential.score(self._trainee(), vector, tokens, counts, at_once, base)
        else:
            (nll,) = batched.score(backbone, [vector], [tokens], [counts], at_once, base)
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

    def save_adapter(self, vector: Vector, folder: Path, base: Vector | None = None) -> int:
        """Write the final adapter as a PEFT folder, or the model as a transformers folder; return its rank."""
        return adapters.save(vector, self.model, self.lora, folder, base)

    def _trainee(self) -> adapters.Trainee:
        return adapters.trainee(self.model, self.lora, device(), self.numerics.dtype)

    def _backbone(self) -> Backbone | None:
        n = self.numerics
        return adapters.backbone(self.model, self.lora, n.training, device(), n.dtype)

    def _rows(self, split: str, client: int | None) -> tuple[Windows, Rows]:
        """Return where a split's windows are and their order; shuffled, so that any first part is a fair sample."""
        if split in ("client", "shard"):
            assert client is not None
            own = self.shards.held_out if split == "client" else self.shards.training
            return self.shards.windows, own[client]
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
