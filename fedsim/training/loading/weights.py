"""The weights that multiply a token: of a dense model all matrices, of experts the share that a token is sent to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsim.training.loading.configuration import number, of_text, of_text_parameters, text_config

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

EXPERTS = (
    "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts",
    "n_experts", "moe_n_experts",
)  # fmt: skip
CHOSEN = (
    "num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k", "top_k_experts", "num_selected_experts",
    "num_experts_per_token", "experts_per_token",
)  # fmt: skip
"""What configurations call the number of experts, and how many of them see a token."""
ONE_OF_MANY = re.compile(r"(^|\.)experts\.")
"""Part of the path of what belongs to experts."""


@dataclass(frozen=True)
class Multiplying:
    """Weights that multiply every token.

    Attributes:
        active: weights that one token is multiplied with, the head apart.
        outside: weights in matrices that are no Linear or Conv1D, which carry no adapter.
        experts: of these and of the Linear ones, how many belong to experts, active or not.
    """

    active: int
    outside: int
    experts: int


def multiplying(model: PreTrainedModel) -> Multiplying:
    """Return the weights of a model that multiply a token; its weights are not needed.

    A parameter counts if it has two axes and more and is no embedding: matrices of Linear and Conv1D, routers, the
    fused matrices of experts, filters. Of E experts of which a token goes to k, k / E counts.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head, text = model.get_output_embeddings(), text_config(model)
    several = number(text, *EXPERTS) or 1
    modules = dict(of_text(model))
    active = outside = experts = 0
    for path, weight in of_text_parameters(model):
        module = modules[path.rpartition(".")[0]]
        if weight.dim() < 2 or module is head or isinstance(module, torch.nn.Embedding):
            continue
        size = weight.numel()
        linear = isinstance(module, torch.nn.Linear | Conv1D)
        outside += 0 if linear else size
        count = _experts_in(path, weight, several, linear=linear)
        if count > 1:
            experts += size
            size = size * _chosen(text, count) // count
        active += size
    return Multiplying(active, outside, experts)


def _experts_in(path: str, weight: Tensor, several: int, *, linear: bool) -> int:
    """Return how many experts there are, of which a weight holds one (a Linear) or all; 1: it is no expert's."""
    inside = bool(ONE_OF_MANY.search(path))
    if not linear and weight.dim() == 3 and (inside or (several > 1 and weight.shape[0] == several)):
        return int(weight.shape[0])
    return several if inside and not path.endswith("bias") else 1


def _chosen(text: PretrainedConfig, count: int) -> int:
    """Return how many of `count` experts see a token; all, where the configuration does not say."""
    chosen = number(text, *CHOSEN)
    if chosen is None:  # Hunyuan: one number a layer
        lists = (
            value for name in CHOSEN if isinstance(value := getattr(text, name, None), list | tuple) and value
        )
        values = next(lists, None)
        chosen = count if values is None else math.ceil(sum(values) / len(values))
    return min(count, max(1, chosen))
