"""What a demo is: a few experiments alike but for the protocol, and what is said of their runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedsim.config.experiment import Experiment

if TYPE_CHECKING:
    from fedsim.records.run import Run


@dataclass(frozen=True)
class Demo:
    """Experiments to compare.

    Attributes:
        name: of the folder of its runs.
        common: blocks that all experiments have.
        protocols: name of each experiment -> the blocks that it has beside them.
        verdict: what is said of the runs, in a few lines.
    """

    name: str
    common: Mapping[str, Any]
    protocols: Mapping[str, Mapping[str, Any]]
    verdict: Callable[[Sequence[Run]], str]

    def experiments(self, **changes: Any) -> list[Experiment]:
        """Return the experiments; `changes` replace whole top-level blocks in all of them."""
        return [
            Experiment.model_validate({**self.common, "name": name, **blocks, **changes})
            for name, blocks in self.protocols.items()
        ]


def uploads(runs: Sequence[Run]) -> list[str]:
    """Return what was uploaded and what full-model FedAvg would have been, as lines, one a run."""
    width = max(len(run.name) for run in runs)
    lines = ["Uploaded, lost work included, against full-model FedAvg with the same uploads:"]
    for run in runs:
        charged, up = run.info.charged, run.info.totals.up_bytes
        assert charged is not None
        full = up * charged.full_model_bytes / charged.adapter_bytes
        lines.append(
            f"  {run.name:<{width}}  {up / 1e9:.2f} GB against {full / 1e9:,.0f} GB ({1 - up / full:.2%} less;"
            f" {charged.adapter_params:,} of {charged.params:,} parameters, charged as {charged.model})"
        )
    return lines
