"""Who never takes part: clients that are held out to see what the model is worth to strangers."""

from __future__ import annotations

from typing import Any

from fedsim.config.experiment import Experiment
from fedsim.rng import stream


def unseen(experiment: Experiment) -> list[int]:
    """Return the clients that are held out, drawn by address, ascending.

    A share is rounded to clients, at least one.
    """
    asked: Any = experiment.personal
    n = experiment.population.clients
    count = asked.unseen if isinstance(asked.unseen, int) else max(1, round(asked.unseen * n))
    if not count:
        return []
    drawn = stream(experiment.seed, "unseen").choice(n, size=min(count, n), replace=False)
    return sorted(int(client) for client in drawn)
