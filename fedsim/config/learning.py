"""Settings of what is trained and scored: `lora`, `local`, `evaluate` and `numerics`."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from fedsim.component import Config
from fedsim.config.fields import Count, NonNegative, Positive
from fedsim.config.lora.depth import LoraDepth
from fedsim.errors import invalid
from fedsim.metrics.direction import ranks

Split: TypeAlias = Literal["test", "valid", "clients", "samples", "answers"]
"""What of the data is scored."""


def _ranked(metric: str) -> str:
    if not ranks(metric):
        fix = "name one of which less, or more, is better"
        raise invalid("is a metric without a better and a worse", got=metric, fix=fix)
    return metric


RankedMetric: TypeAlias = Annotated[str, AfterValidator(_ranked)]
"""A metric that has a best value."""


class LoraConfig(LoraDepth):
    """What is trained: adapters on `targets`, or the whole model (`full: true`).

    Attributes:
        full: train and send the whole model instead of adapters.
        targets: which modules get adapters: `all-linear`, or the ends of their names, as in [q_proj, v_proj];
            of images `attention` and `resnets`, too.
        rank_by: `fixed`; `tier`: by class of device; `memory`: the largest that fits the device; `deadline`:
            the largest that fits and lands within `protocol.deadline_s`, as `fedsim.clock.estimate.estimate` sees it.
        ranks: rank by tier (`tier`), or the choices, ascending (`memory`, `deadline`; without them r, r/2, r/4,
            ... 1). The largest is r.
        scale: what a client of rank r_k multiplies B A with: `common` alpha / r for everybody, so that a slot
            cut off or added changes nothing else; `own` alpha / r_k, as PEFT does by itself.
    """

    full: bool = False
    targets: str | tuple[str, ...] = "all-linear"
    rank_by: Literal["fixed", "tier", "memory", "deadline"] = "fixed"
    ranks: dict[str, Count] | tuple[Count, ...] | None = None
    scale: Literal["common", "own"] = "common"

    __hash__ = LoraDepth.__hash__  # which a frozen model would replace

    @model_validator(mode="after")
    def _ranks_of_a_kind(self) -> LoraConfig:
        by, ranks = self.rank_by, self.ranks
        if by == "fixed":
            if ranks is not None:
                fix = "remove it, or set rank_by: tier, memory or deadline"
                raise invalid("has `ranks` with `rank_by: fixed`", fix=fix)
            return self
        if by == "tier" and not isinstance(ranks, dict):
            fix = f"add ranks, as in {{low: {max(1, self.r // 2)}, high: {self.r}}}"
            raise invalid("has `rank_by: tier` without a rank for each tier", fix=fix)
        if by != "tier" and isinstance(ranks, dict):
            fix = "give the choices, as in ranks: [2, 4, 8], or set rank_by: tier"
            raise invalid(f"has ranks by tier with `rank_by: {by}`", fix=fix)
        if isinstance(ranks, tuple) and list(ranks) != sorted(set(ranks)):
            raise invalid("has `ranks` that do not rise", got=list(ranks), fix="order them, each once")
        ranks_given = ranks.values() if isinstance(ranks, dict) else ranks
        if ranks_given is not None and max(ranks_given, default=0) != self.r:
            largest = max(ranks_given, default=0)
            fix = f"set r: {largest}" if largest else "give some ranks"
            raise invalid(f"has r = {self.r}, and `ranks` up to {largest}", fix=fix)
        return self

    @model_validator(mode="after")
    def _first_of_both(self) -> LoraConfig:
        if self.first == "rank" and not {self.rank_by, self.depth_by} <= {"memory", "deadline"}:
            fix = "remove it, or set rank_by and depth_by: memory or deadline"
            raise invalid("has `first: rank` where a device does not choose both", fix=fix)
        return self

    @property
    def choices(self) -> tuple[int, ...]:
        """Ranks that a client may have, ascending."""
        if self.rank_by == "fixed":
            return (self.r,)
        if self.ranks is None:
            return tuple(sorted({max(1, self.r >> i) for i in range(self.r.bit_length())}))
        return tuple(sorted(set(self.ranks.values() if isinstance(self.ranks, dict) else self.ranks)))

    def scale_of(self, rank: int) -> float:
        """Return what a client of this rank multiplies B A with."""
        return self.ratio(self.alpha, self.r if self.scale == "common" else rank)

    def scale_at(self, rank: int, common: float) -> float:
        """Return the same; `common` for whole models (rank 0), and where modules have scales of their own."""
        return self.scale_of(rank) if rank and not self.patterned else common


class LocalConfig(Config):
    """What a client does in one visit: `epochs` over its data, or exactly `steps` batches.

    Attributes:
        optimizer: of a visit; it begins anew in every one.
        lr: learning rate.
        momentum: of `sgd`.
        weight_decay: decoupled, as in AdamW; with `sgd` it is added to the gradient.
        epochs: passes over the client's data; 1 if neither this nor `steps` is given.
        steps: optimiser steps, however much data there is.
        batch: examples (windows of text, images) in a step.
        schedule: the learning rate of step t of T within a visit: `constant`; `linear` lr (1 - t / T); `cosine`
            lr (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter, arXiv 1608.03983), t from 0.
        lr_decay: a visit that starts from version v has lr times lr_decay^v.
        prox_mu: FedProx: mu/2 |x - start|^2 is added to the objective (arXiv 1812.06127).
        clip_norm: longest gradient of a step, over all that the client trains.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 1.0e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NonNegative = 0.0
    epochs: Count | None = None
    steps: Count | None = None
    batch: Count = 8
    prox_mu: NonNegative = 0.0
    clip_norm: Positive | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, values: object) -> object:
        """Make it one epoch where no length is given."""
        if isinstance(values, dict) and values.get("epochs") is None and values.get("steps") is None:
            return values | {"epochs": 1}
        return values

    @model_validator(mode="after")
    def _one_length(self) -> LocalConfig:
        if self.epochs is not None and self.steps is not None:
            raise invalid("has both `epochs` and `steps`", fix="remove one, or set it to null")
        return self

    def lr_share(self, step: int, steps: int) -> float:
        """Return the learning rate of a step (from 0) of a visit of so many, as a share of `lr`."""
        if self.schedule == "linear":
            return 1.0 - step / steps
        if self.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * step / steps))
        return 1.0

    def at_version(self, version: int) -> LocalConfig:
        """Return the training of a visit that starts from a version: its learning rate decayed."""
        if self.lr_decay == 1.0:
            return self
        return self.model_copy(update={"lr": self.lr * self.lr_decay**version, "lr_decay": 1.0})

    def steps_over(self, examples: int) -> int:
        """Return the optimiser steps of a whole visit over so many examples."""
        return sum(n for n, _ in self.batches_over(examples))

    def batches_over(self, examples: int) -> tuple[tuple[int, int], ...]:
        """Return (how many, examples of each) of the steps of a whole visit over so many examples.

        >>> LocalConfig(epochs=3, batch=8).batches_over(20), LocalConfig(steps=5, batch=8).batches_over(20)
        (((6, 8), (3, 4)), ((5, 8),))
        """
        if self.steps is not None:
            return ((self.steps, self.batch),)
        full, rest = divmod(examples, self.batch)
        epochs = self.epochs or 1
        return tuple((epochs * n, size) for n, size in ((full, self.batch), (1, rest)) if n and size)

    def examples_over(self, examples: int) -> int:
        """Return how many examples one visit over so many goes through, repetitions counted."""
        return self.steps * self.batch if self.steps is not None else (self.epochs or 1) * examples

    def partial(self, steps: int) -> LocalConfig:
        """Return the same training of exactly `steps` steps, its batches full: the first ones of a visit, or more."""
        return self.model_copy(update={"epochs": None, "steps": steps})


class EvaluateConfig(Config):
    """What is scored and how often; version 0 and the last version always are.

    Commits are a clock of each server's own. On a grid of virtual time or of uploaded bytes all servers are looked at
    equally often: what is scored is the version that the server has at a point of the grid, so a run's schedule stays
    what it is, and a version that is there at several points is scored once.

    Attributes:
        every_commits: scores each version whose number it divides; 5 if neither grid is given.
        every_s: scores the version at 0, 1, 2, ... times so much virtual time [s].
        every_bytes: scores the version at 0, 1, 2, ... times so many uploaded bytes, lost uploads included.
        targets: values of the first metric scored on `test` that the run is asked to reach, declared before it runs.
        splits: which are scored; `answers` are those that a model of chats generates (`task.generate`).
        windows: bounds how much of each split is scored, of `test` and `valid` the same part for every seed; `samples` are
            images that the model draws, in full. Without it a split is scored whole, unless that took longer than the
            training between two evaluations: `all` scores it whole even then.
        keep_best: a metric: the adapter of the version with its best score is kept in `best/`, too; of `valid` if that is
            scored, else of `test`, else of the first split. Version 0 counts; of equal scores the first does.
        ema: makes what is scored, drawn and kept a moving average of the server's models
            (`fedsim.server.values.averaging`); clients never get it.
    """

    every_commits: Count | None = None
    every_s: Positive | None = None
    every_bytes: Positive | None = None
    targets: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    splits: tuple[Split, ...] = ("test",)
    windows: Count | Literal["all"] | None = None
    keep_best: RankedMetric | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _some_rhythm(cls, values: object) -> object:
        """Make it every fifth commit where no rhythm is given."""
        names = ("every_commits", "every_s", "every_bytes")
        if isinstance(values, dict) and all(values.get(name) is None for name in names):
            return values | {"every_commits": 5}
        return values

    @model_validator(mode="after")
    def _splits_once(self) -> EvaluateConfig:
        if not self.splits:
            raise invalid("scores nothing", got=[], fix="give splits: [test]", where="splits")
        if len(set(self.splits)) < len(self.splits):
            raise invalid("has a split twice", got=list(self.splits), fix="keep one", where="splits")
        return self

    @model_validator(mode="after")
    def _targets_once(self) -> EvaluateConfig:
        if len(set(self.targets)) < len(self.targets):
            raise invalid("has a target twice", got=list(self.targets), fix="keep one")
        return self

    @property
    def best_split(self) -> Split:
        """The split by which `keep_best` chooses."""
        preferred: tuple[Split, ...] = ("valid", "test")
        return next((split for split in preferred if split in self.splits), self.splits[0])

    @property
    def most_windows(self) -> int | None:
        """`windows` as a bound; None: there is none."""
        return None if self.windows == "all" else self.windows

    def at_commit(self, version: int) -> bool:
        """Return whether a version is scored because of its number."""
        return self.every_commits is not None and version % self.every_commits == 0

    def in_between(self, made: tuple[float, float], replaced: tuple[float, float]) -> bool:
        """Return whether a point of a grid lies where a version is the server's: from `made` on, before `replaced`.

        Args:
            made: virtual time [s] and uploaded bytes when the version was made.
            replaced: the same when the next one was.
        """
        from fedsim.elementary import first_point  # no worker needs it

        grids = zip((self.every_s, self.every_bytes), made, replaced, strict=True)
        return any(every is not None and first_point(every, start) < stop for every, start, stop in grids)


class NumericsConfig(Config):
    """Settings that may change the last bits of a result; `auto` is resolved once and written down.

    `client_batch` clients train in one call, by the `training` path (`fused`: written-out decoder,
    `swapped`: any model with its target modules replaced, `sequential`: stock PEFT, one by one), at
    most `tokens_at_once` tokens in a forward pass; the frozen backbone computes in `dtype`.

    Attributes:
        client_batch: clients trained in one call; `auto`: as many as pay, by model and tokens.
        training: the path: `fused`, `swapped` or `sequential`; `auto`: the first of them that computes the
            experiment exactly.
        tokens_at_once: most tokens in one forward pass.
        dtype: in which the frozen model computes.
    """

    client_batch: Count | Literal["auto"] = "auto"
    training: Literal["auto", "fused", "swapped", "sequential"] = "auto"
    tokens_at_once: Count = 16_384
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def clients_per_call(self) -> int:
        """`client_batch` as a number, which it is in every plan."""
        assert self.client_batch != "auto", "a plan fills it in"
        return self.client_batch
