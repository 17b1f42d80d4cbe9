"""What a seam asks of a component: the methods of a base class, held against a class when it is picked.

A component of one's own need not derive from the base class: a `Component` that has its methods is given the
base's defaults for all that is optional. What is missing or takes other arguments is said when the file is read.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel


def hooks(seam: type[BaseModel]) -> dict[str, Any]:
    """Return what a seam's base class defines besides fields: methods, properties and constants, by name."""
    classes = [c for c in reversed(seam.__mro__) if issubclass(c, BaseModel) and _is_ours(c)]
    return {name: value for c in classes for name, value in vars(c).items() if _is_hook(c, name, value)}


@cache
def misfit(cls: type[BaseModel], seam: type[BaseModel]) -> tuple[str, str] | None:
    """Return (what is wrong, the fix) if a class cannot stand at a seam, else None.

    Args:
        cls: the component's class, derived from the seam's base or not.
        seam: the base class.
    """
    return next(_misfits(cls, seam), None)


def seam_for(cls: type[BaseModel], seams: Sequence[type[BaseModel]]) -> type[BaseModel]:
    """Return the base that a class derives from, else the first all of whose required methods it has, else the last."""
    for seam in seams:
        if issubclass(cls, seam):
            return seam
    for seam in seams:
        if all(inspect.isfunction(inspect.getattr_static(cls, name, None)) for name in required(seam)):
            return seam
    return seams[-1]


def required(seam: type[BaseModel]) -> list[str]:
    """Return the names of the methods that a component must have, in the order of their definition."""
    return [name for name in hooks(seam) if name in seam.__abstractmethods__]


@cache
def adopted(cls: type[BaseModel], seam: type[BaseModel]) -> type[BaseModel]:
    """Return the class itself if it derives from the seam's base, else it with the base's defaults behind it."""
    if issubclass(cls, seam):
        return cls
    body: dict[str, Any] = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    body["__reduce__"] = lambda self: (_restored, (cls, seam, self.__getstate__()))
    body["__eq__"] = lambda self, other: isinstance(other, cls) and dict(self) == dict(other)
    made: type[BaseModel] = types.new_class(
        cls.__name__, (cls, seam), exec_body=lambda names: names.update(body)
    )
    return made


def _restored(cls: type[BaseModel], seam: type[BaseModel], state: dict[Any, Any]) -> BaseModel:
    component = adopted(cls, seam)
    made = component.__new__(component)
    made.__setstate__(state)
    return made


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "fedsim" and cls.__module__ != "fedsim.component"


def _is_hook(cls: type[BaseModel], name: str, value: Any) -> bool:
    if name.startswith(("_", "model_")) or name in cls.model_fields:
        return False
    return inspect.isfunction(value) or isinstance(value, property) or name in cls.__class_vars__


def _misfits(cls: type[BaseModel], seam: type[BaseModel]) -> Iterator[tuple[str, str]]:
    asked = hooks(seam)
    for name, hook in asked.items():
        if name in cls.model_fields:
            yield (
                f"has a field `{name}`, which is the name of something fedsim asks of it",
                "rename the field",
            )
        if not inspect.isfunction(hook):
            continue
        member = inspect.getattr_static(cls, name, None)
        wanted = f"{name}{_parameters(hook)}"
        if member is None or member is hook:
            if name in seam.__abstractmethods__:
                yield f"has no method `{wanted}`", f"define `{wanted}`"
        elif not inspect.isfunction(member):
            yield f"has a `{name}` that is no method", f"define `{wanted}` as a plain method"
        elif not _takes(member, hook):
            what = f"has an `{name}{_parameters(member)}` that is called with {_parameters(hook)}"
            yield what, f"define `{wanted}`"
    for name, kind in seam.__annotations__.items():
        if name in seam.__class_vars__ and not hasattr(seam, name):
            constant = inspect.getattr_static(cls, name, None)
            if constant is None:
                what = str(kind).removeprefix("ClassVar[").removesuffix("]")
                yield f"has no `{name}`", f"add `{name}: {kind} = {what}(...)` to its class"


def _parameters(function: Any) -> str:
    names = list(inspect.signature(function).parameters)[1:]
    return f"({', '.join(names)})"


def _takes(member: Any, hook: Any) -> bool:
    """Tell whether a method can be called as the seam's own is: by position, and by keyword where that is asked."""
    signature, values = inspect.signature(member), inspect.signature(hook).parameters.values()
    by_position = [None for p in values if p.kind is not p.KEYWORD_ONLY]
    by_keyword = {p.name: None for p in values if p.kind is p.KEYWORD_ONLY}
    try:
        signature.bind(*by_position, **by_keyword)
    except TypeError:
        return False
    return True
