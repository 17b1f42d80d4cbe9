"""Which rules go with which protocols, ranks, wire formats, optimisers and ways to personalise.

One list of limits decides (`limits`). `misfits` asks it about an experiment before anything starts; `page`
asks it about every rule and every feature, by discovery, and `python -m fedsim.checks.combinations` prints that.
What a limit looks at are facts: a rule's `traits`, and `stale`, `blends`, `cuts_ranks` of a protocol.
So a rule or a protocol of the user's own is checked as those that ship.
"""

from __future__ import annotations

from typing import Any

from fedsim.aggregators._base import Traits
from fedsim.checks.limits import Choice, Path, facts, refusals
from fedsim.component import Component
from fedsim.config.experiment import Experiment
from fedsim.config.problem import Problem


def choice_of(experiment: Experiment) -> Choice:
    """Return the choice that an experiment makes. Its rule must have `traits`."""
    e: Any = experiment
    return Choice(
        rule=e.aggregator.kind,
        traits=e.aggregator.traits,
        **facts(e.protocol),
        ranks=e.lora.rank_by,
        optimizer=e.server_optimizer.kind,
        top_k=e.wire.top_k < 1.0,
        feedback=e.wire.error_feedback,
        average=e.evaluate.ema > 0,
        personal=e.personal,
        whole=e.lora.full or e.task.whole(),
    )


def misfits(experiment: Experiment) -> list[Problem]:
    """Return what does not go together in an experiment, in words."""
    rule: Any = experiment.aggregator
    if not isinstance(getattr(rule, "traits", None), Traits):
        fix = "add `traits: ClassVar[Traits] = Traits(exact=..., unequal_ranks=...)` to its class"
        return [Problem(("aggregator", "kind"), "has no `traits`", fix, rule.kind)]
    found = [
        Problem(path, what, fix, _value(experiment, path))
        for path, (what, fix) in refusals(choice_of(experiment))
    ]
    clients, tiers = experiment.population.clients, getattr(experiment.protocol, "tiers", 0)
    if isinstance(tiers, int) and tiers > clients:
        fix = f"set it to at most {clients}, or raise population.clients"
        found.append(
            Problem(("protocol", "tiers"), f"is more than there are clients ({clients})", fix, tiers)
        )
    return found


def _value(experiment: Experiment, path: Path) -> Any:
    value: Any = experiment
    for key in path:
        value = getattr(value, key)
    return value.kind if isinstance(value, Component) else value
