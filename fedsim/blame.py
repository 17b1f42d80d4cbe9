"""Whose code an error comes from: the user's file, line and function, found in a traceback."""

from __future__ import annotations

import inspect
import os
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fedsim.errors import FedsimError, Message, RunError

_NOT_USERS = tuple(
    os.path.realpath(folder) + os.sep
    for folder in {
        str(Path(__file__).parent),
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
"""Folders of code that is not the user's: fedsim, Python, installed packages."""


@dataclass(frozen=True)
class Place:
    """A line of the user's code; as text `my_rules.py, line 12`.

    Attributes:
        file: its path.
        line: from 1.
        function: its qualified name, `Median.apply`.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return the path below the working directory, else the whole path, and the line."""
        path = Path(self.file)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{shown}, line {self.line}"


def is_users(component: object) -> bool:
    """Tell whether an object's class is not fedsim's own."""
    return type(component).__module__.partition(".")[0] != "fedsim"


def name_of(component: object) -> str:
    """Return the name of an object's class, for a sentence."""
    return type(component).__name__


def place_of(component: object, method: str) -> str:
    """Return where a method of a component is written, as text; the class's name where there is no source."""
    function = inspect.unwrap(getattr(type(component), method))
    if not inspect.isfunction(function):
        return name_of(component)
    code = function.__code__
    return str(Place(code.co_filename, code.co_firstlineno, code.co_qualname))


def place_in(problem: BaseException) -> Place | None:
    """Return the innermost line of the user's code that an exception, or what caused it, has passed through."""
    for cause in _causes(problem):
        places = [place for place in _places(cause.__traceback__) if _is_users_file(place.file)]
        if places:
            return places[-1]
    return None


def described(problem: BaseException) -> str:
    """Return the type and the first line of an exception: `KeyError: 'stak'`."""
    return ": ".join([type(problem).__name__, *str(problem).strip().splitlines()[:1]])


@contextmanager
def blaming(components: Iterable[object]) -> Iterator[None]:
    """Turn what the user's own components raise into one sentence that says which line of which file did.

    Errors of fedsim's own kinds pass, and so do those that no component's file has to do with.

    Args:
        components: parts of an experiment, its executor.

    Raises:
        RunError: file, line and function of the user's code, and what it raised.
    """
    try:
        yield
    except FedsimError:
        raise
    except Exception as problem:
        files = {file for c in components if is_users(c) for file in _files_of(type(c))}
        for cause in _causes(problem):
            places = [*_places(cause.__traceback__), *_place_of_yield(cause)]
            theirs = [p for p in places if os.path.realpath(p.file) in files]
            if theirs:
                place = [*theirs, *(p for p in places if _is_users_file(p.file))][-1]
                raise RunError(_raised(place, cause)) from problem
        raise


def _raised(place: Place, problem: BaseException) -> Message:
    if _INVALID_YIELD in str(problem):
        value = str(problem).rpartition(_INVALID_YIELD)[2].strip()
        what = f"`{place.function}` yields {value}, which is no event"
        return Message(what, str(place), fix="yield what the server's verbs return, or use `yield from`")
    fix = "mend that line; the check_* functions of fedsim.testing try a component without a run"
    return Message(f"`{place.function}` raised {described(problem)}", str(place), fix=fix)


_INVALID_YIELD = "Invalid yield value"
"""What SimPy says of a generator that yields something that is no event; its text names the line."""


def _place_of_yield(problem: BaseException) -> list[Place]:
    text = str(problem)
    if _INVALID_YIELD not in text:
        return []
    places = []
    for line in text.splitlines():
        parts = line.strip().split('"')
        if line.strip().startswith('File "') and len(parts) == 3:
            number, _, function = parts[2].removeprefix(", line ").partition(", in ")
            places.append(Place(parts[1], int(number), function))
    return places


def _causes(problem: BaseException) -> list[BaseException]:
    """Return an exception and what it was raised from, the first cause first."""
    chain = [problem]
    while chain[-1].__cause__ is not None and chain[-1].__cause__ not in chain:
        chain.append(chain[-1].__cause__)
    return chain[::-1]


def _places(trace: TracebackType | None) -> Iterator[Place]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield Place(code.co_filename, trace.tb_lineno, code.co_qualname)
        trace = trace.tb_next


def _is_users_file(file: str) -> bool:
    """Tell whether a frame is the user's code; compiled code names the source it was made of, which is not here."""
    path = Path(file)
    if file.startswith("<") or not (path.is_file() or (path.is_absolute() and path.suffix == ".py")):
        return False
    return not os.path.realpath(file).startswith(_NOT_USERS)


def _files_of(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in ("fedsim", "builtins", "pydantic", "abc", "typing"):
            try:
                yield os.path.realpath(inspect.getfile(base))
            except (
                TypeError,
                OSError,
            ):  # made where there is no file: a notebook's cell before 3.13, an exec
                continue
