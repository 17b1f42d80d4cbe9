"""The size of a causal language model for the cost model; its weights are not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsim.adapters.adapter import Layout
from fedsim.cost.layers import Layer, Map
from fedsim.cost.named_layers import arranged, layer_of_maps
from fedsim.cost.quantised import Quantise
from fedsim.cost.shape import ModelShape, above_share
from fedsim.training.beside.cost import with_beside_cost
from fedsim.training.direct.architecture import Architecture, Matrix
from fedsim.training.direct.targets import layer_of
from fedsim.training.loading import configuration
from fedsim.training.loading.weights import multiplying
from fedsim.training.lora import matrices
from fedsim.training.quantised.chosen import held, of_matrices

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shape(
    model: PreTrainedModel,
    name: str,
    trained: Layout,
    sequence: int,
    batch: int,
    quantise: Quantise | None = None,
) -> ModelShape:
    """Return the model's size for the cost model; the head multiplies every token, tied or not.

    Of experts those that see a token are charged, and of a model of text and pictures its part for text. Attention is
    charged in every layer, where a state-space layer has a scan that is cheaper.
    """
    head = model.get_output_embeddings()
    head_params = 0 if head is None else sum(p.numel() for p in head.parameters() if p.dim() > 1)
    sizes = _Sizes(
        configuration.layers(model),
        configuration.width(model),
        configuration.vocabulary(model),
        sum(p.numel() for _, p in configuration.of_text_parameters(model)),
        multiplying(model).active,
        head_params,
        tuple(matrices(model)),
        configuration.windows(model),
        configuration.parallel(model),
    )
    plain = _shape(sizes, name, trained, sequence, batch, quantise)
    return with_beside_cost(plain, model, trained, [m.name for m in sizes.matrices])


def shape_of(
    made: Architecture,
    name: str,
    trained: Layout,
    sequence: int,
    batch: int,
    quantise: Quantise | None = None,
) -> ModelShape:
    """Return the same of a model whose architecture is known without transformers."""
    active = sum(m.inputs * m.outputs for m in made.matrices)
    sizes = _Sizes(
        made.layers,
        made.width,
        made.vocabulary,
        made.params,
        active,
        made.head_params,
        tuple(made.matrices),
        tuple(reach.window for reach in made.reaches),
    )
    return _shape(sizes, name, trained, sequence, batch, quantise)


@dataclass(frozen=True)
class _Sizes:
    """What the cost of a model follows from; `active` are the weights that multiply a token, the head apart.

    `windows` are those of the layers, 0 or nothing where they have none; `parallel` is whether attention and MLP read the
    same input.
    """

    layers: int
    width: int
    vocabulary: int
    params: int
    active: int
    head_params: int
    matrices: tuple[Matrix, ...]
    windows: tuple[int, ...]
    parallel: bool = False


def _shape(
    sizes: _Sizes, name: str, trained: Layout, sequence: int, batch: int, quantise: Quantise | None
) -> ModelShape:
    quantised = held(of_matrices(sizes.matrices), quantise, trained)
    matmul, layers = max(1, sizes.active + sizes.head_params), sizes.layers
    lowest = min(_lowest(trained), layers - 1)
    return ModelShape(
        name=name,
        layers=layers,
        width=sizes.width,
        vocab=sizes.vocabulary,
        params=sizes.params,
        matmul_params=matmul,
        adapter_params=trained.size,
        sequence=sequence,
        batch=batch,
        phi=above_share(lowest, layers, matmul, sizes.head_params),
        full=trained.full,
        lowest=lowest,
        blocks=arranged(_blocks(sizes.matrices, trained, layers), sizes.windows, parallel=sizes.parallel),
        quantised_params=quantised[0],
        quantised_bytes=quantised[1],
    )


def notices(model: PreTrainedModel, trained: Layout) -> list[str]:
    """Return what is said of weights that multiply tokens and carry no adapter whatever the targets: experts, filters."""
    found = multiplying(model)
    if trained.full or not found.outside:
        return []
    kind = "experts" if found.experts else "weights that are no Linear layer"
    return [
        f"{kind} stay frozen: {found.outside:,} weights lie in fused matrices, on which PEFT puts no adapter"
    ]


def _lowest(trained: Layout) -> int:
    return max(0, min((layer_of(m.name) for m in trained.modules), default=0))


def _blocks(matrices: Sequence[Matrix], trained: Layout, count: int) -> tuple[Layer, ...]:
    """Return the layers with their maps, if these are known by their names; else nothing.

    Attention is as wide as what goes into the map out of it: heads x head size.
    """
    ranks = {m.name: m.rank for m in trained.modules}
    layers: list[dict[str, Map]] = [{} for _ in range(count)]
    for m in matrices:
        at, leaf = layer_of(m.name), m.name.rpartition(".")[2]
        if not 0 <= at < len(layers):
            return ()
        leaf = leaf if leaf not in layers[at] else f"second {leaf}"  # GPT-2: attn.c_proj, then mlp.c_proj
        layers[at][leaf] = Map(m.inputs, m.outputs, ranks.get(m.name, 0))
    blocks = [layer_of_maps(maps) for maps in layers]
    return tuple(block for block in blocks if block is not None) if all(blocks) else ()
