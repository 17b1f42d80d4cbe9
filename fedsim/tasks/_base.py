"""What fedsim asks of a task component: a block of settings that builds a `Task`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fedsim.blame import described, is_users, name_of, place_in
from fedsim.component import Component
from fedsim.config.learning import LoraConfig, NumericsConfig
from fedsim.cost.quantised import Quantise
from fedsim.errors import ExperimentError, FedsimError, message
from fedsim.jobs import Task, TaskContext, missing

if TYPE_CHECKING:
    from fedsim.cost.declared import Charge


class TaskComponent(Component):
    """Data, model and loss as settings; derive from it, or from `Component` with a method `build`.

    Attributes:
        worker_modules: what workers import while the task is still being built; see `imported_by_workers`.
        over_factors: the objective is over the factors' entries: the frozen weights under them, moved or
            not, are not in it.
        practises: whether layouts, version 0 and training follow all of the block `lora` (`LoraPractice`): DoRA, LoRA+,
            biases, patterns, ...; an experiment that asks for them is refused otherwise.
    """

    worker_modules: ClassVar[tuple[str, ...]] = ()
    over_factors: ClassVar[bool] = False
    practises: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: TaskContext) -> Task:
        """Read and split the data; weights are not loaded."""

    def charge(self, *, full: bool) -> Charge | None:
        """Return what the clock charges instead of the model that trains; None: that model.

        Args:
            full: whether the whole model trains.
        """
        return None

    def whole(self) -> bool:
        """Return whether whole tensors train whatever `lora.full` says."""
        return False

    def quantised(self) -> Quantise | None:
        """Return how the frozen weights are held where they are quantised; None: as the model has them."""
        return None

    def imported_by_workers(self, lora: LoraConfig, numerics: NumericsConfig) -> tuple[str, ...]:
        """Return what workers import while the task is still being built, where what is trained and how decides it."""
        return self.worker_modules

    def sources(self) -> dict[str, str]:
        """Return the fields that name a model or data: by path, by hub id, or `builtin`."""
        return {}


def built(component: TaskComponent, context: TaskContext) -> Task:
    """Return the task of a component.

    Raises:
        ExperimentError: what `build` returns lacks something that a task has; and whatever `build` refuses.
    """
    try:
        task = component.build(context)
    except FedsimError:
        raise
    except Exception as problem:
        if not is_users(component):
            raise
        what = f"`{name_of(component)}.build` raised {described(problem)} ({place_in(problem)})"
        raise ExperimentError(
            message("task.kind", what, got=component.kind, fix="mend that line")
        ) from problem
    if absent := missing(task):
        what = f"build() returns a {type(task).__name__}, which lacks {', '.join(absent)}"
        fix = "derive it from fedsim.jobs.Task and define them"
        raise ExperimentError(message("task.kind", what, got=component.kind, fix=fix))
    return task
