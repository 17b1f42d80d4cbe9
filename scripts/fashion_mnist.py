"""Make parquet files of Fashion-MNIST that the image task reads, from a package of Debian.

    python scripts/fashion_mnist.py --out data/fashion-mnist

The package `dataset-fashion-mnist` (31 MB, MIT, Zalando SE) holds 60,000 and 10,000 grey images of 28 x 28 pixels in ten classes
as the files of the data set itself. Written are `train.parquet` and `test.parquet` with columns `image` (PNG) and `label`, and the
names of the classes where `datasets` keeps them. `apt-get download` fetches it; with --package any other way does. It is unpacked
with the standard library.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from packages import Package, SourceError, fetched, new_folder

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGE: Final = Package(
    "debian",
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
FOLDER: Final = "./usr/share/datasets/fashion-mnist/"
CLASSES: Final = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""By number, as the data set's README has them."""
SPLITS: Final = {"train": "train", "test": "t10k"}
AR: Final = b"!<arch>\n"
HEADER: Final = 60
"""Bytes before each member of an ar archive: its name in 16, its size in 10 from byte 48 on."""


def members(archive: bytes) -> dict[str, bytes]:
    """Return the members of an ar archive, which a .deb is.

    Raises:
        SourceError: it is none, or it is cut off.
    """
    if not archive.startswith(AR):
        raise SourceError("the file is no Debian package; give the .deb itself")
    at, found = len(AR), {}
    while at + HEADER <= len(archive):
        name = archive[at : at + 16].decode("ascii", "replace").strip().rstrip("/")
        size = int(archive[at + 48 : at + 58])
        at += HEADER
        if at + size > len(archive):
            raise SourceError(f"{name} is cut off in the package; get the file anew")
        found[name] = archive[at : at + size]
        at += size + size % 2
    return found


def numbers(data: bytes, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of an idx file of bytes (http://yann.lecun.com/exdb/mnist): two zeros, 8, dimensions, their sizes, values.

    Raises:
        SourceError: it has other dimensions, or not as many numbers.
    """
    sizes = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if tuple(data[:4]) != (0, 0, 8, dimensions) or values.size != np.prod(sizes):
        raise SourceError("an idx file is not what its head says; get the package anew")
    return values.reshape(sizes)


def table(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> pa.Table:
    """Return images and labels as a table, in the files' order."""
    import pyarrow as pa
    from PIL import Image

    pictures = []
    for pixels in images:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    made = pa.table({"image": pa.array(pictures, picture), "label": pa.array(labels.astype(np.int64))})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(package: Path, folder: Path) -> None:
    """Write both splits and the licence."""
    import pyarrow.parquet as pq

    content = members(package.read_bytes())
    data = next((value for name, value in content.items() if name.startswith("data.tar")), None)
    if data is None:
        raise SourceError("the package holds no data.tar; give the .deb itself")
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:

        def unpacked(name: str) -> bytes:
            file = opened.extractfile(f"{FOLDER}{name}.gz")
            if file is None:
                raise SourceError(f"the package holds no {name}; get the file anew")
            return gzip.decompress(file.read())

        for split, prefix in SPLITS.items():
            images = numbers(unpacked(f"{prefix}-images-idx3-ubyte"), 3)
            labels = numbers(unpacked(f"{prefix}-labels-idx1-ubyte"), 1)
            pq.write_table(table(images, labels), folder / f"{split}.parquet")
    (folder / "LICENSE.txt").write_text(
        "Fashion-MNIST, copyright (c) 2017 Zalando SE (https://github.com/zalandoresearch/fashion-mnist), MIT licence.\n"
        f"Made of the package {PACKAGE.name} {PACKAGE.version} of Debian.\n",
        encoding="utf-8",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, check, unpack, write."""
    parser = argparse.ArgumentParser(description="Make parquet files of Fashion-MNIST from Debian's package.")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not be there")
    parser.add_argument("--package", type=Path, help="the .deb, where it was fetched before")
    given = parser.parse_args(argv)
    try:
        with new_folder(given.out) as folder, tempfile.TemporaryDirectory() as downloads:
            write(fetched(PACKAGE, Path(downloads), given.package), folder)
    except SourceError as problem:
        sys.exit(f"{problem}")
    print(given.out)


if __name__ == "__main__":
    main()
