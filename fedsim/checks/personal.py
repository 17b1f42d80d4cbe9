"""Does the block `personal` fit the rest of an experiment? Said before anything starts."""

from __future__ import annotations

from fedsim.clock.components import parts_of
from fedsim.config.experiment import Experiment
from fedsim.config.problem import Problem
from fedsim.personal.held_out import unseen


def problems(experiment: Experiment) -> list[Problem]:
    """Return what cannot be in the block `personal`; rules are `Personal.misfit`'s to judge."""
    parts = parts_of(experiment)
    personal, clients = parts.personal, experiment.population.clients
    wrong = personal.problems(experiment.local)
    if personal.clients is not None and personal.clients > clients:
        what = f"is more than there are ({clients})"
        wrong.append(Problem(("personal", "clients"), what, f"set it to at most {clients}", personal.clients))
    left, at_work = clients - len(unseen(personal, experiment)), parts.protocol.clients_at_work
    if personal.unseen and left < at_work <= clients:
        what = f"leaves {left} of {clients} clients to ask, and the protocol asks {at_work} at once"
        fix = f"hold out at most {clients - at_work}, or ask fewer"
        wrong.append(Problem(("personal", "unseen"), what, fix, personal.unseen))
    if personal.adds_products and parts.task.over_factors:
        what = f"adds products B A, and task {parts.task.kind} only knows the factors' entries"
        fix = "choose another task, or personal.kind: fine-tune, fedper or ditto"
        wrong.append(Problem(("personal", "kind"), what, fix, personal.kind))
    return wrong
