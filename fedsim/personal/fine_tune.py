"""Local fine-tuning: after the run each client trains its own copy (FedGen-Edge, arXiv 2511.11585)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fedsim.adapters.adapter import Vector
from fedsim.config.fields import CountOrZero, Positive
from fedsim.jobs import Job
from fedsim.personal._base import Home, Personal, tuned


class FineTune(Personal):
    """theta_k = SGD_E(theta; D_k): `epochs` E over the client's data, from what it downloads after the run.

    Nothing happens during the run. Both factors train, whatever the rule trains in a visit. A client that was
    never asked does the same. With a rule under which clients keep a part of the model (FedSA-LoRA, local-only),
    that part is in the copy. 0 epochs: the copy is what was downloaded, and the gain exactly 0.

    Attributes:
        epochs: E.
        lr: learning rate; None: that of a visit of the last version, `local.lr` with its `lr_decay`.
    """

    kind: Literal["fine-tune"] = "fine-tune"
    epochs: CountOrZero = 1
    lr: Positive | None = None

    @property
    def epochs_at_end(self) -> int:
        """E."""
        return self.epochs

    @property
    def everybody_after(self) -> bool:
        """All clients train their copies."""
        return True

    def after(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the training of the copy."""
        local = tuned(job.local, self.epochs, self.lr)
        return None if local is None else replace(job, local=local, trains="AB", slot_penalty=None)
