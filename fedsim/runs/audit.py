"""Whether a run can have happened as its tables say: replayed from its settings, and audited from the tables alone.

Two independent parts. The replay (`fedsim.runs.retraced`) makes the schedule again and compares every column that does
not depend on training. The auditor (`fedsim.records.verify`) knows nothing of the simulator: it computes seconds, bytes
and joules again from what the tables say of devices and links, and holds files against their SHA-256.

What neither can see: numbers that training computed, where the file and its SHA-256 in `run.json` were changed alike.
`fedsim replay` trains a visit again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedsim.checks.gate import prepared
from fedsim.clock.components import parts_of
from fedsim.clock.plan import Plan
from fedsim.errors import FedsimError
from fedsim.records.info import UNFINISHED
from fedsim.records.integrity.seals import FEDSIM
from fedsim.records.integrity.versions import installed_versions
from fedsim.records.run import Run
from fedsim.records.tables import first_line
from fedsim.records.verify import COMPARED, RULES, compared, unsound_values, verify
from fedsim.runs.retraced import retrace
from fedsim.runs.stored import stored_experiment


@dataclass(frozen=True)
class Audit:
    """What an audit has found.

    Attributes:
        problems: one sentence each; empty if there is none.
        replayed: columns that were compared with a replay; 0 without one.
        no_replay: why there was none; empty if there was one.
        rules: rules that were held against the tables alone.
        visits, commits: rows of the run.
        is_sealed: whether `run.json` has SHA-256 to hold files and values against.
    """

    problems: tuple[str, ...]
    replayed: int
    no_replay: str
    rules: int
    visits: int
    commits: int
    is_sealed: bool = True

    @property
    def summary(self) -> str:
        """What was checked, in one line."""
        rows = f"{self.visits:,} visits and {self.commits:,} commits"
        again = (
            f"{self.replayed} columns replayed" if not self.no_replay else f"not replayed ({self.no_replay})"
        )
        verdict = "ok" if not self.problems else f"{len(self.problems)} problems"
        unsealed = "" if self.is_sealed else ", not sealed: no SHA-256 in run.json"
        return f"{verdict}: {rows}, {again}, {self.rules} rules recomputed from the tables{unsealed}"


def audit(run: Run, *, accounts_only: bool = False, trust: bool = False) -> Audit:
    """Audit a run.

    Args:
        run: its tables.
        accounts_only: leave the replay out, which needs the data and the components that made the run.
        trust: whether modules that its settings name are imported (`fedsim.runs.stored`).

    Returns:
        What is wrong, and what was checked; without the replay also why there was none.
    """
    accounts = verify(run)
    no_replay = "accounts only, as asked" if accounts_only else why_no_replay(run, trust=trust)
    problems = list(accounts)
    if not no_replay:
        try:
            plan = prepared(stored_experiment(run, trust=trust))
        except FedsimError as problem:  # data or tables that are not here
            no_replay = first_line(problem)
        else:
            problems += _replay_problems(plan, run)
    return Audit(
        tuple(problems),
        0 if no_replay else COMPARED,
        no_replay,
        RULES,
        run.count("visits"),
        run.count("commits"),
        is_sealed=bool(run.info.numbers and (run.info.files or run.folder is None)),
    )


def why_no_replay(run: Run, *, trust: bool = False) -> str:
    """Return why the schedule of a run cannot be made again here, in words; empty if it can."""
    if unsound_values(run):
        return "the tables are damaged"
    made_by, here = run.info.versions.get(FEDSIM), installed_versions().get(FEDSIM)
    if made_by != here:
        return f"fedsim {made_by} made it, and this is {here}"
    try:
        experiment = stored_experiment(run, trust=trust)
        rule = parts_of(experiment).aggregator
    except FedsimError as problem:
        return f"experiment.yaml: {first_line(problem)}"
    if experiment.population.clients != run.count("clients"):
        return "experiment.yaml has another number of clients than the tables"
    return f"the aggregator {rule.kind} decides by values that are in no table" if rule.reads_values else ""


def _replay_problems(plan: Plan, run: Run) -> Iterator[str]:
    try:
        retraced = retrace(plan, run)
    except FedsimError as problem:
        yield f"the replay fails: {first_line(problem)}"
        return
    yield from compared(run, retraced, unfinished=run.info.status in UNFINISHED)
