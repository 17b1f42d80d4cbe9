"""Images of any kind as pixels of one size, as a viewer shows them: 8 bits, square, grey or RGB.

Upright as their EXIF data say; of several frames the first; 16 bits scaled to 8, floats from 0 to 1 to 0 to 255; what
is transparent lies on white, whatever colour is hidden under it. Colour profiles are not applied.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import DataError, message
from fedsim.files.opened import PICTURE_BYTES, bytes_of

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif",
)  # fmt: skip
"""Of files of images, in lower case."""
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
"""What is read, as PIL names it; the others of PIL's need programs of their own, or are no pictures."""
WHITE = (255, 255, 255)
"""What transparent pixels lie on."""
BITS_16 = ("I;16", "I;16L", "I;16B", "I;16N")
TO_8_BITS = 257
"""65535 / 255."""


class UnreadableError(Exception):
    """An image that PIL reads and that has no one meaning as a picture."""


def stacked(
    values: Iterable[object], channels: int, size: int, where: str = "", beside: Path | None = None
) -> NDArray[np.uint8]:
    """Return images (n, C, size, size).

    Args:
        values: paths, bytes, `{bytes: ...}`, arrays or PIL images.
        channels: grey (1) or RGB (3).
        size: pixels of a side.
        where: the table that they are of.
        beside: the folder from which relative paths start.
    """
    return np.stack([
        decoded(value, channels, size, f"{where}: row {row}" if where else str(value), beside)
        for row, value in enumerate(values, start=1)
    ])  # fmt: skip


def decoded(
    value: object, channels: int, size: int, where: str, beside: Path | None = None
) -> NDArray[np.uint8]:
    """Return one image as (channels, size, size), 8 bits: centre-cropped to a square, resized by PIL's bicubic.

    Args:
        value: a path, bytes, a dictionary with one of them, an array or a PIL image.
        channels: grey (1) or RGB (3).
        size: pixels of a side.
        where: it is, for the message.
        beside: the folder from which a relative path starts.

    Raises:
        DataError: it is no image.
    """
    from PIL.Image import Resampling

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", _bomb())
            image = _eight_bits(_opened(value, beside)).convert("L" if channels == 1 else "RGB")
    except Exception as problem:  # PIL raises its own, and whatever its readers stumble over
        text = f"{where}: the image cannot be read ({_reason(problem)})"
        raise DataError(message("task.data", text, fix=_fix(problem))) from problem
    side = min(image.size)
    if image.size != (side, side):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Resampling.BICUBIC)
    array: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _opened(value: object, beside: Path | None) -> Image:
    """Return the first frame of an image, upright."""
    from PIL import Image, ImageOps

    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, list | tuple) or value is None:
        kind = "nothing" if value is None else "a list of numbers"
        raise UnreadableError(f"it is {kind}, not a file, a path or bytes of a picture")
    if isinstance(value, bytes | bytearray | memoryview):
        value = io.BytesIO(bytes(value))
    elif isinstance(value, str | Path) and beside is not None:
        value = beside / value
    if isinstance(value, np.ndarray):
        return Image.fromarray(value)
    if isinstance(value, str | Path):
        value = io.BytesIO(bytes_of(Path(value), PICTURE_BYTES))
    if not isinstance(value, Image.Image | io.BytesIO):
        raise UnreadableError(f"it is a {type(value).__name__}, not a file, a path or bytes of a picture")
    image = value if isinstance(value, Image.Image) else Image.open(value, formats=FORMATS)
    image.load()
    return ImageOps.exif_transpose(image)


def _eight_bits(image: Image) -> Image:
    """Return an image of 8 bits a channel without transparency.

    Raises:
        UnreadableError: numbers whose range nobody says.
    """
    from PIL import Image

    if image.mode in BITS_16 or (image.mode == "I" and image.format in ("PNG", "PPM")):
        numbers = np.asarray(image).astype(np.int64).clip(0, 65535)
        clear = image.info.get("transparency")  # a grey value, of PNG
        if isinstance(clear, int):
            numbers[numbers == clear] = 65535
        return Image.fromarray(((numbers + TO_8_BITS // 2) // TO_8_BITS).astype(np.uint8))
    if image.mode == "F":
        floats = np.asarray(image)
        if not (floats.min() >= 0 and floats.max() <= 1):
            raise UnreadableError(
                f"its numbers go from {floats.min():g} to {floats.max():g}, not from 0 to 1"
            )
        return Image.fromarray(np.rint(255 * floats).astype(np.uint8))
    if image.mode == "I":
        raise UnreadableError("it has 32 bits, of which nobody says what white is")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, (*WHITE, 255)), above)
    return image


def _bomb() -> type[Warning]:
    from PIL.Image import DecompressionBombWarning

    return DecompressionBombWarning


def _reason(problem: Exception) -> str:
    """Say in a few words why an image cannot be read; no addresses of memory, which differ from run to run."""
    from PIL import UnidentifiedImageError
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    if isinstance(problem, FileNotFoundError):
        return "there is no such file"
    if isinstance(problem, DecompressionBombError | DecompressionBombWarning):
        return "it has more pixels than a picture should"
    if isinstance(problem, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}"
    lines = str(problem).strip().splitlines()
    return lines[0] if lines and " at 0x" not in lines[0] else type(problem).__name__


def _fix(problem: Exception) -> str:
    if isinstance(problem, FileNotFoundError):
        return "paths in a table start at its own folder"
    if isinstance(problem, UnreadableError):
        return "save it as a picture of 8 bits, such as PNG"
    return "remove it, or replace it by the picture as it was"
