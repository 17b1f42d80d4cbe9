"""Inception-v3 as FID uses it (arXiv 1512.00567, 1706.08500), up to its 2,048 pooled features; weights from a file.

The network is the one of 2015-12-05 whose TensorFlow graph the authors of FID published, in the layout of its
PyTorch port (`pt_inception-2015-12-05-6726825d.pth` of mseitzer/pytorch-fid): average pools do not count the padding, and
the last block pools by maximum. `scripts/inception_weights.py` turns that file into the one read here.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedsim.errors import DataError, Message, message
from fedsim.training.loading import safety

ORIGINAL = "6726825d"
"""First digits of the SHA-256 of the port's file; only weights from it may be called FID."""
Pair = tuple[int, int]


class Conv(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Convolution, batch norm (eps 0.001), ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | Pair, stride: int = 1, padding: int | Pair = 0
    ) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = torch.nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        return torch.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class A(torch.nn.Module):  # type: ignore[misc]
    """35 x 35: 1 x 1, 5 x 5, double 3 x 3, pool."""

    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(inputs, 48, 1), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64, 1), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(inputs, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class B(torch.nn.Module):  # type: ignore[misc]
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 64, 1), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, torch.nn.functional.max_pool2d(x, 3, stride=2)], 1)


class C(torch.nn.Module):  # type: ignore[misc]
    """17 x 17: 7 x 1 and 1 x 7 instead of 7 x 7."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        across: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        down: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(inputs, width, 1), Conv(width, width, **across)
        self.branch7x7_3 = Conv(width, 192, **down)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(inputs, width, 1), Conv(width, width, **down)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(width, width, **across), Conv(width, width, **down)
        self.branch7x7dbl_5 = Conv(width, 192, **across)
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class D(torch.nn.Module):  # type: ignore[misc]
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(inputs, 192, 1), Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(inputs, 192, 1), Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3, self.branch7x7x3_4 = (
            Conv(192, 192, (7, 1), padding=(3, 0)),
            Conv(192, 192, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        pooled = torch.nn.functional.max_pool2d(x, 3, stride=2)
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, pooled], 1)


class E(torch.nn.Module):  # type: ignore[misc]
    """8 x 8: 1 x 3 and 3 x 1 side by side; the last of the two pools by maximum."""

    def __init__(self, inputs: int, *, maximum: bool) -> None:
        super().__init__()
        across: dict[str, Any] = {"kernel": (1, 3), "padding": (0, 1)}
        down: dict[str, Any] = {"kernel": (3, 1), "padding": (1, 0)}
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, **across), Conv(384, 384, **down)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(inputs, 448, 1), Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, **across), Conv(384, 384, **down)
        self.branch_pool = Conv(inputs, 192, 1)
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = torch.nn.functional.max_pool2d(x, 3, stride=1, padding=1) if self.maximum else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class Inception(torch.nn.Module):  # type: ignore[misc]
    """Images (n, 3, 299, 299) from -1 to 1 -> features (n, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, stride=2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
        self.Mixed_6a = B(288)
        self.Mixed_6b, self.Mixed_6c = C(768, 128), C(768, 160)
        self.Mixed_6d, self.Mixed_6e = C(768, 160), C(768, 192)
        self.Mixed_7a = D(768)
        self.Mixed_7b, self.Mixed_7c = E(1280, maximum=False), E(2048, maximum=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features."""
        pool = torch.nn.functional.max_pool2d
        x = pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for block in (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c,
                      self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c):  # fmt: skip
            x = block(x)
        return x.mean((2, 3))


@lru_cache(maxsize=1)
def load(path: str) -> Inception:
    """Return the network with the weights of a safetensors file, in evaluation mode.

    Raises:
        DataError: no such file, or not Inception's weights.
    """
    from safetensors.torch import load_file

    safety.refuse(Path(path), safety.TEXT_BYTES, "task.features.weights", path)
    net = Inception()
    try:
        keys = net.load_state_dict(load_file(path), strict=False)
    except Exception as problem:  # safetensors and torch raise their own
        said = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise DataError(_wrong(path, f"cannot be read ({said})")) from problem
    missing = [name for name in keys.missing_keys if not name.endswith("num_batches_tracked")]
    if missing:
        raise DataError(_wrong(path, f"lacks {len(missing)} of Inception's tensors ({missing[0]})"))
    net.eval()
    return net


def is_original(path: str) -> bool:
    """Tell whether a file says that it was made from the original weights.

    Raises:
        DataError: no such file.
    """
    from safetensors import safe_open

    safety.refuse(Path(path), safety.TEXT_BYTES, "task.features.weights", path)
    try:
        with safe_open(path, "pt") as file:
            made_from = (file.metadata() or {}).get("source_sha256", "")
    except Exception as problem:
        said = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise DataError(_wrong(path, f"cannot be read ({said})")) from problem
    return bool(made_from.startswith(ORIGINAL))


def _wrong(path: str, what: str) -> Message:
    fix = "make it once: python scripts/inception_weights.py pt_inception-2015-12-05-6726825d.pth OUT.safetensors"
    return message("task.features.weights", f"{path} {what}", fix=fix)
