"""Which rules go with which protocols, ranks, wire formats, optimisers and ways to personalise.

One list of limits decides (`limits`). `misfits` asks it about an experiment before anything starts; `page`
asks it about every rule and every feature, by discovery, and `python -m fedsim.checks` prints that.
What a limit looks at are facts: a rule's `traits`, and `stale`, `blends`, `cuts_ranks` of a protocol.
So a rule or a protocol of the user's own is checked as those that ship.
"""

from __future__ import annotations

from typing import Any

from fedsim.checks.choice import Choice, Path
from fedsim.checks.limits import facts, refusals
from fedsim.clock.components import parts_of
from fedsim.component import Component
from fedsim.config.experiment import Experiment
from fedsim.config.problem import Problem
from fedsim.cost.quantised import Quantise


def choice_of(experiment: Experiment) -> Choice:
    """Return the choice that an experiment makes."""
    parts = parts_of(experiment)
    return Choice(
        rule=parts.aggregator.kind,
        traits=parts.aggregator.traits,
        **facts(parts.protocol),
        ranks=experiment.lora.rank_by,
        depths=experiment.lora.unequal,
        optimizer=parts.server_optimizer.kind,
        top_k=experiment.wire.top_k < 1.0,
        feedback=experiment.wire.error_feedback,
        average=experiment.evaluate.ema > 0,
        best=experiment.evaluate.keep_best is not None,
        personal=parts.personal,
        whole=experiment.lora.full or parts.task.whole(),
        dora=experiment.lora.dora,
        bias=experiment.lora.bias,
        saved=experiment.lora.modules_to_save,
        patterned=experiment.lora.patterned,
        started=experiment.lora.start_from is not None,
        quantised=parts.task.quantised() is not None,
    )


def misfits(experiment: Experiment) -> list[Problem]:
    """Return what does not go together in an experiment, in words."""
    return [
        Problem(path, what, fix, _value(experiment, path))
        for path, (what, fix) in refusals(choice_of(experiment))
    ]


def _value(experiment: Experiment, path: Path) -> Any:
    value: Any = experiment
    for key in path:
        value = getattr(value, key)
    return value.kind if isinstance(value, Component | Quantise) else value
