"""A run that would never end: found out and ended with an error."""

from __future__ import annotations

from fedsim.errors import RunError, message
from fedsim.server.server import Server


def refuse_to_spin(server: Server) -> None:
    """Raise if a run without horizon has committed nothing for `runtime.stall_s` [virtual s].

    Raises:
        RunError: says how the visits ended instead.
    """
    stall_s = server.experiment.runtime.stall_s
    if server.env.now - server.last_commit_s <= stall_s:
        return
    server.desk.refuse_to_starve(server.now_s)
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(server.ledger.outcomes.items()))
    what = (
        f"no commit in {stall_s:.0f} s of virtual time, and no budget.time_s to end the run "
        f"(visits: {outcomes or 'none ended'})"
    )
    fix = "give budget.time_s, a longer protocol.deadline_s, a smaller protocol.buffer or min_reports"
    raise RunError(message("run", what, fix=fix))
