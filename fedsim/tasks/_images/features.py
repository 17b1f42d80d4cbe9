"""What looks at images for `FD` and `KID`: features of images, their classes, and those of real images kept."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import DataError, message
from fedsim.metrics.kernel import within
from fedsim.tasks._images.extractor import SIZES, Features, lite_packages
from fedsim.training.local import device

AT_ONCE = 100
"""Images in one pass."""
KEPT_FROM = 2_000
"""Real images from which on their features are kept between runs."""
SPOILT = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""What reading a file of kept features may raise that is not whole."""


def features(what: Features, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features (n, d) of images (n, C, H, W)."""
    import torch

    extract = _extractor(what)
    with torch.no_grad():
        parts = [
            extract(torch.from_numpy(images[at : at + AT_ONCE])) for at in range(0, len(images), AT_ONCE)
        ]
    vectors: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return vectors


def reference(what: Features, images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], float]:
    """Return the features (n, d) of real images, and their mean kernel.

    Those of many images take a minute, so they are kept for the next run: in `$XDG_CACHE_HOME/fedsim` or
    `~/.cache/fedsim`, by what they depend on. A cache that cannot be read or written is done without.
    """
    if len(images) < KEPT_FROM:
        vectors = features(what, images)
        return vectors, within(vectors)
    place = _place(what, images)
    with suppress(*SPOILT), np.load(place, allow_pickle=False) as cache:
        vectors, itself = cache["features"].astype(np.float64), float(cache["within"])
        if len(vectors) == len(images):
            return vectors, itself
    vectors = features(what, images)
    itself = within(vectors)
    part = place.with_suffix(f".{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, features=vectors.astype(np.float32), within=itself)
        part.replace(place)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return vectors, itself


def _place(what: Features, images: NDArray[np.uint8]) -> Path:
    import torch

    depends = (what.digest, what.name, what.path, torch.__version__, str(images.shape))
    key = hashlib.sha256("\n".join(depends).encode() + np.ascontiguousarray(images).tobytes()).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fedsim" / f"features-{key[:32]}.npz"


def classes(what: Features, images: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Return the class that a classifier sees in each image (n,), or None if there is no classifier."""
    import torch

    net = _counter(what)
    if net is None:
        return None
    with torch.no_grad():
        parts = [
            net(_seen(torch.from_numpy(images[at : at + AT_ONCE]), None))[1].argmax(1)
            for at in range(0, len(images), AT_ONCE)
        ]
    numbers: NDArray[np.int64] = torch.cat(parts).cpu().numpy()
    return numbers


def check(what: Features, channels: int, size: int, classes: int) -> None:
    """Refuse an extractor that cannot be loaded, or that does not fit the images.

    Raises:
        DataError: a missing package or file, or other channels, sizes or classes than a classifier was trained on.
    """
    _extractor(what)
    looks = _classifier(what.file).describes if what.kind in ("digits-cnn", "classifier") else None
    counter = _counter(what)
    counts = None if counter is None else counter.describes
    fix = "give a classifier of such images (task.features.classifier), or another task.features.kind"
    for known in (looks, counts):
        if known is not None and (known["channels"], known["size"]) != (channels, size):
            seen = f"the classifier sees {known['channels']} channels of {known['size']} pixels"
            raise DataError(message("task.features", f"{seen}, the images are {channels} of {size}", fix=fix))
    if counts is not None and counts["classes"] != classes:
        seen = f"the classifier knows {counts['classes']} classes, the data have {classes}"
        raise DataError(message("task.features", seen, fix=fix))


@lru_cache(maxsize=4)
def _classifier(path: Path) -> Any:
    from fedsim.training.diffusion import classifier

    return classifier.load(path).to(device())


def _counter(what: Features) -> Any | None:
    """Return the classifier that tells classes apart: one that is given, else the shipped one of digits."""
    if what.classifier is not None:
        return _classifier(Path(what.classifier))
    return _classifier(what.file) if what.kind == "digits-cnn" and what.digits else None


def _seen(images: Any, size: int | None) -> Any:
    """Return 8-bit images as floats from -1 to 1, resized."""
    import torch

    floats = images.to(device()).float() / 127.5 - 1
    if size is None or floats.shape[-1] == size:
        return floats
    return torch.nn.functional.interpolate(
        floats, (size, size), mode="bilinear", antialias=True, align_corners=False
    )


@lru_cache(maxsize=4)
def _extractor(what: Features) -> Callable[[Any], Any]:
    """Return 8-bit images (n, C, H, W) -> features (n, d)."""
    size = what.resize or SIZES.get(what.kind)
    if what.kind in ("digits-cnn", "classifier"):
        if what.kind == "classifier" and what.classifier is None:
            fix = "set task.features.classifier to a file, as scripts/pretrain_cifar10.py writes one"
            raise DataError(message("task.features.classifier", "is needed for this kind", fix=fix))
        net = _classifier(what.file)
        return lambda images: net(_seen(images, what.resize))[0]
    if what.kind == "inception":
        from fedsim.training.diffusion import inception

        if what.weights is None:
            fix = "make the file once: python scripts/inception_weights.py pt_inception-2015-12-05-6726825d.pth OUT"
            raise DataError(
                message("task.features.weights", "FID needs the original Inception weights", fix=fix)
            )
        pool = inception.load(what.weights).to(device())
        return lambda images: pool(_coloured(_seen(images, size)))
    lite = _efficientnet()
    return lambda images: lite(_coloured(_seen(images, size)))


def _coloured(images: Any) -> Any:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _efficientnet() -> Callable[[Any], Any]:
    """Return EfficientNet-Lite0's pooled features; it was trained on images from -1 to 1."""
    network, file = lite_packages()
    with redirect_stdout(io.StringIO()):  # it says that it loads
        net = network.from_pretrained("efficientnet-lite0", weights_path=file.get_model_file_path())
    net.eval().to(device())

    def pooled(images: Any) -> Any:
        return net.extract_features(images).mean((2, 3))

    return pooled
