"""A causal language model by name, as this process trains and scores it: by the fused, the swapped or the stock path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.arrays import Ints
from fedsim.config.learning import LoraConfig, NumericsConfig
from fedsim.cost.quantised import Quantise
from fedsim.jobs import Job, Update
from fedsim.training import hub, lora
from fedsim.training.backbone import Backbone
from fedsim.training.chats.sequences import Sequences
from fedsim.training.direct.targets import known_to_train
from fedsim.training.local import Windows, device
from fedsim.training.lora import Trainee
from fedsim.training.paths import Trained, resolved

if TYPE_CHECKING:
    from fedsim.training.chats.generation import Answers


def longest(examples: Windows | Sequences) -> int:
    """Return the predicted tokens that a client's rows may have."""
    return examples.most if isinstance(examples, Sequences) else int(examples.shape[1]) - 1


LOGITS = 2**24
"""Numbers in the logits of one forward pass when scoring: 64 MiB of float32."""
STATES = 2**22
"""Numbers in their hidden states; a layer holds about twenty times as many while it computes: 320 MiB."""
SWAPPED = 2**26
"""The same of a training pass through a swapped model, where they are in memory about three times."""


@dataclass(frozen=True)
class TextModel:
    """Which model, and how it trains; its weights are loaded once a process, at first use.

    Attributes:
        name: folder or hub name.
        lora: what is trained; `numerics`: by which path.
        layout: of what an update holds.
        width, vocabulary: numbers of a token's hidden state and of its logits.
        cache_bytes: room for frozen hidden states.
        quantise: how the frozen weights are held; None: as the model has them.
    """

    name: str
    lora: LoraConfig
    numerics: NumericsConfig
    layout: Layout
    width: int
    vocabulary: int
    cache_bytes: float
    quantise: Quantise | None = None

    def load(self, *, packs: bool = False) -> None:
        """Load the weights.

        Args:
            packs: whether rows are of several examples, which the model must keep apart.

        Raises:
            DataError: it does not.
        """
        model = self.backbone() or self._trainee()
        if packs:
            from fedsim.training.chats.scores import check_apart

            check_apart(model, self.vocabulary, self.name)

    def pretrained(self) -> Vector:
        """Return the model's own weights as a vector."""
        return lora.pretrained(self.name, self.layout, self.quantise)

    def path(self) -> Trained:
        """Return the path that trains it."""
        if known_to_train(self.name, self.lora, self.numerics.training) is not None:
            return "fused"
        return resolved(hub.skeleton(self.name), self.layout, self.numerics.training)

    def train(self, data: Sequence[Windows | Sequences], jobs: Sequence[Job]) -> list[Update]:
        """Train each job on its windows: together, or one by one if no backbone takes several clients."""
        backbone = self.backbone()
        if backbone is None:
            from fedsim.training import sequential

            return sequential.train(self._trainee(), data, jobs, dropout=self.lora.dropout)
        from fedsim.training.stacked.depths import by_depth, narrowed, widened

        updates: dict[int, Update] = {}
        for depth, members in by_depth(self.layout, jobs).items():
            examples, asked = [data[i] for i in members], [jobs[i] for i in members]
            if depth is None:
                ends = self._through(backbone, examples, asked)
            else:
                asked = [narrowed(self.layout, job) for job in asked]
                upper = self._through(backbone.at_depth(depth), examples, asked)
                ends = [widened(self.layout, depth, update) for update in upper]
            updates.update(zip(members, ends, strict=True))
        return [updates[i] for i in range(len(jobs))]

    def _through(
        self, backbone: Backbone, data: Sequence[Windows | Sequences], jobs: Sequence[Job]
    ) -> list[Update]:
        """Train jobs through a backbone that has all adapters of their vectors."""
        from fedsim.training.stacked import frozen_prefix

        groups = frozen_prefix.groups(self.state_sizes(backbone, data, jobs), frozen_prefix.most(backbone))
        updates: dict[int, Update] = {}
        for clients, entered in groups:
            ends = self._together(
                backbone, [data[i] for i in clients], [jobs[i] for i in clients], entered=entered
            )
            updates.update(zip(clients, ends, strict=True))
        return [updates[i] for i in range(len(jobs))]

    def _together(
        self, backbone: Backbone, data: Sequence[Windows | Sequences], jobs: Sequence[Job], *, entered: bool
    ) -> list[Update]:
        """Train one group; its states, if it is given any, are gone when it is done."""
        from fedsim.training.stacked import batched, frozen_prefix

        whole = self.backbone()
        assert whole is not None
        prefix = frozen_prefix.of(whole, self.cache_bytes)
        return batched.train(
            backbone,
            data,
            jobs,
            tokens_at_once=self.tokens_at_once(backbone, max(map(longest, data))),
            dropout=self.lora.dropout,
            lr_ratio=self.lora.lr_ratio,
            hidden=[prefix.states(w, backbone) for w in data if not isinstance(w, Sequences)]
            if entered
            else None,
        )

    def score(
        self,
        vectors: Sequence[Vector],
        windows: Sequence[Windows],
        counts: Sequence[NDArray[Any]],
        most: int,
        base: Vector | None,
    ) -> list[float]:
        """Return, for each vector, the summed NLL [nats] of the first tokens of each of its windows.

        Args:
            vectors: what to score; together if a backbone takes several clients.
            windows: token ids (n, T + 1) of each vector, of one T.
            counts: real tokens (n,) of each vector's windows; the rest is padding.
            most: windows in one pass, if they fit (`rows_at_once`).
            base: change of the frozen weights, or None.
        """
        backbone = self.backbone()
        rows = self.rows_at_once(windows[0].shape[1] - 1, most)
        if backbone is None:
            from fedsim.training import sequential

            trios = zip(vectors, windows, counts, strict=True)
            return [sequential.score(self._trainee(), v, w, real, rows, base) for v, w, real in trios]
        from fedsim.training.stacked import batched

        return batched.score(backbone, vectors, windows, counts, rows, base)

    def grade(self, vector: Vector, rows: Sequences, base: Vector | None) -> dict[str, float]:
        """Return nll [nats], tokens and hits of the learned tokens of some rows: see `fedsim.training.chats.scores`."""
        from fedsim.training.chats import scores

        most = min(LOGITS // self.vocabulary, STATES // self.width)
        return scores.score(self.backbone() or self._trainee(), vector, rows, most, base)

    def answers(
        self,
        vector: Vector,
        rows: Sequences,
        asked: Ints,
        base: Vector | None,
        most: int,
        ends: Sequence[int],
    ) -> Answers:
        """Return what the model says after the first `asked` tokens of each row: see `fedsim.training.chats.generation`."""
        from fedsim.training.chats import generation

        return generation.answers(
            self._trainee(), hub.tokenizer(self.name), vector, base, rows, asked, most, ends
        )

    def rows_at_once(self, sequence: int, most: int) -> int:
        """Return how many windows of `sequence` tokens go through the model at once: their logits and states are bounded."""
        return max(1, min(most, LOGITS // (sequence * self.vocabulary), STATES // (sequence * self.width)))

    def save(self, vector: Vector, folder: Path, base: Vector | None) -> int:
        """Write the adapter as a PEFT folder, or the model as a transformers folder; return its rank."""
        return lora.save(vector, self.name, self.lora, folder, base)

    def tokens_at_once(self, backbone: Backbone, sequence: int) -> int:
        """Return the tokens of one pass; the fused decoder bounds its logits itself, a swapped model does not."""
        from fedsim.training.stacked.swapped import Swapped

        most = self.numerics.tokens_at_once
        if not isinstance(backbone, Swapped):
            return most
        return min(most, max(sequence, SWAPPED // self.vocabulary))

    def state_sizes(
        self, backbone: Backbone, data: Sequence[Windows | Sequences], jobs: Sequence[Job]
    ) -> list[int | None]:
        """Return the numbers in each client's frozen states, None where they are not worth computing.

        They are where a visit goes through the whole shard at least once. Rows of unequal length have none.
        """
        return [
            len(windows) * (windows.shape[1] - 1) * self.width
            if backbone.prefix_layers
            and not isinstance(windows, Sequences)
            and job.local.examples_over(len(windows)) >= len(windows)
            else None
            for windows, job in zip(data, jobs, strict=True)
        ]

    def backbone(self) -> Backbone | None:
        """Return what takes many clients, None if none does."""
        numerics = self.numerics
        return lora.backbone(self.name, self.lora, numerics.training, device(), numerics.dtype, self.quantise)

    def _trainee(self) -> Trainee:
        return lora.trainee(self.name, self.lora, device(), self.numerics.dtype, self.quantise)
