"""The frozen weights of a run as a folder of transformers: what its adapter was trained on, for stock PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedsim.cost.quantised import Quantise, quantise_of
from fedsim.training import hub, lora


def save_base(
    model: str, quantise: Literal["int8", "nf4"] | Quantise, folder: Path | str, dtype: str = "float32"
) -> None:
    """Write a model whose weights are the values of its codes, with its tokenizer.

    `AutoModelForCausalLM.from_pretrained(folder)` with the run's adapter on it is then the model that was scored.

    Args:
        model: folder or hub name, as `task.model`.
        quantise: as `task.quantise`.
        folder: where to.
        dtype: of the weights, by torch's name, as `numerics.dtype`.

    Raises:
        DataError, ExperimentError: the model cannot be loaded, or has no such layers.
    """
    lora.frozen(model, dtype, quantise_of(quantise)).save_pretrained(folder)
    hub.tokenizer(model).save_pretrained(folder)
