"""Layers of a causal language model that can carry no adapter, though they are matrices by their class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedsim.training.direct.architecture import Matrix

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

WITHOUT_ADAPTER = frozenset({"out_proj", "conv1d"})
"""Layers that PEFT refuses to adapt in models of `STATE_SPACE`: their fast path reads the weight past the layer."""
STATE_SPACE = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
"""Types of models, by PEFT's own list (`peft.tuners.tuners_utils`)."""
READ_PAST = {"mamba": "dt_proj", "falcon_mamba": "dt_proj", "jamba": "dt_proj"}
"""Types of models -> the layer whose weight transformers reads without calling it: PEFT puts an adapter there, and it never acts."""


def takes_none(model: PreTrainedModel, matrix: Matrix) -> bool:
    """Tell whether a layer can carry no adapter: PEFT refuses it, nobody calls it, or it is no map from vectors to vectors.

    A router that returns a tuple, or a layer that wants its inputs in groups, is a Linear by its class only.
    """
    kind, leaf = model.config.model_type, matrix.name.rpartition(".")[2]
    if (kind in STATE_SPACE and leaf in WITHOUT_ADAPTER) or READ_PAST.get(kind) == leaf:
        return True
    return not _maps_vectors(model.get_submodule(matrix.name), matrix)


def _maps_vectors(layer: torch.nn.Module, matrix: Matrix) -> bool:
    """Tell whether a layer makes (1, 2, outputs) of (1, 2, inputs); only one with a `forward` of its own is tried."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if type(layer).forward in (torch.nn.Linear.forward, Conv1D.forward):
        return True
    try:
        with torch.no_grad():
            out = layer(
                torch.empty(1, 2, matrix.inputs, device=layer.weight.device, dtype=layer.weight.dtype)
            )
        return tuple(out.shape) == (1, 2, matrix.outputs)
    except Exception:  # whatever a layer of others raises
        return False
