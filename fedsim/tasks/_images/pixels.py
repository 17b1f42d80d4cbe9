"""Images of any kind as pixels of one size: 8 bits, square, grey or RGB."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import DataError, message


def stacked(values: Iterable[Any], channels: int, size: int, where: str = "") -> NDArray[np.uint8]:
    """Return images (n, C, size, size) of paths, bytes, `{bytes: ...}`, arrays or PIL images of a table `where`."""
    return np.stack([
        decoded(value, channels, size, f"{where}: row {row}" if where else str(value))
        for row, value in enumerate(values, start=1)
    ])  # fmt: skip


def decoded(value: Any, channels: int, size: int, where: str) -> NDArray[np.uint8]:
    """Return one image as (channels, size, size), 8 bits: centre-cropped to a square, resized by PIL's bicubic.

    Args:
        value: a path, bytes, a dictionary with one of them, an array or a PIL image.
        channels: grey (1) or RGB (3).
        size: pixels of a side.
        where: it is, for the message.

    Raises:
        DataError: it is no image.
    """
    from PIL import Image

    try:
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            value = io.BytesIO(value)
        if isinstance(value, np.ndarray):
            image = Image.fromarray(value)
        else:
            image = value if isinstance(value, Image.Image) else Image.open(value)
        image = image.convert("L" if channels == 1 else "RGB")
    except Exception as problem:  # PIL raises its own
        kind = type(problem).__name__
        fix = "remove it, or write it again as PNG"
        raise DataError(
            message("task.data", f"{where}: the image cannot be read ({kind})", fix=fix)
        ) from problem
    side = min(image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    array: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))
