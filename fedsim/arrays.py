"""Arrays by what they hold: one name each, for annotations."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Names = NDArray[np.object_]
"""Text, one a place."""
Values: TypeAlias = NDArray[Any]
"""Of whatever type a column has."""
