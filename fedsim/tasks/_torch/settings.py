"""Fields of `task: {kind: torch}`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from fedsim.component import Config, imported
from fedsim.config.fields import Count, NonNegative, Positive
from fedsim.cost.charge_as import ChargeAs
from fedsim.errors import ExperimentError, FedsimError, as_invalid, invalid, nearest
from fedsim.seams import misfit
from fedsim.tasks._base import TaskComponent
from fedsim.tasks._sources import HELD_OUT, Holdout, spelled_out
from fedsim.tasks.partition import Iid, Partition
from fedsim.training.own.base import TorchTask


class WorkConfig(Config):
    """What one example costs, where its user knows better than a count of the operations that torch makes.

    Attributes:
        forward_flops, backward_flops: floating-point operations of training on one example.
        activation_bytes: what is kept of one example until its backward pass; None: as it is counted.
    """

    forward_flops: Positive
    backward_flops: NonNegative
    activation_bytes: NonNegative | None = None


class TorchSettings(TaskComponent):
    """Whose model, data and loss, who has which examples, and what the clock charges.

    Attributes:
        module: `package.module:Class` of a `fedsim.TorchTask`.
        settings: values of the fields of that class.
        partition: who has which examples of the class's `pool`; None: `iid`. With `data` of each client there is none.
        holdout: share of its examples that a client does not train on, at least one; where the class has no `held_out`. `last`
            is short for 0.1 with `holdout_from: last`.
        holdout_from: `drawn`: any of a client's examples; `last`: its last ones, in the order of `data` or of the pool.
        work: what an example costs; None: it is counted.
        tokens_per_example: what an example counts as in the column of tokens, and where `charge_as` charges tokens.
        charge_as: the model that the clock charges instead of the one that trains.
    """

    module: str
    settings: dict[str, Any] = Field(default_factory=dict)
    partition: Partition | None = None
    holdout: Holdout = HELD_OUT
    holdout_from: Literal["drawn", "last"] = "drawn"
    work: WorkConfig | None = None
    tokens_per_example: Count = 1
    charge_as: ChargeAs | None = None

    @model_validator(mode="before")
    @classmethod
    def _last(cls, values: object) -> object:
        return spelled_out(values)

    @model_validator(mode="after")
    def _a_class_with_its_settings(self) -> TorchSettings:
        self.torch_task()
        return self

    @property
    def dealing(self) -> Partition:
        """How a pool is dealt."""
        return Iid() if self.partition is None else self.partition

    def torch_class(self) -> type[TorchTask]:
        """Return the user's class.

        Raises:
            ValueError: there is none, or it lacks something.
        """
        try:
            found = imported(self.module, TorchTask, "module")
        except ExperimentError as problem:
            raise as_invalid(problem.message) from problem
        wrong = misfit(found, TorchTask)
        if wrong is None and found.data is TorchTask.data and found.pool is TorchTask.pool:
            wrong = "has neither `data(client)` nor `pool()`", "define one of them"
        if wrong is not None:
            what, fix = wrong
            raise invalid(f"{found.__name__} {what}", where="module", got=self.module, fix=fix)
        return found

    def torch_task(self) -> TorchTask:
        """Return the user's class with its settings.

        Raises:
            ValueError: a setting is wrong.
        """
        kind = self.torch_class()
        try:
            return kind.model_validate(self.settings)
        except ValidationError as problem:
            first = problem.errors()[0]
            name = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                what, fix = f"{kind.__name__} has no such field", nearest(name, kind.model_fields)
            else:
                what, fix = f"is not what {kind.__name__} takes: {first['msg']}", "give another value"
            if first["type"] == "missing":
                raise invalid(
                    f"{kind.__name__} needs it", where=f"settings.{name}", fix=f"add {name}"
                ) from problem
            raise invalid(what, where=f"settings.{name}", got=first["input"], fix=fix) from problem
        except FedsimError:
            raise
        except Exception as problem:  # a validator of the user's own
            what = f"{kind.__name__} raised {type(problem).__name__}: {problem}"
            raise invalid(what, where="settings", fix="give other settings") from problem
