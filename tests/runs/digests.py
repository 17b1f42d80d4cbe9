"""SHA-256 of every column of a run's tables, and which of two sets of columns are not the same.

A digest is taken over the type's name, the number of values, which are missing, and the values themselves: whole
numbers and floats as 64 little-endian bits, names as UTF-8. It does not depend on how pandas holds a column.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

TABLES = ("clients", "visits", "commits", "scores", "personal")
WIDE = {"b": "|u1", "i": "<i8", "u": "<i8", "f": "<f8"}
"""How the values of a kind of NumPy dtype are written down."""


def digest(values):
    """Return the SHA-256 of a column; every NaN counts as the same missing value."""
    series = pd.Series(values)
    missing = series.isna().to_numpy()
    array = series.to_numpy()
    kind = array.dtype.kind
    if kind in WIDE:
        name, body = WIDE[kind], np.where(missing, 0, array).astype(WIDE[kind]).tobytes()
    else:
        texts = ["" if gone else str(value) for value, gone in zip(array.tolist(), missing, strict=True)]
        assert not any("\0" in text for text in texts)
        name, body = "str", "\0".join(texts).encode()
    head = f"{name} {len(array)}\n".encode()
    return hashlib.sha256(head + missing.astype("|u1").tobytes() + body).hexdigest()


def columns(run):
    """Return `table.column` -> values of all the tables of a run."""
    return {f"{table}.{name}": series for table in TABLES for name, series in getattr(run, table).items()}


def adapter(folder):
    """Return `adapter.name` -> numbers, flat, of the tensors that a run has saved; nothing if it saved none."""
    from safetensors.numpy import load_file

    arrays = {}
    for path in sorted(Path(folder).glob("adapter/*.safetensors")):
        arrays |= {f"adapter.{name}": array.ravel() for name, array in load_file(path).items()}
    return arrays


def differences(wanted, got):
    """Return one line a column that is missing, new or other than wanted."""
    lines = [f"{name}: is gone" for name in wanted if name not in got]
    lines += [f"{name}: is new" for name in got if name not in wanted]
    lines += [f"{name}: differs" for name in wanted if name in got and wanted[name] != got[name]]
    return sorted(lines)
