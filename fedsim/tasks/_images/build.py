"""From a configuration to an images task: pictures, clients, an extractor, and the facts about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.builtin import digits
from fedsim.errors import DataError, ExperimentError, message
from fedsim.jobs import TaskContext
from fedsim.rng import stream
from fedsim.tasks._images import data as _images_data
from fedsim.tasks._images import features as _images_features
from fedsim.tasks._images.data import Pictures
from fedsim.tasks._images.settings import ImagesSettings
from fedsim.tasks._images.task import ImagesTask
from fedsim.tasks._language.topics import divergence_bits
from fedsim.tasks.partition import Blocks, Dirichlet, Pathological, partition
from fedsim.training.diffusion import cost as denoiser_cost
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion.lora import Source

Ints = NDArray[np.int64]
LEAST = 2
"""Images of a client: one to train on, one held out."""


def prepare(config: ImagesSettings, context: TaskContext) -> ImagesTask:
    """Return the task; see `Images.build`."""
    name = str(digits.model_folder()) if config.model == "builtin" else config.model
    how = denoisers.signature(name)
    denoisers.check_weights(name)
    process = denoisers.schedule(name, config.prediction)
    if config.samples and config.sampling_steps > process.config.num_train_timesteps:
        what, fix = "the model's diffusion has fewer steps", f"at most {process.config.num_train_timesteps}"
        raise DataError(message("task.sampling_steps", what, got=config.sampling_steps, fix=f"set {fix}"))
    skeleton = denoisers.skeleton(name)
    layout = denoiser_lora.layout(skeleton, context.lora)
    if how.needs_class and not config.conditional:
        what = f"this {how.kind} cannot be run without a class"
        raise ExperimentError(message("task.conditional", what, got=False, fix="remove it"))
    source = Source(name, config.prediction, context.lora, how.takes_classes and config.conditional)
    columns = (config.image_column, config.label_column)
    read = _images_data.Source(
        config.data, config.data_config, config.data_revision, *columns, how.channels, how.size
    )
    splits = _images_data.read(read)
    wanted = _classes(config, splits["train"], how)
    train = part_of(splits["train"], wanted, config.share)
    if short := [splits["train"].names[c] for c in wanted if not (train.labels == c).any()]:
        what, fix = (
            "it leaves no image of some classes",
            "leave them out of task.classes, or take a larger share",
        )
        raise DataError(message("task.share", what, got=", ".join(short[:5]), fix=fix))
    test = _of(splits["test"], wanted)
    if not len(test):
        fix = "name classes of which the test split has images"
        raise DataError(message("task.classes", "the test split has none of them", got=list(wanted), fix=fix))
    numbers = np.searchsorted(np.array(wanted), train.labels).astype(np.int64)
    how_split: Any = config.partition
    if isinstance(how_split, Dirichlet | Pathological) and how_split.over == "topics":
        fix = "leave it out: the classes of the images are used"
        raise DataError(message("task.partition.over", "images have no topics", got="topics", fix=fix))
    blocks = Blocks(np.ones(len(train), dtype=np.int64), numbers)
    rng = stream(context.seed, "partition")
    share, repaired = partition(config.partition, blocks, context.clients, LEAST, rng, unit="images")
    features = _features(config)
    if features is not None:
        _images_features.check(features, how.channels, how.size, len(train.names))
    training, held = _shards(share, config.holdout, context.seed)
    counts = np.stack([np.bincount(numbers[mine], minlength=len(wanted)) for mine in share])
    facts = {
        "model": config.model,
        "denoiser": how.kind,
        "prediction": str(process.config.prediction_type),
        "told_classes": source.told,
        "corpus": config.data,
        "corpus_sha256": _images_data.digest({"train": train, "test": test}),
        "image": f"{how.channels} x {how.size} x {how.size}",
        "prepared": _images_data.PREPARED,
        "classes": len(wanted),
        "class_names": [train.names[c] for c in wanted],
        "partition": config.partition.kind,
        "repaired_blocks": repaired,
        "classes_per_client": [int(v) for v in np.quantile((counts > 0).sum(axis=1), [0, 0.5, 1])],
        "class_divergence_bits": divergence_bits(list(counts), counts.sum(axis=0)),
        "loss_grid": f"{config.grid} timesteps, fixed noise an image",
    }
    if features is not None and config.samples:
        facts |= {
            "extractor": features.name,
            "extractor_sha256": features.digest,
            "resize": features.path,
            "samples": config.samples,
            "sampler": f"DDIM, {config.sampling_steps} steps, eta 0",
            "reference_images": len(train),
        }
    return ImagesTask(
        source=source,
        how=how,
        numerics=context.numerics,
        gpus_per_worker=context.gpus_per_worker,
        seed=context.seed,
        layout=layout,
        shape=denoiser_cost.of_named(name, layout, context.local.batch),
        classes=wanted,
        grid=config.grid,
        samples=config.samples if features is not None else 0,
        sampling_steps=config.sampling_steps,
        features=features,
        pictures=train,
        training=tuple(training),
        held_out=tuple(held),
        test=test,
        facts=facts,
    )


def _classes(config: ImagesSettings, train: Pictures, how: denoisers.Signature) -> tuple[int, ...]:
    """Return the classes that clients have, sorted."""
    there = np.unique(train.labels).tolist()
    wanted = digits.NEW if config.classes is None and config.data == "builtin" else config.classes
    found = tuple(sorted(there if wanted is None else wanted))
    missing = sorted(set(found) - set(there))
    if missing or not found:
        fix = f"choose some of {', '.join(map(str, there))}"
        raise DataError(message("task.classes", "the data have no such class", got=missing, fix=fix))
    if config.conditional and how.takes_classes and found[-1] >= how.classes:
        what = f"the model can be told {how.classes} classes, counted from 0"
        fix = "set task.conditional: false, or give a model with more"
        raise DataError(message("task.classes", what, got=found[-1], fix=fix))
    return found


def _of(pictures: Pictures, classes: tuple[int, ...]) -> Pictures:
    return pictures.take(np.isin(pictures.labels, classes))


def part_of(
    pictures: Pictures, classes: Sequence[int] | None, share: tuple[float, float] = (0.0, 1.0)
) -> Pictures:
    """Return the images of some classes (None: all), of each from one share of it to another, in the data's order."""
    if classes is not None:
        pictures = _of(pictures, tuple(classes))
    kept = np.zeros(len(pictures), dtype=bool)
    for label in np.unique(pictures.labels):
        rows = np.flatnonzero(pictures.labels == label)
        kept[rows[round(share[0] * rows.size) : round(share[1] * rows.size)]] = True
    return pictures if kept.all() else pictures.take(kept)


def _features(config: ImagesSettings) -> _images_features.Features | None:
    asked = config.features
    kind = asked.kind
    if kind == "auto":
        builtin = config.data == "builtin" and config.model == "builtin"
        kind = "classifier" if asked.classifier else "digits-cnn" if builtin else "none"
    if kind == "none":
        return None
    shipped = config.data == "builtin"
    return _images_features.Features(kind, asked.weights, asked.classifier, asked.resize, digits=shipped)


def _shards(share: list[Ints], holdout: float, seed: int) -> tuple[list[Ints], list[Ints]]:
    """Draw the images that each client does not train on: the share `holdout`, at least one."""
    training, held = [], []
    for client, mine in enumerate(share):
        apart = min(len(mine) - 1, max(1, round(holdout * len(mine))))
        drawn = stream(seed, "holdout", client).permutation(mine)
        held.append(np.sort(drawn[:apart]))
        training.append(np.sort(drawn[apart:]))
    return training, held
