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

from fedsim import personalize, tables
from fedsim.adapter import Vector
from fedsim.aggregators import ServerModel
from fedsim.executors import Executor
from fedsim.experiment import Experiment
from fedsim.jobs import Job, Probe, ScoreJob, Task

COLUMNS, ROWS = 10, 4
"""Tiles of a grid."""
TILE = 40
"""Least pixels of a tile's side: small images are enlarged by a whole factor, without smoothing."""
GAP = 2
PERSONAL = 3
"""Clients whose own adapters are shown."""
SPLIT = "gallery"
"""The split of a probe that a task answers with `images`: rows are numbers of samples."""


@dataclass(frozen=True)
class Picture:
    """A grid: its file's name, what it shows, and its images (n, C, H, W)."""

    name: str
    caption: str
    images: NDArray[np.uint8]


def hang(
    experiment: Experiment, task: Task, executor: Executor, model: ServerModel, folder: Path
) -> list[str]:
    """Write the grids of a finished run into `folder`, if its task draws images; return the files' names."""
    if not getattr(task, "draws", False):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for picture in pictures(experiment, task, executor, model):
        name = f"{picture.name}.png"
        tables.replace(folder / name, png(grid(picture.images)))
        captions.append({"file": name, "caption": picture.caption})
    text = json.dumps(captions, indent=2, ensure_ascii=False) + "\n"
    tables.replace(folder / "samples.json", text.encode())
    return [entry["file"] for entry in captions]


def pictures(experiment: Experiment, task: Any, executor: Executor, model: ServerModel) -> Iterator[Picture]:
    """Yield real images of the clients, samples of version 0 and of the last one, and a few clients' own."""
    n = COLUMNS * ROWS
    yield Picture("real", "Images that the clients have", task.real(n))
    yield Picture("before", "Before: drawn by the pretrained model", _drawn(executor, task.initial(), n))
    if not model.personal:
        yield Picture(
            "after", "After: drawn with the federated adapter", _drawn(executor, model.adapter.vector, n)
        )
    for client, vector in _personal(experiment, task, executor, model):
        caption = f"Client {client}, whose images are {task.classes_of(client)}: drawn with its own adapter"
        yield Picture(f"client-{client}", caption, _drawn(executor, vector, n))


def _drawn(executor: Executor, vector: Vector, n: int) -> NDArray[np.uint8]:
    job = ScoreJob(executor.share(vector), Probe(SPLIT, 0, n))
    images: NDArray[np.uint8] = executor.score([job]).result()[0]["images"]
    return images


def _personal(
    experiment: Experiment, task: Task, executor: Executor, model: ServerModel
) -> Iterator[tuple[int, Vector]]:
    """Yield a few clients with the adapter that each ends the run with, fine-tuned if the run asks for it."""
    if model.personal:
        for client in sorted(model.personal)[:PERSONAL]:
            yield client, model.personal[client]
        return
    local = None if experiment.personal.kind == "none" else personalize.local_of(experiment)
    if local is None:
        return
    clients = personalize.chosen(experiment, task.clients)[:PERSONAL]
    start = executor.share(model.adapter.vector)
    jobs = [Job(c, 0, start, local, experiment.seed, purpose="personal") for c in clients]
    for client, update in zip(clients, executor.train(jobs).result(), strict=True):
        yield client, update.end


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
