"""A small convolutional classifier: which class an image is of, and 64 features of what it looks like.

It stands where a large pretrained network would be too much (8 x 8 digits) or is not to be had: its last
hidden layer gives the features of `FD(...)` and `KID(...)`, its answers the share of each class.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fedsim.errors import DataError, message
from fedsim.rng import seed_of
from fedsim.training.loading import safety

FEATURES = 64
MOST = 4096
"""Channels, pixels, classes and width that a stored network may have."""


class Classifier(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Three 3 x 3 convolutions, two of them followed by max pooling; a hidden layer of 64; the classes."""

    def __init__(self, channels: int, size: int, classes: int, width: int = 32) -> None:
        """Make an untrained network for square images of `size` pixels a side."""
        super().__init__()
        self.describes = {"channels": channels, "size": size, "classes": classes, "width": width}
        conv, relu, pool = torch.nn.Conv2d, torch.nn.ReLU, torch.nn.MaxPool2d
        self.hidden = torch.nn.Sequential(
            conv(channels, width, 3, padding=1), relu(),
            conv(width, 2 * width, 3, padding=1), relu(), pool(2),
            conv(2 * width, 2 * width, 3, padding=1), relu(), pool(2),
            torch.nn.AdaptiveAvgPool2d(min(2, size // 4)), torch.nn.Flatten(),
            torch.nn.Linear(2 * width * min(2, size // 4) ** 2, FEATURES), relu(),
        )  # fmt: skip
        self.classes = torch.nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, 64) and logits (n, classes) of images (n, C, H, W) from -1 to 1."""
        features = self.hidden(images)
        return features, self.classes(features)


def save(model: Classifier, path: Path) -> None:
    """Write the network in half precision with what it needs to be built again."""
    from safetensors.torch import save_file

    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, path, metadata={"classifier": json.dumps(model.describes)})


def load(path: Path) -> Classifier:
    """Return a stored network in float32 and evaluation mode.

    Raises:
        DataError: no such file, or not one that `save` wrote.
    """
    from safetensors import safe_open

    fix = (
        "give a file written by scripts/pretrain_cifar10.py, or by fedsim.training.diffusion.classifier.save"
    )
    safety.refuse(path, safety.TEXT_BYTES, "task.features", str(path))
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["classifier"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if not all(type(count) is int and 0 < count <= MOST for count in described.values()):
            raise ValueError(f"it describes a network of other sizes than 1 to {MOST:,}")
        model = Classifier(**described)
        model.load_state_dict(tensors)
    except Exception as problem:  # safetensors and torch raise their own
        said = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        what = f"{path} holds no classifier ({said})"
        raise DataError(message("task.features", what, fix=fix)) from problem
    model.eval()
    return model


def train(model: Classifier, images: Tensor, labels: Tensor, *, epochs: int, lr: float, batch: int, seed: int,
          shift: int = 1, say: Callable[[str], None] = print) -> None:  # fmt: skip
    """Train in place with AdamW and a cosine, images (n, C, H, W) from -1 to 1 shifted by up to `shift` pixels."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    steps = epochs * -(-len(images) // batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed_of(seed, "classifier"))
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images), generator=draw).split(batch):
            by = torch.randint(-shift, shift + 1, (2,), generator=draw).tolist()
            moved = torch.nn.functional.pad(images[rows], [shift] * 4, value=-1.0)
            size = images.shape[-1]
            moved = moved[:, :, shift + by[0] : shift + by[0] + size, shift + by[1] : shift + by[1] + size]
            loss = torch.nn.functional.cross_entropy(model(moved)[1], labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            decay.step()
            total += loss.item() * len(rows)
        say(f"epoch {epoch + 1:3d}  loss {total / len(images):.4f}")
    model.eval()


def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose class is right."""
    with torch.no_grad():
        right = sum(
            int((model(part)[1].argmax(1) == truth).sum())
            for part, truth in zip(images.split(500), labels.split(500), strict=True)
        )
    return right / len(images)
