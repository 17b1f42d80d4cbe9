"""Components: the things a user may replace, picked by `kind` from one file each.

A kind `fedit` in the block `aggregator` is the one `Component` class defined in
`fedsim/aggregators/fedit.py`; `kind: my_package.rules:MyRule` is the user's own class.
Adding a file adds a kind: there is no registry.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fedsim.blame import described, place_in
from fedsim.errors import (
    ExperimentError,
    FedsimError,
    Message,
    Terminated,
    as_invalid,
    invalid,
    message,
    nearest,
)
from fedsim.known_names import method_pointer, nearest_kind
from fedsim.seams import adopted, misfit, seam_for

C = TypeVar("C")


class Config(BaseModel):
    """A frozen block of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse to change a setting.

        Raises:
            ExperimentError: always, for a setting.
        """
        if name in type(self).model_fields:
            fix = f"make a copy: model_copy(update={{{name!r}: {value!r}}})"
            raise ExperimentError(message(name, "cannot be changed: settings are frozen", fix=fix))
        super().__setattr__(name, value)


class Component(Config):
    """A block picked by `kind`; its fields are its hyperparameters."""

    kind: str


def kinds(package: str) -> list[str]:
    """Return the kinds a package (`aggregators`, `protocols`, ...) offers, sorted."""
    return list(_kinds(package))


@cache
def _kinds(package: str) -> tuple[str, ...]:
    path = importlib.import_module(f"fedsim.{package}").__path__
    found = [m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")]
    return tuple(sorted(n.replace("_", "-") for n in found if component_in(package, n) is not None))


_OF_OTHER_NAME = {"optimizers": "server_optimizer", "personal": "personal"}
"""Packages whose block is not called by the singular of their name."""
PACKAGES = ("aggregators", "protocols", "samplers", "optimizers", "personal", "tasks")


def block_of(package: str) -> str:
    """Return the block of an experiment whose kinds a package offers: `sampler` of `samplers`."""
    return _OF_OTHER_NAME.get(package, package[:-1])


def package_of(block: str) -> str:
    """Return the package that offers the kinds of a block."""
    return next((package for package, name in _OF_OTHER_NAME.items() if name == block), f"{block}s")


def kind_pointer(package: str, kind: str) -> str:
    """Return the way out where a package has no such kind: another block's kind, a known name, a slip, or all kinds."""
    for other in PACKAGES:
        if other != package and kind in kinds(other) and kind != "none":
            return f"write {block_of(other)}.kind: {kind}"
    return nearest_kind(kind, kinds(package))


def _with_kind(package: str, value: object) -> str:
    """Return the way out where a block has no kind: the word that was given in its place, or all kinds."""
    if isinstance(value, str):
        if value in kinds(package):
            return f"write {{kind: {value}}}"
        if method_pointer(value) is not None:
            return kind_pointer(package, value)
    return f"write `kind:` and one of: {', '.join(kinds(package))}"


def component_in(package: str, module: str) -> type[Component] | None:
    """Return the component class that `fedsim.<package>.<module>` defines, if it defines one."""
    loaded = importlib.import_module(f"fedsim.{package}.{module}")
    own = [
        value
        for value in vars(loaded).values()
        if isinstance(value, type) and issubclass(value, Component) and value.__module__ == loaded.__name__
    ]
    return own[0] if own else None


def find(package: str, kind: str) -> type[Component]:
    """Return the class behind a `kind`.

    Raises:
        ExperimentError: no such kind, or the import path does not lead to a `Component`.
    """
    if ":" in kind:
        return fitted(package, imported(kind, Component), kind)
    module = kind.replace("-", "_")
    if kind not in kinds(package):
        raise ExperimentError(message("kind", "no such kind", got=kind, fix=kind_pointer(package, kind)))
    component = component_in(package, module)
    assert component is not None
    return fitted(package, component, kind)


def fitted(package: str, component: type[Component], kind: str) -> type[Component]:
    """Return a class as its seam knows it: with the defaults of the seam's base class for what is optional.

    Raises:
        ExperimentError: the class lacks something that fedsim calls, or it takes other arguments.
    """
    seams: tuple[type[Component], ...] = importlib.import_module(f"fedsim.{package}").SEAMS
    seam = seam_for(component, seams)
    wrong = misfit(component, seam)
    if wrong is not None:
        what, fix = wrong
        raise ExperimentError(message("kind", f"{component.__name__} {what}", got=kind, fix=fix))
    cls = adopted(component, seam)
    assert issubclass(cls, Component)
    return cls


def imported(place: str, base: type[C], where: str = "kind") -> type[C]:
    """Return the class at `package.module:Class`, a subclass of `base`.

    Args:
        place: where it is.
        base: what it must be derived from.
        where: the key that names it, for messages.

    Raises:
        ExperimentError: there is no such module or class, the module cannot be imported, or the class is another one.
    """
    module, _, name = place.partition(":")
    if not module or not name or module.startswith("."):
        fix = f"write {where}: package.module:Class"
        raise ExperimentError(message(where, "names no class of a module", got=place, fix=fix))
    loaded = _loaded(module, place, where)
    choices = {n for n, v in vars(loaded).items() if _is_a(v, base) and v.__module__ == loaded.__name__}
    if name not in vars(loaded):
        what = f"the module {module} has no class {name!r}"
        seam = "a seam's base" if base is Component else base.__name__
        fix = nearest(name, choices) if choices else f"derive a class in {loaded.__file__} from {seam}"
        raise ExperimentError(message(where, what, got=place, fix=fix))
    value = getattr(loaded, name)
    if not _is_a(value, base):
        what = f"must be a subclass of {base.__module__}.{base.__qualname__}"
        fix = f"subclass it, or {nearest(name, choices)}" if choices else "subclass it"
        raise ExperimentError(message(where, what, got=place, fix=fix))
    found: type[C] = value
    return found


def _is_a(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


_imports: ContextVar[bool] = ContextVar("imports", default=True)


@contextmanager
def no_imports() -> Iterator[None]:
    """Take components of other modules than fedsim's only from those that this process has imported before.

    For settings that somebody else may have written: naming a module is enough to have its code run.
    """
    token = _imports.set(False)
    try:
        yield
    finally:
        _imports.reset(token)


def _loaded(module: str, kind: str, where: str) -> ModuleType:
    """Import a user's module; what goes wrong in it is said with its line."""
    if not _imports.get():
        if module in sys.modules:
            return sys.modules[module]
        what = f"names code that is not fedsim's, and is not imported from a run folder: {module}"
        raise ExperimentError(message(where, what, got=kind, fix="give --trust if you know who wrote it"))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        missing = str(problem.name or "")
        if missing and (module == missing or module.startswith(f"{missing}.")):
            fix = "give package.module:Class, the file beside the YAML, in the working directory or on PYTHONPATH"
            what = f"there is no module {missing!r}"
            if module.endswith(".py") or "/" in module:
                what = "names a file in the place of a module"
                fix = f"write {PurePosixPath(module).stem}:{kind.rpartition(':')[2]}, the file beside the YAML, in the working directory or on PYTHONPATH"
            raise ExperimentError(message(where, what, got=kind, fix=fix)) from problem
        raise ExperimentError(_broken(module, kind, where, problem)) from problem
    except Terminated:
        raise
    except (Exception, SystemExit) as problem:  # a script calls sys.exit when it is imported
        raise ExperimentError(_broken(module, kind, where, problem)) from problem


def _broken(module: str, kind: str, key: str, problem: BaseException) -> Message:
    place = (
        f"{problem.filename}, line {problem.lineno}"
        if isinstance(problem, SyntaxError)
        else place_in(problem)
    )
    where = f" ({place})" if place else ""
    return message(
        key,
        f"the module {module} cannot be imported: {described(problem)}{where}",
        got=kind,
        fix="mend it",
    )


def build(package: str, value: Any) -> Component:
    """Validate one block (`{kind: ..., ...}` or a ready component) of a package.

    Raises:
        ValueError: (so that pydantic reports the field) for a wrong kind.
        pydantic.ValidationError: for wrong fields.
    """
    if isinstance(value, Component):
        try:
            return placed(package, value)
        except ExperimentError as problem:
            raise as_invalid(problem.message) from problem
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind is None:
        what = "needs `kind:`" if isinstance(value, Mapping) else "must be a block with `kind:`"
        raise invalid(what, fix=_with_kind(package, value))
    if not isinstance(kind, str):
        raise invalid("must be text", where="kind", got=kind, fix=kind_pointer(package, str(kind)))
    try:
        found = find(package, kind)
    except ExperimentError as problem:
        raise as_invalid(problem.message) from problem
    own = get_args(found.model_fields["kind"].annotation)
    if ":" in kind and own and kind not in own:
        what = f"is that of the class which {found.__name__} is derived from, {own[0]!r}"
        raise invalid(what, where="kind", got=kind, fix=f"declare `kind: str` in class {found.__name__}")
    try:
        return found.model_validate(value)
    except (ValidationError, FedsimError):
        raise
    except Exception as problem:  # a validator of the user's own; pydantic reports ValueErrors only
        what = f"{found.__name__} raised {described(problem)} ({place_in(problem)})"
        raise invalid(what, fix="raise a ValueError with a sentence for what is wrong") from problem


def placed(package: str, component: Component) -> Component:
    """Return a ready component as an instance of what its seam knows.

    Raises:
        ExperimentError: its class lacks something that fedsim calls, or it takes other arguments.
    """
    cls = fitted(package, type(component), component.kind)
    return component if isinstance(component, cls) else cls.model_validate(dict(component))
