"""Damaged pictures of every format: read or refused in a sentence, never a traceback, soon; many more with `-m slow`."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from fedsim.errors import DataError
from fedsim.tasks._images.pixels import decoded

KINDS = {
    "PNG": ("L", "RGB", "RGBA", "P", "LA", "I;16", "1"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P"),
    "TIFF": ("L", "RGB", "RGBA", "I;16", "F", "CMYK", "I"),
    "BMP": ("L", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("L", "RGB"),
}
LONGEST_S = 10.0


def whole(kind, mode):
    """A picture of 12 x 9 with EXIF data where the format has them."""
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (9, 12), dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(rng.random((9, 12), dtype=np.float32))
    else:
        image = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    more = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def damaged(data, rng):
    """Bytes changed, cut, repeated, put in or taken out; lengths and counts are most of what a header is."""
    raw = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(1, len(raw)) if rng.random() < 0.5 else min(64, max(1, len(raw)))))
        what = rng.integers(0, 6)
        if what == 0:
            raw[at : at + 1] = bytes([int(rng.integers(0, 256))])
        elif what == 1:
            raw[at : at + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x01\x00"]
            )
        elif what == 2:
            del raw[at : at + int(rng.integers(1, 20))]
        elif what == 3:
            raw[at:at] = rng.bytes(int(rng.integers(1, 20)))
        elif what == 4:
            raw = raw[:at]
        else:
            raw[at:at] = raw[at : at + 40]
    return bytes(raw)


def tried(data, channels):
    began = time.perf_counter()
    try:
        pixels = decoded(data, channels, 4, "it")
    except DataError as problem:
        text, _, fix = str(problem).partition("\n  fix: ")
        right = fix and "\n" not in text and " at 0x" not in text
    else:
        right = pixels.shape == (channels, 4, 4) and pixels.dtype == np.uint8
    return right and time.perf_counter() - began < LONGEST_S


def wrong_of(cases, seed):
    """The damaged pictures, of so many, that ended otherwise than they should."""
    sources = [whole(kind, mode) for kind, modes in KINDS.items() for mode in modes]
    assert all(tried(source, channels) for source in sources for channels in (1, 3))
    rng = np.random.default_rng(seed)
    wrong = []
    for case in range(cases):
        data = damaged(sources[case % len(sources)], rng)
        if not tried(data, 1 + 2 * (case % 2)):
            wrong.append(data)
    return wrong


def test_damaged_pictures_are_read_or_refused():
    assert wrong_of(1_500, seed=1) == []


def test_bytes_that_are_no_picture_are_refused():
    rng = np.random.default_rng(2)
    heads = (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"II*\x00",
        b"MM\x00*",
        b"BM",
        b"RIFF",
        b"P5 ",
    )
    for case in range(300):
        data = heads[case % len(heads)] + rng.bytes(int(rng.integers(0, 200)))
        assert tried(data, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_very_many_damaged_pictures_are_read_or_refused():
    assert wrong_of(60_000, seed=3) == []
