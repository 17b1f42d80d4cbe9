"""Around every command: errors and signals become sentences and exit codes; which folder a run gets."""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import typer

from fedsim.blame import described, place_in
from fedsim.errors import ExperimentError, FedsimError, Message, RunFolderError, TakenError, message, visible
from fedsim.files.disk import place_of, refused, unusable

if TYPE_CHECKING:
    from fedsim.config.experiment import Experiment

_terminated = threading.Event()


@runtime_checkable
class _Usage(Protocol):
    """A usage error of typer's, whose class is click's or its own, by version."""

    def format_message(self) -> str: ...


@runtime_checkable
class _NoSuchOption(Protocol):
    """One about an option that the command does not have."""

    option_name: str


@runtime_checkable
class _InContext(Protocol):
    """One that knows which command it is about."""

    ctx: typer.Context | None


def answered(app: Callable[..., Any], args: Sequence[str]) -> int:
    """Run one command line in this process and return its exit code; never raises on what users do."""
    debug = wants_traceback(args)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        _refuse_empty(args)
        code = int(app([a for a in args if a != "--debug"], prog_name="fedsim", standalone_mode=False) or 0)
        sys.stdout.flush()
        return _stopped() if code == 130 else code  # typer's answer to KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        return _stopped()
    except BrokenPipeError:  # `fedsim ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:
        if debug:
            traceback.print_exc()
        return _answer(problem, args)


def script(main: Callable[[Sequence[str]], int | None]) -> int:
    """Run the program of a study, a function of its arguments, as commands are run; returns its exit code."""
    return answered(lambda args, **_: main(args), sys.argv[1:])


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuse a word of a command line that is empty: as a path it would be the folder where the command was typed.

    Raises:
        ExperimentError: there is one.
    """
    for before, arg in zip(("fedsim", *args), args, strict=False):
        if not arg or re.fullmatch(r"--[\w-]+=", arg):
            fix = "leave it out, or give a value; a variable of the shell may be unset"
            where = arg.rstrip("=") or f"after {before}"
            raise ExperimentError(message(where, "the value is empty", got="", fix=fix))


def _answer(problem: Exception, args: Sequence[str]) -> int:
    """Say on stderr what went wrong, in the form of `fedsim.errors`, and return the exit code."""
    if isinstance(problem, FedsimError):
        error(problem.message)
        return problem.exit_code
    if isinstance(problem, _Usage):
        if type(problem).__name__ == "NoArgsIsHelpError":
            print(problem.format_message(), file=sys.stderr)
        else:
            command = (
                problem.ctx.command_path if isinstance(problem, _InContext) and problem.ctx else "fedsim"
            )
            what, hint = _told(problem)
            fix = _setting_meant(problem, args) or _command_meant(problem, args) or hint
            error(Message(what, fix=fix or f"see `{command} --help`"))
        return 2
    if isinstance(problem, ModuleNotFoundError) and not str(problem.name).startswith("fedsim"):
        error(Message(f"the package {problem.name} is not installed", fix=f"pip install {problem.name}"))
        return 3
    if isinstance(problem, MemoryError):
        error(Message("out of memory", fix="fewer workers (-s runtime.workers=1) or a smaller model"))
        return 3
    if isinstance(problem, OSError) and problem.filename is not None:
        full = refused(problem, place_of(problem), "free some space, or choose another folder")
        error(unusable(problem) if full is None else full.message)
        return 2 if full is None else full.exit_code
    place = place_in(problem)
    if place is not None:
        error(Message(f"`{place.function}` raised {described(problem)}", str(place), fix="mend that line"))
        return 1
    first = next(iter(str(problem).splitlines()), "no message")
    what = f"unexpected {type(problem).__name__}: {first}"
    error(Message(what, fix="run again with --debug and report it"))
    return 1


def _told(problem: _Usage) -> tuple[str, str]:
    """Return what typer says of a command line, on one line, and its hint as a way out, if it has one."""
    text = " ".join(problem.format_message().split()).replace("Value error, ", "").rstrip(".")
    text, listed, choices = text.partition(". Choose from: ")
    text += f" (one of: {choices})" if listed else ""
    said, _, options = text.partition(" (Possible options: ")
    said = said.partition(". Did you mean ")[0]
    return said, f"did you mean {options.rstrip(')')}?" if options else ""


def _setting_meant(problem: _Usage, args: Sequence[str]) -> str | None:
    """Return the `-s` that an unknown option, or a bare `KEY=VALUE`, of a command line stands for; None: none."""
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.schema import key_meant

    if isinstance(problem, _NoSuchOption):
        at = next((i for i, arg in enumerate(args) if arg.partition("=")[0] == problem.option_name), -1)
        name, _, value = args[at].partition("=")
        value = value or next(iter(args[at + 1 :]), "")
    else:
        name, _, value = next(_bare_pairs(args), "").partition("=")
    key = key_meant(Experiment, name.lstrip("-")) if name else None
    if key is None:
        return None
    key, _, word = key.partition(": ")
    if " " in key:
        return f"settings are given as -s KEY=VALUE; here: {key}"
    return f"write `-s {key}={word or value or '...'}`: settings are given with -s"


def _command_meant(problem: _Usage, args: Sequence[str]) -> str | None:
    """Return what there is for a command that there is not: a known name's, or the nearest; None: none is meant."""
    from fedsim.errors import nearest
    from fedsim.known_names import COMMANDS

    typed = next((arg for arg in args if not arg.startswith("-")), "")
    if "No such command" not in problem.format_message() or not isinstance(problem, _InContext):
        return None
    if typed in COMMANDS:
        return f"write {COMMANDS[typed]}"
    known = sorted(vars(problem.ctx.command).get("commands", {})) if problem.ctx else []
    hint = nearest(typed, known)
    return hint if hint.startswith("did you mean") else None


def _bare_pairs(args: Sequence[str]) -> Iterator[str]:
    """Yield what was meant as `-s KEY=VALUE`: `KEY=VALUE` alone, `-s KEY VALUE`, `-KEY VALUE`."""
    for before, arg, after in zip(("", *args), args, (*args[1:], ""), strict=False):
        follows_s = before in ("-s", "--set")
        if "=" in arg and arg[:1] != "-" and not follows_s:
            yield arg
        elif "=" not in arg and after and (follows_s or (arg[:2] == "-s" and len(arg) > 2)):
            yield f"{arg.lstrip('-')}={after}"


def terminate(signum: int, frame: object) -> None:
    """Handle SIGTERM: it ends a run as Ctrl-C does, with the tables kept."""
    _terminated.set()
    raise KeyboardInterrupt


def _stopped() -> int:
    say("terminated" if _terminated.is_set() else "interrupted")
    return 143 if _terminated.is_set() else 130


def wants_traceback(args: Sequence[str]) -> bool:
    """Tell whether `--debug` or FEDSIM_DEBUG is given."""
    return "--debug" in args or os.environ.get("FEDSIM_DEBUG", "") not in ("", "0")


def say(text: str) -> None:
    """Print progress: on stderr."""
    print(visible(text, also="\n\t"), file=sys.stderr, flush=True)


def error(message: Message | str) -> None:
    """Print a message; several problems in one message get one `error:` each."""
    for line in str(message).splitlines():
        say(line if line.startswith("  ") else f"error: {line}")


@contextmanager
def tables_named(folder: Path) -> Iterator[None]:
    """Say where the tables are when a run ends early."""
    try:
        yield
    except BaseException:
        if (folder / "run.json").exists():
            say(f"tables so far: {folder} (read them with: fedsim report {folder})")
        raise


def new_folder(out: Path | None, name: str) -> Path:
    """Return `out`, or the first free of runs/NAME, runs/NAME-2, ...

    Raises:
        TakenError: `out` holds a run, or what a run would overwrite, or is a file.
    """
    from fedsim.records.folder import refuse_taken

    if out is not None:
        refuse_taken(out)
        if out.exists() and not out.is_dir():
            raise TakenError(message(str(out), "is a file, not a folder", fix="choose another --out"))
        return out
    folder, number = Path("runs") / name, 1
    while os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def runs_in_all(named: Iterable[Path]) -> list[Path]:
    """Return the run folders of several folders, each once, whatever names it has.

    Raises:
        RunFolderError: a folder without a run.
    """
    found: dict[Path, Path] = {}
    for folder in (folder for one in named for folder in runs_in(one)):
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def runs_in(folder: Path) -> list[Path]:
    """Return a run folder, or the run folders inside a folder of runs.

    Raises:
        RunFolderError: a folder with neither.
    """
    from fedsim.records.folder import holds_run

    if holds_run(folder) or not folder.is_dir():
        return [folder]
    inside = sorted(inner for inner in folder.iterdir() if inner.is_dir() and holds_run(inner))
    if not inside:
        what, fix = "holds no run, nor folders that do", "give the folder that `fedsim run` named at its end"
        raise RunFolderError(message(str(folder), what, fix=fix))
    return inside


def beside(folders: Sequence[Path]) -> Path:
    """Return where a page about some run folders lies: in the only one, or in the nearest folder that holds all."""
    if len(folders) == 1:
        return folders[0].absolute()
    return Path(os.path.commonpath([str(folder.absolute().parent) for folder in folders]))


def importable(folder: Path) -> None:
    """Let `kind: module:Class` find modules beside the YAML file and where the command was typed."""
    for place in (str(folder.absolute()), str(Path.cwd())):
        if place not in sys.path:
            sys.path.append(place)


def from_a_folder(*, trust: bool) -> None:
    """Prepare to read a run folder, which may be somebody else's.

    Unless it is trusted, nothing is looked for where the command was typed, and the Hugging Face hub is not asked.
    """
    if trust:
        importable(Path())
    else:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def importable_by_workers(experiment: Experiment, folder: Path) -> None:
    """Let worker processes find the user's own components; others need no path and get none."""
    from fedsim.component import Component

    if any(isinstance(block, Component) and ":" in block.kind for _, block in experiment):
        paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        new = [p for p in (str(folder.absolute()), str(Path.cwd())) if p not in paths]
        os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *new])
