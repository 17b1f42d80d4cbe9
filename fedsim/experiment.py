"""The experiment: one typed, frozen object that determines every result of a run.

The same schema is built in Python, read from YAML (`fedsim.config`), overridden with
`-s key.path=value`, and stored with the run. `runtime` and `name` are the only blocks that do
not change a result.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from fedsim.battery import Battery
from fedsim.component import Component, Config, build
from fedsim.outages import Outages
from fedsim.thermal import Thermal

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Sigma = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)]


def _block(package: str) -> Any:
    return Annotated[SerializeAsAny[Component], BeforeValidator(lambda value: build(package, value))]


class PopulationConfig(Config):
    """Who takes part: a preset or the user's own tables, how many, when they are there, on what links.

    `on_close` says what happens to a visit whose device goes away (its window closes, an outage, its battery is
    low, it is too warm): `lost`; `pause`: it goes on when the device is back; `partial`: training ends with
    the last whole step, and what there is is uploaded when the device is back (a download that is cut is lost).
    """

    preset: str | None = None
    devices: Path | None = None
    networks: Path | None = None
    clients: Count
    availability: str = "always"
    time_zones: tuple[Annotated[float, Field(ge=-24, le=24, allow_inf_nan=False)], ...] = (0.0,)
    outages: Outages | None = None
    on_close: Literal["lost", "pause", "partial"] = "lost"
    wifi_only: bool | None = None
    rates: str = "constant"
    rates_at_end: Literal["loop", "hold", "fail"] | None = None
    rates_phase: Literal["start", "random"] = "start"
    rates_level: Literal["trace", "client"] = "trace"

    @model_validator(mode="after")
    def _one_source(self) -> PopulationConfig:
        if (self.preset is None) == (self.devices is None):
            both = "neither `preset` nor" if self.preset is None else "both `preset` and"
            raise ValueError(f"has {both} `devices`\n  fix: give one: a preset, or a devices table")
        if self.devices is not None and self.networks is None:
            raise ValueError("has `devices` without `networks`\n  fix: add networks: FILE")
        return self

    @model_validator(mode="after")
    def _rates_that_end(self) -> PopulationConfig:
        traced = self.rates not in ("constant", "generated")
        if traced and self.rates_at_end is None:
            fix = "add rates_at_end: loop, hold or fail"
            raise ValueError(f"has `rates` from a file, which ends\n  fix: {fix}")
        for name, plain in (("rates_at_end", None), ("rates_phase", "start"), ("rates_level", "trace")):
            if not traced and getattr(self, name) != plain:
                raise ValueError(
                    f"has `{name}` without a file of rates\n  fix: remove it, or add rates: FILE"
                )
        if self.rates_phase == "random" and self.rates_at_end != "loop":
            fix = "set rates_at_end: loop, or rates_phase: start"
            raise ValueError(f"has `rates_phase: random` for traces that do not loop\n  fix: {fix}")
        return self

    @model_validator(mode="after")
    def _zones_of_windows(self) -> PopulationConfig:
        if not self.time_zones:
            raise ValueError("has no `time_zones`\n  fix: remove it, or give hours, as in time_zones: [0, 8]")
        if self.availability == "always" and self.time_zones != (0.0,):
            fix = "remove it, or set availability: charging or a file"
            raise ValueError(f"has `time_zones` for clients that are always there\n  fix: {fix}")
        return self


class NetworkConfig(Config):
    """The server's link, how links are shared, and what the server learns when.

    Attributes:
        server_up_mbps, server_down_mbps: the server's link: its uplink feeds downloads.
        sharing: `private`: the server's rate caps each transfer, and nobody slows anybody down; `max-min`: the
            transfers under way share the server's link fairly, as behind a fair queue.
        model: `tcp`: headers, handshake, slow start; `size-over-rate`: bytes over rate and no more, the formula
            of simulators that know no TCP, to compare with.
        congestion: `loss-based` (Reno, CUBIC) holds a rate that falls with `loss` and the round trip
            (`fedsim.tcp.loss_limit`); `bbr` is modelled without loss.
        loss: share of packets lost on the way between each client and the server.
        backbone: whether the frozen model is on the device, or comes with a client's first visit.
        detect_after_s: how long the server takes to notice that a client is gone.
    """

    server_up_mbps: Positive = 1000.0
    server_down_mbps: Positive = 1000.0
    sharing: Literal["private", "max-min"] = "private"
    model: Literal["tcp", "size-over-rate"] = "tcp"
    congestion: Literal["bbr", "loss-based"] = "bbr"
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    backbone: Literal["preinstalled", "first_visit"] = "preinstalled"
    detect_after_s: NonNegative = 30.0


class ComputeConfig(Config):
    """How training time follows from work; every effect is off by default.

    Attributes:
        flops: `parameters`: FLOPs from the number of parameters; `layers`: every matrix product, by layer.
        calibration: `none`; `measured`: where `lora_speeds.csv` of `hetero_profiles` has this device and model,
            its measured speed; or a table of your own in that format.
        stack: which software of the calibration table; needed where it has several for a device and model.
        unit_sigma: spread of the natural logarithm of speed between units of one device: 0.12 between three
            boards of a lab, 0.01 between five phones of one model (EdgeFlowerTune's measurements). One number,
            or one a class of devices.
        step_sigma: the same between passes of one training: 0.06-0.18 on slow phones, 0.01-0.04 on middle,
            0.01-0.09 on fast ones (FLASH, WWW 2021, batches of four models).
        step_overhead_s: fixed time of each forward and backward pass; `fedsim profiles calibrate` measures it.
        bandwidth_floor: no training is faster than the memory can deliver the weights.
        dequantisation: whether quantised weights are unpacked on the way (`fused`) or to memory (`copy`).
        thermal: `none`, `moderate`, `severe`, or coefficients: see `fedsim.thermal`.
    """

    flops: Literal["parameters", "layers"] = "parameters"
    calibration: str = "none"
    stack: str | None = None
    unit_sigma: Sigma | dict[str, Sigma] = 0.0
    step_sigma: Sigma | dict[str, Sigma] = 0.0
    step_overhead_s: NonNegative = 0.0
    bandwidth_floor: bool = False
    dequantisation: Literal["fused", "copy"] = "fused"
    thermal: Literal["none", "moderate", "severe"] | Thermal = "none"

    def sigma(self, name: Literal["unit_sigma", "step_sigma"], tier: str) -> float:
        """Return the sigma of a class of devices; 0 for one that a mapping leaves out."""
        value: float | dict[str, float] = getattr(self, name)
        return value.get(tier, 0.0) if isinstance(value, dict) else value


class MemoryConfig(Config):
    """What a device with too little memory does: refuses, or the first measures that help, in this order.

    `micro-batch`: smaller batches, accumulated; `checkpoint`: activations are computed again; `rank`: a smaller
    adapter, only where clients of different ranks can be aggregated.
    """

    when_short: (
        Literal["refuse", "micro-batch", "checkpoint", "rank"]
        | tuple[Literal["micro-batch", "checkpoint", "rank"], ...]
    ) = "refuse"

    @property
    def measures(self) -> tuple[Literal["micro-batch", "checkpoint", "rank"], ...]:
        """The measures to try, none for `refuse`."""
        if isinstance(self.when_short, tuple):
            return self.when_short
        return () if self.when_short == "refuse" else (self.when_short,)


class EnergyConfig(Config):
    """What joules include besides training and transfers, and where they come from.

    Attributes:
        tail: the radio stays up after a transfer (`tail_s` at `tail_w` of the network's row), unless the
            next one begins before.
        battery: what the devices' batteries hold, and at which level they take part; none: it does not matter.
    """

    tail: bool = False
    battery: Battery | None = None


class LoraConfig(Config):
    """What is trained: adapters on `targets`, or the whole model (`full: true`).

    Attributes:
        r: the server's rank; also every client's, unless `rank_by` says otherwise.
        alpha: the update of a weight is alpha / r times B A.
        rank_by: `fixed`; `tier`: by class of device; `memory`: the largest that fits the device; `deadline`:
            the largest that fits and lands within `protocol.deadline_s`, as `fedsim.visit.estimate` sees it.
        ranks: rank by tier (`tier`), or the choices, ascending (`memory`, `deadline`; without them r, r/2, r/4,
            ... 1). The largest is r.
        scale: what a client of rank r_k multiplies B A with: `common` alpha / r for everybody, so that a slot
            cut off or added changes nothing else; `own` alpha / r_k, as PEFT does by itself.
    """

    full: bool = False
    r: Annotated[int, Field(ge=1)] = 8
    alpha: Positive = 16.0
    targets: str | tuple[str, ...] = "all-linear"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rank_by: Literal["fixed", "tier", "memory", "deadline"] = "fixed"
    ranks: dict[str, Annotated[int, Field(ge=1)]] | tuple[Annotated[int, Field(ge=1)], ...] | None = None
    scale: Literal["common", "own"] = "common"

    @model_validator(mode="after")
    def _ranks_of_a_kind(self) -> LoraConfig:
        by, ranks = self.rank_by, self.ranks
        if by == "fixed":
            if ranks is not None:
                fix = "remove it, or set rank_by: tier, memory or deadline"
                raise ValueError(f"has `ranks` with `rank_by: fixed`\n  fix: {fix}")
            return self
        if by == "tier" and not isinstance(ranks, dict):
            fix = f"add ranks, as in {{low: {max(1, self.r // 2)}, high: {self.r}}}"
            raise ValueError(f"has `rank_by: tier` without a rank for each tier\n  fix: {fix}")
        if by != "tier" and isinstance(ranks, dict):
            fix = "give the choices, as in ranks: [2, 4, 8], or set rank_by: tier"
            raise ValueError(f"has ranks by tier with `rank_by: {by}`\n  fix: {fix}")
        if isinstance(ranks, tuple) and list(ranks) != sorted(set(ranks)):
            raise ValueError(
                f"has `ranks` that do not rise (got {list(ranks)})\n  fix: order them, each once"
            )
        given = ranks.values() if isinstance(ranks, dict) else ranks
        if given is not None and max(given, default=0) != self.r:
            largest = max(given, default=0)
            fix = f"set r: {largest}" if largest else "give some ranks"
            raise ValueError(f"has r = {self.r}, and `ranks` up to {largest}\n  fix: {fix}")
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
        return self.alpha / (self.r if self.scale == "common" else rank)


class LocalConfig(Config):
    """What a client does in one visit: `epochs` over its data, or exactly `steps` batches.

    Attributes:
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

    @model_validator(mode="after")
    def _one_length(self) -> LocalConfig:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("has both `epochs` and `steps`\n  fix: remove one, or set it to null")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)  # frozen for others; a copy would warn in __init__
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
        return self.steps if self.steps is not None else (self.epochs or 1) * -(-examples // self.batch)

    def partial(self, steps: int) -> LocalConfig:
        """Return the same training of exactly `steps` steps, its batches full: the first ones of a visit, or more."""
        return self.model_copy(update={"epochs": None, "steps": steps})


class WireConfig(Config):
    """How an adapter is sent: `fedsim.wire` has the formats and their bytes.

    Attributes:
        dtype: of the numbers that go up, the client's move since its download; int8 and int4 have one scale an array.
        down_dtype: of the numbers that come down, the model itself.
        rounding: to bfloat16, int8 and int4; `stochastic` is right on average, `nearest` errs least each time.
        top_k: share of the numbers that go up, the largest of each message; the rest is not sent.
        error_feedback: a client adds what its last message left out or rounded off to its next one.
    """

    dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    down_dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    top_k: Annotated[float, Field(gt=0, le=1)] = 1.0
    error_feedback: bool = False

    @model_validator(mode="after")
    def _something_to_feed_back(self) -> WireConfig:
        if self.error_feedback and self.dtype == "float32" and self.top_k == 1.0:
            fix = "set wire.top_k below 1 or another wire.dtype, or remove it"
            raise ValueError(f"has `error_feedback`, and nothing is lost on the way up\n  fix: {fix}")
        return self


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
    """What is scored and how often; version 0 and the last version always are.

    `windows` bounds how much of each split is scored; `samples` are images that the model draws, in full.
    With `ema`, what is scored, drawn and kept is a moving average of the server's models (`fedsim.averaging`); clients
    never get it.
    """

    every_commits: Count = 5
    splits: tuple[Literal["test", "valid", "clients", "samples"], ...] = ("test",)
    windows: Count | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0


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
    compute: ComputeConfig = ComputeConfig()
    memory: MemoryConfig = MemoryConfig()
    energy: EnergyConfig = EnergyConfig()
    task: _block("tasks")  # type: ignore[valid-type]
    lora: LoraConfig = LoraConfig()
    local: LocalConfig = LocalConfig(epochs=1)
    wire: WireConfig = WireConfig()
    protocol: _block("protocols") = Field(default={"kind": "synchronous"}, validate_default=True)  # type: ignore[valid-type]
    aggregator: _block("aggregators") = Field(default={"kind": "fedit"}, validate_default=True)  # type: ignore[valid-type]
    server_optimizer: _block("optimizers") = Field(default={"kind": "none"}, validate_default=True)  # type: ignore[valid-type]
    sampler: _block("samplers") = Field(default={"kind": "uniform"}, validate_default=True)  # type: ignore[valid-type]
    personal: _block("personal") = Field(default={"kind": "none"}, validate_default=True)  # type: ignore[valid-type]
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
