"""What is learned: data, splits, models and scores; uses training, cost and the embedded data."""

from fedsim.tasks._base import TaskComponent

SEAMS = (TaskComponent,)

__all__ = ["TaskComponent"]
