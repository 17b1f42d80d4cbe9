"""The size of a causal language model for the cost model; its weights are not needed."""

from __future__ import annotations

from typing import Any

from fedsim.adapters.adapter import Layout
from fedsim.cost.architecture import ATTENTION, MLP
from fedsim.cost.layers import Layer, Map
from fedsim.cost.shape import ModelShape, above_share
from fedsim.training.lora import matrices


def shape(model: Any, name: str, trained: Layout, sequence: int, batch: int) -> ModelShape:
    """Return the model's size for the cost model; the head multiplies every token, tied or not."""
    config = model.config
    head = model.get_output_embeddings()
    head_params = 0 if head is None else head.weight.numel()
    matmul = sum(m.inputs * m.outputs for m in matrices(model)) + head_params
    lowest = _lowest(trained)
    return ModelShape(
        name=name,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocab=config.vocab_size,
        params=sum(p.numel() for p in model.parameters()),
        matmul_params=matmul,
        adapter_params=trained.size,
        sequence=sequence,
        batch=batch,
        phi=above_share(lowest, config.num_hidden_layers, matmul, head_params),
        full=trained.full,
        lowest=lowest,
        blocks=_blocks(model, trained),
    )


def _layer_of(name: str) -> int:
    """Return the layer's index in a module's path (`model.layers.3.mlp.up_proj`), -1 if there is none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


def _lowest(trained: Layout) -> int:
    return max(0, min((_layer_of(m.name) for m in trained.modules), default=0))


def _blocks(model: Any, trained: Layout) -> tuple[Layer, ...]:
    """Return the layers with their maps, if they have the maps of a Llama or a GPT-2; else nothing."""
    config, ranks = model.config, {m.name: m.rank for m in trained.modules}
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    layers: list[dict[str, Map]] = [{} for _ in range(config.num_hidden_layers)]
    for m in matrices(model):
        at, leaf = _layer_of(m.name), m.name.rpartition(".")[2]
        if not 0 <= at < len(layers):
            return ()
        leaf = leaf if leaf not in layers[at] else f"second {leaf}"  # GPT-2: attn.c_proj, then mlp.c_proj
        layers[at][leaf] = Map(m.inputs, m.outputs, ranks.get(m.name, 0))
    blocks: list[Layer] = []
    for maps in layers:
        if maps.keys() == set(ATTENTION + MLP):
            q, k, v, out, gate, up, down = (maps[name] for name in ATTENTION + MLP)
            blocks.append(Layer((q, k, v), out, (gate, up), down, width))
        elif maps.keys() == {"c_attn", "c_proj", "c_fc", "second c_proj"}:
            joint, out, up, down = (maps[name] for name in ("c_attn", "c_proj", "c_fc", "second c_proj"))
            blocks.append(Layer((joint,), out, (up,), down, width))
        else:
            return ()
    return tuple(blocks)
