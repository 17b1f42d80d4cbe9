"""What is learned: data, model, partition and loss; uses training and all that is below it."""

from fedsim.tasks._base import TaskComponent

SEAMS = (TaskComponent,)
