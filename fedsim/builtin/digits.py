"""What image generation runs on when it is given neither a model nor data: small digits and a small UNet.

The images are scikit-learn's copy of the test part of *Optical Recognition of Handwritten Digits* (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, CC BY 4.0): 1,797 grey images of 8 x 8 pixels. The UNet
(`model_folder()`) and the classifier whose features the Frechet distance uses were trained by
`scripts/pretrain_digits.py`: the UNet on the digits 0 to 4 only, so that 5 to 9 are new to it.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import DataError, message

KNOWN: Final = (0, 1, 2, 3, 4)
"""Digits that the shipped UNet was trained on."""
NEW: Final = (5, 6, 7, 8, 9)
"""Digits that it has never seen: what is federated by default."""
TEST_EVERY: Final = 5
"""One in so many images of each digit, the last of every five, is held out as test."""
MODEL_FILES: Final = (
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "scheduler_config.json",
    "classifier.safetensors",
)


def model_folder() -> Path:
    """Return the shipped UNet's folder, as `UNet2DModel.from_pretrained` takes it.

    Raises:
        DataError: the installation lacks a file of it.
    """
    folder = Path(str(files("fedsim.builtin") / "digits_model"))
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        what = f"the built-in image model is incomplete: no {', '.join(missing)}"
        fix = "reinstall fedsim (unzipped), or name a model: task.model: FOLDER"
        raise DataError(message(str(folder), what, fix=fix))
    return folder


def images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all 1,797 images (n, 1, 8, 8), their 17 levels of grey spread over 0..255, and their digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return grey[:, None], digits.target.astype(np.int64)


def is_test(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which images are held out as test: of each digit the last of every `TEST_EVERY`.

    >>> is_test(np.array([3, 3, 1, 3, 3, 3])).tolist()
    [False, False, False, False, False, True]
    """
    held = np.zeros(labels.size, dtype=bool)
    for digit in np.unique(labels):
        held[np.flatnonzero(labels == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return held


def data_hash(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Return the SHA-256 of images and labels, as 64 hexadecimal digits."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()
