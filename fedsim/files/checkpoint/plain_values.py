"""Values as explicit data, a tree in JSON and arrays beside it, and back: no code, and no class that the data choose.

What can be held: None, numbers, text, arrays, lists, tuples, dicts, what clients keep (`ClientVectors`), and frozen
dataclasses and named tuples of all these. An array or a dataclass that is in several places is stored once and is one object
again, as it was; arrays that share their memory are stored once, too.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np

from fedsim.files.checkpoint.kept_again import KeptAgain, Place
from fedsim.files.checkpoint.tensor_file import TYPES, Array
from fedsim.files.client_vectors import ClientVectors

Node: TypeAlias = "bool | int | float | str | list[Node] | dict[str, Node] | None"
"""A value as JSON has it."""
PLAIN = (type(None), bool, int, float, str)
OWN = "fedsim"
"""The package whose frozen dataclasses can always be held."""


class UnholdableError(ValueError):
    """A value cannot be held as explicit data; says which, and where it is."""


class DamagedError(ValueError):
    """Data are not what this module has written."""


def importable_class(cls: type) -> bool:
    """Tell whether a class is found again by its name."""
    return _class_of(cls.__module__, cls.__qualname__) is cls


def _class_of(module: str, name: str) -> object:
    """Return what is called so in a module that is loaded; None: there is no such thing, and nothing is imported."""
    value: object = sys.modules.get(module)
    try:
        for part in name.split("."):
            value = vars(value).get(part)
    except TypeError:  # nothing is below a plain value
        return None
    return value


def _fields(cls: type) -> tuple[str, ...] | None:
    """Return the fields of a frozen dataclass or a named tuple; None of any other class."""
    if issubclass(cls, tuple):
        names = [vars(base).get("_fields") for base in cls.__mro__]
        return next((tuple(found) for found in names if found is not None), None)
    settings = next((s for base in cls.__mro__ if (s := vars(base).get("__dataclass_params__"))), None)
    if not dataclasses.is_dataclass(cls) or settings is None or not settings.frozen:
        return None
    fields = dataclasses.fields(cls)
    return tuple(field.name for field in fields) if all(field.init for field in fields) else None


def _allowed(module: str, modules: Collection[str]) -> bool:
    return module.partition(".")[0] == OWN or module in modules


class Held:
    """Takes values apart; what it has seen is kept alive, as objects are known by their identity.

    Attributes:
        arrays: by name, as they lie in memory.
        views: of what clients keep.
    """

    def __init__(
        self, known: Mapping[str, object], modules: Collection[str] = (), kept: Path | None = None
    ) -> None:
        """Start with nothing.

        Args:
            known: objects that are not stored, by the names that whoever reads has for them.
            modules: whose frozen dataclasses can be held, besides those of fedsim.
            kept: the folder of what clients keep.
        """
        self.arrays: dict[str, Array] = {}
        self.views: list[ClientVectors] = []
        self._known = {id(value): name for name, value in known.items()}
        self._modules, self._kept = modules, kept
        self._objects: list[Node] = []
        self._numbers: dict[int, int] = {}
        self._places: dict[tuple[object, ...], str] = {}
        self._alive: list[object] = [*known.values()]

    def tree(self, value: object, where: str) -> Node:
        """Return a value as a tree; `where` names it if it cannot be held.

        Raises:
            UnholdableError: as said.
        """
        try:
            root = self._node(value, where)
        except RecursionError:
            raise UnholdableError(f"{where} holds itself, or is nested too deep") from None
        return {"objects": self._objects, "root": root}

    def _node(self, value: object, where: str) -> Node:
        if id(value) in self._known:
            return {"known": self._known[id(value)]}
        if value is None or type(value) in PLAIN:
            assert isinstance(value, PLAIN)
            return value
        if isinstance(value, np.generic):
            return {"scalar": self._node(np.asarray(value), where)}
        if type(value) is list:
            return [self._node(item, f"{where}[{i}]") for i, item in enumerate(value)]
        if type(value) is tuple:
            return {"tuple": [self._node(item, f"{where}[{i}]") for i, item in enumerate(value)]}
        if type(value) is dict:
            pairs = ((self._node(key, f"a key of {where}"), item, key) for key, item in value.items())
            return {"dict": [[key, self._node(item, f"{where}[{name!r}]")] for key, item, name in pairs]}
        return {"object": self._number(value, where)}

    def _number(self, value: object, where: str) -> int:
        """Return the number of an object, which is taken apart the first time."""
        if id(value) not in self._numbers:
            self._alive.append(value)
            node = self._object(value, where)
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(node)
        return self._numbers[id(value)]

    def _object(self, value: object, where: str) -> Node:
        if type(value) is np.ndarray:
            return {"array": self._array(value, where), "writeable": bool(value.flags.writeable)}
        if isinstance(value, ClientVectors):
            self.views.append(value)
            return {"vectors": self._vectors(value, where)}
        cls = type(value)
        names = _fields(cls)
        if names is None or not _allowed(cls.__module__, self._modules) or not importable_class(cls):
            _refuse(where, value)
        parts: list[Node] = [self._node(getattr(value, name), f"{where}.{name}") for name in names]
        return {"class": [cls.__module__, cls.__qualname__], "fields": parts}

    def _array(self, array: Array, where: str) -> str:
        if array.dtype.name not in TYPES or not array.dtype.isnative:
            _refuse(where, array)
        place = (array.ctypes.data, array.dtype.name, array.shape, array.strides)
        if place not in self._places:
            self._places[place] = name = str(len(self.arrays))
            self.arrays[name] = array
        return self._places[place]

    def _vectors(self, vectors: ClientVectors, where: str) -> Node:
        place = Place.of(vectors)
        for path in (place.path, place.file):
            if path is not None and (self._kept is None or path.parent != self._kept):
                raise UnholdableError(f"{where} keeps vectors in another folder than the run's ({path})")
        if place.file is None and len(vectors):
            raise UnholdableError(f"{where} keeps vectors in a temporary file")
        names: list[Node] = [None if path is None else path.name for path in (place.path, place.file)]
        arrays = (place.clients, place.slots, place.stamps)
        return [*names, *(self._node(array, where) for array in arrays)]


def _refuse(where: str, value: object) -> NoReturn:
    kind = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__qualname__
    raise UnholdableError(f"{where} is a {kind}, which is no explicit data")


class Restored:
    """Puts values together again.

    Attributes:
        views: of what clients keep.
    """

    def __init__(
        self,
        tree: object,
        arrays: Mapping[str, Array],
        known: Mapping[str, object],
        modules: Collection[str] = (),
        kept: KeptAgain | None = None,
    ) -> None:
        """Take what `Held` has made; the other arguments are as there, `kept` opens what clients keep."""
        self._arrays, self._known, self._modules, self._kept = arrays, known, modules, kept
        self._tree, self._objects = tree, _list(_part(tree, "objects"))
        self._made: dict[int, object] = {}
        self.views: list[ClientVectors] = []
        self._begun: set[int] = set()

    def value(self) -> object:
        """Return the value.

        Raises:
            DamagedError: these are not what `Held` makes.
        """
        try:
            return self._value(_part(self._tree, "root"))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as problem:
            raise DamagedError(f"{type(problem).__name__}: {problem}") from problem

    def _value(self, node: object) -> object:
        if type(node) in PLAIN:
            return node
        if isinstance(node, list):
            return [self._value(item) for item in node]
        assert isinstance(node, dict)
        (kind, content), *rest = node.items()
        if rest:
            raise DamagedError("a node of two kinds")
        return self._of_kind(kind, content)

    def _of_kind(self, kind: str, content: object) -> object:
        if kind == "known":
            return self._known[str(content)]
        if kind == "scalar":
            return self._as_array(content)[()]
        if kind == "tuple":
            return tuple(self._value(item) for item in _list(content))
        if kind == "dict":
            return dict(self._pairs(content))
        if kind == "object" and type(content) is int and content >= 0:
            return self._at(content)
        raise DamagedError(f"there is no kind {kind!r}")

    def _pairs(self, content: object) -> Iterator[tuple[object, object]]:
        for pair in _list(content):
            key, value = _list(pair)
            yield self._value(key), self._value(value)

    def _at(self, number: int) -> object:
        if number not in self._made:
            if number in self._begun:
                raise DamagedError("an object holds itself")
            self._begun.add(number)
            self._made[number] = self._object(self._objects[number])
        return self._made[number]

    def _object(self, node: object) -> object:
        assert isinstance(node, dict)
        if "array" in node:
            array = self._arrays[str(node["array"])].view()
            array.flags.writeable = bool(node["writeable"])
            return array
        if "vectors" in node:
            return self._vectors(_list(node["vectors"]))
        module, name = map(str, _list(node["class"]))
        cls = _class_of(module, name) if _allowed(module, self._modules) else None
        names = _fields(cls) if isinstance(cls, type) else None
        if names is None or not isinstance(cls, type):
            raise DamagedError(f"no class {module}:{name} whose values are explicit data")
        values = [self._value(part) for part in _list(node["fields"])]
        return cls(**dict(zip(names, values, strict=True)))

    def _vectors(self, parts: list[object]) -> ClientVectors:
        path, file, *arrays = parts
        if self._kept is None:
            raise DamagedError("nothing is kept here")
        clients, slots, stamps = (self._as_array(array).astype(np.int64) for array in arrays)
        self.views.append(self._kept.view(_name(path), _name(file), clients, slots, stamps))
        return self.views[-1]

    def _as_array(self, node: object) -> Array:
        value = self._value(node)
        if not isinstance(value, np.ndarray):
            raise DamagedError("no array")
        return value


def _part(node: object, key: str) -> object:
    if not isinstance(node, dict) or key not in node:
        raise DamagedError("no tree")
    return node[key]


def _list(node: object) -> list[object]:
    if not isinstance(node, list):
        raise DamagedError("no list")
    return node


def _name(node: object) -> str | None:
    if node is not None and (not isinstance(node, str) or Path(node).name != node or node in ("", ".", "..")):
        raise DamagedError("no name of a file")
    return node
