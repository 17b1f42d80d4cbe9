"""Who listens to a run that is started on the command line: the progress line, trackers, and callbacks of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.tracking.exporting import Program

if TYPE_CHECKING:
    from fedsim.callbacks import Callback
    from fedsim.callbacks.telling import Telling

Track = Annotated[
    list[Program] | None,
    typer.Option(
        "--track",
        help="Write for this program while it goes, beside the run; repeatable.",
        show_default=False,
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option(
        "--callback", metavar="MODULE:CLASS", help="Tell a callback of yours; repeatable.", show_default=False
    ),
]


def listeners(track: Sequence[Program] | None, own: Sequence[str] | None, beside: Path) -> list[Callback]:
    """Return new listeners for one run.

    Args:
        track: programs, each of which gets a folder of its name.
        own: `module:Class` of callbacks, made without arguments; what is typed here is trusted.
        beside: where these folders lie.

    Raises:
        ExperimentError: a class is none, or cannot be made so.
        HostError: a program's package is not installed.
    """
    from fedsim.trackers import tracked

    found: list[Callback] = [tracked(program.value, beside / program.value) for program in track or ()]
    return found + [_made(place) for place in own or ()]


def _made(place: str) -> Callback:
    from fedsim.blame import described, place_in
    from fedsim.callbacks import Callback
    from fedsim.cli.shell import importable
    from fedsim.component import imported
    from fedsim.errors import ExperimentError, message

    importable(Path())
    cls = imported(place, Callback, "--callback")
    try:
        return cls()
    except Exception as problem:
        what = f"{cls.__name__}() raised {described(problem)}"
        where = place_in(problem)
        what = what if where is None else f"{what} ({where})"
        fix = "make it without arguments, or hand an instance to fedsim.simulate in Python"
        raise ExperimentError(message("--callback", what, got=place, fix=fix)) from problem


def watcher(
    track: Sequence[Program] | None, own: Sequence[str] | None, beside: Path
) -> Callable[[str], AbstractContextManager[Telling]]:
    """Return what makes the observer of one run of several: a progress line and listeners of its own."""
    listeners(track, own, beside)  # what cannot be made is said before the first run

    @contextmanager
    def watched(head: str) -> Iterator[Telling]:
        from fedsim.callbacks.telling import Telling
        from fedsim.cli.progress import Progress

        with Progress(head=head) as progress:
            yield Telling([progress, *listeners(track, own, beside)])

    return watched
