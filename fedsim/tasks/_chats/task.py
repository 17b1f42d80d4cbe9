"""The runtime side of examples: who has which rows, how they train, what is scored and what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedsim.adapters.adapter import Vector
from fedsim.arrays import Ints
from fedsim.config.learning import LocalConfig
from fedsim.jobs import SPLIT, Job, Probe, Sums, Update
from fedsim.tasks._chats.answering import AnsweringTask, Shown
from fedsim.tasks._chats.settings import Generate
from fedsim.tasks._language.causal import CausalTask, exponential, ratio
from fedsim.tasks._splits import Rows
from fedsim.training.chats.rouge import check_rouge
from fedsim.training.chats.sequences import Sequences

if TYPE_CHECKING:
    from fedsim.training.chats.generation import Answers

ANSWERS = "answers"
"""The split of test examples whose answers are generated."""


@dataclass(frozen=True)
class Held:
    """Examples, one a row or several.

    Attributes:
        sequences: their tokens.
        asked: tokens of each row before its last answer; -1 where it was cut, or rows are packed.
    """

    sequences: Sequences = field(repr=False)
    asked: Ints = field(repr=False)


@dataclass(frozen=True)
class ChatTask(CausalTask, AnsweringTask):
    """Who has which examples, and a model by name.

    Attributes:
        dealt: the clients' rows: those that they train on, and single examples that they keep apart.
        test, valid: examples that nobody trains on.
        generate: what is answered.
        ends: tokens that end an answer.
    """

    dealt: Held
    test: Held
    valid: Held | None
    generate: Generate
    ends: tuple[int, ...]

    unit: ClassVar[str] = "rows"
    uncut: ClassVar[frozenset[str]] = frozenset({"samples", ANSWERS})
    choose_split: ClassVar[str] = "choose test, clients or answers, or give a folder with a *valid* file"

    @property
    def example_tokens(self) -> int:
        """Tokens that a model reads of a training row, on average, rounded up."""
        total, rows = int(self._read[:, 0].sum()), len(self.splits.training.rows)
        return max(1, -(-total // rows))

    @cached_property
    def _read(self) -> Ints:
        """Of each client's training rows, the tokens that a model reads and the sum of their examples' squares, (clients, 2)."""
        rows, stops = self.splits.training.rows, self.splits.training.stops
        numbers = np.stack([self.dealt.sequences.counts[rows], self.dealt.sequences.squares[rows]], axis=1)
        totals = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(numbers, axis=0)])
        read: Ints = np.diff(totals[np.concatenate([[0], stops])], axis=0)
        return read

    def tokens(self, client: int, local: LocalConfig) -> int:
        """Return the tokens of one visit: exact for epochs; of `local.steps`, what is less than an epoch is of mean length."""
        whole, rest = divmod(local.examples_over(self.examples(client)), self.examples(client))
        total = int(self._read[client, 0])
        return whole * total + round(rest * total / self.examples(client))

    def mean_sequence(self, client: int) -> float:
        """Return how long the example is, on average, that a token of this client's data is in: attention costs as much."""
        total, squares = self._read[client].tolist()
        return float(squares / total)

    def warm(self) -> None:
        """Load the weights, and see whether packed examples are kept apart.

        Raises:
            DataError: they are not.
        """
        self.text_model.load(packs=self.dealt.sequences.packed)

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs together, or one by one if no backbone takes several clients."""
        data = [self.dealt.sequences[self.splits.training[job.client]] for job in jobs]
        return self.text_model.train(data, jobs)

    # scores -------------------------------------------------------------------------------------

    def rows(self, split: str, client: int | None) -> Rows:
        """Return the row numbers of a split; of `answers` test examples whose last answer is whole, the first ones.

        Raises:
            DataError: there is no such split.
        """
        if split != ANSWERS:
            return super().rows(split, client)
        order = super().rows("test", None)
        return order[self.test.asked[order] >= 0][: self.generate.examples]

    def probes(self, split: str, windows: int | None = None, client: int | None = None) -> list[Probe]:
        """Return pieces of 32 examples, as of all tasks whose examples are dealt.

        Raises:
            DataError: there is no such split, or answers cannot be scored here.
        """
        if split == ANSWERS:
            check_rouge()
        return super().probes(split, windows, client)

    def score(self, vector: Vector, probe: Probe, base: Vector | None = None) -> Sums:
        """Return the sums of one piece.

        Of answers' tokens nll [nats], tokens and hits; of `answers` how many were generated, how many are equal to what was
        expected, and their ROUGE-L; of `SPLIT` the texts.
        """
        if probe.split == SPLIT:
            texts = self._generated(vector, base, *self._shown(probe))
            return {"texts": texts.texts, "questions": texts.questions, "references": texts.references}
        if probe.split == ANSWERS:
            rows = self.rows(ANSWERS, None)[probe.start : probe.stop]
            return self._generated(vector, base, self.test, rows).sums()
        held = {"test": self.test, "valid": self.valid}.get(probe.split, self.dealt)
        assert held is not None
        rows = self.rows(probe.split, probe.client)[probe.start : probe.stop]
        return dict(self.text_model.grade(vector, held.sequences[rows], base))

    def _shown(self, probe: Probe) -> tuple[Held, Rows]:
        """Return the examples that are shown: of test, or of what a client keeps apart."""
        if probe.client is None:
            return self.test, self.rows(ANSWERS, None)[probe.start : probe.stop]
        rows = self.splits.held_out[probe.client]
        return self.dealt, rows[self.dealt.asked[rows] >= 0][probe.start : probe.stop]

    def shown(self, client: int | None = None) -> int:
        """Return how many examples are shown: of test, or of a client's own."""
        there = self._shown(Probe(SPLIT, 0, self.generate.shown, client))[1]
        return len(there)

    def read_answers(self, sums: Sums) -> list[Shown]:
        """Return question, expected answer and given answer of each text of a score."""
        parts = zip(sums["questions"], sums["references"], sums["texts"], strict=True)
        return [Shown(question, expected, text) for question, expected, text in parts]

    def _generated(self, vector: Vector, base: Vector | None, held: Held, rows: Rows) -> Answers:
        return self.text_model.answers(
            vector, held.sequences[rows], held.asked[rows], base, self.generate.tokens, self.ends
        )

    def metric_names(self, split: str) -> tuple[str, ...]:
        """Return the names of `metrics` of a split: of answers others than of what is read."""
        return ("rouge_l", "exact_match") if split == ANSWERS else ("perplexity", "token_accuracy", "loss")

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Return perplexity, token_accuracy and loss [nats] per token of the answers; of generated ones rouge_l and exact_match."""
        if "generated" in sums:
            return {name: ratio(sums[name], sums["generated"]) for name in ("rouge_l", "exact_match")}
        loss = ratio(sums["nll"], sums["tokens"])
        accuracy = ratio(sums["hits"], sums["tokens"])
        return {"perplexity": exponential(loss), "token_accuracy": accuracy, "loss": loss}
