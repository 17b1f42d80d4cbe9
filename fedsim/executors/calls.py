"""What a worker does with one call, wherever it runs: the same code inline and in a Ray actor.

Errors of the user's code come back as values (`Failure`), because an exception's type may not
survive the way between two processes.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedsim.adapters.adapter import Vector
from fedsim.blame import described, place_in
from fedsim.errors import FedsimError, HostError, Message, Terminated, WorkerError
from fedsim.executors.host import cores
from fedsim.jobs import Job, ScoreJob, Task, Update

REPLAY = "`fedsim replay RUN --client C --visit V` trains one visit alone, in this process"

LESS_MEMORY = "fewer workers (-s runtime.workers=1), a smaller numerics.client_batch, or a smaller model"
"""The way out where memory is the trouble."""

Verb = Literal["train", "score"]
Item = Job | ScoreJob


@dataclass(frozen=True)
class Failure:
    """One item's exception, named and printed.

    Attributes:
        who: the client and visit, or the piece of an evaluation, in words.
        what: type and first line of the original exception; the message of a `FedsimError`.
        trace: the traceback where it was raised.
        original: the exception itself; pickled bytes of it on the way between two processes.
        expected: it is a `FedsimError` that knows its own exit code (not a `WorkerError`).
        blamed: the (client, visit) pairs of the visits' trainings among what failed.
        memory: the machine had no memory left for it: nobody's code is wrong.
    """

    who: str
    what: str
    trace: str
    original: BaseException | bytes | None
    expected: bool
    blamed: tuple[tuple[int, int], ...] = ()
    memory: bool = False

    def packed(self) -> Failure:
        """Return it ready to travel: the exception pickled, or left behind if it cannot be."""
        try:
            return replace(self, original=pickle.dumps(self.original))
        except Exception:
            return replace(self, original=None)

    def error(self, kind: type[FedsimError] = WorkerError, fix: str = REPLAY) -> FedsimError:
        """Return the exception to raise in the driver, its cause the original one."""
        cause = self._unpacked()
        if self.expected and isinstance(cause, FedsimError):
            return cause
        if self.memory:
            kind, fix = HostError, LESS_MEMORY
        error = kind(Message(self.what, self.who, fix=fix, blamed=self.blamed))
        if cause is None:
            cause = RuntimeError(self.what)
        if cause.__traceback__ is None:
            cause.add_note(f"raised in a worker:\n{self.trace}")
        error.__cause__ = cause
        return error

    def _unpacked(self) -> BaseException | None:
        original: Any = self.original
        if isinstance(original, bytes):
            try:
                original = pickle.loads(original)  # noqa: S301  # our own worker's bytes, not a file's
            except Exception:  # e.g. an exception whose __init__ takes other arguments than its args
                return None
        return original if isinstance(original, BaseException) else None


def names(items: Sequence[Item]) -> str:
    """Return who a call is for: `client 3, visit 0` or `score of test [0, 4)`, joined by `; `."""
    words = []
    for item in items:
        if isinstance(item, Job):
            words.append(f"client {item.client}, visit {item.visit}")
        else:
            of = "" if item.probe.client is None else f" of client {item.probe.client}"
            words.append(f"score of {item.probe.split}{of} [{item.probe.start}, {item.probe.stop})")
    return "; ".join(words)


def perform(
    task: Task, verb: Verb, items: Sequence[Item], resolve: Callable[[Any], Vector]
) -> list[Any] | Failure:
    """Run one call and return a result per item, or the first item's failure.

    When a batch fails, its items are run one by one to find whose data it was; if each runs
    alone (memory, say), all of the batch are named.
    """
    arrays: dict[int, Vector] = {}  # one array for one handle: jobs of one base are told by it

    def once(handle: Any) -> Vector:
        if id(handle) not in arrays:
            arrays[id(handle)] = resolve(handle)
        return arrays[id(handle)]

    ready = [_resolved(item, once) for item in items]
    results = _tried(task, verb, items, ready)
    if isinstance(results, Failure) and results.memory:  # cycles hold memory until somebody looks for them
        del results
        _look_for_memory()
        results = _tried(task, verb, items, ready)
    if isinstance(results, Failure) and len(items) > 1:
        for item, alone in zip(items, ready, strict=True):
            result = _tried(task, verb, [item], [alone])
            if isinstance(result, Failure):
                return result
    return results


def _tried(task: Task, verb: Verb, items: Sequence[Item], ready: Sequence[Item]) -> list[Any] | Failure:
    """Run a call once; a failure for lack of memory lets go of what its frames hold."""
    try:
        return _run(task, verb, ready)
    except Terminated:
        raise
    except (Exception, SystemExit) as problem:
        if is_out_of_memory(problem):
            traceback.clear_frames(problem.__traceback__)
        return failure(items, problem)


def _look_for_memory() -> None:
    """Have Python and torch give back what nobody uses."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def failure(items: Sequence[Item], problem: BaseException) -> Failure:
    """Return the exception that the work on some items ended with, as a value."""
    return replace(failure_of(names(items), problem), blamed=visits_of(items))


def visits_of(items: Sequence[Item]) -> tuple[tuple[int, int], ...]:
    """Return the (client, visit) pairs whose own trainings some items are; a client's other trainings are no visits."""
    jobs = (item for item in items if isinstance(item, Job) and item.purpose == "train")
    return tuple((job.client, job.visit) for job in jobs)


def failure_of(who: str, problem: BaseException) -> Failure:
    """Return an exception as a value; `who` says what was done."""
    ours = isinstance(problem, FedsimError)
    place = place_in(problem)
    named = described(problem) + (f" ({place})" if place else "")
    what = str(problem) if ours else named
    trace = "".join(traceback.format_exception(problem))
    expected = ours and not isinstance(problem, WorkerError)
    return Failure(who, what, trace, problem, expected, memory=is_out_of_memory(problem))


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell whether an exception says that memory is used up: Python's, NumPy's, or torch's of a CPU or a GPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("odd"))
    (True, False)
    """
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return isinstance(problem, RuntimeError) and any(word in str(problem) for word in _NO_MEMORY)


_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "std::bad_alloc")
"""What torch says of it in an exception that has no kind of its own."""


def warm(task: Task) -> None:
    """Load what the task loads lazily."""
    task.warm()


def _resolved(item: Item, resolve: Callable[[Any], Vector]) -> Item:
    def array_of(vector: Any) -> Vector | None:
        return None if vector is None else resolve(vector)

    arrays = tuple(map(array_of, item.vectors))
    if all(vector is handle for vector, handle in zip(arrays, item.vectors, strict=True)):
        return item
    if isinstance(item, Job):
        start, base, anchor = arrays
        return replace(item, start=start, base=base, anchor=anchor)
    vector, base = arrays
    return replace(item, vector=vector, base=base)


def _run(task: Task, verb: Verb, items: Sequence[Any]) -> list[Any]:
    pin_torch()
    results = task.train(items) if verb == "train" else task.score_together(items)
    if len(results) != len(items):
        raise ValueError(f"the task returned {len(results)} results for {len(items)} jobs")
    kind = Update if verb == "train" else Mapping
    for result in results:
        if not isinstance(result, kind):
            method, wanted = ("train", "an Update") if verb == "train" else ("score", "a dict of sums")
            raise TypeError(f"{type(task).__name__}.{method} gives {type(result).__name__}, not {wanted}")
    return results


# threads ----------------------------------------------------------------------------------------


def pin_torch() -> None:
    """Pin torch, if it is loaded, to one thread: two threads differ from one in the last bit."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep torch on one thread, loaded already or later, and put the caller's setting back."""
    before = os.environ.get("OMP_NUM_THREADS")
    torch = sys.modules.get("torch")
    threads = None if torch is None else torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"  # for a torch that is imported from now on
    pin_torch()
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
        torch = sys.modules.get("torch")
        if torch is not None:  # one imported meanwhile gets what it would have chosen itself
            torch.set_num_threads(threads or _default_threads(before))


def _default_threads(setting: str | None) -> int:
    if setting is not None and setting.isdigit() and int(setting) > 0:
        return int(setting)
    return cores()
