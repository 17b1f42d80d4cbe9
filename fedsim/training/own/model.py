"""A user's model as this process trains and scores it: clients together, or one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsim.adapters.adapter import Layout, Vector
from fedsim.adapters.folding import base_into_adapter
from fedsim.config.learning import LoraConfig
from fedsim.errors import WorkerError, message
from fedsim.jobs import Job, Sums, Update
from fedsim.training.beside.tensors import stored_names, value_of
from fedsim.training.direct.adapter_config import plain_lora
from fedsim.training.local import device, one_thread
from fedsim.training.lora import Trainee, peft_config
from fedsim.training.own.chance import drawing
from fedsim.training.own.examples import Examples
from fedsim.training.own.losses import COUNT, LOSS, Alone, bare, loss_of, metrics_of
from fedsim.training.own.source import WHERE, Sketch, Source, difference, sketches
from fedsim.training.own.together import Together
from fedsim.training.own.trainee import Whole
from fedsim.training.written import save_config

Trained = Literal["swapped", "sequential"]


@dataclass(frozen=True)
class Recipe:
    """Which model, what of it trains and how: all that a process needs to load it.

    Attributes:
        source: the user's class.
        layout: of what an update holds.
        lora: what is trained.
        path: together (`swapped`) or one by one.
        counters: buffers of whole numbers that training moves.
        sketches: what the model was like when the run was prepared.
        metrics: names of the user's metrics.
        tokens: what an example counts as.
    """

    source: Source
    layout: Layout
    lora: LoraConfig
    path: Trained
    counters: tuple[str, ...]
    sketches: tuple[Sketch, ...]
    metrics: tuple[str, ...]
    tokens: int = 1

    def __hash__(self) -> int:
        """Return a number that is equal for equal recipes; the layout tells them apart well enough."""
        return hash((self.source, self.path, self.lora.full, self.layout.size))


@dataclass(frozen=True)
class OwnModel:
    """A model by its recipe, loaded once a process, at first use.

    Attributes:
        recipe: of the model.
        tokens_at_once: most examples in one pass of a client batch.
    """

    recipe: Recipe
    tokens_at_once: int

    def load(self) -> None:
        """Build the model."""
        loaded(self.recipe, device())

    def train(self, data: Sequence[Examples], jobs: Sequence[Job]) -> list[Update]:
        """Train each job on its examples: together, or one by one where that is the path.

        A model with adapters stays in evaluation mode; one that trains whole is in training mode.
        """
        model, source, lora = loaded(self.recipe, device()), self.recipe.source, self.recipe.lora
        if isinstance(model, Together):
            from fedsim.training.stacked import batched

            return batched.train(
                model,
                data,
                jobs,
                tokens_at_once=self.tokens_at_once,
                dropout=lora.dropout,
                lr_ratio=lora.lr_ratio,
            )
        from fedsim.training import sequential

        model.model.train(self.recipe.layout.full)
        try:
            losses = Alone(source, device(), self.recipe.tokens)
            return sequential.train(model, data, jobs, dropout=lora.dropout, losses=losses)
        finally:
            model.model.eval()

    def score(self, vector: Vector, examples: Examples, seed: int, base: Vector | None) -> Sums:
        """Return the sums of loss and metrics over some examples, and their number.

        Args:
            vector: what to score.
            examples: in one pass.
            seed: for what the user's code draws.
            base: change of the frozen weights, or None.
        """
        with one_thread(), torch.no_grad(), self._with(vector, base) as model, drawing(seed, device()):
            values = metrics_of(self.recipe.source, model, examples.to(device()))
        if set(values) != {LOSS, *self.recipe.metrics}:
            told = ", ".join(name for name in values if name != LOSS) or "none"
            what = f"`{self.recipe.source.name}.metrics` gives other metrics than for the first batch"
            fix = f"give {', '.join(self.recipe.metrics) or 'none'} for every batch"
            raise WorkerError(message(WHERE, what, got=told, fix=fix))
        sums: Sums = {name: float(each.sum()) for name, each in values.items()}
        return sums | {COUNT: float(len(examples))}

    def losses(self, examples: Examples) -> NDArray[np.float32] | None:
        """Return the losses of some examples at the model's own weights, (n,), in evaluation mode; None: `loss` gives their mean."""
        with one_thread(), torch.no_grad(), drawing(0, "cpu"):
            values = loss_of(self.recipe.source, self.recipe.source.model(), examples)
        return None if values.dim() == 0 else values.numpy()

    @contextmanager
    def _with(self, vector: Vector, base: Vector | None) -> Iterator[nn.Module]:
        """Yield the user's model with the weights of a vector."""
        model = loaded(self.recipe, device())
        model.rebase(base)
        if isinstance(model, Together):
            with model.swap.set(model.stack([vector])):
                yield model.swap.model
        else:
            model.write(vector)
            yield bare(model)

    def save(self, vector: Vector, folder: Path, base: Vector | None) -> int:
        """Write a PEFT folder, or the weights by name as `model.safetensors`; return the adapter's rank.

        `PeftModel.from_pretrained(MyTask().model(), folder)` loads the first,
        `model.load_state_dict(load_file(path), strict=False)` the second.
        """
        from safetensors.numpy import save_file

        layout, lora = self.recipe.layout, self.recipe.lora
        folder.mkdir(parents=True, exist_ok=True)
        if base is not None:
            layout, vector = base_into_adapter(layout, vector, base)
            lora = plain_lora(lora, layout.rank)
        arrays = layout.arrays(np.ascontiguousarray(vector, dtype=np.float32))
        if layout.full:
            save_file({name: np.array(array) for name, array in arrays.items()}, folder / "model.safetensors")
            return 0
        tensors = {key: np.array(arrays[name]) for name, key in stored_names(layout).items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        save_config(
            peft_config(self.recipe.source.model(), layout, lora, base=self.recipe.source.name), folder
        )
        return layout.rank


@lru_cache(maxsize=2)
def loaded(recipe: Recipe, where: str) -> Trainee | Together:
    """Return this process's copy of a model, built and wrapped once.

    Raises:
        WorkerError: this process builds another model than the one that prepared the run.
    """
    model = recipe.source.model()
    other = difference(sketches(model), recipe.sketches)
    if other is not None:
        what = (
            f"`{recipe.source.name}.model` builds another model here than when the run was prepared: {other}"
        )
        fix = "let model() depend on the settings and on torch's generator alone"
        raise WorkerError(message(WHERE, what, fix=fix))
    model = model.to(where)
    if recipe.layout.full:
        return Whole(model, recipe.layout, recipe.counters)
    if recipe.path == "swapped":
        return Together(recipe.source, model, recipe.layout, recipe.tokens)
    return Trainee(model, recipe.layout, recipe.lora)


@lru_cache(maxsize=2)
def pretrained(source: Source, layout: Layout) -> Vector:
    """Return the model's own values of the whole tensors that train, one after the other: all of version 0, or its end."""
    model = source.model()
    buffers = dict(model.named_buffers())
    values = [
        buffers[tensor.name].numpy() if tensor.name in buffers else value_of(model, tensor)
        for tensor in layout.tensors
    ]
    vector: Vector = np.concatenate([value.ravel() for value in values])
    vector.flags.writeable = False
    return vector
