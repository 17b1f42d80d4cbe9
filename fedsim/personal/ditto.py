"""Ditto: a second model that is drawn to the shared one (Li et al., arXiv 2012.04221, algorithm 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fedsim.adapters.adapter import Vector
from fedsim.aggregators._base import Traits
from fedsim.config.fields import CountOrZero, NonNegative, Positive
from fedsim.config.learning import LocalConfig
from fedsim.config.problem import Problem
from fedsim.jobs import Job
from fedsim.personal._base import Home, Personal, Used, tuned


class Ditto(Personal):
    """In each visit a client trains its own v_k too, which never travels.

        v_k <- v_k - eta (grad F_k(v_k) + lam (v_k - w)),      w as the visit downloaded it

    It sees the same batches as w. v_k starts at version 0. lam = 0 is training alone; the larger lam, the
    nearer v_k stays to w (eta lam must stay below 2, or SGD overshoots w: at most 1 is wise). With AdamW lam acts inside
    the moments, which divide gradients by their size: a larger lam turns the step towards w and makes it no longer,
    so v_k need not be nearer to w. The shared model is as without Ditto. Charged: both trainings, one after the other; while v_k trains, w and what
    becomes of it lie in memory too.

    After the run a client uses v_k as it is. One that never landed trains v_k from the last w, drawn to
    it, for `epochs` (None: 1).

    Attributes:
        lam: lambda, on the factors' entries.
        epochs: of v_k in each visit; None: as long as the visit's own training. 0: v_k is w.
        lr: learning rate of v_k; None: that of the visit, `local.lr` with its `lr_decay`.
    """

    kind: Literal["ditto"] = "ditto"
    lam: NonNegative = 0.1
    epochs: CountOrZero | None = None
    lr: Positive | None = None

    @property
    def epochs_at_end(self) -> int:
        """E."""
        return 1 if self.epochs is None else self.epochs

    @property
    def resting(self) -> int:
        """Two: w as downloaded, and what becomes of it."""
        return 0 if self.epochs == 0 else 2

    def problems(self, local: LocalConfig) -> list[Problem]:
        """Return that SGD would overshoot the shared model."""
        lr = self.lr or local.lr
        if local.optimizer != "sgd" or self.lam * lr < 2.0:
            return []
        what = f"makes each step overshoot the shared model (lam times lr = {self.lam * lr:g}, not below 2)"
        return [Problem(("personal", "lam"), what, f"set it to at most {1 / lr:g}", self.lam)]

    def misfit(self, traits: Traits, *, full: bool) -> tuple[str, str] | None:
        """Return why v - w means nothing under a rule."""
        if traits.personal:
            return "is drawn to the shared model, and this rule has none", "set aggregator.kind: fedit"
        if traits.moves_base or traits.refactors:
            what = "is drawn to factors, and this rule's factors of two versions are not comparable"
            return what, "set aggregator.kind: fedit"
        return None

    def alongside(self, local: LocalConfig) -> LocalConfig | None:
        """Return the training of v_k."""
        if self.epochs is not None:
            return tuned(local, self.epochs, self.lr, self.lam)
        changes = {"prox_mu": self.lam, **({} if self.lr is None else {"lr": self.lr})}
        return local.model_copy(update=changes)

    def beside(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the training of v_k, drawn to what the visit downloaded."""
        local = self.alongside(job.local)
        if local is None:
            return None
        start = home.initial if private is None else private
        return replace(job, start=start, anchor=job.start, local=local, slot_penalty=None)

    def after(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the first training of a client that has no v_k yet."""
        local = tuned(job.local, 1 if self.epochs is None else self.epochs, self.lr, self.lam)
        return None if local is None or private is not None else replace(job, local=local, anchor=job.start)

    def model(self, home: Home, job: Job, private: Vector | None, end: Vector | None) -> Used:
        """Return v_k."""
        return Used(private if private is not None else job.start if end is None else end, job.base)
