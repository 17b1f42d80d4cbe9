"""The harness that holds the clock against measurements: its rows, errors, queues, and skips."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import DataError

sys.path.append(str(Path(__file__).parents[2]))  # at the end: fedsim itself comes from where it is installed

from benchmarks.fidelity import check, compare, permits, quota, rows, tables
from benchmarks.fidelity.__main__ import main
from benchmarks.fidelity.bounds import KNOWN, Known
from benchmarks.fidelity.federation import Device, Federation
from benchmarks.fidelity.folder import read_folder
from benchmarks.fidelity.queues import Line
from benchmarks.fidelity.rows import Flow, Scenario
from benchmarks.fidelity.steps import Steps
from benchmarks.fidelity.tally import Tally, flow_errors, makespan_error

# Closed forms on a link of 8 Mbit/s = 1 MB/s. 1,448,000 bytes are 1000 packets: 1,500,000 bytes of IP,
# 1,514,000 of Ethernet. At RTT 10 ms the first window (15,000 bytes) covers the link: no slow start, only
# a handshake (10 ms) before and half a round trip (5 ms) after.
ALONE = {"rate": 8e6, "size": 1_448_000, "start": 0.0, "lag": 0.0, "rep": 0}
SINGLE = [
    {**ALONE, "mode": "tun", "rtt": 10, "t_rx": 1.5 + 0.015},
    {**ALONE, "mode": "tbf", "rtt": 0, "t_rx": 1.514},
    {"stats": {"n": 3}, "mode": "tun"},  # an emulator's account, no measurement
]
HALF = {"size": 724_000, "start": 0.0, "lag": 0.001, "t_rx": 1.5 + 0.015}  # two of them at half the rate each
SHARED = [
    {
        "name": f"two {fq}",
        "mode": "tun",
        "clients": [{"up": 8e6, "rtt": 10}] * 2,
        "server": {"in": 8e6, "fq": fq},
        "rows": [{"client": 0, **HALF}, {"client": 1, **HALF}],
    }
    for fq in (True, False)
]
# 0.99 MB until t = 1 s, the other 0.51 MB at half the rate
TRACE = [
    {
        "name": "steps",
        "up": [{"t": [0, 1], "r": [8e6, 4e6]}],
        "C": None,
        "rtt": 10,
        "rows": [{"client": 0, "size": 1_448_000, "start": 0.0, "lag": 0.0, "t_rx": 1 + 1.02 + 0.005}],
    }
]
# 0.62 CPU seconds at half a core: 12 periods of 50 ms on and 50 ms off, then 20 ms
QUOTA = [
    {"k": "spin", "q": 0.5, "per": 100, "wall": 1.22, "cpu": 0.62},
    {"k": "spin", "q": 1.0, "per": 100, "wall": 9.0, "cpu": 0.6},  # no quota, nothing to predict
]


def written(folder, **changed):
    """The fixture folder; `single_upload=rows` replaces or (None) leaves out a file."""
    files = {
        "single_upload": SINGLE,
        "shared_link": SHARED,
        "rate_trace": TRACE,
        "cpu_quota": QUOTA,
        **changed,
    }
    for name, content in files.items():
        if content is not None:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder


# rows -----------------------------------------------------------------------------------------------


def test_rows_are_read_into_bytes_and_seconds(tmp_path):
    measured = read_folder(written(tmp_path))

    (tun,) = measured.single["tun"]
    fair, fifo = measured.shared
    (trace,) = measured.traces

    assert tun.up == (Steps.constant(1e6),)
    assert tun.rtt_s == (0.01,)
    assert tun.server is None
    assert tun.framing == 1500 / 1448
    assert fair.flows[1] == Flow(1, 724_000, 0.001, 1.515)  # the start is the real one, lag included
    assert fair.fair
    assert not fifo.fair
    assert fifo.server == Steps.constant(1e6)
    assert trace.up == (Steps((0, 1), (1e6, 0.5e6)),)
    assert measured.quotas[0] == rows.Quota("spin", 0.5, 0.1, 1.22, 0.62)


@pytest.mark.parametrize(
    ("file", "line", "row", "field"),
    [
        ("single_upload", 2, {**SINGLE[1], "rate": -1}, "rate"),
        ("single_upload", 2, {**SINGLE[1], "t_rx": "soon"}, "t_rx"),
        ("shared_link", 2, {**SHARED[1], "server": {"fq": True}}, "server.in"),
        ("rate_trace", 1, {**TRACE[0], "up": [{"t": [0, 1, 1], "r": [1, 2, 3]}]}, "increasing times"),
        ("cpu_quota", 1, {**QUOTA[0], "q": 1.5}, "q"),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_field(tmp_path, capsys, file, line, row, field):
    good = {"single_upload": SINGLE, "shared_link": SHARED, "rate_trace": TRACE, "cpu_quota": QUOTA}[file]
    folder = written(tmp_path, **{file: [*good[: line - 1], row]})

    assert main(["--check", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"{file}.jsonl: line {line}" in said
    assert field in said
    assert "fix:" in said


def test_a_row_of_a_client_that_is_not_there_is_refused(tmp_path):
    stranger = {**SHARED[0], "rows": [{"client": 2, **HALF}]}
    folder = written(tmp_path, shared_link=[stranger])

    with pytest.raises(DataError, match="line 1: a row is of a client that is not there"):
        read_folder(folder)


def test_what_is_not_json_is_refused_with_its_line(tmp_path):
    (tmp_path / "cpu_quota.jsonl").write_text(json.dumps(QUOTA[0]) + "\n{half a row\n")

    with pytest.raises(DataError, match=r"cpu_quota\.jsonl: line 2: is not JSON"):
        read_folder(tmp_path)


# errors ---------------------------------------------------------------------------------------------


def test_a_tally_is_mean_percentile_and_maximum_of_absolute_errors():
    tally = Tally.of([-0.01, 0.02, 0.03])  # the 90th percentile lies 1.8 of 2 steps up: 2.8

    assert tally.n == 3
    assert (tally.mean, tally.p90, tally.maximum) == pytest.approx((2.0, 2.8, 3.0))


def scenario(**changed):
    flows = (Flow(0, 1, 1.0, 4.0), Flow(1, 1, 2.0, 5.0))
    given_ = {"name": "s", "up": (Steps.constant(1.0),) * 2, "rtt_s": (0.05, 0.05), "server": None}
    return Scenario(**{**given_, "framing": 1.0, "fair": True, "flows": flows, **changed})


def test_errors_of_flows_and_of_the_makespan():
    predicted = [4.4, 4.5]  # measured 4 and 5, from 1 and 2: the last ends at 7, predicted 6.5

    assert flow_errors(scenario(), predicted) == pytest.approx([0.1, -0.1])
    assert makespan_error(scenario(), predicted) == pytest.approx(5.5 / 6 - 1)


def test_calm_means_equal_round_trips_and_starts():
    at_once = tuple(replace(flow, start_s=0.0) for flow in scenario().flows)

    assert scenario(flows=at_once).calm
    assert not scenario().calm  # one starts a second later
    assert not scenario(flows=at_once, rtt_s=(0.05, 0.1)).calm


# --check --------------------------------------------------------------------------------------------


def test_rows_of_closed_forms_are_met_exactly(tmp_path, capsys):
    assert main(["--check", str(written(tmp_path))]) == 0

    classes = json.loads(capsys.readouterr().out)["classes"]
    assert {name: found["n"] for name, found in classes.items()} == {
        "single upload, delayed link": 1,
        "single upload, kernel tbf": 1,
        "fair queue, a flow": 2,
        "fair queue, makespan": 1,
        "rate traces, a flow": 1,
        "drop-tail, a flow": 2,
        "drop-tail, makespan": 1,
        "drop-tail, equal RTT and start: a flow": 2,
        "drop-tail, equal RTT and start: makespan": 1,
        "CPU quota, spin": 1,
    }
    assert all(found["max_percent"] < 1e-3 for found in classes.values())
    naive = classes["fair queue, a flow"]["others"]["size / bandwidth"]
    assert naive["mean_percent"] == pytest.approx(100 * (1 - 0.724 / 1.515), abs=1e-3)


@pytest.mark.parametrize("bound", ["single_upload", "shared_link", "rate_trace"])
def test_a_missed_bound_is_exit_1_and_says_which(tmp_path, capsys, bound):
    slow = {
        "single_upload": [{**SINGLE[1], "t_rx": 1.01 * SINGLE[1]["t_rx"]}],  # tbf: at most 0.3 %
        "shared_link": [{**SHARED[0], "rows": [{"client": c, **HALF, "t_rx": 1.6} for c in (0, 1)]}],
        "rate_trace": [{**TRACE[0], "rows": [{**TRACE[0]["rows"][0], "t_rx": 1.9}]}],
    }
    missed = {
        "single_upload": ["single upload, kernel tbf"],
        "shared_link": ["fair queue, a flow", "fair queue, makespan"],
        "rate_trace": ["rate traces, a flow"],
    }

    assert main(["--check", str(written(tmp_path, **{bound: slow[bound]}))]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert [name for name, found in answer["classes"].items() if not found["ok"]] == missed[bound]


def test_absent_files_are_listed_and_an_empty_folder_is_refused(tmp_path, capsys):
    folder = written(tmp_path, single_upload=None, rate_trace=None)
    assert main(["--check", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["absent"] == ["single_upload.jsonl", "rate_trace.jsonl"]

    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["--check", str(empty)]) == 2
    assert "holds no measured rows" in capsys.readouterr().err


def test_files_of_any_name_are_read_by_their_fields_and_the_rest_is_named(tmp_path, capsys):
    """HTB rows, rows of kernel tbf on a shared link, a file of another name; strange modes, files and rows are said."""
    htb = {**SHARED[0], "mode": "htb", "rows": [{"client": c, **HALF, "t_rx": 1.514 + 0.015} for c in (0, 1)]}
    folder = written(
        tmp_path,
        shared_link_htb=[htb, {**htb, "mode": "tbf"}],
        mine=[SINGLE[0], {"round": 3, "arrivals": [1.0, 2.0]}, 7],
        single_upload=[*SINGLE, {**SINGLE[0], "mode": "ns3"}],
    )
    (folder / "README.md").write_text("measured on Tuesday\n")

    assert main(["--check", str(folder)]) == 4
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["ok"]
    assert not answer["all_read"]
    assert answer["classes"]["fair queue, a flow"]["n"] == 6
    assert answer["classes"]["single upload, delayed link"]["n"] == 2
    assert answer["read"]["mine.jsonl"] == 1
    assert [(u["file"], u["rows"], u["lines"], u["measured"]) for u in answer["unread"]] == [
        ("README.md", 0, [], False),
        ("mine.jsonl", 2, [2, 3], True),
        ("single_upload.jsonl", 1, [3], False),
        ("single_upload.jsonl", 1, [4], True),
    ]
    assert "not read: mine.jsonl: 2 rows (lines 2, 3): its fields are those of no kind" in err
    assert "mode 'ns3' is not known" in err


def test_only_what_may_be_a_measurement_changes_the_exit_code(tmp_path, capsys):
    folder = written(tmp_path)
    (folder / "README.md").write_text("measured on Tuesday\n")

    assert main(["--check", str(folder)]) == 0
    assert "not read: README.md" in capsys.readouterr().err
    assert main(["--check", str(folder / "nothing")]) == 2


def test_a_bound_is_what_the_mean_of_so_many_new_rows_keeps(tmp_path):
    """m + 2.5 s sqrt(1/k + 1/n): of 2,000 means of eight rows, about 1 % are above."""
    assert Known(16, 2.0, 3.0).bound(9) == pytest.approx(2.0 + 7.5 * math.sqrt(1 / 16 + 1 / 9))
    rng = np.random.default_rng(0)
    known, new = rng.normal(5.0, 1.0, (2000, 19)), rng.normal(5.0, 1.0, (2000, 8))
    above = [
        float(n.mean()) > Known(19, float(k.mean()), float(k.std(ddof=1))).bound(8)
        for k, n in zip(known, new, strict=True)
    ]
    assert 0.002 < np.mean(above) < 0.03
    assert all(0 < spread.mean < 10 and spread.n >= 6 for spread in KNOWN.values())


def test_without_simgrid_the_answer_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(check.with_simgrid, "missing", lambda: "python3-simgrid is not installed")

    answer = check.check(written(tmp_path), simgrid=True)

    assert answer["ok"]
    assert answer["simgrid"] == "skipped: python3-simgrid is not installed"


# the emulator's parts -------------------------------------------------------------------------------


def test_steps_integrate_through_an_outage():
    assert Steps((0, 4, 9), (1.0, 0.0, 3.0)).finish_s(0.0, 10) == pytest.approx(11.0)
    assert Steps((0, 4), (1.0, 0.0)).finish_s(0.0, 10) == math.inf
    assert Steps((2,), (5.0,)).finish_s(0.0, 10) == pytest.approx(
        2.0
    )  # the first rate counts before its time


def drained(line, now=0.0):
    """Everything that waits, with the time it is through."""
    out = []
    while (served := line.start(now)) is not None:
        now = served[0]
        out.append(served)
    return out


def test_a_single_lane_is_first_in_first_out_and_drops_at_its_tail():
    line = Line(Steps.constant(1000.0), limit_bytes=2500)
    accepted = [line.offer(1000, name) for name in "abc"]

    assert accepted == [True, True, False]
    assert line.dropped == 1
    assert drained(line) == [(1.0, "a"), (2.0, "b")]


def test_lanes_share_by_bytes_not_by_packets():
    line = Line(Steps.constant(1500.0), limit_bytes=1e9, lanes=2)
    for _ in range(10):
        line.offer(1500, "large", 0)
        for _ in range(10):
            line.offer(150, "small", 1)

    first = [name for _, name in drained(line)[:44]]

    assert first.count("large") == 4
    assert first.count("small") == 40


@given(
    st.lists(st.tuples(st.integers(40, 1500), st.integers(0, 3)), max_size=60),
    st.floats(100, 1e6),
)
def test_a_line_loses_nothing_keeps_each_lanes_order_and_its_rate(packets, rate):
    line = Line(Steps.constant(rate), limit_bytes=1e9, lanes=4)
    for number, (size, lane) in enumerate(packets):
        assert line.offer(size, (lane, number), lane)

    out = drained(line)

    assert sorted(number for _, (_, number) in out) == list(range(len(packets)))
    for wanted in range(4):
        numbers = [number for _, (lane, number) in out if lane == wanted]
        assert numbers == sorted(numbers)
    total = sum(size for size, _ in packets)
    assert not out or out[-1][0] == pytest.approx(total / rate)


def test_the_cgroup_with_quotas_is_found_in_either_version(tmp_path):
    one, two, none = tmp_path / "one", tmp_path / "two", tmp_path / "none"
    (one / "cpu").mkdir(parents=True)
    (one / "cpu" / "cpu.cfs_quota_us").touch()
    two.mkdir()
    (two / "cgroup.controllers").write_text("cpuset cpu io\n")
    none.mkdir()
    (none / "cgroup.controllers").write_text("hugetlb\n")

    assert quota.root(one) == one / "cpu"
    assert quota.root(two) == two
    assert quota.root(none) is None


# end to end -----------------------------------------------------------------------------------------


def visit(client, dispatched_s, landed_s, staleness=0):
    return {
        "client": client,
        "dispatched_s": dispatched_s,
        "downloaded_s": dispatched_s + 1,
        "trained_s": dispatched_s + 2,
        "landed_s": landed_s,
        "staleness": staleness,
    }


def rounds(round_s):
    """Two clients, two rounds; the second client is the last to land."""
    times = [round_s, 2 * round_s]
    visits = [visit(c, t - round_s, t - (1 - c)) for t in times for c in (0, 1)]
    return {"visits": visits, "commits": [{"version": v + 1, "time_s": t} for v, t in enumerate(times)]}


def test_synchronous_runs_are_compared_by_their_rounds():
    two = Federation("two", (Device(1, 1, 0, 0.5),) * 2, 1, 1)
    measured = [rounds(10.0), rounds(10.2), rounds(9.8)]
    predicted = {"fedsim": [rounds(10.1)] * 3, "size / bandwidth": [rounds(5.0)] * 3}

    found = compare.summary(two, "synchronous", "spin", measured, predicted)

    assert found["measured"]["round_s"] == pytest.approx(10.0)
    assert found["noise_percent"] == pytest.approx(2.0)  # of 10.0, 10.2, 9.8: standard deviation 0.2
    assert found["models"]["fedsim"]["error_percent"] == pytest.approx(1.0)
    assert found["models"]["fedsim"]["worst_percent"] == pytest.approx(100 * (10.1 / 9.8 - 1))
    assert found["models"]["size / bandwidth"]["error_percent"] == pytest.approx(-50)
    assert found["ok"]


def test_asynchronous_runs_are_compared_by_updates_in_the_time_given():
    two = Federation("two", (Device(1, 1, 0, 0.5),) * 2, 1, 1, time_s=10.0)
    visits = [visit(0, 0, 4), visit(1, 0, 6, 1), visit(0, 4, 8, -1), visit(1, 6, 11, -1)]
    records = {"visits": visits, "commits": [{"version": 1, "time_s": 6.0}, {"version": 2, "time_s": 11.0}]}

    found = compare.figures(records, two, "buffered")

    assert (found["updates"], found["commits"], found["staleness"]) == (3, 1, 0.5)
    assert found["visit_s"] == pytest.approx((4 + 6 + 4 + 5) / 4)


def test_profiles_follow_the_labs_settings():
    """Alone in a round, a client of 4/8 Mbit/s, 40 ms and a tenth of a core takes what can be worked out by hand."""
    from benchmarks.fidelity.expected import records, simulated, version_0

    one = Federation("one", (Device(4, 8, 40, 0.1),), 1000, 1000, spin_s=0.305, rounds=1)
    n_bytes = len(version_0(one))
    wire = n_bytes * 1500 / 1448
    rtt = 0.04
    down = (
        wire / 1e6 + 1.5 * rtt + sum(rtt - w / 1e6 for w in (15e3, 30e3))
    )  # slow start to a window of 40 kB
    train = 0.305 + 30 * 0.09  # 30.5 budgets of 10 ms, 90 ms apart
    up = wire / 0.5e6 + 1.5 * rtt + (rtt - 15e3 / 0.5e6)

    (found,) = records(simulated(one, "synchronous", None))["visits"]
    (calibrated,) = records(simulated(one, "synchronous", [7.0]))["visits"]
    (naive,) = records(simulated(one, "synchronous", None, naive=True))["visits"]

    assert n_bytes == 1_050_624
    assert found["landed_s"] == pytest.approx(down + train + up)
    assert calibrated["trained_s"] - calibrated["downloaded_s"] == pytest.approx(7.0)
    assert naive["landed_s"] == pytest.approx(n_bytes / 1e6 + 3.05 + n_bytes / 0.5e6)


@pytest.mark.parametrize("command", ["run", "measure"])
def test_a_kernel_that_forbids_it_is_a_skip_with_a_word(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setattr(permits, "enter_user_namespace", lambda: None)
    monkeypatch.setattr(permits, "namespaces", lambda: "this kernel may not")
    words = [command] if command == "run" else [command, str(tmp_path / "rows")]

    assert main(words) == 0
    assert capsys.readouterr().out == "skipped: this kernel may not\n"
    assert list(tmp_path.iterdir()) == []


def test_tables_are_written_between_their_marks(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "check.json").write_text(json.dumps(check.check(written(tmp_path))))
    two = Federation("two", (Device(1, 1, 0, 0.5),) * 2, 1, 1)
    models = {"fedsim": [rounds(10.1)], "size / bandwidth": [rounds(5.0)]}
    one = compare.summary(two, "synchronous", "spin", [rounds(10.0)], models)
    (results / "run.json").write_text(json.dumps({"results": [one]}))
    readme = tmp_path / "README.md"
    mark = "<!-- {} -->\nold\n<!-- end -->\n"
    readme.write_text("before\n" + "".join(mark.format(name) for name in ("check", "run", "staleness")))

    tables.write(readme, results)
    text = readme.read_text()

    assert text.startswith("before\n<!-- check -->\n")
    assert "old" not in text
    assert "| 2 | synchronous | spin | 10.00 s a round (n = 1) |  | 10.10 s a round | +1.0 % | 2 % |" in text
    readme.write_text("no marks")
    with pytest.raises(DataError, match="has no place for the table 'check'"):
        tables.write(readme, results)
