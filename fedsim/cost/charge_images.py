"""`charge_as` for images: the denoiser that the clock charges, when it is not the one that trains."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from fedsim.component import Config
from fedsim.config.fields import Count
from fedsim.cost.quantised import Quantise, Word, check_plain, quantise_of
from fedsim.errors import invalid, nearest

PRESETS = ("ddpm-cifar10-32",)
"""Denoisers whose configuration ships, in `fedsim/builtin/denoisers/`."""


class ChargeImages(Config):
    """The denoiser that the clock charges: its FLOPs, memory and adapter follow from its configuration.

    Attributes:
        preset: `ddpm-cifar10-32` is google/ddpm-cifar10-32 (35.7 M parameters), the model of DDPM on CIFAR-10.
        r, targets: the adapters charged, as in `lora`.
        images_per_visit: images charged for a visit; without it, those really trained on.
        batch: images in one pass (larger batches accumulate).
        weight_bytes: bytes of one frozen weight: 2 is half precision.
        quantise: how the charged denoiser's frozen weights are held; without it, as `task.quantise` says.
    """

    preset: str
    r: Count = 8
    targets: str | tuple[str, ...] = ("attention", "resnets")
    images_per_visit: Count | None = None
    batch: Count = 32
    weight_bytes: Annotated[float, Field(gt=0, le=8)] = 4.0
    quantise: Word | Quantise | None = None

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PRESETS:
            raise invalid("unknown preset", fix=nearest(value, PRESETS))
        return value

    @model_validator(mode="after")
    def _quantised_or_narrow(self) -> ChargeImages:
        if self.quantise is not None and (how := quantise_of(self.quantise)) is not None:
            check_plain(self.weight_bytes, how, "weight_bytes")
        return self
