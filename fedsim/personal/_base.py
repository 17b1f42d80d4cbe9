"""What a kind of personalisation is: hooks that do nothing unless a kind defines them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from fedsim.adapters.adapter import Layout, Vector
from fedsim.aggregators._base import Offer, Traits
from fedsim.component import Component
from fedsim.config.fields import Count, CountOrZero
from fedsim.config.learning import LocalConfig
from fedsim.config.problem import Problem
from fedsim.cost.shape import ModelShape
from fedsim.cost.work import Work
from fedsim.jobs import Job
from fedsim.personal.folding import Fold


@dataclass(frozen=True)
class Home:
    """What a kind may use of the run.

    Attributes:
        layout: of the vectors.
        initial: version 0, (layout.size,): where a client's own adapter starts.
        fold: moves an adapter into the frozen weights.
    """

    layout: Layout
    initial: Vector = field(repr=False)
    fold: Fold = field(repr=False, default_factory=Fold)


@dataclass(frozen=True)
class Used:
    """The model that a client uses: an adapter over the frozen weights, changed by `base` or not (None)."""

    vector: Vector = field(repr=False)
    base: Vector | None = field(default=None, repr=False)


class Personal(Component):
    """Fields and hooks that all kinds have; the hooks here do nothing.

    Attributes:
        clients: how many clients are looked at after the run, drawn by address; None: all. Those that never
            trained (`unseen`) always are.
        unseen: clients (a number, or a share) that are held out: never asked, looked at after the run.
        local_epochs: epochs of training alone, from version 0, to compare with; None: not compared.
    """

    waits: ClassVar[bool] = False
    """Whether a client is not asked again before what it landed last is committed: its start depends on it."""

    adds_products: ClassVar[bool] = False
    """Whether a client's model is made of two products B A, one of them in the frozen weights."""

    clients: Count | None = None
    unseen: CountOrZero | Annotated[float, Field(gt=0, lt=1)] = 0
    local_epochs: Count | None = None

    def misfit(self, traits: Traits, *, full: bool) -> tuple[str, str] | None:
        """Return (what is wrong, fix) if this kind has no meaning with a rule or with whole models."""
        return None

    def problems(self, local: LocalConfig) -> list[Problem]:
        """Return what is wrong with its own settings beside those of the visits' training."""
        return []

    # a part that never travels ------------------------------------------------------------------

    def private(self, layout: Layout) -> tuple[str, ...]:
        """Return the arrays (names as in `Layout.slices`) that a client keeps to itself.

        Raises:
            ExperimentError: the layout has no such parts.
        """
        return ()

    def offer(self, home: Home, offer: Offer) -> Offer:
        """Return an offer whose payloads lack the private arrays; the same object where nothing is private."""
        names = self.private(home.layout)
        if not names:
            return offer
        down, up = (payload.without(home.layout, names) for payload in (offer.down, offer.up))
        return replace(offer, down=down, up=up)

    def composed(self, home: Home, vector: Vector, private: Vector) -> Vector:
        """Return a vector with private values `private` (as `keeps` gives them) in their places."""
        return with_values(home.layout, vector, self.private(home.layout), private)

    def keeps(self, home: Home, vector: Any) -> Any:
        """Return the private values of a vector (or of a mask), one after the other; None if nothing is private."""
        names = self.private(home.layout)
        return values(home.layout, vector, names) if names else None

    # a second training in each visit ------------------------------------------------------------

    def alongside(self, local: LocalConfig) -> LocalConfig | None:
        """Return the second training of a visit whose own training is `local`; None: there is none."""
        return None

    def beside(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the second training of a landed visit.

        Args:
            home: of the run.
            job: the visit's own training, arrays in place of handles: `start` is what it downloaded.
            private: what the client has kept of its last such training; None: nothing yet.
        """
        return None

    @property
    def everybody_after(self) -> bool:
        """Whether every client trains after the run, and not only those that never landed."""
        return False

    @property
    def epochs_at_end(self) -> int:
        """Epochs that a client trains after the run, if it trains then."""
        return 0

    @property
    def resting(self) -> int:
        """Whole adapters that lie in memory, not trained, while another one is."""
        return 0

    @property
    def frozen(self) -> int:
        """Whole adapters that are computed and not trained while a client's own one is."""
        return 0

    def held(self, shape: ModelShape) -> ModelShape:
        """Return the charged model with the further adapters that lie in the device's memory."""
        return replace(shape, resting=self.resting)

    def charged(self, work: Work, second: Work, shape: ModelShape) -> Work:
        """Return the work of a visit with its second training.

        A frozen adapter of A numbers costs 4 A operations a token: forward, and backward to what is below.

        Args:
            work: the visit's own.
            second: that of training one adapter on the tokens of the second training.
            shape: the charged model as this device trains it.
        """
        frozen = 4.0 * self.frozen * shape.adapter_params * second.tokens
        return replace(
            work,
            flops=work.flops + second.flops + frozen,
            steps=work.steps + second.steps,
            moved_bytes=work.moved_bytes + second.moved_bytes,
            layer_passes=work.layer_passes + second.layer_passes,
            expanded_bytes=work.expanded_bytes + second.expanded_bytes,
        )

    # after the run ------------------------------------------------------------------------------

    def after(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return what a client trains after the run; None: nothing.

        Args:
            home: of the run.
            job: `start` and `base` as the client would download them now, private values put in.
            private: what it keeps; None: it never landed.
        """
        return None

    def model(self, home: Home, job: Job, private: Vector | None, end: Vector | None) -> Used:
        """Return the model that a client ends with; `end` is where `after` ended, other arguments as there."""
        return Used(job.start if end is None else end, job.base)


def tuned(local: LocalConfig, epochs: int, lr: float | None, prox_mu: float = 0.0) -> LocalConfig | None:
    """Return a training like `local` of so many epochs and another learning rate; None for 0 epochs."""
    if epochs == 0:
        return None
    changes: dict[str, Any] = {"epochs": epochs, "steps": None, "prox_mu": prox_mu}
    if lr is not None:
        changes["lr"] = lr
    return local.model_copy(update=changes)


def values(layout: Layout, vector: Vector, names: Sequence[str]) -> Vector:
    """Return the values of some arrays, one array after the other, as a new vector."""
    arrays = layout.arrays(vector)
    return np.concatenate([arrays[name].ravel() for name in names])


def with_values(layout: Layout, vector: Vector, names: Sequence[str], private: Vector) -> Vector:
    """Return a vector with other values in some arrays: the inverse of `values`."""
    changed = np.array(vector, dtype=np.float32)
    arrays, at = layout.arrays(changed), 0
    for name in names:
        array = arrays[name]
        array[...] = private[at : at + array.size].reshape(array.shape)
        at += array.size
    changed.flags.writeable = False
    return changed
