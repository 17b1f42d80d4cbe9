"""The experiment: one typed, frozen object that determines every result of a run.

The same schema is built in Python, read from YAML (`fedsim.config`), overridden with
`-s key.path=value`, and stored with the run. `runtime` and `name` are the only blocks that do
not change a result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from fedsim.component import Component, Config, build

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _block(package: str) -> Any:
    return Annotated[SerializeAsAny[Component], BeforeValidator(lambda value: build(package, value))]


class PopulationConfig(Config):
    """Who takes part: a preset or the user's own tables, how many, and when they are there."""

    preset: str | None = None
    devices: Path | None = None
    networks: Path | None = None
    clients: Count
    availability: str = "always"
    wifi_only: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> PopulationConfig:
        if (self.preset is None) == (self.devices is None):
            both = "neither `preset` nor" if self.preset is None else "both `preset` and"
            raise ValueError(f"has {both} `devices`\n  fix: give one: a preset, or a devices table")
        if self.devices is not None and self.networks is None:
            raise ValueError("has `devices` without `networks`\n  fix: add networks: FILE")
        return self


class NetworkConfig(Config):
    """The server's link, how links are shared, and what the server learns when."""

    server_up_mbps: Positive = 1000.0
    server_down_mbps: Positive = 1000.0
    sharing: Literal["private"] = "private"
    backbone: Literal["preinstalled", "first_visit"] = "preinstalled"
    detect_after_s: NonNegative = 30.0


class LoraConfig(Config):
    """What is trained: adapters of rank r on `targets`, or the whole model (`full: true`)."""

    full: bool = False
    r: Annotated[int, Field(ge=1)] = 8
    alpha: Positive = 16.0
    targets: str | tuple[str, ...] = "all-linear"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rank_by: Literal["fixed"] = "fixed"


class LocalConfig(Config):
    """What a client does in one visit: `epochs` over its data, or exactly `steps` batches."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 1.0e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NonNegative = 0.0
    epochs: Count | None = None
    steps: Count | None = None
    batch: Count = 8
    prox_mu: NonNegative = 0.0
    clip_norm: Positive | None = None

    @model_validator(mode="after")
    def _one_length(self) -> LocalConfig:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("has both `epochs` and `steps`\n  fix: remove one, or set it to null")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)  # frozen for others; a copy would warn in __init__
        return self


class WireConfig(Config):
    """How an adapter is sent."""

    dtype: Literal["float32"] = "float32"


class PersonalConfig(Config):
    """What a client keeps for itself after the run."""

    kind: Literal["none", "fine-tune"] = "none"
    epochs: Annotated[int, Field(ge=0)] = 1
    lr: Positive | None = None
    clients: Count | None = None


class BudgetConfig(Config):
    """When a run ends: the first limit reached; at least one must be given."""

    time_s: Positive | None = None
    commits: Count | None = None
    up_bytes: Positive | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetConfig:
        if self.time_s is None and self.commits is None and self.up_bytes is None:
            raise ValueError("has no limit\n  fix: give at least one of time_s, commits, up_bytes")
        return self


class EvaluateConfig(Config):
    """What is scored and how often; version 0 and the last version always are."""

    every_commits: Count = 5
    splits: tuple[Literal["test", "valid", "clients"], ...] = ("test",)
    windows: Count | None = None


class NumericsConfig(Config):
    """Settings that may change the last bits of a result; `auto` is resolved once and written down.

    `client_batch` clients train in one call, by the `training` path (`fused`: written-out decoder,
    `swapped`: any model with its target modules replaced, `sequential`: stock PEFT, one by one), at
    most `tokens_at_once` tokens in a forward pass; the frozen backbone computes in `dtype`.
    """

    client_batch: Count | Literal["auto"] = "auto"
    training: Literal["auto", "fused", "swapped", "sequential"] = "auto"
    tokens_at_once: Count = 16_384
    dtype: Literal["float32", "bfloat16"] = "float32"


class RuntimeConfig(Config):
    """Where the real work runs; never changes a result."""

    executor: Literal["ray", "inline"] = "ray"
    workers: Count | Literal["auto"] = "auto"
    address: str | None = None
    gpus_per_worker: NonNegative = 0.0
    cache_mb: NonNegative = 256.0
    stall_s: Positive = 604_800.0
    watchdog_s: Positive = 600.0


class Experiment(Config):
    """Everything that determines a result; `task`, `population` and `budget` must be given."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    population: PopulationConfig
    network: NetworkConfig = NetworkConfig()
    task: _block("tasks")  # type: ignore[valid-type]
    lora: LoraConfig = LoraConfig()
    local: LocalConfig = LocalConfig(epochs=1)
    wire: WireConfig = WireConfig()
    protocol: _block("protocols") = Field(default={"kind": "synchronous"}, validate_default=True)  # type: ignore[valid-type]
    aggregator: _block("aggregators") = Field(default={"kind": "fedit"}, validate_default=True)  # type: ignore[valid-type]
    sampler: _block("samplers") = Field(default={"kind": "uniform"}, validate_default=True)  # type: ignore[valid-type]
    personal: PersonalConfig = PersonalConfig()
    budget: BudgetConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    numerics: NumericsConfig = NumericsConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain YAML types, defaults filled in."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 over everything that determines a result (not `name`, not `runtime`)."""
        plain = {key: value for key, value in self.plain().items() if key not in ("name", "runtime")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
