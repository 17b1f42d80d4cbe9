"""A denoiser by name, as this process trains it, takes its loss and draws with it: swapped, or stock PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.adapters.adapter import Layout, Vector
from fedsim.config.learning import NumericsConfig
from fedsim.jobs import Job, Update
from fedsim.training.diffusion import lora, models, scores
from fedsim.training.diffusion.denoising import Denoiser, Shard, alone
from fedsim.training.diffusion.lora import Source
from fedsim.training.local import device
from fedsim.training.lora import Trainee


@dataclass(frozen=True)
class ImageModel:
    """Which denoiser, and how it trains; its weights are loaded once a process, at first use.

    Attributes:
        source: the denoiser.
        numerics: by which path it trains.
        seed: the experiment's, the address of all noise.
    """

    source: Source
    numerics: NumericsConfig
    seed: int

    def load(self) -> None:
        """Load the weights."""
        self._model()

    def pretrained(self, layout: Layout) -> Vector:
        """Return the model's own weights as a vector."""
        return lora.pretrained(self.source, layout)

    def path(self, layout: Layout) -> Literal["swapped", "sequential"]:
        """Return the path that trains it."""
        return lora.resolved(models.skeleton(self.source.name), layout, self.numerics.training)

    def train(self, data: Sequence[Shard], jobs: Sequence[Job]) -> list[Update]:
        """Train each job on its images: together, or one by one where no backbone takes several clients."""
        backbone, lora_config = self._backbone(), self.source.lora
        if backbone is None:
            from fedsim.training import sequential

            how = models.signature(self.source.name)
            losses = alone(how, self.source.process, told=self.source.told)
            return sequential.train(self._trainee(), data, jobs, dropout=lora_config.dropout, losses=losses)
        from fedsim.training.stacked import batched

        at_once = self.numerics.tokens_at_once
        return batched.train(
            backbone,
            data,
            jobs,
            tokens_at_once=at_once,
            dropout=lora_config.dropout,
            lr_ratio=lora_config.lr_ratio,
        )

    def error(
        self, vector: Vector, images: Shard, rows: Sequence[int], points: int, split: str, base: Vector | None
    ) -> float:
        """Return the squared errors summed over images and `points` fixed timesteps; see `scores.grid_error`."""
        model = self._rebased(base)
        return scores.grid_error(model, vector, self.source, images, rows, points, (self.seed, split))

    def draw(
        self,
        vector: Vector,
        numbers: Sequence[int],
        classes: NDArray[np.int64] | None,
        steps: int,
        base: Vector | None,
    ) -> NDArray[np.uint8]:
        """Return samples (n, C, H, W); see `scores.drawn`."""
        model = self._rebased(base)
        return scores.drawn(model, vector, self.source, self.seed, list(numbers), classes, steps)

    def save(self, vector: Vector, folder: Path, base: Vector | None) -> int:
        """Write the adapter as a PEFT and as a diffusers folder, or the model as diffusers'; return its rank."""
        return lora.save(vector, self.source, folder, base)

    def _rebased(self, base: Vector | None) -> Denoiser | Trainee:
        model = self._model()
        model.rebase(base)
        return model

    def _model(self) -> Denoiser | Trainee:
        return self._backbone() or self._trainee()

    def _backbone(self) -> Denoiser | None:
        return lora.backbone(self.source, self.numerics.training, device(), self.numerics.dtype)

    def _trainee(self) -> Trainee:
        return lora.trainee(self.source, device(), self.numerics.dtype)
