"""The figures of `people.yaml`: when owners go out, and when they use their devices."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Annotated

import yaml
from pydantic import Field

import hetero_profiles
from fedsim.component import Config
from fedsim.config.fields import NonNegative, Positive

FILE = "people.yaml"
Chance = Annotated[float, Field(ge=0, le=1)]
Hour = Annotated[float, Field(ge=0, le=24)]


class Outings(Config):
    """One kind of outing; at most one of it a day.

    Attributes:
        days: on which days of the week, Monday 0.
        chance: that such a day has one.
        start_hour, start_sigma_h: when it begins, normal.
        length_h, length_sigma_ln: how long it lasts, lognormal by its median.
    """

    days: tuple[Annotated[int, Field(ge=0, le=6)], ...]
    chance: Chance
    start_hour: Hour
    start_sigma_h: NonNegative
    length_h: Positive
    length_sigma_ln: NonNegative


class Use(Config):
    """Bouts of use: from the first touch until the device counts as idle again.

    Attributes:
        bouts_per_hour: by hour of the day.
        device_sigma_ln: spread of the number of bouts over owners.
        mean_s: how long an owner uses a device, exponential.
        idle_after_s: how long it then counts as in use.
    """

    bouts_per_hour: Annotated[tuple[NonNegative, ...], Field(min_length=24, max_length=24)]
    device_sigma_ln: NonNegative
    mean_s: Positive
    idle_after_s: NonNegative


class Habits(Config):
    """All of the file; what is said in prose is kept as it is.

    Attributes:
        workers: share of owners who have outings to work.
        work, other: the outings of those who work, and of everybody.
        use: when devices are in use.
        shortest_s: stretches that are shorter are none.
        at_home: share of time that a device which is carried is at home, as the generator has it.
        observed: what was observed, which tests hold the generator against.
    """

    about: str
    source: str
    licence: str
    clock: str
    workers: Chance
    work: Outings
    other: Outings
    use: Use
    shortest_s: NonNegative
    at_home: Chance
    observed: dict[str, float]


@cache
def habits() -> Habits:
    """Return the figures of the package."""
    return Habits.model_validate(yaml.safe_load(hetero_profiles.locate(FILE).read_text("utf-8")))


def habits_sha256() -> str:
    """Return the SHA-256 of their file."""
    return hashlib.sha256(hetero_profiles.locate(FILE).read_bytes()).hexdigest()
