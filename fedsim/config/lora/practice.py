"""Rank and scale of adapters, and LoRA as it is practised: rsLoRA, LoRA+, DoRA, patterns, biases, whole modules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.fields import Count, CountOrZero, Positive
from fedsim.errors import invalid

T = TypeVar("T")


def matching(patterns: Mapping[str, T], name: str, default: T) -> T:
    r"""Return what the first pattern says that matches a module's path, or its end after a dot; as PEFT does.

    >>> matching({"v_proj": 1, r"layers\.0\..*": 2}, "model.layers.0.q_proj", 8)
    2
    """
    matches = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name))
    return next(matches, default)


class LoraPractice(Config):
    """Rank and scale, and what people add to plain LoRA, by the names that PEFT has for it (its `use_` left out).

    Attributes:
        r: the server's rank; also every client's, unless `rank_by` says otherwise.
        alpha: the update of a weight is alpha / r times B A.
        dropout: share of an adapter's inputs that is dropped in training.
        rslora: alpha / sqrt(r) in the place of alpha / r (rsLoRA, arXiv 2312.03732).
        lr_ratio: B learns so many times as fast as A (LoRA+, arXiv 2402.12354); with B, as in PEFT, all that has one
            dimension: magnitudes and biases.
        dora: each row of W + s B A is brought to a length of its own, which is trained (DoRA, arXiv 2402.09353).
        bias: which biases are trained: `none`, those of the adapted layers (`lora_only`), or `all`.
        rank_pattern, alpha_pattern: r and alpha of layers, by name or regular expression; matched as PEFT does, the
            first that matches counts.
        layers_to_transform: only layers of these numbers carry adapters; None: all.
        modules_to_save: modules that are trained whole, beside the adapters.
        start_from: folder of a saved PEFT adapter, which is version 0.
    """

    r: Count = 8
    alpha: Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = False
    lr_ratio: Positive = 1.0
    dora: bool = False
    bias: Literal["none", "lora_only", "all"] = "none"
    rank_pattern: dict[str, Count] | None = None
    alpha_pattern: dict[str, Positive] | None = None
    layers_to_transform: tuple[CountOrZero, ...] | None = None
    modules_to_save: tuple[str, ...] = ()
    start_from: str | None = None

    def __hash__(self) -> int:
        """Return a number that is equal for equal settings; patterns are dictionaries, which have none."""
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _no_dropout_under_lengths(self) -> Self:
        if self.dora and self.dropout:
            what = "has `dora: true` with a `dropout`: the length of W + s B A has no meaning for half of an input"
            raise invalid(what, got=self.dropout, fix="set dropout: 0")
        return self

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for name in ("layers_to_transform", "modules_to_save"):
            entries = getattr(self, name)
            if entries is not None and len(set(entries)) < len(entries):
                raise invalid(f"has an entry of `{name}` twice", got=list(entries), fix="keep one")
        if self.layers_to_transform == ():
            fix = "give numbers of layers, as in layers_to_transform: [0, 1], or remove it"
            raise invalid("has `layers_to_transform` without a layer", fix=fix)
        for name in (*(self.rank_pattern or ()), *(self.alpha_pattern or ())):
            try:
                re.compile(name)
            except re.error as problem:
                what = f"has a pattern that is no regular expression ({problem})"
                fix = "give the end of a layer's name, as in q_proj: 16"
                raise invalid(what, got=name, fix=fix) from None
        return self

    @property
    def practised(self) -> tuple[str, ...]:
        """The settings here that are not those of plain LoRA, by name."""
        fields = LoraPractice.model_fields
        added = [name for name in fields if name not in ("r", "alpha", "dropout")]
        return tuple(name for name in added if getattr(self, name) != fields[name].default)

    @property
    def beside(self) -> bool:
        """Whether more is trained than A and B: magnitudes, biases, whole modules."""
        return self.dora or self.bias != "none" or bool(self.modules_to_save)

    @property
    def patterned(self) -> bool:
        """Whether modules may differ in rank or alpha."""
        return bool(self.rank_pattern or self.alpha_pattern)

    def ratio(self, alpha: float, rank: int) -> float:
        """Return alpha / r, or alpha / sqrt(r) with `rslora`."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def of_module(self, name: str) -> tuple[int, float]:
        """Return r and alpha of a module by its path, as the patterns say.

        >>> LoraPractice(r=4, rank_pattern={"q_proj": 2}).of_module("model.layers.0.self_attn.q_proj")
        (2, 16.0)
        """
        ranks, alphas = self.rank_pattern or {}, self.alpha_pattern or {}
        return matching(ranks, name, self.r), matching(alphas, name, self.alpha)
