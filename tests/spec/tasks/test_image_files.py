"""Pictures as a viewer shows them, against values by hand: orientation, depth, transparency, colours, frames, broken files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from fedsim.errors import DataError
from fedsim.tasks._images.pixels import decoded, stacked

ARROW = np.array([[0, 40, 80], [120, 160, 200], [240, 20, 60]], np.uint8)
"""Nine different greys: every turn and mirror image of it is another one."""


def stored(image, kind="PNG", **more):
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def grey(value, side=3, kind="PNG"):
    return decoded(value if isinstance(value, bytes) else stored(value, kind), 1, side, "it")[0]


def colour(value, side=1):
    return decoded(value if isinstance(value, bytes) else stored(value), 3, side, "it")[:, 0, 0].tolist()


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.T, 2),
    8: lambda a: np.rot90(a, 1),
}
"""What a viewer does for each EXIF orientation (tag 0x0112, Exif 2.3 table 6)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_pictures_stand_upright_as_their_exif_data_say(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = stored(Image.fromarray(ARROW).convert("RGB"), kind, exif=exif, **lossless)

    assert np.array_equal(grey(data), UPRIGHT[orientation](ARROW))


def test_a_photograph_that_was_taken_sideways_has_its_top_at_the_top():
    sky = np.zeros((32, 32), np.uint8)
    sky[:, :16] = 255  # stored with the sky at the left: orientation 6 turns it up
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = grey(stored(Image.fromarray(sky), "JPEG", exif=exif, quality=95), 32)

    assert seen[:14].min() > 200
    assert seen[18:].max() < 50


@pytest.mark.parametrize("bits", ["I;16", "I;16B"])
def test_sixteen_bits_are_scaled_to_eight(bits):
    deep = np.array([[0, 257, 65535], [128, 129, 32768], [65278, 65407, 1000]], np.uint16)
    kind = ">u2" if bits == "I;16B" else "<u2"
    image = Image.frombytes(bits, (3, 3), deep.astype(kind).tobytes())

    right = np.rint(deep / 257).astype(np.uint8)
    assert np.array_equal(grey(stored(image, "TIFF")), right)
    if bits == "I;16":
        assert np.array_equal(grey(stored(image)), right)


def test_floats_from_0_to_1_are_black_to_white_and_others_are_refused():
    floats = np.array([[0, 0.5, 1], [0.25, 0.75, 0.1], [0, 0, 0]], np.float32)
    assert np.array_equal(
        grey(stored(Image.fromarray(floats), "TIFF")), np.rint(255 * floats).astype(np.uint8)
    )
    for wrong in (floats * 100, floats - 0.5, floats * np.nan):
        with pytest.raises(DataError, match="not from 0 to 1") as error:
            grey(stored(Image.fromarray(wrong), "TIFF"))
        assert "8 bits" in str(error.value)


def test_whole_numbers_of_32_bits_are_refused_for_nobody_says_what_white_is():
    with pytest.raises(DataError, match="32 bits"):
        grey(stored(Image.fromarray(np.arange(9, dtype=np.int32).reshape(3, 3)), "TIFF"))


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (200, 10, 30)])
def test_what_is_transparent_is_white_whatever_colour_is_hidden_there(hidden):
    assert colour(Image.new("RGBA", (2, 2), (*hidden, 0))) == [255, 255, 255]
    assert colour(Image.new("RGBA", (2, 2), (*hidden, 255))) == list(hidden)


def test_half_transparent_colours_are_mixed_with_white():
    for seen, right in zip(
        colour(Image.new("RGBA", (2, 2), (200, 0, 100, 51))), (244, 204, 224), strict=True
    ):
        assert abs(seen - right) <= 1  # 0.2 c + 0.8 x 255
    assert abs(int(grey(Image.new("LA", (3, 3), (0, 51)))[0, 0]) - 204) <= 1


def test_palettes_and_keys_of_transparency_are_composited_too():
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert colour(stored(palette, transparency=0)) == [40, 50, 60]
    assert colour(stored(palette, transparency=1)) == [255, 255, 255]
    assert colour(stored(palette, transparency=bytes([255, 0]))) == [255, 255, 255]
    assert colour(stored(palette, "GIF", transparency=1)) == [255, 255, 255]
    assert colour(stored(Image.new("RGB", (2, 2), (7, 8, 9)), transparency=(7, 8, 9))) == [255, 255, 255]
    assert int(grey(stored(Image.new("L", (3, 3), 5), transparency=5))[0, 0]) == 255


def test_colours_of_print_and_two_colours_are_turned_into_the_model_s():
    assert colour(stored(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")) == [255, 0, 0]
    assert int(grey(Image.new("1", (3, 3), 1))[0, 0]) == 255
    assert int(grey(Image.new("RGB", (3, 3), (255, 0, 0)))[0, 0]) == 76  # ITU-R 601: 0.299 red


def test_of_several_frames_the_first_is_read():
    frames = [Image.new("L", (3, 3), v) for v in (30, 90, 150)]
    for kind in ("GIF", "TIFF", "WEBP"):
        more = {"lossless": True} if kind == "WEBP" else {}
        data = stored(frames[0].convert("RGB"), kind, save_all=True, append_images=frames[1:], **more)
        assert int(grey(data)[0, 0]) == 30


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "webp", "tif", "TIFF", "gif", "ppm", "pgm"])
def test_a_file_is_read_by_what_it_holds_and_relative_paths_start_beside_the_table(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    kind = {"tif": "TIFF", "pgm": "PPM"}.get(suffix.lower(), suffix.upper())
    Image.fromarray(ARROW).save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))

    assert np.array_equal(stacked([path], 1, 3)[0, 0], ARROW)
    assert np.array_equal(stacked([path.name], 1, 3, "list.csv", tmp_path)[0, 0], ARROW)
    assert np.array_equal(stacked([str(path)], 1, 3, "list.csv", tmp_path / "else")[0, 0], ARROW)


def png_of(width, height):
    """A PNG that says it has many pixels, and holds a few."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


WHOLE = stored(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)))
BROKEN = {
    "no picture": (b"not a picture at all", "it is none of PNG"),
    "nothing": (b"", "it is none of PNG"),
    "cut": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "a bomb": (png_of(30_000, 30_000), "more pixels than a picture should"),
    "a small bomb": (png_of(10_000, 10_000), "more pixels than a picture should"),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is none of PNG"),
    "a list": ([[0, 1], [2, 3]], "a list of numbers"),
    "a missing one": (None, "it is nothing"),
    "a gap": ({"bytes": None, "path": None}, "it is nothing"),
    "a path": ("gone.png", "there is no such file"),
    "a number": (3, "the image cannot be read"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_picture_is_refused_with_its_place(what, tmp_path):
    value, said = BROKEN[what]
    with pytest.raises(DataError, match=said) as error:
        stacked([stored(Image.fromarray(ARROW)), value], 1, 3, "list.csv", tmp_path)
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert "list.csv: row 2: the image cannot be read" in head
    assert fix
    assert "\n" not in head
    assert " at 0x" not in head


def test_pillow_agrees_about_every_orientation():
    """`UPRIGHT` above is by hand; Pillow's own transposition is a second opinion on it."""
    for orientation, turned in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.open(io.BytesIO(stored(Image.fromarray(ARROW), exif=exif)))
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), turned(ARROW))
