"""Who is to blame when workers die: a call is given to others as it is, and if they die too, its items alone.

A client batch is tried again as it was, because the company of a client changes the last bits of its result. If
`DEATHS` workers are gone, the items are tried one by one, each on a worker that does nothing else: what takes its
worker with it there, too, is held to be the cause, and the others of its batch are not. If none does, the
batch was unlucky, and begins again.
"""

from __future__ import annotations

from fedsim.errors import HostError, Message
from fedsim.executors.calls import visits_of
from fedsim.executors.host import INLINE
from fedsim.executors.pool import Call, Trial, WorkerLost

DEATHS = 3
"""Workers a call may take with it before its items are tried alone; one of a single item is held to be the cause."""
ALONE = 2
"""Workers an item may take with it that nobody else was trained with."""
A_HANG = 2
"""What a worker that does not answer counts as: to wait for it took `runtime.watchdog_s`."""


def instead_of(call: Call, lost: WorkerLost) -> list[Call]:
    """Note that a worker was lost while it worked on a call; returns the calls to make now: none if it is settled."""
    call.deaths += 1
    call.weight += A_HANG if lost.hung else 1
    if call.trial is not None:
        return _tried_alone(call, call.trial, lost)
    if call.weight < DEATHS:
        return [call]
    if len(call.items) == 1 or call.acquitted:
        call.settle(deadly(call, call.deaths, lost))
        return []
    trial = Trial(call)
    trial.calls = [Call(call.verb, (item,), wanted=True, trial=trial) for item in call.items]
    return list(trial.calls)


def _tried_alone(call: Call, trial: Trial, lost: WorkerLost) -> list[Call]:
    if call.weight < ALONE:
        return [call]
    if not trial.batch.done:
        trial.batch.settle(deadly(call, trial.batch.deaths + call.deaths, lost))
    return []


def after_trial(call: Call) -> list[Call]:
    """Take note of an item that was done alone; returns the batch, to be tried again, if no other item is open."""
    trial = call.trial
    if trial is None or trial.batch.done:
        return []
    trial.calls.remove(call)
    if trial.calls:
        return []
    trial.batch.weight, trial.batch.acquitted = 0, True
    return [trial.batch]


def is_idle(call: Call) -> bool:
    """Tell whether nobody needs a try any more: its batch is settled."""
    return call.trial is not None and call.trial.batch.done


def deadly(call: Call, deaths: int, lost: WorkerLost) -> HostError:
    """Return the error of a call that takes its workers with it."""
    if lost.hung:
        fix = f"a larger runtime.watchdog_s, if its training takes that long; or {INLINE}"
    else:
        fix = "fewer workers (-s runtime.workers=1), if memory was short"
    if len(call.items) > 1:
        what = f"{deaths} workers died on them together, and none on one of them alone, the last one because {lost}"
        fix = f"a smaller numerics.client_batch, or {fix}"
    else:
        alone = f", {call.deaths} of them with it alone" if call.trial is not None else ""
        what = f"{deaths} workers died on it{alone}, the last one because {lost}"
    return HostError(Message(what, str(call), fix=fix, blamed=visits_of(call.items)))
