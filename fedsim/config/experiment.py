"""The experiment: one typed, frozen object that determines every result of a run.

The same schema is built in Python, read from YAML (`fedsim.config.loading`), overridden with
`-s key.path=value`, and stored with the run. `runtime` and `name` are the only blocks that do
not change a result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from html import escape
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from fedsim.component import Component, Config, build
from fedsim.config.devices import ComputeConfig, EnergyConfig, MemoryConfig
from fedsim.config.fields import Count, NonNegative, Positive
from fedsim.config.learning import EvaluateConfig, LocalConfig, LoraConfig, NumericsConfig
from fedsim.config.network import NetworkConfig, WireConfig
from fedsim.config.population import PopulationConfig
from fedsim.config.target import TargetConfig
from fedsim.config.validation import Place, mistaken_booleans, problems, secrets
from fedsim.errors import invalid


def _built_from(package: str) -> BeforeValidator:
    """Return the validator that makes a block a component of a package."""
    return BeforeValidator(partial(build, package))


TaskBlock = Annotated[SerializeAsAny[Component], _built_from("tasks")]
ProtocolBlock = Annotated[SerializeAsAny[Component], _built_from("protocols")]
AggregatorBlock = Annotated[SerializeAsAny[Component], _built_from("aggregators")]
OptimizerBlock = Annotated[SerializeAsAny[Component], _built_from("optimizers")]
SamplerBlock = Annotated[SerializeAsAny[Component], _built_from("samplers")]
PersonalBlock = Annotated[SerializeAsAny[Component], _built_from("personal")]


class BudgetConfig(Config):
    """When a run ends: the first limit reached; at least one of time, commits and bytes must be given.

    Attributes:
        time_s: virtual time [s] after which the run ends; 86,400 is a day.
        commits: server steps after which it ends.
        up_bytes: uploaded bytes, lost uploads included, after which it ends.
        target: a score that ends it sooner, as in {metric: perplexity, value: 16}.
    """

    time_s: Positive | None = None
    commits: Count | None = None
    up_bytes: Positive | None = None
    target: TargetConfig | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetConfig:
        if self.time_s is None and self.commits is None and self.up_bytes is None:
            raise invalid("has no limit", fix="give at least one of time_s, commits, up_bytes")
        return self


class SeedsConfig(Config):
    """Seeds of their own for what is drawn; None: the experiment's `seed`. So one varies while the others stand.

    Attributes:
        population: who the clients are and what their devices and links do: tables, windows, outages, batteries, rates,
            the noise of a step's duration.
        data: what clients hold and what is scored: the split, held-out parts and clients, samples and their noise.
        training: version 0, whom the server asks, the order of batches, dropout, noise of images, rounding of messages.
    """

    population: Annotated[int, Field(ge=0)] | None = None
    data: Annotated[int, Field(ge=0)] | None = None
    training: Annotated[int, Field(ge=0)] | None = None


class ServerCompute(Config):
    """How fast the server is: what it does one thing after the other takes operations / speed + bytes / bandwidth.

    Attributes:
        flops_per_s: floating-point operations a second, in the matrix products and decompositions of a commit.
        memory_bytes_per_s: memory bandwidth. Defaults: about sixteen server cores and eight channels of DDR4-3200
            (assumptions).
    """

    flops_per_s: Positive = 5e11
    memory_bytes_per_s: Positive = 1.5e11


class ServerConfig(Config):
    """What of the server's work takes virtual time.

    Attributes:
        compute: `none`: a commit takes no time. Else every commit takes the time of `fedsim.server.commit_time`: its
            messages are read and decoded, the mean is taken, and the rule's products and decompositions are computed.
            The server commits one after the other; whoever is asked next gets the new version, when it is there.
            Scores take none: they are the experimenter's, not the server's.
    """

    compute: Literal["none"] | ServerCompute = "none"


class RuntimeConfig(Config):
    """Where the real work runs: no result depends on it, but for what it says itself.

    On a GPU `client_batch: auto` follows from `gpus_per_worker`, and the number that comes of it is written down with
    the experiment. `stall_s` is virtual time: how long a run may stand still before it fails.
    `address` is that of a Ray cluster, `ship` what its nodes are sent of the files that workers read: on one machine neither
    has a meaning, and `ship` is passed over.

    Attributes:
        executor: `ray`: worker processes; `inline`: in this process, one client batch after the other.
        workers: Ray workers; `auto`: as many as cores and memory allow.
        address: of a Ray cluster, as in 10.0.0.1:6379; None: a Ray of one's own on loopback.
        ship: what the nodes of a cluster are sent of the files that workers read; empty: they are at the same
            paths there.
        gpus_per_worker: share of a GPU that each worker reserves; 0: none, training is on the CPU.
        cache_mb: of tokens and the like that a worker keeps in memory [MB].
        stall_s: virtual time [s] that a run may stand still before it is called failed.
        watchdog_s: real time [s] without a sign of a worker after which it is taken for hung.
        checkpoint_commits: a checkpoint after every so many commits, and after the last of `budget.commits`.
        checkpoint_s: a checkpoint after so many real seconds, at the next commit; `auto`: as often as takes at most 5 % of
            the time, the first after ten seconds, none by time where `checkpoint_commits` is given; `off`: none by time.
    """

    executor: Literal["ray", "inline"] = "ray"
    workers: Count | Literal["auto"] = "auto"
    address: str | None = None
    ship: tuple[Literal["model", "data"], ...] = ()
    gpus_per_worker: NonNegative = 0.0
    cache_mb: NonNegative = 256.0
    stall_s: Positive = 604_800.0
    watchdog_s: Positive = 600.0
    checkpoint_commits: Count | None = None
    checkpoint_s: Positive | Literal["auto", "off"] = "auto"

    @property
    def takes_checkpoints(self) -> bool:
        """Whether a run in a folder takes any."""
        return self.checkpoint_commits is not None or self.checkpoint_s != "off"

    @property
    def asks_for_checkpoints(self) -> bool:
        """Whether checkpoints were asked for, so that a run that cannot have any is refused."""
        return self.checkpoint_commits is not None or not isinstance(self.checkpoint_s, str)


LONGEST_NAME = 240
"""Characters of a run's name: a disk takes names of 255 bytes, and fedsim adds a number."""


class Experiment(Config):
    """Everything that determines a result; `task`, `population` and `budget` must be given.

    Attributes:
        name: of the run and of its folder, `runs/NAME`.
        seed: of everything that is drawn.
        seeds: of their own for population, data and training.
        population: who takes part: devices, links, when they are there.
        network: how bytes become seconds: the server's link, TCP, losses.
        server: what of the server's work takes virtual time.
        compute: how fast devices train: software, heat, uncertainty.
        memory: what a device with too little memory does.
        energy: batteries, and what is counted in joules.
        task: what is learned: model, data, how it is split, what it is charged as.
        lora: what is trained: adapters, or the whole model.
        local: what a client does in one visit.
        wire: how numbers travel: precision, sparsity, error feedback.
        protocol: when the server asks, waits and commits.
        aggregator: the rule that makes the next model of the clients' updates.
        server_optimizer: how far the model goes along the move that the rule has made.
        sampler: whom the server asks, of the clients that are idle and online.
        personal: what of the model is a client's own.
        budget: when the run ends.
        evaluate: what is scored, and how often.
        numerics: settings that may change the last bits of a result.
        runtime: where the real work runs; changes no result.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)] = "run"
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: SeedsConfig = SeedsConfig()
    population: PopulationConfig
    network: NetworkConfig = NetworkConfig()
    server: ServerConfig = ServerConfig()
    compute: ComputeConfig = ComputeConfig()
    memory: MemoryConfig = MemoryConfig()
    energy: EnergyConfig = EnergyConfig()
    task: TaskBlock
    lora: LoraConfig = LoraConfig()
    local: LocalConfig = LocalConfig(epochs=1)
    wire: WireConfig = WireConfig()
    protocol: ProtocolBlock = Field(default={"kind": "synchronous"}, validate_default=True)
    aggregator: AggregatorBlock = Field(default={"kind": "fedit"}, validate_default=True)
    server_optimizer: OptimizerBlock = Field(default={"kind": "none"}, validate_default=True)
    sampler: SamplerBlock = Field(default={"kind": "uniform"}, validate_default=True)
    personal: PersonalBlock = Field(default={"kind": "none"}, validate_default=True)
    budget: BudgetConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    numerics: NumericsConfig = NumericsConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _target_is_scored(self) -> Self:
        """Refuse a target on a split that nobody scores."""
        target, splits = self.budget.target, self.evaluate.splits
        if target is not None and target.split not in splits:
            fix = f"set evaluate.splits: [{', '.join((*splits, target.split))}]"
            raise invalid("is not scored", where="budget.target.split", got=target.split, fix=fix)
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(
        cls, values: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """Say what is wrong in plain words, where it was given: `info.context` is the `Place`, if there is one.

        Raises:
            ExperimentError: everything that is wrong, all at once.
        """
        place = info.context if isinstance(info.context, Place) else Place()
        try:
            experiment = handler(values)
        except ValidationError as error:
            raise place.refusal(problems(error, values, cls)) from None
        booleans = mistaken_booleans(experiment, values)
        if wrong := [*booleans, *secrets(experiment)]:
            raise place.refusal(wrong)
        return experiment

    def model_copy(self, *, update: Mapping[str, object] | None = None, deep: bool = False) -> Self:
        """Return a copy with some blocks changed, checked as the blocks of a file are.

        Raises:
            ExperimentError: everything that is wrong with the update.
        """
        copied = super().model_copy(deep=deep)
        return copied if not update else type(self).model_validate({**dict(copied), **update})

    @property
    def population_seed(self) -> int:
        """Address of all that devices and links do."""
        return self.seed if self.seeds.population is None else self.seeds.population

    @property
    def data_seed(self) -> int:
        """Address of what clients hold and of what is scored."""
        return self.seed if self.seeds.data is None else self.seeds.data

    @property
    def training_seed(self) -> int:
        """Address of version 0, of whom the server asks, and of all training."""
        return self.seed if self.seeds.training is None else self.seeds.training

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain YAML types, defaults filled in."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        """Return what a notebook shows of an experiment: what was set, as YAML."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return f"<pre>{escape(yaml.safe_dump(given, sort_keys=False, allow_unicode=True))}</pre>"

    @property
    def digest(self) -> str:
        """SHA-256 over everything that determines a result (not `name`, not `runtime`)."""
        plain = {key: value for key, value in self.plain().items() if key not in ("name", "runtime")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
