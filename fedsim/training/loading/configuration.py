"""What is read off the configurations of others: families call the same thing by other names, or have it in a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedsim.blame import described
from fedsim.errors import DataError, message
from fedsim.training.direct.architecture import WINDOWED

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PretrainedConfig, PreTrainedModel


def text_config(model: PreTrainedModel) -> PretrainedConfig:
    """Return the part of a model's configuration that is about its text, which may be all of it.

    Raises:
        DataError: there are several.
    """
    try:
        return model.config.get_text_config(decoder=True)
    except ValueError as problem:
        what = f"its configuration has no one part for text ({described(problem)})"
        raise DataError(message("task.model", what, fix="give a model of text")) from problem


def number(config: PretrainedConfig, *names: str) -> int | None:
    """Return the first whole number that a configuration has under one of these names; None: it has none."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def vocabulary(model: PreTrainedModel) -> int:
    """Return how many tokens a model knows: its configuration's, or the rows of its embedding."""
    words = number(text_config(model), "vocab_size")
    return int(model.get_input_embeddings().weight.shape[0]) if words is None else words


def width(model: PreTrainedModel) -> int:
    """Return the numbers of a token's hidden state: the configuration's, or those of an embedding."""
    numbers = number(text_config(model), "hidden_size", "d_model", "n_embd")
    return int(model.get_input_embeddings().weight.shape[-1]) if numbers is None else numbers


def layers(model: PreTrainedModel) -> int:
    """Return the number of layers: the configuration's, or the length of the longest list of modules; at least 1."""
    import torch

    count = number(text_config(model), "num_hidden_layers", "n_layer", "num_layers")
    lists = (len(m) for _, m in of_text(model) if isinstance(m, torch.nn.ModuleList))
    return max(1, max(lists, default=1) if count is None else count)


def of_text(model: PreTrainedModel) -> list[tuple[str, Module]]:
    """Return (path, module) of what a text goes through: all of a model of text, of others the decoder and the head."""
    modules = list(model.named_modules())
    if text_config(model) is model.config or model.config.is_encoder_decoder:
        return modules
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(m) for part in (decoder, head) if part is not None for m in part.modules()}
    return [(name, module) for name, module in modules if id(module) in inside]


def of_text_parameters(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """Return (path, parameter) of what a text goes through, tied ones once."""
    paths = {name for name, _ in of_text(model)}
    return [(name, p) for name, p in model.named_parameters() if name.rpartition(".")[0] in paths]


def windows(model: PreTrainedModel) -> tuple[int, ...]:
    """Return how many of the last tokens each layer sees, 0: all; nothing where no layer has a window."""
    settings = vars(text_config(model))
    window, kinds = settings.get("sliding_window"), settings.get("layer_types")
    if not isinstance(window, int) or window <= 0 or not _windowed(settings):
        return ()
    return tuple(window if kind == WINDOWED else 0 for kind in kinds or [WINDOWED] * layers(model))


def check_window(settings: PretrainedConfig, name: str) -> None:
    """Refuse windows of no token: transformers takes them, and attention then gives zeros.

    Args:
        settings: of the model.
        name: of the model.

    Raises:
        DataError: it says how long the window is.
    """
    for part in (settings, vars(settings).get("text_config")):
        window = None if part is None or isinstance(part, dict) else number(part, "sliding_window")
        if window is not None and window < 1 and _windowed(vars(part)):
            what = f"its window of {window} tokens shows a token not even itself"
            fix = "set sliding_window in config.json to a number of tokens, or to null"
            raise DataError(message("task.model", what, got=name, fix=fix))


def _windowed(settings: Mapping[str, object]) -> bool:
    """Tell whether some layer has the window of a configuration, whatever its length."""
    kinds = settings.get("layer_types")
    if isinstance(kinds, list):
        return WINDOWED in kinds
    return settings.get("use_sliding_window") is not False


PARALLEL = frozenset({"codegen", "cohere", "cohere2", "gptj", "phi"})
"""Types of models whose attention and MLP always read the same input."""
SWITCHES = ("use_parallel_residual", "parallel_attn")
"""What others call the switch: GPT-NeoX and StableLM, Falcon."""


def parallel(model: PreTrainedModel) -> bool:
    """Tell whether attention and MLP of a layer read the same input, side by side."""
    settings = vars(text_config(model))
    return model.config.model_type in PARALLEL or any(settings.get(name) is True for name in SWITCHES)
