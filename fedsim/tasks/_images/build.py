"""From a configuration to an images task: pictures, clients, an extractor, and the facts about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedsim.builtin import digits
from fedsim.errors import DataError, ExperimentError, message
from fedsim.jobs import TaskContext
from fedsim.rng import stream
from fedsim.tasks._images.data import PREPARED, Source, digest, read
from fedsim.tasks._images.extractor import Features
from fedsim.tasks._images.features import check
from fedsim.tasks._images.pictures import Pictures
from fedsim.tasks._images.settings import ImagesSettings
from fedsim.tasks._images.task import ImagesTask
from fedsim.tasks._language.topics import divergence_bits
from fedsim.tasks._natural.last import last_at_the_end, said_of_owners
from fedsim.tasks._splits import Ragged, Splits
from fedsim.tasks.partition import Blocks, Dirichlet, Pathological, partition
from fedsim.training.beside.saved_adapter import check_saved
from fedsim.training.diffusion import cost as denoiser_cost
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion.models import Signature
from fedsim.training.quantised.chosen import notices as quantised_notices

LEAST = 2
"""Images of a client: one to train on, one held out."""


def prepare(config: ImagesSettings, context: TaskContext) -> ImagesTask:
    """Return the task; see `Images.build`."""
    name = str(digits.model_folder()) if config.model == "builtin" else config.model
    how = _checked(config, name)
    layout = denoiser_lora.layout(denoisers.skeleton(name), context.lora)
    check_saved(layout, context.lora)
    if how.needs_class and not config.conditional:
        what = f"this {how.kind} cannot be run without a class"
        raise ExperimentError(message("task.conditional", what, got=False, fix="remove it"))
    train, test, classes, notices = _pictures(config, how)
    deal = _dealt(config, context, train, classes)
    eyes = _checked_eyes(config, how, len(train.names))
    told = how.takes_classes and config.conditional
    facts = _facts(config, how, name, told=told, train=train, test=test) | deal.facts
    shape = denoiser_cost.of_named(name, layout, context.local.batch, config.quantised())
    if said := [*notices, *deal.notices, *quantised_notices(shape, config.quantised())]:
        facts["notices"] = said
    facts |= _score_facts(config, eyes, len(train))
    return ImagesTask(
        model=name,
        lora=context.lora,
        numerics=context.numerics,
        gpus_per_worker=context.gpus_per_worker,
        seed=context.seed,
        training_seed=context.first_seed,
        layout=layout,
        shape=shape,
        splits=_splits(config, deal, train, len(test), context.seed),
        facts=facts,
        prediction=config.prediction,
        told=told,
        size=how.size,
        classes=classes,
        grid=config.grid,
        samples=config.samples if eyes else 0,
        sampling_steps=config.sampling_steps,
        features=eyes[0] if eyes else None,
        further=eyes[1:],
        pictures=train,
        test=test,
        quantise=config.quantised(),
    )


def _checked(config: ImagesSettings, name: str) -> Signature:
    """Return how the denoiser is called, after the checks that need no data."""
    how = denoisers.signature(name)
    denoisers.check_weights(name)
    steps = denoisers.schedule(name, config.prediction).config.num_train_timesteps
    if config.samples and config.sampling_steps > steps:
        what, fix = "the model's diffusion has fewer steps", f"set at most {steps}"
        raise DataError(message("task.sampling_steps", what, got=config.sampling_steps, fix=fix))
    return how


def _pictures(
    config: ImagesSettings, how: Signature
) -> tuple[Pictures, Pictures, tuple[int, ...], tuple[str, ...]]:
    """Return the images that clients have, those of the test, their classes, and what is said about the rest."""
    columns = (config.image_column, config.label_column)
    source = Source(config.data, config.data_config, config.data_revision, *columns, how.channels, how.size)
    source = replace(source, client_column=config.client_column, time_column=config.time_column)
    album = read(source)
    splits = album.splits
    classes = _classes(config, splits["train"], how)
    train = part_of(splits["train"], classes, config.share)
    if short := [splits["train"].names[c] for c in classes if not (train.labels == c).any()]:
        what = "it leaves no image of some classes"
        fix = "leave them out of task.classes, or take a larger share"
        raise DataError(message("task.share", what, got=", ".join(short[:5]), fix=fix))
    test = _of(splits["test"], classes)
    if not len(test):
        what, fix = (
            "the test split has none of them",
            "name classes of which the test split has images",
        )
        raise DataError(message("task.classes", what, got=list(classes), fix=fix))
    return train, test, classes, album.notices


@dataclass(frozen=True)
class Deal:
    """The images of each client, as rows, facts about how different clients are, and sentences about what nobody has."""

    shares: Ragged
    facts: dict[str, Any]
    notices: list[str]


def _dealt(config: ImagesSettings, context: TaskContext, train: Pictures, classes: tuple[int, ...]) -> Deal:
    numbers = np.searchsorted(np.array(classes), train.labels).astype(np.int64)
    how = config.partition
    if isinstance(how, Dirichlet | Pathological) and how.over == "topics":
        fix = "leave it out: the classes of the images are used"
        raise DataError(message("task.partition.over", "images have no topics", got="topics", fix=fix))
    blocks = Blocks(np.ones(len(train), dtype=np.int64), numbers, train.owners)
    rng = stream(context.seed, "partition")
    shares, repaired = partition(how, blocks, context.clients, LEAST, rng, unit="images")
    counts = np.stack([np.bincount(numbers[rows], minlength=len(classes)) for rows in shares])
    facts = {
        "classes": len(classes),
        "class_names": [train.names[c] for c in classes],
        "partition": how.kind,
        "repaired_blocks": repaired,
        "classes_per_client": [int(v) for v in np.quantile((counts > 0).sum(axis=1), [0, 0.5, 1])],
        "class_divergence_bits": divergence_bits(list(counts), counts.sum(axis=0)),
    }
    of_owners, notices = said_of_owners(how, blocks, shares, "images")
    return Deal(shares, facts | of_owners, notices)


def _splits(config: ImagesSettings, deal: Deal, train: Pictures, test: int, seed: int) -> Splits:
    """Return who trains on what: what is held out is drawn, or the last."""
    last, shares = config.holdout_from == "last", deal.shares
    if last:
        sizes, timed = np.ones(len(train), dtype=np.int64), config.time_column is not None
        shares = last_at_the_end(shares, sizes, train.owners, config.holdout, None, timed=timed)
    return Splits.dealt(shares, config.holdout, {"test": test}, seed, last=last)


def _facts(
    config: ImagesSettings, how: Signature, name: str, *, told: bool, train: Pictures, test: Pictures
) -> dict[str, Any]:
    return {
        "model": config.model,
        "denoiser": how.kind,
        "prediction": str(denoisers.schedule(name, config.prediction).config.prediction_type),
        "told_classes": told,
        "corpus": config.data,
        "corpus_sha256": digest({"train": train, "test": test}),
        "image": f"{how.channels} x {how.size} x {how.size}",
        "prepared": PREPARED,
    }


def _score_facts(config: ImagesSettings, eyes: tuple[Features, ...], real: int) -> dict[str, Any]:
    facts: dict[str, object] = {"loss_grid": f"{config.grid} timesteps, fixed noise an image"}
    if not eyes or not config.samples:
        return facts
    first, *further = eyes
    facts |= {
        "extractor": first.name,
        "extractor_sha256": first.digest,
        "resize": first.path,
        "samples": config.samples,
        "sampler": f"DDIM, {config.sampling_steps} steps, eta 0",
        "reference_images": real,
    }
    beside = [{"extractor": what.name, "sha256": what.digest, "resize": what.path} for what in further]
    return facts | ({"further_extractors": beside} if beside else {})


def _classes(config: ImagesSettings, train: Pictures, how: Signature) -> tuple[int, ...]:
    """Return the classes that clients have, sorted."""
    there = np.unique(train.labels).tolist()
    wanted = digits.NEW if config.classes is None and config.data == "builtin" else config.classes
    numbers = tuple(sorted(there if wanted is None else wanted))
    missing = sorted(set(numbers) - set(there))
    if missing or not numbers:
        fix = f"choose some of {', '.join(map(str, there))}"
        raise DataError(message("task.classes", "the data have no such class", got=missing, fix=fix))
    if config.conditional and how.takes_classes and numbers[-1] >= how.classes:
        what = f"the model can be told {how.classes} classes, counted from 0"
        fix = "set task.conditional: false, or give a model with more"
        raise DataError(message("task.classes", what, got=numbers[-1], fix=fix))
    return numbers


def _of(pictures: Pictures, classes: tuple[int, ...]) -> Pictures:
    return pictures.take(np.isin(pictures.labels, classes))


def part_of(
    pictures: Pictures, classes: Sequence[int] | None, share: tuple[float, float] = (0.0, 1.0)
) -> Pictures:
    """Return the images of some classes (None: all), of each from one share of it to another, in the data's order."""
    if classes is not None:
        pictures = _of(pictures, tuple(classes))
    mask = np.zeros(len(pictures), dtype=bool)
    for label in np.unique(pictures.labels):
        rows = np.flatnonzero(pictures.labels == label)
        mask[rows[round(share[0] * rows.size) : round(share[1] * rows.size)]] = True
    return pictures if mask.all() else pictures.take(mask)


def _checked_eyes(config: ImagesSettings, how: Signature, classes: int) -> tuple[Features, ...]:
    """Return what looks at samples, each after its check; the first counts classes, too."""
    eyes = _eyes(config)
    for what in eyes:
        check(what, how.channels, how.size, classes)
    return eyes


def _eyes(config: ImagesSettings) -> tuple[Features, ...]:
    settings, where = config.features, "task.features.also"
    kind, also = settings.kind, settings.also
    if kind == "auto":
        builtin = config.data == "builtin" and config.model == "builtin"
        kind = "classifier" if settings.classifier else "digits-cnn" if builtin else "none"
    if kind == "none":
        if also:
            what, fix = "there is no first extractor", f"set task.features.kind: {also[0]}"
            raise DataError(message(where, what, got=list(also), fix=fix))
        return ()
    if len({kind, *also}) < 1 + len(also):
        what, fix = "an extractor looks twice", "name each once, task.features.kind included"
        raise DataError(message(where, what, got=list(also), fix=fix))
    shipped = config.data == "builtin"
    first = Features(kind, settings.weights, settings.classifier, settings.resize, digits=shipped)
    return (first, *(replace(first, kind=further, resize=None) for further in also))
