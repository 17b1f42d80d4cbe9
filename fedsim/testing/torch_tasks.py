"""What a torch model of one's own owes fedsim: the same model and data at every call, losses example by example."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from fedsim.config.learning import LoraConfig
from fedsim.jobs import TaskContext
from fedsim.tasks._base import built
from fedsim.tasks.torch import Torch
from fedsim.testing.tasks import CONTEXT, check_task
from fedsim.testing.words import hold, name_of
from fedsim.training.own.base import TorchTask

ALONE = 1e-3
"""How far an example's loss may be off beside others, as a share of the largest: last bits of products."""


def check_torch_task(
    task: TorchTask,
    context: TaskContext = CONTEXT,
    *,
    ways: tuple[Literal["full", "lora"], ...] = ("full", "lora"),
    targets: str | tuple[str, ...] = "all",
) -> None:
    """Hold a class against what fedsim asks of it, trained whole and with adapters.

    Args:
        task: an instance, with its settings; its class can be imported.
        context: what the experiment gives it; at least three clients.
        ways: whole models, adapters, or both.
        targets: layers that get adapters.

    Raises:
        AssertionError: a sentence that names the property.
        ExperimentError: the class cannot be used at all; says why.
        DataError: its data cannot.
    """
    place = f"{type(task).__module__}:{type(task).__qualname__}"
    component = Torch(module=place, settings=task.model_dump(mode="json"))
    for way in ways:
        lora = LoraConfig(full=True) if way == "full" else LoraConfig(r=2, alpha=4.0, targets=targets)
        of_way = replace(context, lora=lora)
        data_are_the_same_again(task, component, of_way)
        losses_do_not_depend_on_company(task, component, of_way)
        check_task(component, of_way)


def data_are_the_same_again(task: TorchTask, component: Torch, context: TaskContext) -> None:
    """A second instance of the class gives the same examples."""
    from fedsim.training.own import source

    first = built(component, context)
    source.forget()
    second = built(component, context)
    rows = [first.examples(client) for client in range(context.clients)]
    hold(
        rows == [second.examples(client) for client in range(context.clients)],
        f"{name_of(task)} deals other numbers of examples when it is asked again",
    )
    same = first.describe()["data_checksum"] == second.describe()["data_checksum"]
    hold(same, f"{name_of(task)} gives other examples when it is asked again")


def losses_do_not_depend_on_company(task: TorchTask, component: Torch, context: TaskContext) -> None:
    """Where there is one loss an example, the first examples have the losses that they have by themselves."""
    from fedsim.tasks._torch.task import OwnTask

    ready = built(component, context)
    assert isinstance(ready, OwnTask)
    rows = ready.splits.training[0][:8]
    many, few = (ready.own_model.losses(ready.data.at(part)) for part in (rows, rows[: len(rows) // 2 + 1]))
    if many is None or few is None:
        return
    off = float(np.abs(many[: len(few)] - few).max())
    what = f"{name_of(task)}.loss gives an example another loss beside others, off by {off:.2g}"
    hold(off <= ALONE * max(1.0, float(np.abs(few).max())), f"{what}: return their mean")
