"""FedPer: the last layers stay at home (Arivazhagan et al., arXiv 1912.00818, algorithm 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from fedsim.adapters.adapter import Layout, Vector
from fedsim.aggregators._base import Traits
from fedsim.config.fields import Count, CountOrZero, Positive
from fedsim.errors import ExperimentError, message
from fedsim.jobs import Job
from fedsim.personal._base import Home, Personal, Used, tuned, values, with_values


class FedPer(Personal):
    """theta_k = (shared S, private P_k): P_k is the adapters of the last `layers` blocks of the network.

    A visit starts from the server's S and the client's own P_k and trains both at once; S travels, P_k
    never does. A client's first P_k is that of version 0 (also in slots that its first visit did not train; no rule and no
    server optimiser moves the server's copy of it), and P_k stays as it is between its visits (also
    while S moves on). What a lost visit trained is lost, P_k included. The model of a client after the run
    is the last S with its P_k. One that never landed trains as in a visit, `epochs` over its data from the
    last S and the first P, sends nothing and keeps its P_k: the last S with that P_k is its model.

    A client whose visit has landed is not asked again before that visit was committed.

    Attributes:
        layers: blocks at the end of the network whose adapters are private, fewer than there are.
        epochs: of a client that joins after the run.
        lr: its learning rate; None: that of a visit of the last version.
    """

    kind: Literal["fedper"] = "fedper"
    layers: Count = 1
    epochs: CountOrZero = 1
    lr: Positive | None = None

    waits: ClassVar[bool] = True

    @property
    def epochs_at_end(self) -> int:
        """E."""
        return self.epochs

    def misfit(self, traits: Traits, *, full: bool) -> tuple[str, str] | None:
        """Return why a rule does not average the shared layers by themselves."""
        if full:
            return "splits adapters by layers, and here whole models are trained", "set lora.full: false"
        if traits.personal:
            return "splits by layers what the rule has split already", "choose one of the two"
        if traits.moves_base or traits.refactors:
            what = "needs a rule that leaves the private layers' factors and weights alone"
            return what, "set aggregator.kind: fedit"
        return None

    def private(self, layout: Layout) -> tuple[str, ...]:
        """Return the names of the factors in the last `layers` blocks, and of what is trained beside them there.

        Raises:
            ExperimentError: the adapters lie in no more blocks than that.
        """
        groups = layout.blocks
        if self.layers >= len(groups):
            what = f"leaves nothing to share: the adapters lie in {len(groups)} blocks"
            fix = (
                f"set it to at most {len(groups) - 1}" if len(groups) > 1 else "choose another personal.kind"
            )
            raise ExperimentError(message("personal.layers", what, got=self.layers, fix=fix))
        private = [name for group in groups[-self.layers :] for name in group]
        own = set(private)  # their magnitudes and biases, too
        return (
            *(f"{name}.lora_{f}" for name in private for f in "AB"),
            *(tensor.name for tensor in layout.beside if tensor.name.rpartition(".")[0] in own),
        )

    def after(self, home: Home, job: Job, private: Vector | None) -> Job | None:
        """Return the visit without an upload of a client that has no private layers yet."""
        local = tuned(job.local, self.epochs, self.lr, job.local.prox_mu)
        return None if local is None or private is not None else replace(job, local=local)

    def model(self, home: Home, job: Job, private: Vector | None, end: Vector | None) -> Used:
        """Return the last shared layers with the client's private ones."""
        names = self.private(home.layout)
        if end is None:
            return Used(job.start, job.base)
        return Used(with_values(home.layout, job.start, names, values(home.layout, end, names)), job.base)
