"""How a run ends before its end: its folder says so and why, and the error names the command that goes on from there."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fedsim.callbacks.telling import Telling
from fedsim.errors import FedsimError, HostError, Message, message
from fedsim.executors.calls import LESS_MEMORY, REPLAY
from fedsim.files.disk import refused
from fedsim.records.info import RunInfo
from fedsim.records.writer import Writer


@contextmanager
def closed_whatever_happens(writer: Writer) -> Iterator[None]:
    """Close a run that something ends early, and let go of its folder.

    Raises:
        KeyboardInterrupt, SystemExit: as raised.
        HostError: memory or disk were used up.
        FedsimError: as raised, with the command that trains the blamed visit again.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        with suppress(Exception):
            writer.interrupt("interrupted by the user")
        raise
    except BaseException as problem:
        told = _told(problem, writer.folder)
        if writer.info.status != "done":  # only its page was missing
            with suppress(Exception):
                writer.close(status="failed", reason=_reason(told))
        if told is problem:
            raise
        raise told from problem
    finally:
        writer.release()


@contextmanager
def end_told(telling: Telling, info: Callable[[], RunInfo], folder: Path | None) -> Iterator[None]:
    """Tell callbacks of a run that ends early how it has ended, once its tables are written.

    Args:
        telling: of the run.
        info: returns its `run.json`.
        folder: of the run; None: it is in memory.
    """
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what has ended the run must be what is said
            telling.stopped(info(), folder)
        raise


def _reason(problem: BaseException) -> str:
    if isinstance(problem, FedsimError):
        return problem.message.headline.splitlines()[0]
    return str(problem).splitlines()[0] if str(problem) else repr(problem)


def _told(problem: BaseException, folder: Path | None) -> BaseException:
    """Return what is raised of a problem: the machine's in one sentence, a visit's with its command."""
    if isinstance(problem, FedsimError):
        if problem.message.blamed and folder is not None:
            problem.args = (_with_command(problem.message, folder),)
        return problem
    if isinstance(problem, MemoryError):
        return HostError(message("", "out of memory", fix=LESS_MEMORY))
    if folder is None:
        return problem
    fix = f"free some space, then `fedsim resume {shlex.quote(str(folder))}`"
    return refused(problem, folder, fix) or problem


def _with_command(content: Message, folder: Path) -> Message:
    """Return the message of a visit that could not be trained, its way out the command that trains it alone."""
    client, visit = content.blamed[0]
    command = f"fedsim replay {shlex.quote(str(folder))} --client {client} --visit {visit}"
    which = "it" if len(content.blamed) == 1 else "the first of them"
    others = "" if content.fix in (None, REPLAY) else f"; or {content.fix}"
    return replace(content, fix=f"`{command}` trains {which} alone, in this process{others}")
