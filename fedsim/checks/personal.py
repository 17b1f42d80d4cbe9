"""Does the block `personal` fit the rest of an experiment? Said before anything starts."""

from __future__ import annotations

from typing import Any

from fedsim.config.experiment import Experiment
from fedsim.config.problem import Problem
from fedsim.personal.held_out import unseen


def problems(experiment: Experiment) -> list[Problem]:
    """Return what cannot be in the block `personal`; rules are `Personal.misfit`'s to judge."""
    personal: Any = experiment.personal
    clients, found = experiment.population.clients, list[Problem]()
    if personal.clients is not None and personal.clients > clients:
        what = f"is more than there are ({clients})"
        found.append(Problem(("personal", "clients"), what, f"set it to at most {clients}", personal.clients))
    left = clients - len(unseen(experiment))
    asked = _at_once(experiment.protocol)
    if personal.unseen and left < asked <= clients:
        what = f"leaves {left} of {clients} clients to ask, and the protocol asks {asked} at once"
        fix = f"hold out at most {clients - asked}, or ask fewer"
        found.append(Problem(("personal", "unseen"), what, fix, personal.unseen))
    lr = getattr(personal, "lr", None) or experiment.local.lr
    lam = getattr(personal, "lam", 0.0)
    if lam and experiment.local.optimizer == "sgd" and lam * lr >= 2.0:
        what = f"makes each step overshoot the shared model (lam times lr = {lam * lr:g}, not below 2)"
        found.append(Problem(("personal", "lam"), what, f"set it to at most {1 / lr:g}", lam))
    if personal.adds_products and experiment.task.over_factors:
        what = f"adds products B A, and task {experiment.task.kind} only knows the factors' entries"
        fix = "choose another task, or personal.kind: fine-tune, fedper or ditto"
        found.append(Problem(("personal", "kind"), what, fix, personal.kind))
    return found


def _at_once(protocol: Any) -> int:
    """Return how many clients a protocol needs at once: what it asks in a round, or keeps at work."""
    cohort = int(getattr(protocol, "cohort", None) or getattr(protocol, "concurrency", None) or 1)
    return max(cohort, int(getattr(protocol, "asked", cohort)))
