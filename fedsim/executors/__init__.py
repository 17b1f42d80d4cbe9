"""Real processes and the way to them, Ray or this one; uses jobs and adapters, and nothing of virtual time."""

from fedsim.executors._base import Executor, Ticket
from fedsim.jobs import Job, ScoreJob, Sums, Update

__all__ = ["Executor", "Job", "ScoreJob", "Sums", "Ticket", "Update"]
