"""Randomness by address: a generator is named by what it is for, never drawn in order."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def _entropy(seed: int, path: tuple[str | int, ...]) -> int:
    address = repr((int(seed), *(p if isinstance(p, str) else int(p) for p in path)))
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:16], "little")


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator at an address such as `(seed, "train", client, visit)`.

    Two addresses that differ anywhere give independent generators; the same address gives the
    same numbers on every machine, in whatever order addresses are asked for.

    >>> float(stream(0, "train", 3, 1).random()) == float(stream(0, "train", 3, 1).random())
    True
    """
    return np.random.Generator(np.random.PCG64(_entropy(seed, path)))


def seed_of(seed: int, *path: str | int) -> int:
    """Return the 63-bit integer at an address, for libraries that take a seed (torch, sklearn)."""
    return _entropy(seed, path) & (2**63 - 1)


FEWEST, MOST = 32, 1024
"""Generators whose first numbers are worked out at once."""
_LOW = 0xFFFFFFFF


class CountedStreams:
    """The first whole number of each of the generators at `(seed, name, 0)`, `(seed, name, 1)`, ...: those of `stream`.

    Making a generator takes longer than all that is done with one number of it. Here PCG64 is seeded and asked once
    (O'Neill 2014, XSL-RR 128/64; NumPy's `SeedSequence`) for many addresses together; of every lot the first is held
    against NumPy's own, which is used for all if they ever differ.

    >>> CountedStreams(0, "sample").integer(7, 100) == int(stream(0, "sample", 7).integers(100))
    True
    """

    def __init__(self, seed: int, name: str) -> None:
        """Take the address without its last part."""
        self._seed, self._name = int(seed), name
        self._first, self._words, self._agrees = 0, [0][:0], True

    def integer(self, number: int, below: int) -> int:
        """Return `stream(seed, name, number).integers(below)`."""
        place = number - self._first
        if not 0 <= place < len(self._words):
            self._work_out(number)
            place = 0
        # Lemire's method, as NumPy draws from fewer than 2^32: a product whose lower half is small may need another draw
        product = self._words[place] * below
        if below > _LOW or product & _LOW < below or not self._agrees:
            return int(stream(self._seed, self._name, number).integers(below))
        return product >> 32

    def _work_out(self, first: int) -> None:
        """Work out the first numbers of the generators from here on."""
        numbers = range(first, first + min(MOST, max(FEWEST, first)))
        start = f"({self._seed}, {self._name!r}, "
        digests = (hashlib.sha256(f"{start}{number})".encode()).digest()[:16] for number in numbers)
        words = _first_words(np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, 4))
        self._first, self._words = first, (words & np.uint64(_LOW)).tolist()
        drawn = stream(self._seed, self._name, first).bit_generator.random_raw()
        self._agrees = self._agrees and drawn == int(words[0])


def _first_words(entropy: NDArray[np.uint32]) -> Words:
    """Return the first 64 bits, (n,), of the generators `PCG64(e)` for e of 128 bits, (n, 4) from the lowest 32 on."""
    seeds = _seeded(entropy)
    state, add = (seeds[0], seeds[1]), _doubled_plus_one(seeds[2], seeds[3])
    high, low = _step(_step(_sum(add, state), add), add)
    turn = high >> np.uint64(58)
    mixed: Words = high ^ low
    turned: Words = np.bitwise_or(mixed >> turn, mixed << ((np.uint64(64) - turn) & np.uint64(63)))
    return turned


def _seeded(entropy: NDArray[np.uint32]) -> list[Words]:
    """Return the four words, (n,) each, that `SeedSequence` makes of 128 bits."""
    const = 0x43B0D7E5

    def hashed(value: NDArray[np.uint32], factor: int) -> NDArray[np.uint32]:
        nonlocal const
        value = value ^ np.uint32(const)
        const = const * factor & _LOW
        value = value * np.uint32(const)
        return value ^ (value >> np.uint32(16))

    pool = [hashed(entropy[:, place], 0x931E8875) for place in range(4)]
    for source in range(4):
        for target in range(4):
            if source != target:
                other = hashed(pool[source], 0x931E8875)
                mixed = pool[target] * np.uint32(0xCA01F9DD) - other * np.uint32(0x4973F715)
                pool[target] = mixed ^ (mixed >> np.uint32(16))
    const = 0x8B51F9DD
    halves = [hashed(pool[place % 4], 0x58F38DED).astype(np.uint64) for place in range(8)]
    return [halves[2 * place] | (halves[2 * place + 1] << np.uint64(32)) for place in range(4)]


_Pair = tuple[Words, Words]
"""Numbers of 128 bits: their upper and lower halves, (n,) each."""
_FACTOR = 0x2360ED051FC65DA44385DF649FCCF645


def _step(state: _Pair, add: _Pair) -> _Pair:
    """Return state x factor + add, modulo 2^128."""
    high, low = state
    factor_high, factor_low = np.uint64(_FACTOR >> 64), np.uint64(_FACTOR & (2**64 - 1))
    upper = high * factor_low + low * factor_high + _upper_half(low, int(factor_low))
    return _sum((upper, low * factor_low), add)


def _upper_half(numbers: Words, factor: int) -> Words:
    """Return the upper 64 bits of the products of numbers and a factor of 64 bits."""
    half, mask = np.uint64(32), np.uint64(_LOW)
    a_high, a_low = numbers >> half, numbers & mask
    b_high, b_low = np.uint64(factor >> 32), np.uint64(factor & _LOW)
    middle = a_high * b_low + ((a_low * b_low) >> half)
    other = a_low * b_high + (middle & mask)
    upper: Words = a_high * b_high + (middle >> half) + (other >> half)
    return upper


def _sum(a: _Pair, b: _Pair) -> _Pair:
    low = a[1] + b[1]
    return a[0] + b[0] + (low < a[1]).astype(np.uint64), low


def _doubled_plus_one(high: Words, low: Words) -> _Pair:
    one = np.uint64(1)
    return (high << one) | (low >> np.uint64(63)), (low << one) | one
