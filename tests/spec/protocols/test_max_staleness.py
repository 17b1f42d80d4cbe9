"""Updates that are too stale: dropped when that is so, counted, and in no version; values play no part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import simulated
from worlds.by_hand import NEAR, committed
from worlds.cases import tried

from fedsim.records.verify import verify

# one slot's visits take 1 s, the other one's 3.5 s
UNEQUAL = [1.0, 3.5]


def buffered(**more):
    return {"kind": "buffered", "concurrency": 2, "buffer": 1, **more}


def outcomes(run, client):
    rows = run.visits[(run.visits.client == client) & (run.visits.outcome != "in_flight")]
    return rows.sort_values("order").outcome.tolist()


@pytest.mark.parametrize(("most", "expected"), [(2, "stale"), (3, "landed"), (None, "landed")])
def test_the_slow_visit_has_missed_three_versions(most, expected):
    """The fast client commits at 1, 2 and 3 s; the slow one lands at 3.5 s with a staleness of 3."""
    run = simulated(buffered(max_staleness=most), UNEQUAL, budget={"commits": 5})
    first = run.visits[run.visits.client == 1].iloc[0]

    assert first.outcome == expected
    assert first.landed_s == pytest.approx(3.5, abs=NEAR)
    assert (first.staleness, first.committed_version) == ((-1, -1) if expected == "stale" else (3, 4))
    assert first.up_bytes > 0, "what it has used is charged"
    assert verify(run) == []


def test_a_client_that_came_too_late_is_asked_again_at_once():
    run = simulated(buffered(max_staleness=0), UNEQUAL, budget={"commits": 8})
    slow = run.visits[run.visits.client == 1].sort_values("order")

    assert set(outcomes(run, 1)) == {"stale"}
    np.testing.assert_allclose(slow.dispatched_s, [0.0, 3.5, 7.0], atol=NEAR)


def test_an_update_can_become_too_stale_in_the_buffer():
    """Buffer 2, three clients that land at 1, 1 and 1 s: after the first commit the third is one version old."""
    protocol = {"kind": "buffered", "concurrency": 3, "buffer": 2, "max_staleness": 0}
    run = simulated(protocol, [1.0, 1.0, 1.0], budget={"commits": 1})
    free = simulated({**protocol, "once_per_buffer": True}, [1.0, 1.0, 1.0], budget={"commits": 2})

    assert sorted(run.visits.outcome) in (["in_flight", "landed", "landed"], ["landed", "landed", "landed"])
    assert free.info.totals.outcomes["stale"] >= 1
    assert committed(free).staleness.max() == 0
    asked = free.visits[free.visits.outcome == "stale"].client.iloc[0]
    assert (free.visits.client == asked).sum() == 2, "it is not held for ever"


def test_a_beat_drops_what_has_missed_too_many():
    """Beats of 1 s; a visit of 3.5 s of version 0 arrives at the fourth, after three commits."""
    protocol = {"kind": "semi-synchronous", "concurrency": 2, "beat_s": 1.0}
    late = simulated({**protocol, "max_staleness": 2}, [0.9, 3.5], budget={"commits": 6})
    right = simulated({**protocol, "max_staleness": 3}, [0.9, 3.5], budget={"commits": 6})

    assert outcomes(late, 1)[0] == "stale"
    assert outcomes(right, 1)[0] == "landed"
    assert committed(right).staleness.max() == 3


@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 10))
@settings(max_examples=tried(15), deadline=None)
def test_nothing_too_stale_is_committed_and_the_schedule_does_not_depend_on_values(most, buffer, seed):
    protocol = {"kind": "buffered", "concurrency": 4, "buffer": buffer, "max_staleness": most}
    train_s = np.random.default_rng(seed).uniform(0.5, 5.0, 5).tolist()
    runs = [
        simulated(protocol, train_s, timeline_only=blank, budget={"commits": 12}, seed=seed)
        for blank in (True, False)
    ]

    assert committed(runs[0]).staleness.max() <= most
    columns = ["client", "visit", "version", "outcome", "staleness", "committed_version", "landed_s"]
    assert runs[0].visits[columns].equals(runs[1].visits[columns])
    left = [run.visits[run.visits.outcome == "stale"] for run in runs]
    assert [run.info.totals.outcomes.get("stale", 0) for run in runs] == [len(rows) for rows in left]
    assert not left[0].landed_s.isna().any()
