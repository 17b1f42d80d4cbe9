"""FedDPA: a shared and a local adapter, added (Yang et al., NeurIPS 2024, arXiv 2403.19211)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Traits
from fedsim.config.fields import CountOrZero, Positive
from fedsim.config.learning import LocalConfig
from fedsim.jobs import Job
from fedsim.personal._base import Home, Personal, Used, tuned
from fedsim.personal.folding import scale_of, weighted


class FedDPA(Personal):
    """A client uses a shared adapter g and a local one l at once, in every adapted module (s is its scale).

        h = W0 x + a s B_l A_l x + (1 - a) s B_g A_g x

    l never travels. It is trained through h with g frozen; g is trained alone, as the rule has it, so the
    shared model is as without FedDPA.

        train: each     FedDPA-T: in each visit, from where the client's last one left l, with the g that the
                        visit downloaded; l starts at version 0
        train: after    FedDPA-F: once after the run, from a copy of the last g

    (1 - a) s B_g A_g is folded into the frozen weights, which is the same function; the device is charged
    for both adapters. After the run h is made with the last g. A client that never landed trains its l then
    (from version 0 with `each`). One without l, for 0 epochs, uses g as it is. The weight a is fixed: the
    paper's weight by similarity of the instance is not here. The authors' code begins with l in the second
    round; here it is the first visit.

    The clock is charged for the training of `each` (both adapters, one after the other, the resting one in
    memory); nothing after the run is on the clock.

    Attributes:
        a: weight of the local adapter.
        train: when it is trained.
        epochs: of each training of l; None: as long as the visit's own training (1 after the run).
        lr: learning rate of l; None: that of the visit, `local.lr` with its `lr_decay`.
    """

    adds_products: ClassVar[bool] = True

    kind: Literal["feddpa"] = "feddpa"
    a: Annotated[float, Field(ge=0, le=1)] = 0.5
    train: Literal["each", "after"] = "each"
    epochs: CountOrZero | None = None
    lr: Positive | None = None

    @property
    def epochs_at_end(self) -> int:
        """E."""
        return 1 if self.epochs is None else self.epochs

    @property
    def everybody_after(self) -> bool:
        """Whether the local adapters are trained after the run."""
        return self.train == "after"

    @property
    def resting(self) -> int:
        """One: an adapter rests while the other one trains."""
        return int(self.train == "each" and self.epochs != 0)

    @property
    def frozen(self) -> int:
        """One: the shared adapter is computed while the local one trains."""
        return self.resting

    def misfit(self, traits: Traits, *, full: bool) -> tuple[str, str] | None:
        """Return why there are no two adapters."""
        if full:
            return "adds two adapters, and here whole models are trained", "set lora.full: false"
        if traits.personal:
            return "adds to the shared adapter, and this rule has none", "set aggregator.kind: fedit"
        return None

    def alongside(self, local: LocalConfig) -> LocalConfig | None:
        """Return the training of l in a visit."""
        if self.train == "after":
            return None
        if self.epochs is not None:
            return tuned(local, self.epochs, self.lr)
        return local.model_copy(update={"prox_mu": 0.0, **({} if self.lr is None else {"lr": self.lr})})

    def beside(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the training of l over the shared adapter that the visit downloaded."""
        local = self.alongside(job.local)
        return (
            None
            if local is None
            else self._over(home, job, home.initial if private is None else private, local)
        )

    def after(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the training of l after the run."""
        local = tuned(job.local, 1 if self.epochs is None else self.epochs, self.lr)
        if local is None or private is not None:
            return None
        return self._over(home, job, home.initial if self.train == "each" else job.start, local)

    def model(self, home: Home, job: Job, private: Vector | None, end: Vector | None) -> Used:
        """Return h: a B_l over the weights with the shared adapter in them."""
        local = private if private is not None else end
        if local is None:
            return Used(job.start, job.base)
        return Used(weighted(home.layout, local, self.a), self._under(home, job))

    def _over(self, home: Home, job: Job, start: Vector, local: LocalConfig) -> Job:
        scale = self.a * scale_of(home.layout, job)
        return replace(
            job,
            start=start,
            local=local,
            base=self._under(home, job),
            scale=scale,
            trains="AB",
            slot_penalty=None,
        )

    def _under(self, home: Home, job: Job) -> Vector | None:
        if self.a == 1.0:
            base: Vector | None = job.base
            return base
        return home.fold(home.layout, job.start, (1.0 - self.a) * scale_of(home.layout, job), job.base)
