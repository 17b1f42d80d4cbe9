"""Which year's figures the tables of the package have; `fedsim.records.resolved` shows what an experiment used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal

import yaml
from pydantic import Field

import hetero_profiles
from fedsim.component import Config
from fedsim.records.resolved import TABLES

FILE = "versions.yaml"


class Version(Config):
    """One table: the year of its figures, and whether it may still change."""

    year: Annotated[int, Field(ge=2000, le=2100)]
    state: Literal["current", "frozen"]


class Versions(Config):
    """All of the file."""

    about: str
    source: str
    licence: str
    tables: dict[str, Version]


@cache
def shipped() -> dict[str, Version]:
    """Return the versions of the tables of the package, by name."""
    values = yaml.safe_load(hetero_profiles.locate(FILE).read_text("utf-8"))
    return Versions.model_validate(values).tables


def versions(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the years of those tables of a population's sources that are ours, as further sources: `devices_year`, ..."""
    named = ((role, sources.get(role, "")) for role in TABLES)
    return {f"{role}_year": str(shipped()[name].year) for role, name in named if name in shipped()}
