"""Runs of hand-made worlds to compare with times, versions and models drawn by hand.

Transfers take a microsecond each, so times are compared to 1e-4 s. `worlds.plan` gives every client the
training time that a test asks for; the quadratic task says what its training must give.
"""

from __future__ import annotations

import pytest

from worlds import simulated

NEAR = 1e-4
ALIKE = {"kind": "quadratic", "spread": 0.0}
"""Everybody has the same optimum: the gap g of the model to it is all there is to know."""
Q = 0.9**2
"""What two steps of 0.1 leave of a gap."""
FEDBUFF = {"kind": "fedit", "normalize": "K", "staleness": {"kind": "constant"}}


def times(run):
    return pytest.approx(run.commits.time_s.tolist(), abs=NEAR)


def committed(run):
    return run.visits[run.visits.committed_version > 0].sort_values(["committed_version", "client", "visit"])


def losses(protocol, train_s, **blocks):
    """The loss of each version, 0 included."""
    blocks = {"task": ALIKE, "evaluate": {"every_commits": 1}, **blocks}
    run = simulated(protocol, train_s, timeline_only=False, **blocks)
    return run.scores[run.scores.metric == "loss"].sort_values("version").value.tolist()


def gaps(*values):
    """Losses of given gaps."""
    return pytest.approx([0.5 * g * g for g in values], rel=1e-5)


def schedule(run, columns="client visit version outcome staleness committed_version"):
    return run.visits.sort_values(["client", "visit"])[columns.split()].to_numpy().tolist()
