"""The exponential and powers of arrays, and points of a grid: the same bits on every processor.

NumPy's own have other last bits where a processor has AVX-512: one device in twenty would be another one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # its last 20 bits are 0, so whole multiples of it are exact
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")  # ln 2 - LN2_HIGH
COEFFICIENTS = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))  # the next one is below 2^-54


def exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return e^x of finite numbers, within two units in the last place; too small a one is 0.

    e^x = 2^n e^r with |r| <= ln(2) / 2, and e^r by its series: sums and products alone, which IEEE 754
    rounds in one way.
    """
    n = np.rint(x * (1.0 / math.log(2.0)))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    series = np.full_like(r, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        series *= r
        series += coefficient
    return np.ldexp(series, n.astype(np.int32))


def power(x: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Return x^exponent of a short array (n,) of numbers of 0 or more, one after the other."""
    return np.array([value**exponent for value in x.tolist()], dtype=np.float64)


def first_point(every: float, start: float) -> float:
    """Return the first multiple of `every` that is not below `start` (0 or more), as a product of floats.

    >>> first_point(10.0, 20.0), first_point(10.0, 20.5)
    (20.0, 30.0)
    """
    if start / every >= 2.0**52:  # the grid is finer than numbers are
        return start
    number = math.floor(start / every)
    while number * every < start:
        number += 1
    return number * every
