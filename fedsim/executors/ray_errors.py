"""How a worker was lost, by what Ray raises and says: the one place that reads Ray's English.

Takes the `ray` module as an argument: only `fedsim.executors.ray` and the workers import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedsim.errors import HostError, message
from fedsim.executors.host import INLINE


@dataclass(frozen=True)
class Cause:
    """One way to lose a worker.

    Attributes:
        kinds: names of Ray's exceptions that mean it.
        phrases: words of Ray's that mean it whatever the exception, in lower case.
        words: how we say it.
    """

    kinds: tuple[str, ...]
    phrases: tuple[str, ...]
    words: str


CAUSES = (
    Cause(("OutOfMemoryError",), ("running low on memory",), "the machine ran low on memory"),
    Cause(("NodeDiedError",), ("node has died", "node died"), "its node was lost"),
    Cause(("ActorUnavailableError", "GetTimeoutError"), (), "it could not be reached"),
    Cause(("ObjectLostError",), (), "an object that it needed was lost"),
)
"""The first that fits counts."""
CRASHED = "its process died (a crash, or killed for its memory)"
"""What is said of every other loss."""
LOST = (
    "RayActorError",
    "ObjectLostError",
    "WorkerCrashedError",
    "NodeDiedError",
    "OutOfMemoryError",
    "GetTimeoutError",
)
"""Ray's exceptions that mean that a worker, or what it held, is gone; and what derives from them."""


def lost(ray: Any) -> tuple[type[BaseException], ...]:
    """Return the exceptions by which Ray tells that a worker is gone."""
    return tuple(getattr(ray.exceptions, name) for name in LOST)


def cause_of(problem: BaseException) -> str:
    """Say in a few words how a worker was lost."""
    text, kinds = str(problem).lower(), {cls.__name__ for cls in type(problem).__mro__}
    for cause in CAUSES:
        if kinds & set(cause.kinds) or any(phrase in text for phrase in cause.phrases):
            return cause.words
    return CRASHED


FULL = ("OutOfDiskError", "ObjectStoreFullError")
"""Ray's exceptions that mean that objects have no place any more, neither in memory nor on the disk."""


def trouble(problem: BaseException) -> HostError:
    """Return what is raised of an error of Ray's that is not the loss of a worker."""
    if {cls.__name__ for cls in type(problem).__mro__} & set(FULL):
        what = "its shared memory is full, and so is the disk that it would use instead"
        fix = "free space there, set RAY_TMPDIR to a folder with more, or take fewer workers (-s runtime.workers=1)"
        return HostError(message("ray", what, fix=f"{fix}; {INLINE} needs no Ray"))
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    what = f"a worker cannot do its work: {lines[-1].strip() if 'Traceback' in str(problem) else lines[0]}"
    return HostError(message("ray", what, fix=f"{INLINE} needs no Ray"))
