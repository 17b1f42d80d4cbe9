"""Data of others as tables of ours: devices, networks, availability, rates; uses devices and network.

    fedsim profiles import FORMAT FILE --out TABLE

Each format is one small module with `FORMATS`: a new file here is a new format. A file is read whole or refused
with one sentence that names the file, the row, the field and the value; nothing of a file is ever executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from fedsim.errors import ProfileError, message, nearest
from fedsim.files.disk import no_file
from fedsim.importers.formats import Format, refuse_unfit
from fedsim.importers.options import Options
from fedsim.importers.recognise import format_of
from fedsim.importers.table import Table


def formats() -> dict[str, Format]:
    """Return every format by name: those of the `FORMATS` of each module here, in the order of the modules."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {name: format_ for module in modules for name, format_ in vars(module).get("FORMATS", {}).items()}


FORMATS = formats()


def import_table(name: str, files: Sequence[Path], options: Options) -> Table:
    """Return a table of ours from files of another format.

    Raises:
        ProfileError: no such format or file, options that do not belong to it, or a file that is broken.
    """
    if name not in FORMATS:
        raise ProfileError(message("FORMAT", "no such format", got=name, fix=nearest(name, FORMATS)))
    foreign = FORMATS[name]
    refuse_unfit(name, foreign, options)
    for path in (*files, *options.up):
        if not path.is_file():
            raise ProfileError(message(str(path), no_file(path), fix="check the path"))
    if len(files) > 1 and not foreign.many:
        raise ProfileError(
            message("FILE", f"{name} takes one file", got=len(files), fix="import one at a time")
        )
    try:
        return foreign.read(files, options).described(name, files, options)
    except ProfileError as problem:
        _refuse_if_of_another(name, files, problem)
        raise


def _refuse_if_of_another(name: str, files: Sequence[Path], problem: ProfileError) -> None:
    """Say so if the file that could not be read is plainly of another format.

    Raises:
        ProfileError: it is.
    """
    for path in files:
        other = format_of(path)
        if other is not None and other != name and problem.message.where.startswith(str(path)):
            what = f"is not {name}, and looks like {other}: {FORMATS[other].about}"
            fix = f"fedsim profiles import {other} {path.name}"
            raise ProfileError(message(str(path), what, fix=fix)) from problem
