"""What travels, to the byte: messages of the numbers of a payload, really encoded and decoded.

A message is made of, one after the other, without a header (both sides know layout, payload and format):

    scales    int8 and int4 only: one float32 an array of the payload
    indices   if only k < n numbers are sent: k unsigned 32-bit positions, ascending, or a bitmap of n bits,
              whichever is shorter (the bitmap for more than one number in 32); `top_k_by` says whether the largest
              are chosen in the whole message or in every array of it
    numbers   n (or k) of them, 32, 16, 8 or 4 bits each, the last byte filled up

Its length depends on the payload alone, never on the values, so the clock knows it without training.

Up goes the client's move, end - start, so that formats with few levels spend them on what changed; down
comes the model. With error feedback (Seide et al., Interspeech 2014; Stich et al., arXiv 1809.07599;
Karimireddy et al., arXiv 1901.09847) a client keeps e and sends q = Q(move + e), e <- move + e - q, so that
sum of all q + e = sum of all moves: what is left out comes later. The move of an update that the server did
not take is lost, and e stays as it was before it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fedsim.adapters.adapter import Layout, Vector
from fedsim.arrays import Bools, Ints
from fedsim.network.number_formats import BITS, LEVELS, Dtype, pack, scales, unpack

if TYPE_CHECKING:
    from fedsim.adapters.payload import Payload
    from fedsim.config.network import WireConfig
    from fedsim.network.base import Direction

SCALE_BYTES = INDEX_BYTES = FLOAT_BYTES = 4


@dataclass(frozen=True)
class Format:
    """How one direction is coded: the numbers' format, the share of them that is sent, and of what it is a share.

    Attributes:
        dtype: the numbers' format.
        share: of the numbers that is sent, the largest of them.
        by_array: whether it is a share of every array by itself, and not of the whole message.
    """

    dtype: Dtype
    share: float = 1.0
    by_array: bool = False

    @property
    def plain(self) -> bool:
        """Whether what arrives is what was sent, to the bit."""
        return self.dtype == "float32" and self.share == 1.0

    def sent(self, numbers: int) -> int:
        """Return k, how many of `numbers` are sent: one at least, where there are any."""
        return min(numbers, max(1, math.ceil(self.share * numbers - 1e-9)))

    def sent_of(self, lengths: Sequence[int]) -> int:
        """Return k of a message about arrays of these lengths.

        >>> Format("float32", 0.1).sent_of([15, 15]), Format("float32", 0.1, by_array=True).sent_of([15, 15])
        (3, 4)
        """
        return sum(map(self.sent, lengths)) if self.by_array else self.sent(sum(lengths))

    def nbytes(self, lengths: Sequence[int]) -> int:
        """Return the length of a message about arrays of these lengths.

        >>> Format("int4", 0.01).nbytes([500, 500])  # 2 scales, 10 indices, 10 half bytes
        53
        """
        numbers, arrays, k = sum(lengths), len(lengths), self.sent_of(lengths)
        scale = SCALE_BYTES * arrays if self.dtype in LEVELS else 0
        index = min(INDEX_BYTES * k, -(-numbers // 8)) if k < numbers else 0
        return scale + index + -(-k * BITS[self.dtype] // 8)


def format_of(wire: WireConfig, direction: Direction) -> Format:
    """Return the format of a direction: what comes down is never sparse."""
    if direction == "down":
        return Format(wire.down_dtype)
    return Format(wire.dtype, wire.top_k, wire.top_k_by == "tensor")


@dataclass(frozen=True, eq=False)
class Extent:
    """Where a payload's numbers are in a vector of its layout.

    Attributes:
        places: their positions (n,), ascending; None: everywhere.
        lengths: how many of them each array has, in the layout's order (arrays,).
    """

    places: Ints | None
    lengths: Ints

    @property
    def numbers(self) -> int:
        """How many numbers travel."""
        return int(self.lengths.sum())

    def of(self, vector: Vector) -> Vector:
        """Return the numbers that travel (n,)."""
        return vector if self.places is None else vector[self.places]

    def into(self, vector: Vector, values: Vector) -> Vector:
        """Return the vector with its travelling numbers replaced."""
        if self.places is None:
            return values
        replaced = vector.copy()
        replaced[self.places] = values
        return replaced


def extent(layout: Layout, payload: Payload) -> Extent:
    """Return where the payload's numbers are.

    Raises:
        ValueError: an array that the layout does not have.
    """
    return _extent(layout, replace(payload, extra_floats=0))


@lru_cache(maxsize=64)
def _extent(layout: Layout, payload: Payload) -> Extent:
    named = layout.slices if payload.arrays is None else payload.arrays
    strange = sorted(set(named) - set(layout.slices))
    if strange:
        raise ValueError(f"the layout has no array {strange[0]!r}")
    whole, places, lengths = True, [], []
    for name, (place, shape) in layout.slices.items():
        if name not in named:
            whole = False
            continue
        cut = payload.shape(layout, name)
        positions = np.arange(place.start, place.stop).reshape(shape)[tuple(map(slice, cut))].ravel()
        whole &= cut == shape
        places.append(positions)
        lengths.append(len(positions))
    at = None if whole else np.concatenate([np.empty(0, np.int64), *places])
    return Extent(at, np.array(lengths, dtype=np.int64))


def bytes_of(wire: WireConfig, layout: Layout, payload: Payload, direction: Direction) -> int:
    """Return the bytes of a payload in a direction: its message and the extra float32."""
    where = extent(layout, payload)
    message = format_of(wire, direction).nbytes(where.lengths.tolist())
    return message + FLOAT_BYTES * payload.extra_floats


def charged_bytes(
    wire: WireConfig, layout: Layout, payload: Payload, direction: Direction, adapter_params: int
) -> int:
    """Return the bytes of the same message about an adapter of `adapter_params` numbers.

    Numbers, and extra ones, grow as the adapter does; arrays (scales) are as many as in the layout.
    """
    where = extent(layout, payload)
    numbers, extra = (
        round(count * adapter_params / layout.size) for count in (where.numbers, payload.extra_floats)
    )
    ends = np.cumsum(where.lengths).tolist()  # rounded where arrays end, so that they add up to all numbers
    stops = [round(end * numbers / where.numbers) for end in ends] if where.numbers else [0] * len(ends)
    lengths = [stop - start for start, stop in itertools.pairwise([0, *stops])]
    return format_of(wire, direction).nbytes(lengths) + FLOAT_BYTES * extra


def coding_bytes(
    wire: WireConfig, layout: Layout, payload: Payload, direction: Direction, adapter_params: int
) -> float:
    """Return the bytes through a client's memory that coding or decoding a message takes; 0 of one that is not coded.

    The numbers as float32 and the message, each once, and the numbers once more where the largest are looked for.
    """
    how = format_of(wire, direction)
    numbers = extent(layout, payload).numbers * adapter_params / layout.size
    if not numbers or how.plain:
        return 0.0
    passes = 2 if how.share < 1 else 1
    return passes * FLOAT_BYTES * numbers + charged_bytes(wire, layout, payload, direction, adapter_params)


def encode(
    wire: WireConfig,
    layout: Layout,
    payload: Payload,
    direction: Direction,
    vector: Vector,
    rng: np.random.Generator | None,
) -> bytes:
    """Return the message about a vector's numbers (finite, in the layout's shape).

    `rng` is the chance of stochastic rounding; None rounds to nearest.
    """
    how, where = format_of(wire, direction), extent(layout, payload)
    values = where.of(vector)
    n, k = len(values), how.sent_of(where.lengths.tolist())
    chosen: Ints | slice = slice(None)
    index = head = b""
    if k < n:
        chosen = sent = _largest(how, values, where.lengths)
        index = _index(sent, n)
        values = np.where(_mask(sent, n), values, np.float32(0.0))
    each = None
    if how.dtype in LEVELS:
        starts = np.cumsum(where.lengths) - where.lengths
        of_arrays = scales(np.maximum.reduceat(np.abs(values), starts), how.dtype)
        head, each = of_arrays.astype("<f4").tobytes(), np.repeat(of_arrays, where.lengths)[chosen]
    return head + index + pack(values[chosen], each, how.dtype, rng)


def decode(wire: WireConfig, layout: Layout, payload: Payload, direction: Direction, data: bytes) -> Vector:
    """Return what a message says, in the layout's shape; zeros where it says nothing."""
    how, where = format_of(wire, direction), extent(layout, payload)
    n, at = where.numbers, 0
    k = how.sent_of(where.lengths.tolist())
    each = None
    if how.dtype in LEVELS:
        at = SCALE_BYTES * len(where.lengths)
        each = np.repeat(np.frombuffer(data, "<f4", len(where.lengths)), where.lengths)
    values = np.zeros(n, np.float32)
    if k < n:
        chosen, length = _chosen(data[at:], k, n)
        at += length
        values[chosen] = unpack(data[at:], k, None if each is None else each[chosen], how.dtype)
    else:
        values = unpack(data[at:], n, each, how.dtype)
    return where.into(np.zeros(layout.size, np.float32), values)


def largest(values: Vector, k: int) -> Ints:
    """Return where the k largest magnitudes are, ascending; of equal ones the first.

    >>> largest(np.array([1.0, -3.0, 2.0, -2.0], np.float32), 2).tolist()
    [1, 2]
    """
    size = np.abs(values)
    bar = np.partition(size, len(size) - k)[len(size) - k]
    above = np.flatnonzero(size > bar)
    level = np.flatnonzero(size == bar)[: k - len(above)]
    return np.sort(np.concatenate([above, level]))


def _largest(how: Format, values: Vector, lengths: Ints) -> Ints:
    """Return where the numbers that are sent are, ascending: the largest of the message, or of every array."""
    if not how.by_array:
        return largest(values, how.sent(len(values)))
    starts = (np.cumsum(lengths) - lengths).tolist()
    arrays = zip(starts, np.split(values, starts[1:]), strict=True)
    return np.concatenate([start + largest(array, how.sent(len(array))) for start, array in arrays])


def _mask(chosen: Ints, n: int) -> Bools:
    mask = np.zeros(n, dtype=bool)
    mask[chosen] = True
    return mask


def _index(chosen: Ints, n: int) -> bytes:
    if INDEX_BYTES * len(chosen) <= -(-n // 8):
        return chosen.astype("<u4").tobytes()
    return np.packbits(_mask(chosen, n), bitorder="little").tobytes()


def _chosen(data: bytes, k: int, n: int) -> tuple[Ints, int]:
    """Return which k of n numbers follow, and the bytes that say so."""
    bitmap = -(-n // 8)
    if INDEX_BYTES * k <= bitmap:
        return np.frombuffer(data, "<u4", k).astype(np.int64), INDEX_BYTES * k
    bits = np.unpackbits(np.frombuffer(data, np.uint8, bitmap), count=n, bitorder="little")
    return np.flatnonzero(bits), bitmap
