"""What every protocol owes the server: whole runs of the quadratic task whose books are right."""

from __future__ import annotations

from typing import Any

from fedsim.checks.gate import prepared
from fedsim.clock.plan import Plan
from fedsim.clock.protocol import ServerProtocol
from fedsim.component import Component, placed
from fedsim.config.experiment import Experiment
from fedsim.testing.runs import Watched, check_run
from fedsim.testing.words import hold, name_of

CLIENTS, COMMITS = 48, 5


def check_protocol(protocol: Component, **blocks: Any) -> None:
    """Run a protocol for five commits of 48 unequal devices, twice, and without training.

    Args:
        protocol: with the hyperparameters to try, for at most 48 clients.
        blocks: other blocks of the experiment, if it needs some.

    Raises:
        AssertionError: a sentence that names the property.
        TypeError: the component is no protocol.
    """
    component = placed("protocols", protocol)
    if not isinstance(component, ServerProtocol):
        raise TypeError(f"{name_of(protocol)} is no protocol")
    problems = [f"{problem.what}, {problem.fix}" for problem in component.problems(CLIENTS)]
    hold(not problems, f"{name_of(protocol)} cannot run with {CLIENTS} clients: {'; '.join(problems)}")
    run = check_run(lambda: plan_of(component, blocks))
    takes_what_it_says(component, run)


def plan_of(protocol: ServerProtocol, blocks: dict[str, Any]) -> Plan:
    """Return the plan that a protocol is tried on."""
    return prepared(
        Experiment.model_validate(
            {
                "seed": 5,
                "population": {"preset": "mixed_edge_2025", "clients": CLIENTS},
                "task": {"kind": "quadratic", "layout": "lora", "examples": "unequal"},
                "lora": {"r": 4, "alpha": 8.0},
                "local": {"optimizer": "sgd", "lr": 0.1, "steps": 4},
                "evaluate": {"every_commits": 2},
                "budget": {"commits": COMMITS},
                "runtime": {"executor": "inline"},
                **blocks,
                "protocol": protocol,
            }
        )
    )


def takes_what_it_says(protocol: ServerProtocol, watched: Watched) -> None:
    """No commit takes more updates than the protocol says that one takes."""
    updates, says = int(watched.run.commits.updates.max()), protocol.updates_per_commit
    if says is not None:
        hold(
            updates <= says,
            f"{name_of(protocol)} says that a commit takes {says} updates, one took {updates}",
        )
