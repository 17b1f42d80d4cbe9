"""`task: {kind: torch, module: "my_package:MyTask"}`: any torch model, with data and a loss of its user's.

The class is a `fedsim.TorchTask`. Before anything starts its model is built and one step of it is made: that
tells what an update holds, what a step costs and whether clients can train together, and finds what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedsim.cost.declared import Charge, charge_of
from fedsim.jobs import TaskContext
from fedsim.tasks._torch.settings import TorchSettings

if TYPE_CHECKING:
    from fedsim.tasks._torch.task import OwnTask


class Torch(TorchSettings):
    """A model of one's own; its fields are those of `TorchSettings`."""

    worker_modules: ClassVar[tuple[str, ...]] = ("torch", "fedsim.training.own.model")
    practises: ClassVar[bool] = True
    kind: Literal["torch"] = "torch"

    def build(self, context: TaskContext) -> OwnTask:
        """Deal the data, build the model, and make one step of it.

        Raises:
            DataError: data that are no examples, or too few of them for so many clients.
            ExperimentError: what is wrong with the class, or with settings that it does not go with.
        """
        from fedsim.tasks._torch.build import prepare

        return prepare(self, context)

    def charge(self, *, full: bool) -> Charge | None:
        """Return what `charge_as` declares."""
        return charge_of(self.charge_as, full=full)
