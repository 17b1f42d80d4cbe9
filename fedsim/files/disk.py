"""What a disk refuses, as one sentence: full, over a quota, read-only, broken."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsim.errors import FedsimError, HostError, Message, message

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE)
"""What the system says of a disk that is full, over its quota, read-only, broken, or gone."""
FIXES = {
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "give the name of a folder",
    errno.ENOENT: "check the name",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""Ways out of what the system says of a name."""
FULL = (errno.ENOSPC, errno.EDQUOT)


def refusal(problem: BaseException) -> int | None:
    """Return the number (`errno`) of a disk's refusal that an exception comes from; None if it comes from none.

    Libraries that write by themselves (safetensors, torch) raise kinds of their own, with the system's words inside.

    >>> refusal(OSError(errno.ENOSPC, "No space left on device")) == errno.ENOSPC, refusal(ValueError("odd"))
    (True, None)
    """
    cause: BaseException | None = problem
    for _ in range(8):
        if cause is None:
            return None
        if isinstance(cause, OSError) and cause.errno in REFUSALS:
            return cause.errno
        if not isinstance(cause, OSError):
            text = str(cause)
            for number in FULL:
                if os.strerror(number) in text:
                    return number
        cause = cause.__cause__ or cause.__context__
    return None


def refused(problem: BaseException, where: str | Path, fix: str) -> HostError | None:
    """Return the error that says what a disk has refused; None where an exception comes from nothing of the kind.

    Args:
        problem: what was raised.
        where: the folder that is written.
        fix: the way out.
    """
    number = refusal(problem)
    if number is None:
        return None
    return HostError(
        message(str(where), f"the disk takes no more of the run ({os.strerror(number)})", fix=fix)
    )


def no_file(path: str | Path) -> str:
    """Return why there is no file of this name, where there is none."""
    return "is a folder, where a file belongs" if Path(path).is_dir() else "no such file"


def place_of(problem: OSError) -> str:
    """Return the file or folder that an error of the system is about: of two names, where it was to lie."""
    name = problem.filename if problem.filename2 is None else problem.filename2
    return os.fsdecode(name) if isinstance(name, str | bytes) else str(name)


def unusable(problem: OSError) -> Message:
    """Return the sentence that a file or folder cannot be read or written, for what else nobody has foreseen.

    >>> unusable(IsADirectoryError(errno.EISDIR, "Is a directory", "runs")).headline
    'runs: cannot be read or written (Is a directory)'
    """
    fix = FIXES.get(
        problem.errno or 0, "choose a place that can be read and written, or change its permissions"
    )
    said = os.strerror(problem.errno) if problem.errno else "no reason given"
    return message(place_of(problem), f"cannot be read or written ({said})", fix=fix)


@contextmanager
def telling(where: str | Path, fix: str = "free some space, or choose another folder") -> Iterator[None]:
    """Turn what a disk refuses inside into one sentence; errors of fedsim's own pass.

    Raises:
        HostError: the disk has refused something.
    """
    try:
        yield
    except FedsimError:
        raise
    except Exception as problem:
        told = refused(problem, where, fix)
        if told is None:
            raise
        raise told from problem
