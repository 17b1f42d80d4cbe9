"""What is learned: data, splits, models and scores; uses training, cost and the embedded data."""

from fedsim.tasks._base import TaskComponent
from fedsim.training.own.base import Pool, TorchTask

SEAMS = (TaskComponent,)

__all__ = ["Pool", "TaskComponent", "TorchTask"]
