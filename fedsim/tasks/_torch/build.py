"""From a configuration to a task of the user's own: data, a trial of the model, and the facts about both."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import numpy as np

from fedsim.cost.operations import Operations
from fedsim.cost.shape import ModelShape
from fedsim.errors import ExperimentError, message
from fedsim.jobs import TaskContext
from fedsim.tasks._torch.data import Deal, dealt
from fedsim.tasks._torch.settings import TorchSettings
from fedsim.tasks._torch.task import OwnTask
from fedsim.training.beside.saved_adapter import check_saved
from fedsim.training.own.source import Source
from fedsim.training.own.trial import Trial, trial


def prepare(config: TorchSettings, context: TaskContext) -> OwnTask:
    """Return the task; see `Torch.build`."""
    if context.numerics.dtype != "float32":
        what = "a model of one's own computes in the types that its model() gives it"
        fix = "leave it out, and return model.to(torch.bfloat16) where that is meant"
        raise ExperimentError(message("numerics.dtype", what, got=context.numerics.dtype, fix=fix))
    settings = json.dumps(config.settings, sort_keys=True, default=str)
    source = Source(config.torch_class(), settings, context.first_seed, context.seed)
    deal = dealt(config, source, context)
    first = deal.splits.training[int(np.argmax(deal.splits.training.sizes))][: context.local.batch]
    tried = trial(source, context.lora, context.numerics.training, deal.data.at(first))
    recipe = replace(tried.recipe, tokens=config.tokens_per_example)
    check_saved(recipe.layout, context.lora)
    return OwnTask(
        model=config.module,
        lora=context.lora,
        numerics=context.numerics,
        gpus_per_worker=context.gpus_per_worker,
        seed=context.seed,
        training_seed=context.first_seed,
        layout=recipe.layout,
        shape=_shape(config, context, tried),
        splits=deal.splits,
        facts=_facts(config, deal, tried),
        recipe=recipe,
        data=deal.data,
    )


def _shape(config: TorchSettings, context: TaskContext, tried: Trial) -> ModelShape:
    """Return the size of the model for the cost model; a sequence is an example.

    A model of which only a part trains in full is charged like frozen weights with adapters: that part is what is sent
    and what has moments.
    """
    layout = tried.recipe.layout
    weights, layers, width = tried.multiplying
    full, beside = layout.full and not tried.still, sum(tensor.size for tensor in layout.beside)
    return ModelShape(
        name=config.module,
        layers=layers,
        width=width,
        vocab=1,
        params=layout.size if full else tried.still,
        matmul_params=weights,
        adapter_params=layout.size - beside,
        beside_params=beside,
        sequence=config.tokens_per_example,
        batch=context.local.batch,
        full=full,
        operations=_operations(config, tried.operations),
    )


def _operations(config: TorchSettings, counted: Operations) -> Operations:
    """Return what an example costs: counted, or as the user says; adapters add to that what they add to the count."""
    work = config.work
    if work is None:
        return counted
    stated = replace(counted, forward=round(work.forward_flops), backward=round(work.backward_flops))
    if work.activation_bytes is None:
        return stated
    kept_bytes = round(work.activation_bytes)
    boundary_bytes = min(counted.boundary_bytes, kept_bytes)
    return replace(stated, kept_bytes=kept_bytes, boundary_bytes=boundary_bytes, block_bytes=0)


def _facts(config: TorchSettings, deal: Deal, tried: Trial) -> dict[str, object]:
    operations = tried.operations
    facts: dict[str, object] = {
        "model": config.module,
        "settings": config.settings,
        **deal.facts,
        "forward_flops_per_example": operations.forward,
        "backward_flops_per_example": operations.backward,
        "data_checksum": f"{zlib.crc32(deal.data.checksums.tobytes()):08x}",
        "work": "counted" if config.work is None else "stated",
        "metrics": ["loss", *tried.recipe.metrics],
    }
    if tried.why is not None:
        why = f"clients train one after the other: {tried.why}"
        facts["notices"] = [*deal.notices, why]
    elif deal.notices:
        facts["notices"] = deal.notices
    return facts
