"""What nobody can ever do is refused before a run, by bounds that no visit beats; what somebody can do never is."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import experiment, windows

import fedsim
from fedsim.cli.app import call
from fedsim.clock.plan import prepare
from fedsim.clock.protocol import ServerProtocol
from fedsim.clock.reach import _most_online
from fedsim.errors import ExperimentError

GEMMA = {"kind": "quadratic", "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 1000}}
EDGE = {"preset": "mixed_edge_2025", "clients": 20}


def rounds(deadline_s=None, cohort=5, **rest):
    return {"kind": "synchronous", "cohort": cohort, "deadline_s": deadline_s, **rest}


def fastest_s(**blocks):
    """The shortest visit that a run without a deadline really has."""
    run = fedsim.simulate(
        experiment(rounds(cohort=20), 20, population=EDGE, budget={"commits": 1}, **blocks),
        timeline_only=True,
    )
    return float((run.visits.landed_s - run.visits.dispatched_s).min())


def asked(deadline_s, protocol=None, **blocks):
    return experiment(protocol or rounds(deadline_s), 20, **{"population": EDGE, "task": GEMMA, **blocks})


def test_a_deadline_that_nobody_meets_is_refused_with_the_time_that_is_needed():
    with pytest.raises(
        ExperimentError, match=r"deadline_s: nobody can land in time: the fastest client needs .* s at"
    ):
        prepare(asked(0.001))
    with pytest.raises(ExperimentError, match="deadline_s"):
        fedsim.simulate(asked(1e-10, budget={"time_s": 1e6}))


def test_the_refusal_is_exit_code_2_and_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(asked(0.001).plain()))

    assert call(["run", "a.yaml", "--out", "r"]) == 2
    assert "nobody can land in time" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"network": {"model": "size-over-rate", "sharing": "private"}},
        {"compute": {"step_sigma": 0.3, "thermal": "severe"}},
        {"aggregator": {"kind": "flora"}},
        {"aggregator": {"kind": "ffa"}},
        {"aggregator": {"kind": "rolora"}},
        {"wire": {"dtype": "int8"}},
        {"personal": {"kind": "fine-tune"}},
    ],
    ids=str,
)
def test_a_deadline_that_somebody_meets_is_never_refused(blocks):
    """The deadline of the fastest visit that there is; a tenth of the bound below it is."""
    task = {"kind": "quadratic", "layout": "lora", **{k: v for k, v in GEMMA.items() if k != "kind"}}
    blocks = {"task": task, "lora": {"r": 2, "alpha": 4}, **blocks}
    shortest_s = fastest_s(**blocks)

    prepare(experiment(rounds(shortest_s), 20, population=EDGE, **blocks))
    with pytest.raises(ExperimentError, match="nobody can land in time"):
        prepare(experiment(rounds(shortest_s / 1e4), 20, population=EDGE, **blocks))


def test_a_version_that_needs_more_updates_than_there_are_clients_in_time_is_refused():
    everybody = fedsim.simulate(
        experiment(rounds(cohort=20), 20, population=EDGE, task=GEMMA, budget={"commits": 1}),
        timeline_only=True,
    )
    took_s = np.sort(everybody.visits.landed_s.to_numpy())
    with pytest.raises(ExperimentError, match="the fastest 10 clients, which a version needs, take"):
        prepare(asked(float(took_s[3]), protocol=rounds(float(took_s[3]), cohort=20, min_reports=10)))
    prepare(asked(float(took_s[9]), protocol=rounds(float(took_s[9]), cohort=20, min_reports=10)))


class OneStep(ServerProtocol):
    """Asks for one step only, within a deadline."""

    kind: str = "one-step"
    deadline_s: float

    @property
    def round_deadline_s(self):
        return self.deadline_s

    def run(self, server):
        """Ask one client after the other for a step."""
        while True:
            (client,) = yield from server.sample(1)
            visits = [server.dispatch(client, steps=1)]
            yield from server.wait(visits, want=1, deadline_s=self.deadline_s)
            landed = server.collect(visits, want=1)
            if landed:
                server.commit(landed)


def test_a_protocol_that_may_ask_for_less_than_a_whole_visit_is_not_refused_for_a_whole_one():
    """1,000 tokens are two steps here; one of them alone lands within a deadline that two would miss."""
    blocks = {"population": {"preset": "homogeneous", "clients": 2}, "task": GEMMA, "budget": {"commits": 2}}
    whole = fedsim.simulate(experiment(rounds(cohort=1), 2, **blocks), timeline_only=True)
    visit = whole.visits.iloc[0]
    deadline_s = visit.landed_s - 0.4 * (visit.trained_s - visit.downloaded_s)

    with pytest.raises(ExperimentError, match="nobody can land"):
        prepare(experiment(rounds(deadline_s, cohort=1), 2, **blocks))
    run = fedsim.simulate(experiment(OneStep(deadline_s=deadline_s), 2, **blocks), timeline_only=True)
    assert len(run.commits) == 2


def test_training_that_fits_no_device_is_refused():
    charge = {
        "kind": "quadratic",
        "charge_as": {"preset": "gemma-3-270m", "params": 10**13, "tokens_per_visit": 1},
    }
    with pytest.raises(ExperimentError, match="nobody can train"):
        prepare(asked(None, task=charge, protocol={"kind": "buffered", "concurrency": 2, "buffer": 1}))


# windows ----------------------------------------------------------------------------------------


def table(folder, *rows, period_s=None):
    path = folder / "windows.csv"
    head = f"# period_s: {period_s}\n" if period_s else ""
    path.write_text(head + "client,start_s,stop_s\n" + "".join(f"{c},{a},{b}\n" for c, a, b in rows))
    return str(path)


def online(folder, *rows, protocol, on_close="lost", period_s=None, clients=3):
    population = {"preset": "homogeneous", "clients": clients, "on_close": on_close}
    population["availability"] = table(folder, *rows, period_s=period_s)
    return experiment(protocol, clients, population=population, task=GEMMA)


def test_more_clients_at_once_than_are_ever_online_together_are_refused(tmp_path):
    apart = [(0, 0, 1e5), (1, 2e5, 3e5), (2, 1.5e5, 2.5e5)]
    with pytest.raises(
        ExperimentError, match="asks for 3 clients at once, and at most 2 are ever online together"
    ):
        prepare(online(tmp_path, *apart, protocol=rounds(cohort=3), period_s=3e5 + 1))
    prepare(online(tmp_path, *apart, protocol=rounds(cohort=2), period_s=3e5 + 1))
    prepare(online(tmp_path, *apart, protocol={"kind": "buffered", "concurrency": 3, "buffer": 3}))


def test_windows_shorter_than_any_visit_are_refused_where_visits_are_lost(tmp_path):
    short = [(0, 0, 0.001), (1, 5, 5.001)]
    stream = {"kind": "buffered", "concurrency": 1, "buffer": 1}
    with pytest.raises(ExperimentError, match="no window is as long as a visit"):
        prepare(online(tmp_path, *short, protocol=stream, clients=2))
    prepare(online(tmp_path, *short, protocol=stream, clients=2, on_close="pause"))
    prepare(online(tmp_path, *short, (1, 10, 10_000), protocol=stream, clients=2))


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_how_many_are_online_at_once_is_counted_as_by_looking_at_every_time(data):
    """Against the number at every window's start, of windows that may go round."""
    period_s = data.draw(st.sampled_from([10.0, np.inf]))
    rows = []
    for _ in range(data.draw(st.integers(1, 6))):
        cuts = sorted(data.draw(st.lists(st.integers(0, 9), min_size=0, max_size=4, unique=True)))
        mine = [(float(a), float(b)) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
        if mine and period_s == 10.0 and data.draw(st.booleans()) and mine[0][0] > 0:
            mine[-1] = (mine[-1][0], 10.0 + mine[0][0] / 2)
        if data.draw(st.integers(0, 4)) == 0:
            mine = [(0.0, np.inf)]
        rows.append(mine)
    made = windows(rows, period_s)
    times = [
        start + lap * (0.0 if np.isinf(period_s) else 10.0)
        for mine in rows
        for start, _ in mine
        for lap in (0, 1)
    ]
    looked = max((int(made.online(t).sum()) for t in times), default=0)

    assert looked <= _most_online(made, 2) <= looked + sum(len(mine) for mine in rows)
    if not any(b1 == a2 for m1 in rows for _, b1 in m1 for m2 in rows for a2, _ in m2):
        assert _most_online(made, 2) == looked
