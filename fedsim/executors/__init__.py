"""Where the real work runs: in this process or on Ray. An executor knows nothing of virtual time."""

from fedsim.executors._base import Executor, Ticket
from fedsim.jobs import Job, ScoreJob, Sums, Update

__all__ = ["Executor", "Job", "ScoreJob", "Sums", "Ticket", "Update"]
