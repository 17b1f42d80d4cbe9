"""Components: the things a user may replace, picked by `kind` from one file each.

A kind `fedit` in the block `aggregator` is the one `Component` class defined in
`fedsim/aggregators/fedit.py`; `kind: my_package.rules:MyRule` is the user's own class.
Adding a file adds a kind: there is no registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from fedsim.errors import ExperimentError, as_invalid, invalid, message
from fedsim.known_names import method_pointer, nearest_kind
from fedsim.seams import adopted, misfit, seam_for


class Config(BaseModel):
    """A frozen block of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(Config):
    """A block picked by `kind`; its fields are its hyperparameters."""

    kind: str


def kinds(package: str) -> list[str]:
    """Return the kinds a package (`aggregators`, `protocols`, ...) offers, sorted."""
    path = importlib.import_module(f"fedsim.{package}").__path__
    found = [m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")]
    return sorted(name.replace("_", "-") for name in found if component_in(package, name) is not None)


OF_OTHER_NAME = {"optimizers": "server_optimizer", "personal": "personal"}
"""Packages whose block is not called by the singular of their name."""
PACKAGES = ("aggregators", "protocols", "samplers", "optimizers", "personal", "tasks")


def kind_pointer(package: str, kind: str) -> str:
    """Return the way out where a package has no such kind: another block's kind, a known name, a slip, or all kinds."""
    for other in PACKAGES:
        if other != package and kind in kinds(other) and kind != "none":
            return f"write {OF_OTHER_NAME.get(other, other[:-1])}.kind: {kind}"
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
        return fitted(package, _imported(kind), kind)
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


def _imported(kind: str) -> type[Component]:
    module, _, name = kind.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        text = message(
            "kind", f"cannot import ({problem})", got=kind, fix="give package.module:Class on sys.path"
        )
        raise ExperimentError(text) from problem
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ExperimentError(
            message("kind", "must be a subclass of fedsim.component.Component", got=kind, fix="subclass it")
        )
    return found


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
    return found.model_validate(value)


def placed(package: str, component: Component) -> Component:
    """Return a ready component as an instance of what its seam knows.

    Raises:
        ExperimentError: its class lacks something that fedsim calls, or it takes other arguments.
    """
    cls = fitted(package, type(component), component.kind)
    return component if isinstance(component, cls) else cls.model_validate(dict(component))
