"""Who never takes part: clients that are held out to see what the model is worth to strangers."""

from __future__ import annotations

from fedsim.config.experiment import Experiment
from fedsim.personal._base import Personal
from fedsim.rng import stream


def unseen(personal: Personal, experiment: Experiment) -> list[int]:
    """Return the clients that are held out, drawn by address, ascending.

    A share is rounded to clients, at least one.
    """
    n = experiment.population.clients
    count = personal.unseen if isinstance(personal.unseen, int) else max(1, round(personal.unseen * n))
    if not count:
        return []
    drawn = stream(experiment.data_seed, "unseen").choice(n, size=min(count, n), replace=False)
    return sorted(int(client) for client in drawn)
