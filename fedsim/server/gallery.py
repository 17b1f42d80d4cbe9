"""Pictures of what a model draws, in the run folder: before, after, and by a few clients' own adapters.

    samples/real.png, before.png, after.png, client-7.png, ...; samples.json says what each is

All grids start from the same noise, tile by tile, so that they can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.aggregators._base import ServerModel
from fedsim.clock.plan import Plan
from fedsim.executors import Executor
from fedsim.files import atomic
from fedsim.jobs import SPLIT, DrawingTask, Probe, ScoreJob
from fedsim.personal import Used
from fedsim.server import personalize
from fedsim.server.private_parts import PrivateParts

COLUMNS, ROWS = 10, 4
"""Tiles of a grid."""
TILE = 40
"""Least pixels of a tile's side: small images are enlarged by a whole factor, without smoothing."""
GAP = 2
PERSONAL = 3
"""Clients whose own adapters are shown."""


@dataclass(frozen=True)
class Picture:
    """A grid: its file's name, what it shows, and its images (n, C, H, W)."""

    name: str
    caption: str
    images: NDArray[np.uint8]


def hang(
    plan: Plan, executor: Executor, model: ServerModel, state: Any, private_parts: PrivateParts, folder: Path
) -> list[str]:
    """Write the grids of a finished run into `folder`, if its task draws images; return the files' names.

    Args:
        plan: of the run.
        executor: where to train and draw.
        model: the server's, at the end of the run.
        state: the rule's.
        private_parts: what the clients have kept, nothing under way.
        folder: where to.
    """
    task = plan.task
    if not isinstance(task, DrawingTask):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for picture in pictures(plan, task, executor, model, state, private_parts):
        name = f"{picture.name}.png"
        atomic.replace(folder / name, png(grid(picture.images)))
        captions.append({"file": name, "caption": picture.caption})
    text = json.dumps(captions, indent=2, ensure_ascii=False) + "\n"
    atomic.replace(folder / "samples.json", text.encode())
    return [entry["file"] for entry in captions]


def pictures(
    plan: Plan,
    task: DrawingTask,
    executor: Executor,
    model: ServerModel,
    state: Any,
    private_parts: PrivateParts,
) -> Iterator[Picture]:
    """Yield real images of the clients, samples of version 0 and of the last one, and a few clients' own.

    Where clients keep a part of the model, nothing is drawn with what they share.
    """
    n = COLUMNS * ROWS
    yield Picture("real", "Images that the clients have", task.real(n))
    yield Picture(
        "before", "Before: drawn by the pretrained model", _drawn(executor, Used(task.initial()), n)
    )
    if not private_parts.waits:
        base = None if model.base is None or not model.base.version else model.base.vector
        shared = Used(model.adapter.vector, base)
        yield Picture("after", "After: drawn with the federated adapter", _drawn(executor, shared, n))
    clients = personalize.shown(plan, model)[:PERSONAL]
    own = personalize.models(plan, executor, model, state, private_parts, clients) if clients else ()
    for client, used in zip(clients, own, strict=True):
        caption = f"Client {client}, whose images are {task.classes_of(client)}: drawn with its own adapter"
        yield Picture(f"client-{client}", caption, _drawn(executor, used, n))


def _drawn(executor: Executor, used: Used, n: int) -> NDArray[np.uint8]:
    base = None if used.base is None else executor.share(used.base)
    job = ScoreJob(executor.share(used.vector), Probe(SPLIT, 0, n), base)
    images: NDArray[np.uint8] = executor.score([job]).result()[0]["images"]
    return images


def grid(images: NDArray[np.uint8], columns: int = COLUMNS) -> NDArray[np.uint8]:
    """Return images (n, C, H, W) side by side as (height, width, C), enlarged by a whole factor, on white."""
    n, channels, height, width = images.shape
    times = -(-TILE // min(height, width))
    rows, columns = -(-n // columns), min(columns, n)
    large = images.repeat(times, axis=2).repeat(times, axis=3).transpose(0, 2, 3, 1)
    high, wide = height * times + GAP, width * times + GAP
    sheet = np.full((rows * high + GAP, columns * wide + GAP, channels), 255, dtype=np.uint8)
    for i, tile in enumerate(large):
        top, left = GAP + i // columns * high, GAP + i % columns * wide
        sheet[top : top + high - GAP, left : left + wide - GAP] = tile
    return sheet


def png(sheet: NDArray[np.uint8]) -> bytes:
    """Return a picture (height, width, 1 or 3) as PNG."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
