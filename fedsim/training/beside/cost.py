"""What it costs to train whole tensors beside the factors: where gradients go, and what DoRA computes in each pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fedsim.adapters.adapter import Layout
from fedsim.cost.layers import Layer, Map
from fedsim.cost.shape import ModelShape, above_share, with_magnitudes
from fedsim.training.direct.targets import layer_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Trains = Literal["bias", "weight"]
"""What of a matrix itself is trained."""


@dataclass(frozen=True)
class _Places:
    """Where whole tensors are trained.

    Attributes:
        maps: what trains of a matrix itself, by its path.
        norms: the layers of which something else trains, a normalisation as a rule.
        layers: all layers that anything of it lies in.
        head_params: weights of the output head, if it trains.
        embedded: whether the embedding trains, so that the backward pass goes all the way down.
    """

    maps: dict[str, Trains]
    norms: frozenset[int]
    layers: frozenset[int]
    head_params: int
    embedded: bool


def with_beside_cost(
    shape: ModelShape, model: PreTrainedModel, trained: Layout, matrices: Sequence[str]
) -> ModelShape:
    """Return the size of a model with what is trained beside its factors.

    Args:
        shape: of the model; its `adapter_params` are all numbers of the layout.
        model: the model; its weights are not needed.
        trained: the layout.
        matrices: the paths of its matrices, in the model's order.
    """
    if not trained.beside:
        return shape
    places = _places(model, trained, set(matrices))
    lowest = 0 if places.embedded else min([shape.lowest, *places.layers])
    blocks = _with_training(shape.blocks, places, matrices)
    weights = {path for path, trains in places.maps.items() if trains == "weight"}
    unknown = sum(
        math.prod(t.shape)
        for t in trained.beside
        if not blocks and t.name.rpartition(".")[0] in weights and len(t.shape) > 1
    )
    changed = replace(
        shape,
        adapter_params=trained.size - sum(t.size for t in trained.beside),
        beside_params=sum(t.size for t in trained.beside if t.kind != "magnitude"),
        beside_matmul=places.head_params + unknown,
        lowest=lowest,
        phi=above_share(lowest, shape.layers, shape.matmul_params, shape.head_params),
        blocks=blocks,
    )
    return with_magnitudes(changed, _adapted(trained)) if trained.beside[0].kind == "magnitude" else changed


def _adapted(trained: Layout) -> list[Map]:
    """Return the adapted maps, those of convolutions flattened."""
    return [Map(math.prod(m.a_shape[1:]), m.b_shape[0], m.rank) for m in trained.modules]


def _places(model: PreTrainedModel, trained: Layout, matrices: set[str]) -> _Places:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    maps = dict[str, Trains]()
    norms, layers, head_params, embedded = set[int](), set[int](), 0, False
    for tensor in trained.beside:
        if tensor.kind == "magnitude":
            continue
        path, _, last = tensor.name.rpartition(".")
        owner = model.get_submodule(path)
        layers.add(layer_of(path))
        embedded |= owner is embedding
        if path in matrices:
            maps[path] = "weight" if last == "weight" else maps.get(path, "bias")
        elif owner is head:
            head_params += math.prod(tensor.shape) if len(tensor.shape) > 1 else 0
        else:
            norms.add(layer_of(path))
    return _Places(maps, frozenset(norms - {-1}), frozenset(layers - {-1}), head_params, embedded)


def _with_training(blocks: Sequence[Layer], places: _Places, matrices: Sequence[str]) -> tuple[Layer, ...]:
    """Return the layers with what of their maps and normalisations trains; a layer's maps are in the model's order."""
    named: dict[int, list[str]] = {}
    for path in matrices:
        named.setdefault(layer_of(path), []).append(path)
    return tuple(
        _trained_layer(block, named[at], places, norms=at in places.norms or (places.embedded and at == 0))
        for at, block in enumerate(blocks)
    )


def _trained_layer(block: Layer, names: Sequence[str], places: _Places, *, norms: bool) -> Layer:
    maps = [m._replace(trains=places.maps.get(path, "")) for m, path in zip(block.maps, names, strict=True)]
    after, last = len(block.qkv), len(maps) - 1
    return replace(
        block,
        qkv=tuple(maps[:after]),
        out=maps[after],
        up=tuple(maps[after + 1 : last]),
        down=maps[last],
        norms_train=norms,
    )
