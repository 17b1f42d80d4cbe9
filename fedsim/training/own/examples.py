"""Examples in the form that a user gave them in: one tensor, a tuple or a dict of them, cut by rows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedsim.training.local import Rows

Form = Literal["tensor", "tuple"] | tuple[str, ...]
"""How the tensors of a batch come: one by itself, several in a tuple, or a dict with these keys."""
STACKED = 4096
"""Samples of a data set that are stacked before these stacks are joined."""


@runtime_checkable
class _Samples(Protocol):
    """A map-style data set: a list of samples, or what torch calls a `Dataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: int) -> object: ...


@dataclass(frozen=True, eq=False)
class Examples:
    """Some examples, as tensors (n, ...) with one n.

    Attributes:
        tensors: at least one.
        form: how a batch of them comes.
    """

    tensors: tuple[Tensor, ...]
    form: Form

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.tensors[0])

    def __getitem__(self, rows: Rows | slice | Tensor) -> Examples:
        """Return some of the examples."""
        where = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        return Examples(tuple(tensor[where] for tensor in self.tensors), self.form)

    def to(self, device: torch.device | str) -> Examples:
        """Return the examples on a device."""
        return Examples(tuple(tensor.to(device) for tensor in self.tensors), self.form)

    def __str__(self) -> str:
        """Return what an example is, in words: `float32 (8, 8) and int64 ()`."""
        kinds = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape[1:])}" for t in self.tensors]
        return (
            " and ".join(kinds) if self.form in ("tensor", "tuple") else f"{self.form} of {', '.join(kinds)}"
        )

    @property
    def batch(self) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        """What the user's own functions get."""
        if self.form == "tensor":
            return self.tensors[0]
        if self.form == "tuple":
            return self.tensors
        return dict(zip(self.form, self.tensors, strict=True))

    @property
    def kind(self) -> tuple[object, ...]:
        """What examples that go into one batch have in common: their form, and every tensor's type and shape behind n."""
        return self.form, *((str(t.dtype), tuple(t.shape[1:])) for t in self.tensors)

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of kind and content: whether two processes have the same examples."""
        value = zlib.crc32(repr((len(self), self.kind)).encode())
        for tensor in self.tensors:
            value = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy(), value)
        return value


def joined(parts: Sequence[Examples]) -> Examples:
    """Return examples behind one another.

    Raises:
        ValueError: they are not of one kind; says which differ.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.kind != first.kind:
            raise ValueError(f"some examples are {part}, others {first}")
    if len(parts) == 1:
        return first
    columns = zip(*(part.tensors for part in parts), strict=True)
    return Examples(tuple(torch.cat(column) for column in columns), first.form)


def examples_of(value: object) -> Examples:
    """Return what a user's function gave as examples.

    Raises:
        ValueError: it is nothing of the kind, or its tensors have different lengths; says what it is.
    """
    if isinstance(value, Tensor | np.ndarray):
        return _checked((_tensor(value),), "tensor")
    if isinstance(value, Mapping):
        strange = [name for name in value if not isinstance(name, str)]
        if strange:
            raise ValueError(f"a dict with the key {strange[0]!r}, where names are wanted")
        names = tuple(str(name) for name in value)
        return _checked(tuple(_tensor(column) for column in value.values()), names)
    if isinstance(value, tuple):
        return _checked(tuple(_tensor(column) for column in value), "tuple")
    if isinstance(value, torch.utils.data.TensorDataset):
        return _checked(tuple(value.tensors), "tuple" if len(value.tensors) > 1 else "tensor")
    if isinstance(value, _Samples):
        return _stacked(value)
    what = "None" if value is None else f"a {type(value).__name__}"
    raise ValueError(f"{what}, where a tensor, a tuple or dict of tensors, or a data set is wanted")


def _checked(tensors: tuple[Tensor, ...], form: Form) -> Examples:
    if not tensors:
        raise ValueError("an empty collection of tensors")
    if any(tensor.dim() == 0 for tensor in tensors):
        raise ValueError("a tensor without axes, where the first axis counts the examples")
    strange = [t for t in tensors if t.layout is not torch.strided or t.is_meta or t.is_quantized]
    if strange:
        kind = "meta" if strange[0].is_meta else str(strange[0].layout).removeprefix("torch.")
        raise ValueError(f"a tensor of the kind {kind}, where a dense one with its numbers is wanted")
    lengths = [len(tensor) for tensor in tensors]
    if len(set(lengths)) > 1:
        raise ValueError(f"tensors of {' and '.join(map(str, lengths))} rows, where all need as many")
    return Examples(tuple(tensor.detach().cpu() for tensor in tensors), form)


def _tensor(value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"an array of {array.dtype}, where numbers are wanted")
    return torch.from_numpy(np.ascontiguousarray(array).copy())


def _stacked(samples: _Samples) -> Examples:
    """Stack the samples of a data set, some thousands at a time."""
    n = len(samples)
    if n == 0:
        return Examples((torch.empty(0),), "tensor")
    parts = []
    for at in range(0, n, STACKED):
        some = [samples[i] for i in range(at, min(at + STACKED, n))]
        try:
            stack = torch.utils.data.default_collate(some)
        except (TypeError, RuntimeError) as problem:
            first = str(problem).splitlines()[0]
            raise ValueError(f"samples that cannot be stacked ({first})") from problem
        parts.append(examples_of(tuple(stack) if isinstance(stack, list) else stack))
    return joined(parts)
