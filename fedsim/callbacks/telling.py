"""From what happens in a run to its callbacks: events made of facts, handed on, and what goes wrong there said."""

from __future__ import annotations

import copy
import difflib
import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fedsim.blame import described, name_of, place_in
from fedsim.callbacks.base import Callback
from fedsim.callbacks.events import (
    Checkpointed,
    Committed,
    Event,
    Noted,
    Refused,
    RunBegun,
    RunEnded,
    RunResumed,
    Scored,
    Scoring,
    Starting,
    TimePassed,
    resumed,
)
from fedsim.errors import ExperimentError, FedsimError, RunError, Shown, message
from fedsim.records.info import RunInfo
from fedsim.records.liveness.resumption import Resumption

Facts: TypeAlias = Mapping[str, Any]
"""What is known of something that has happened; from another process as JSON has it."""
OnEvent: TypeAlias = Callable[[str, dict[str, Any]], None]
"""(kind, facts) of something that has happened in virtual time."""

ALIKE = 0.8
"""How alike two names are, 0 to 1, of which one is taken for a slip."""
NOTHING_TO_DO = "nothing to do: the run came to the end of its budget"


def _folder(facts: Facts) -> Path | None:
    folder = facts.get("folder")
    return None if folder is None else Path(folder)


def _begun(facts: Facts) -> RunBegun:
    return RunBegun(
        name=facts.get("name", ""),
        folder=_folder(facts),
        clients=facts.get("clients", 0),
        workers=facts.get("workers", 0),
        budget=dict(facts.get("budget", {})),
        settings=copy.deepcopy(facts.get("settings", {})),
        resolved=facts.get("resolved"),
        visits_after=facts.get("visits_after", 0.0),
    )


def _resumed(facts: Facts) -> RunResumed:
    again = facts["resumption"]
    again = again if isinstance(again, Resumption) else Resumption(**again)
    return resumed(again, facts.get("cpu", ""))


def _committed(facts: Facts) -> Committed:
    norm = facts.get("update_norm")
    return Committed(
        version=facts["version"],
        time_s=facts["time_s"],
        updates=facts["updates"],
        mean_staleness=facts["mean_staleness"],
        max_staleness=facts.get("max_staleness", 0),
        up_bytes=facts.get("total_up_bytes", 0),
        down_bytes=facts.get("total_down_bytes", 0),
        joules=facts.get("total_joules", 0.0),
        update_norm=float("nan") if norm is None else norm,
    )


def _scored(facts: Facts) -> Scored:
    metrics = {name: float("nan") if value is None else value for name, value in facts["metrics"].items()}
    return Scored(**{**facts, "metrics": metrics})


def ended(info: RunInfo, folder: Path | None) -> dict[str, object]:
    """Return what is known of a run that has ended, as facts."""
    totals = info.totals
    return {
        "status": info.status,
        "reason": info.reason,
        "time_s": info.end_time_s,
        "version": totals.commits,
        "up_bytes": totals.up_bytes,
        "down_bytes": totals.down_bytes,
        "joules": totals.joules,
        "folder": None if folder is None else str(folder),
    }


def _ended(facts: Facts) -> RunEnded:
    run = facts.get("run")
    if run is not None:
        facts = ended(run.info, run.folder)
    return RunEnded(**{"status": "done", **facts, "folder": _folder(facts)})


def _checkpointed(facts: Facts) -> Checkpointed:
    return Checkpointed(facts["version"], Path(facts["path"]), facts["bytes"], facts["seconds"])


_MADE: Mapping[str, Callable[[Facts], Event]] = {
    "starting": lambda facts: Starting(facts["executor"]),
    "start": _begun,
    "resumed": _resumed,
    "commit": _committed,
    "score": _scored,
    "scoring": lambda facts: Scoring(facts["version"], facts["split"], facts["done"], facts["of"]),
    "time": lambda facts: TimePassed(facts["time_s"]),
    "refused": lambda facts: Refused(facts["client"], facts["visit"], facts["reason"]),
    "checkpoint": _checkpointed,
    "no_checkpoint": lambda facts: Noted(str(facts["reason"])),
    "note": lambda facts: Noted(str(facts["text"])),
    "nothing_to_do": lambda _: Noted(NOTHING_TO_DO),
    "done": _ended,
    "stopped": _ended,
}
"""Kind of what has happened -> the event of its facts."""


def event_of(kind: str, facts: Facts) -> Event | None:
    """Return the event of what has happened; None of a kind that no callback hears of."""
    made = _MADE.get(kind)
    return None if made is None else made(facts)


def _hand(callback: Callback, event: Event) -> None:
    match event:
        case Starting():
            callback.on_starting(event)
        case RunBegun():
            callback.on_begin(event)
        case RunResumed():
            callback.on_resume(event)
        case Committed():
            callback.on_commit(event)
        case Scored():
            callback.on_score(event)
        case Scoring():
            callback.on_scoring(event)
        case TimePassed():
            callback.on_time(event)
        case Refused():
            callback.on_refuse(event)
        case Checkpointed():
            callback.on_checkpoint(event)
        case Noted():
            callback.on_note(event)
        case RunEnded():
            callback.on_end(event)


class Telling:
    """Takes what happens in a run, as (kind, facts), and tells the callbacks of it.

    Attributes:
        begun: whether they were told that the run begins, and not yet that it has ended.

    Args:
        callbacks: told in this order.
        on_event: told before them, of everything.
    """

    def __init__(self, callbacks: Iterable[Callback], on_event: OnEvent | None = None) -> None:
        """Take who listens.

        Raises:
            ExperimentError: one of them is no callback.
        """
        self._callbacks, self._on_event, self.begun = list(callbacks), on_event, False
        self._folder: Path | None = None
        for callback in self._callbacks:
            _refuse_what_is_none(callback)

    def __call__(self, kind: str, facts: Facts) -> None:
        """Tell of something that has happened; of an end too early once, and only where a begin was told.

        Raises:
            RunError: a callback has raised: file, line and what.
        """
        if kind == "stopped" and not self.begun:
            return
        if kind in ("start", "done", "stopped"):
            self.begun = kind == "start"
            self._folder = _folder(facts) if self.begun else self._folder
        if self._on_event is not None:
            self._on_event(kind, dict(facts))
        if self._callbacks and (event := event_of(kind, facts)) is not None:
            self.tell(event)

    def tell(self, event: Event) -> None:
        """Tell every callback of an event; the first that raises is the last that is told, but for the end of the run.

        Raises:
            RunError: as said.
            FedsimError: as a callback has raised it.
        """
        first: FedsimError | None = None
        for callback in self._callbacks:
            try:
                _hand(callback, event)
            except Exception as problem:
                told = self._told(callback, event, problem)
                if not isinstance(event, RunEnded):
                    raise told from problem
                told.__cause__ = problem
                first = first or told
        if first is not None:
            raise first

    def stopped(self, info: RunInfo, folder: Path | None) -> None:
        """Tell of an end that has a reason of its own.

        Args:
            info: `run.json`; of a run that was killed it says that the run goes.
            folder: of the run.
        """
        facts = ended(info, folder)
        if info.status == "running":
            facts["status"] = "killed"
        self("stopped", facts)

    def _told(self, callback: Callback, event: Event, problem: Exception) -> FedsimError:
        """Return what is raised of what a callback has raised: an error of fedsim's own kinds as it is."""
        if isinstance(problem, FedsimError):
            return problem
        place = place_in(problem)
        who = f"the callback {name_of(callback)}"
        what = f"{who} raised {described(problem)}"
        if place is not None:
            what = f"{who} raised {described(problem)} in `{place.function}`"
        if isinstance(event, RunEnded):
            fix = "mend that line; the run itself is whole"
        elif self._folder is None:
            fix = "mend that line, or leave the callback out: no result depends on it"
        else:
            fix = f"mend that line, then `fedsim resume {shlex.quote(str(self._folder))}`"
        return RunError(message("callbacks" if place is None else str(place), what, fix=fix))


def _refuse_what_is_none(callback: object) -> None:
    """Refuse what is no callback, and methods that would never be called, or not with an event."""
    if isinstance(callback, Callback):
        _refuse_mistaken_methods(callback)
        return
    what, fix = "must be callbacks", "derive the class from fedsim.Callback"
    if isinstance(callback, type) and issubclass(callback, Callback):
        fix = f"write {callback.__name__}(): an instance"
    raise ExperimentError(message("callbacks", what, got=Shown(repr(callback)), fix=fix))


def _refuse_mistaken_methods(callback: Callback) -> None:
    hooks = [name for name in vars(Callback) if name.startswith("on_")]
    for name in dir(type(callback)):
        place = f"{name_of(callback)}.{name}"
        if name in hooks:
            if not _takes_an_event(getattr(callback, name)):
                what = "is called with one event"
                raise ExperimentError(message(place, what, fix=f"define `{name}(self, event)`"))
        elif name.startswith("on") and (meant := difflib.get_close_matches(name, hooks, n=1, cutoff=ALIKE)):
            what, fix = "is never called: there is no such event", f"did you mean {meant[0]!r}?"
            raise ExperimentError(message(place, what, fix=fix))


def _takes_an_event(method: Callable[..., object]) -> bool:
    try:
        inspect.signature(method).bind(object())
    except TypeError:
        return False
    except ValueError:  # it has none that Python knows
        return True
    return True
