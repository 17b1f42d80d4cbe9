"""Pictures of what a model draws, in the run folder: before, after, and by a few clients' own adapters.

    samples/real.png, before.png, after.png, client-7.png, ...; samples.json says what each is

All grids start from the same noise, tile by tile, so that they can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsim.executors import Executor
from fedsim.files.atomic import write_atomically
from fedsim.jobs import SPLIT, DrawingTask, Probe, ScoreJob
from fedsim.personal import Used
from fedsim.server.after.personalize import FinalState, client_models, with_models

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


def hang(final: FinalState, folder: Path) -> list[str]:
    """Write the grids of a finished run into `folder`, if its task draws images; return the files' names."""
    task = final.plan.task
    if not isinstance(task, DrawingTask):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for picture in pictures(final, task):
        name = f"{picture.name}.png"
        write_atomically(folder / name, png(grid(picture.images)))
        captions.append({"file": name, "caption": picture.caption})
    text = json.dumps(captions, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "samples.json", text.encode())
    return [entry["file"] for entry in captions]


def pictures(final: FinalState, task: DrawingTask) -> Iterator[Picture]:
    """Yield real images of the clients, samples of version 0 and of the last one, and a few clients' own.

    Where clients keep a part of the model, nothing is drawn with what they share.
    """
    n, executor = COLUMNS * ROWS, final.executor
    yield Picture("real", "Images that the clients have", task.real(n))
    before = _drawn(executor, Used(task.initial()), n)
    yield Picture("before", "Before: drawn by the pretrained model", before)
    if not final.private_parts.waits:
        after = _drawn(executor, final.shared, n)
        yield Picture("after", "After: drawn with the federated adapter", after)
    clients = with_models(final)[:PERSONAL]
    models = client_models(final, clients) if clients else ()
    for client, model in zip(clients, models, strict=True):
        caption = f"Client {client}, whose images are {task.classes_of(client)}: drawn with its own adapter"
        yield Picture(f"client-{client}", caption, _drawn(executor, model, n))


def _drawn(executor: Executor, model: Used, n: int) -> NDArray[np.uint8]:
    base = None if model.base is None else executor.share(model.base)
    job = ScoreJob(executor.share(model.vector), Probe(SPLIT, 0, n), base)
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
