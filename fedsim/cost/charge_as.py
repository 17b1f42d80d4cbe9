"""`charge_as`: the model that the clock charges, declared apart from the one that trains.

On a small machine a tiny model trains for real while times, memory, bytes and joules are those of
the declared one. Everything is checked here, before anything is drawn or loaded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from fedsim.component import Config
from fedsim.config.fields import Count, CountOrZero, LargeCount
from fedsim.cost.architecture import GROUPS, NAMES, PRESETS, Architecture, Family
from fedsim.cost.quantised import Quantise, Word, check_plain, quantise_of
from fedsim.errors import ExperimentError, Shown, invalid, nearest

_DIMENSIONS = ("family", "layers", "width", "ffn", "heads", "kv_heads", "head_dim", "vocab", "tied")


class ChargeAs(Config):
    """The model that the clock charges, when it is not the one that trains.

    Either a `preset`, or `layers`, `width` and `vocab` of your own; with a preset, every dimension
    given beside it replaces the preset's.

    Attributes:
        tied: whether the embedding is the output layer, too.
        preset: a name of `fedsim.cost.architecture.PRESETS`.
        family: projections, norms and biases of a layer; `llama` without a preset.
        layers, width, vocab: needed without a preset.
        ffn: inner width of the MLP; 4 x width without a preset.
        heads, kv_heads, head_dim: attention; without `heads`, q, k, v are as wide as the model.
        params, matmul_params: counts to charge instead of those that follow from the dimensions.
        r, targets: the adapters charged: `all-linear`, `attention`, or projection names.
        adapted_layers: the layers that carry them, by index from 0 (PEFT's `layers_to_transform`); all without it.
        checkpoint: whether activations are recomputed in the backward pass instead of kept.
        tokens_per_visit: tokens charged for a visit, cut into passes as one stream; without it, those really trained on, step by
            step. With it the clock charges `local.steps` and `local.epochs` of any number alike: more of them cost it nothing.
        sequence, batch: tokens of a sequence; sequences in one pass (larger batches accumulate).
        weight_bytes: bytes of one frozen weight: 2 is bf16, 4 float32; less charges all of them alike as if they were
            quantised, which changes nothing of what is learned.
        quantise: how the charged model's frozen weights are held (`fedsim.cost.quantised`); without it, as `task.quantise`
            says, which does change what is learned. The others have `weight_bytes`.
        phi: share of the network that the backward pass goes through, the lowest adapted layer and all above;
            without it, what follows from `adapted_layers`.
    """

    preset: str | None = None
    family: Family | None = None
    layers: Count | None = None
    width: Count | None = None
    ffn: Count | None = None
    heads: Count | None = None
    kv_heads: Count | None = None
    head_dim: Count | None = None
    vocab: Count | None = None
    tied: bool | None = None
    params: LargeCount | None = None
    matmul_params: LargeCount | None = None
    r: Count = 8
    targets: str | tuple[str, ...] = "all-linear"
    adapted_layers: tuple[CountOrZero, ...] | None = None
    checkpoint: bool = False
    tokens_per_visit: LargeCount | None = None
    sequence: Count | None = None
    batch: Count = 1
    weight_bytes: Annotated[float, Field(gt=0, le=8)] = 2.0
    quantise: Word | Quantise | None = None
    phi: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            raise invalid("unknown preset", fix=nearest(value, PRESETS))
        return value

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not names:
            raise invalid("at least one projection is needed", fix=nearest("", (*GROUPS, *NAMES)))
        for name in names:
            if name not in (*GROUPS, *NAMES):
                raise invalid(f"unknown projection {name!r}", fix=nearest(name, (*GROUPS, *NAMES)))
        return value

    @model_validator(mode="after")
    def _complete(self) -> ChargeAs:
        missing = [name for name in ("layers", "width", "vocab") if getattr(self, name) is None]
        if self.preset is None and missing:
            raise invalid(f"without a preset, {', '.join(missing)} must be given", fix="or set `preset:`")
        try:
            self.architecture.targeted(self.targets)
        except ExperimentError as problem:  # pydantic names the field only for a ValueError
            raise invalid(problem.message.headline, fix=problem.message.fix or "change it") from problem
        layers, adapted = self.architecture.layers, self.adapted_layers
        if adapted is not None and (not adapted or max(adapted) >= layers):
            what = f"adapted_layers must name some of the layers 0 to {layers - 1}"
            raise invalid(what, got=list(adapted))
        if self.quantise is not None and (how := quantise_of(self.quantise)) is not None:
            self.check_quantised(how)
        return self

    def check_quantised(self, how: Quantise, *, of_task: bool = False) -> None:
        """Refuse a way to hold frozen weights that the charged model cannot have.

        Args:
            how: the way.
            of_task: whether it is the task's own, and this block says nothing.

        Raises:
            ValueError: layers that it does not have, or weights that `weight_bytes` makes fewer bytes already.
        """
        check_plain(self.weight_bytes, how, "charge_as.weight_bytes" if of_task else "weight_bytes")
        try:
            self.architecture.targeted(how.modules)
        except ExperimentError as problem:
            fix = problem.message.fix or "change it"
            if of_task:
                fix = f"give task.charge_as.quantise modules of the charged model ({fix})"
            what = f"{problem.message.what}, the model that is charged"
            raise invalid(what, where="quantise.modules", got=how.modules, fix=fix) from problem

    @property
    def adapted(self) -> tuple[int, ...]:
        """Indices of the layers that carry adapters, each once, lowest first."""
        if self.adapted_layers is None:
            return tuple(range(self.architecture.layers))
        return tuple(sorted(set(self.adapted_layers)))

    @property
    def architecture(self) -> Architecture:
        """The dimensions charged: the preset's with the given ones in their place.

        Raises:
            ValueError: heads that do not divide the width, or are not a multiple of `kv_heads`.
        """
        dimensions: dict[str, Any] = {
            name: value for name in _DIMENSIONS if (value := getattr(self, name)) is not None
        }
        if self.sequence is not None:
            dimensions["sequence"] = self.sequence
        if self.preset is not None:
            built = replace(PRESETS[self.preset], **dimensions)
        else:
            width, heads = dimensions["width"], self.heads or 1
            if self.head_dim is None and width % heads:
                got = Shown(f"{heads} and {width}")
                raise invalid("heads must divide the width", got=got, fix="or give head_dim")
            plain = {"family": "llama", "ffn": 4 * width, "heads": heads, "kv_heads": heads}
            built = Architecture(**(plain | {"head_dim": width // heads} | dimensions))
        if built.heads % built.kv_heads:
            got = Shown(f"{built.heads} and {built.kv_heads}")
            raise invalid("heads must be a multiple of kv_heads", got=got)
        return built
