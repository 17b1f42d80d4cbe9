"""The timeline of a run as Chrome trace JSON: slices nest, arrows lead from versions to visits, losses are instants."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.cases import tried
from worlds.handmade_run import by_hand, made, played

from fedsim.records.timeline import CLIENTS, SERVER, events, export


def by_kind(found, ph):
    return [e for e in found if e["ph"] == ph]


def tracks(found):
    """Slices of each (pid, tid), in file order."""
    found_in = defaultdict(list)
    for e in by_kind(found, "X"):
        found_in[e["pid"], e["tid"]].append(e)
    return found_in


def check_structure(found):
    """What Perfetto needs: whole microseconds in order, perfect nesting, paired arrows, named tracks."""
    json.dumps(found, allow_nan=False)
    timed = [e for e in found if e["ph"] != "M"]
    assert found[: len(found) - len(timed)] == by_kind(found, "M")
    assert all(isinstance(e["ts"], int) for e in timed)
    assert [e["ts"] for e in timed] == sorted(e["ts"] for e in timed)

    named = {(e["pid"], e["tid"]) for e in by_kind(found, "M") if e["name"] == "thread_name"}
    for track, slices in tracks(found).items():
        assert track in named
        open_until = []
        for e in slices:
            assert isinstance(e["dur"], int)
            assert e["dur"] >= 0
            while open_until and open_until[-1] <= e["ts"]:
                open_until.pop()
            assert not open_until or e["ts"] + e["dur"] <= open_until[-1]
            open_until.append(e["ts"] + e["dur"])

    starts, ends = ({e["id"]: e for e in by_kind(found, ph)} for ph in "sf")
    assert len(starts) == len(by_kind(found, "s"))
    assert starts.keys() == ends.keys()
    for number, start in starts.items():
        assert start["ts"] <= ends[number]["ts"]
        assert start["name"] == ends[number]["name"]
        assert ends[number]["bp"] == "e"
        for e in (start, ends[number]):  # an arrow hangs on a slice that is there at its time
            assert any(x["ts"] <= e["ts"] <= x["ts"] + x["dur"] for x in tracks(found)[e["pid"], e["tid"]])


def test_the_run_by_hand_gives_a_file_that_is_valid_chrome_trace_json(tmp_path):
    path = tmp_path / "new folder" / "trace.json"
    export(by_hand(), path)
    trace = json.loads(path.read_text(encoding="utf-8"))
    assert trace["displayTimeUnit"] == "ms"
    assert trace["otherData"] == {"run": "handmade", "clock": "virtual microseconds"}
    assert trace["traceEvents"] == events(by_hand())
    check_structure(trace["traceEvents"])


def test_two_exports_of_one_run_are_equal_to_the_byte(tmp_path):
    export(by_hand(), tmp_path / "a.json")
    export(by_hand(), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


SECONDS = st.integers(1, 3).map(float) | st.floats(1e-7, 1e5)


@settings(deadline=None, max_examples=tried(40))
@given(
    phases=st.lists(st.tuples(SECONDS, SECONDS, SECONDS, st.booleans()), max_size=25),
    clients=st.integers(1, 5),
    buffer=st.integers(1, 4),
)
def test_slices_of_one_client_nest_and_never_overlap_in_any_run(phases, clients, buffer):
    check_structure(events(played(phases, clients, buffer)))


def test_a_landed_visit_is_one_slice_with_download_train_and_upload_inside():
    first = tracks(events(by_hand()))[CLIENTS, 1][:4]
    assert [(e["name"], e["ts"], e["dur"]) for e in first] == [
        ("visit 0: landed", 0, 6_000_000),
        ("download", 0, 1_000_000),
        ("train", 1_000_000, 4_000_000),
        ("upload", 5_000_000, 1_000_000),
    ]
    assert first[0]["args"] == {
        "outcome": "landed", "version": 0, "staleness": 0, "down_bytes": 1000, "up_bytes": 1000,
        "joules": 3.0, "examples": 4, "tokens": 64, "loss": 2.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("client", "visit", "phases"),
    [
        (2, 0, [("download", 1.0), ("refused", 0.5)]),  # no memory: it never trains
        (1, 1, [("download", 2.5), ("train", 2.5)]),  # went offline in training
        (0, 2, [("download", 1.0), ("train", 4.0), ("upload", 0.5)]),  # told to stop while uploading
        (1, 2, [("download", 0.5)]),  # the run ended
    ],
)
def test_a_lost_visit_shows_how_far_it_came(client, visit, phases):
    slices = tracks(events(by_hand()))[CLIENTS, client + 1]
    outer = next(e for e in slices if e["name"].startswith(f"visit {visit}:"))
    inside = [e for e in slices if e is not outer and outer["ts"] <= e["ts"] < outer["ts"] + outer["dur"]]
    assert [(e["name"], e["dur"] / 1e6) for e in inside] == phases
    assert "loss" not in outer["args"]


def test_losses_are_instants_on_the_client_s_track_named_by_their_cause():
    found = [(e["name"], e["tid"] - 1, e["ts"]) for e in by_kind(events(by_hand()), "i")]
    assert found == [("memory", 2, 1_500_000), ("offline", 1, 15_000_000), ("late", 0, 17_500_000)]


def test_arrows_lead_from_versions_to_visits_and_from_uploads_to_commits():
    found = events(by_hand())
    assert Counter(e["name"] for e in by_kind(found, "s")) == {"model": 7, "update": 3}
    ends = {e["id"]: e for e in by_kind(found, "f")}
    updates = [
        (e["tid"] - 1, e["ts"], ends[e["id"]]["ts"]) for e in by_kind(found, "s") if e["name"] == "update"
    ]
    assert updates == [(0, 5_000_000, 6_000_000), (1, 8_000_000, 12_000_000), (0, 11_000_000, 12_000_000)]
    assert {ends[e["id"]]["pid"] for e in by_kind(found, "s") if e["name"] == "update"} == {SERVER}


def test_every_version_is_a_slice_that_lasts_until_the_next_one():
    versions = tracks(events(by_hand()))[SERVER, 1]
    assert [(e["name"], e["ts"], e["dur"]) for e in versions] == [
        ("version 0", 0, 6_000_000),
        ("version 1", 6_000_000, 6_000_000),
        ("version 2", 12_000_000, 33_500_000),
    ]


def test_the_counters_tell_visits_in_flight_and_staleness():
    found = by_kind(events(by_hand()), "C")
    flying = [(e["ts"], e["args"]["visits"]) for e in found if e["name"] == "visits in flight"]
    assert flying == [
        (0, 3), (1_500_000, 2), (6_000_000, 2), (10_000_000, 2), (12_000_000, 2),
        (15_000_000, 1), (17_500_000, 0), (45_000_000, 1), (45_500_000, 0),
    ]  # fmt: skip
    stale = [(e["ts"], e["args"]) for e in found if e["name"] == "staleness"]
    assert stale == [(6_000_000, {"mean": 0.0, "max": 0}), (12_000_000, {"mean": 0.5, "max": 1})]


def test_a_run_in_which_nothing_happened_still_opens():
    found = events(made({}))
    check_structure(found)
    assert [e["name"] for e in by_kind(found, "X")] == ["version 0"]
