"""The components of an experiment as what they are: one frozen value, built where the settings end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from fedsim.aggregators._base import Aggregator
from fedsim.clock.protocol import ServerProtocol
from fedsim.component import Component, placed
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, message
from fedsim.optimizers._base import ServerOptimizer
from fedsim.personal._base import Personal
from fedsim.samplers._base import Sampler
from fedsim.tasks._base import TaskComponent

C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class Parts:
    """Whatever a `kind:` has picked, checked against its seam."""

    aggregator: Aggregator
    protocol: ServerProtocol
    sampler: Sampler
    server_optimizer: ServerOptimizer
    personal: Personal
    task: TaskComponent

    @property
    def everything(self) -> tuple[Component, ...]:
        """All of them."""
        return tuple(vars(self).values())


def parts_of(experiment: Experiment) -> Parts:
    """Return an experiment's components.

    Raises:
        ExperimentError: a component is none of its seam.
    """
    return Parts(
        aggregator=_part("aggregators", "aggregator", experiment.aggregator, Aggregator),
        protocol=_part("protocols", "protocol", experiment.protocol, ServerProtocol),
        sampler=_part("samplers", "sampler", experiment.sampler, Sampler),
        server_optimizer=_part(
            "optimizers", "server_optimizer", experiment.server_optimizer, ServerOptimizer
        ),
        personal=_part("personal", "personal", experiment.personal, Personal),
        task=_part("tasks", "task", experiment.task, TaskComponent),
    )


def _part(package: str, block: str, component: Component, seam: type[C]) -> C:
    part = component if isinstance(component, seam) else placed(package, component)
    if not isinstance(part, seam):
        what = f"{type(component).__name__} is no {seam.__name__}"
        raise ExperimentError(
            message(f"{block}.kind", what, got=component.kind, fix="derive it from that class")
        )
    return part
