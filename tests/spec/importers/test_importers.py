"""Files of others, made by hand: what is read, and what is refused by file, row, field and value."""

from __future__ import annotations

import json
import os
import pickle
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.rates import carried_bytes

from fedsim.cli.app import call
from fedsim.config.population import PopulationConfig
from fedsim.devices.population import draw
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_devices, read_networks, read_window_table
from fedsim.errors import ProfileError
from fedsim.importers import FORMATS, import_table
from fedsim.importers.options import Options
from fedsim.importers.plain_pickle import read_plain
from fedsim.importers.sessions import cleaned
from fedsim.network.rate_tables import read_rate_table

DOWN = {"direction": "down"}


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return path


def imported(name, path, **options):
    return import_table(name, [path] if not isinstance(path, list) else path, Options(**options))


def refused(name, path, **options):
    """Return the first line of the refusal, which must have a fix and name the file."""
    with pytest.raises(ProfileError) as caught:
        imported(name, path, **options)
    head, _, fix = str(caught.value).partition("\n  fix: ")
    assert fix
    assert "\n" not in head + fix
    return head.removeprefix(str(path)).removeprefix(" ")


def written(table, tmp_path, suffix="csv"):
    path = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.{suffix}"
    table.write(path)
    assert check(path) == []
    return path


def links(table, tmp_path, suffix="csv"):
    return read_rate_table(written(table, tmp_path, suffix), "loop")


# Mahimahi ------------------------------------------------------------------------------------------------


def test_one_packet_a_millisecond_is_12_mbps(tmp_path):
    table = links(imported("mahimahi", file(tmp_path, "twelve", "1\n"), **DOWN), tmp_path)
    assert table.traces["down"][0].rate(0.5) == 12e6 / 8
    assert table.names == ("twelve",)


def test_opportunities_are_counted_in_bins_and_every_byte_is_kept(tmp_path):
    # (0, 1] s: 0, 10, 1000; (1, 2]: 1001 twice; the last bin ends with the file, at 2.5 s: 2500
    path = file(tmp_path, "t", "0\n10\n1000\n1001\n1001\n2500\n")
    link = links(imported("mahimahi", path, **DOWN), tmp_path).traces["down"][0]
    assert link.times_s.tolist() == [0, 1, 2, 2.5]
    assert link.bytes_per_s.tolist() == [4500, 3000, 3000, 3000]
    assert carried_bytes(link, 0, 2.5) == 6 * 1500
    fine = links(imported("mahimahi", path, bin_s=0.5, **DOWN), tmp_path).traces["down"][0]
    assert [fine.rate(t) for t in (0.2, 0.7, 1.2, 1.7, 2.2)] == [6000, 3000, 6000, 0, 3000]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.integers(0, 5000), min_size=1, max_size=60), bin_s=st.sampled_from([0.1, 0.3, 1.0, 7.0])
)
def test_no_opportunity_is_lost_whatever_the_bins(times, bin_s, tmp_path):
    times = [*sorted(times), 5001]
    table = imported("mahimahi", file(tmp_path, "t", "\n".join(map(str, times))), bin_s=bin_s, **DOWN)
    at, rates = np.array(table.columns["time_s"]), np.array(table.columns["down_bytes_per_s"])
    assert at[-1] == pytest.approx(5.001)
    assert np.sum(np.diff(at) * rates[:-1]) == pytest.approx(1500 * len(times))


def test_two_files_are_the_two_directions_of_one_trace(tmp_path):
    down, up = file(tmp_path, "a.down", "500\n1000\n"), file(tmp_path, "a.up", "1000\n2000\n")
    table = imported("mahimahi", down, up=(up,))
    assert table.columns == {
        "trace": ["a.down", "a.down"], "time_s": [0, 1],
        "down_bytes_per_s": [3000, 3000], "up_bytes_per_s": [1500, 1500],
    }  # fmt: skip
    assert "at most 1 s" in table.facts["cut"]
    links(table, tmp_path)


MAHIMAHI = [
    ("", ": is empty"),
    ("1\nx\n", "row 2: ms: must be a whole number of milliseconds (got 'x')"),
    ("1\n-2\n", "row 2: ms: must be a whole number of milliseconds (got '-2')"),
    ("1\n2.5\n", "row 2: ms: must be a whole number"),
    ("1\nnan\n", "row 2: ms: must be a whole number of milliseconds (got 'nan')"),
    ("1\n\n3\n", "row 2: ms: must be a whole number of milliseconds (got '')"),
    ("5\n4\n", "row 2: ms: must not be before row 1 (5 ms) (got 4)"),
    ("0\n0\n", ": lasts no time at all"),
    (f"1\n{10**40}\n", "row 2: ms: must be a whole number of milliseconds (got '1000"),
    (b"\xff\xfe\n", "row 1: ms: must be a whole number"),
]


@pytest.mark.parametrize(("text", "said"), MAHIMAHI)
def test_a_broken_packet_file_is_refused_by_row(tmp_path, text, said):
    assert refused("mahimahi", file(tmp_path, "t", text), **DOWN).startswith(said)


# time_s, kbps --------------------------------------------------------------------------------------------


def test_rows_of_time_and_kbps_hold_until_the_next_and_the_last_as_long_as_the_others(tmp_path):
    text = "# source: a lab\n# licence: CC-BY-4.0\ntime_s,kbps\n5,8\n7,16\n9,0\n"
    table = imported("kbps", file(tmp_path, "a.csv", text), direction="up")
    assert (table.facts["source"], table.facts["licence"]) == ("a lab", "CC-BY-4.0")
    link = links(table, tmp_path, "parquet").traces["up"][0]
    assert link.times_s.tolist() == [0, 2, 4, 6]
    assert [link.rate(t) for t in (0, 2, 4)] == [1000, 2000, 0]


def test_rows_that_are_not_equally_far_apart_need_the_length_of_the_last(tmp_path):
    path = file(tmp_path, "a.csv", "time_s,kbps\n0,8\n2,16\n9,8\n")
    assert "does not say how long its last row lasts" in refused("kbps", path, **DOWN)
    assert imported("kbps", path, last_s=4.0, **DOWN).columns["time_s"] == [0, 2, 9, 13]


KBPS = [
    ("time_s,kbps\n0,1\n1,-1\n", "row 3: kbps: must be at least 0 (got -1.0)"),
    ("time_s,kbps\n0,1\n1,nan\n", "row 3: kbps: must be a finite number (got 'nan')"),
    ("time_s,kbps\n0,1\n1,1e300\n", "row 3: kbps: must be at most 1e+09"),
    ("time_s,kbps\n0,1\n2,1\n1,1\n", "row 4: time_s: must be after row 3 (2 s) (got 1.0)"),
    ("time_s,kbps\n0,1\n0,2\n", "row 3: time_s: must be after row 2"),
    ("time_s,kbps\n0,1\n1\n", "row 3: needs 2 cells (got 1)"),
    ("time_s,mbps\n0,1\n", ": kbps: the column is missing"),
    ("time_s,kbps\n0,0\n1,0\n", ": never carries anything"),
    ("", ": has no rows"),
]


@pytest.mark.parametrize(("text", "said"), KBPS)
def test_a_broken_table_of_kbps_is_refused_by_row_and_column(tmp_path, text, said):
    assert refused("kbps", file(tmp_path, "a.csv", text), **DOWN).startswith(said)


# Pensieve ------------------------------------------------------------------------------------------------


def test_a_pensieve_row_is_the_rate_since_the_row_above(tmp_path):
    link = links(imported("pensieve", file(tmp_path, "a.log", "1.0\t99\n2.5 8\n3.5\t0\n"), **DOWN), tmp_path)
    (trace,) = link.traces["down"]
    assert trace.times_s.tolist() == [0, 1.5, 2.5]
    assert [trace.rate(t) for t in (0, 1.6)] == [1e6, 0]


PENSIEVE = [
    ("0 1\n1\n", "row 2: needs 2 cells (got 1)"),
    ("0 1\n1 2 3\n", "row 2: needs 2 cells (got 3)"),
    ("0 1\n1 x\n", "row 2: mbps: must be a finite number (got 'x')"),
    ("0 1\n1 inf\n", "row 2: mbps: must be a finite number (got 'inf')"),
    ("0 1\n1 -3\n", "row 2: mbps: must be at least 0 (got -3.0)"),
    ("0 1\n1 1e9\n", "row 2: mbps: must be at most 1e+06"),
    ("0 1\n2 1\n1 1\n", "row 3: seconds: must be after row 2 (2 s) (got 1.0)"),
    ("0 1\n", ": has fewer than two rows (got 1)"),
    ("", ": has fewer than two rows (got 0)"),
    (b"\xff\xfe", ": is not UTF-8 text"),
]


@pytest.mark.parametrize(("text", "said"), PENSIEVE)
def test_a_broken_pensieve_trace_is_refused_by_row(tmp_path, text, said):
    assert refused("pensieve", file(tmp_path, "a.log", text), **DOWN).startswith(said)


# SABRE ---------------------------------------------------------------------------------------------------


def entry(**changes):
    return {"duration_ms": 1500, "bandwidth_kbps": 800, "latency_ms": 100} | changes


def test_sabre_entries_follow_one_another_and_may_serve_both_directions(tmp_path):
    path = file(tmp_path, "a.json", json.dumps([entry(), entry(duration_ms=500, bandwidth_kbps=0)]))
    table = links(imported("sabre", path, direction="both"), tmp_path)
    for way in ("down", "up"):
        assert table.traces[way][0].times_s.tolist() == [0, 1.5, 2.0]
        assert table.traces[way][0].bytes_per_s.tolist() == [100_000, 0, 0]


SABRE = [
    (json.dumps([entry(), entry(duration_ms=0)]), "row 2: duration_ms: must be greater than 0 (got 0.0)"),
    (json.dumps([entry(bandwidth_kbps=-5)]), "row 1: bandwidth_kbps: must be at least 0 (got -5.0)"),
    (json.dumps([entry(bandwidth_kbps=True)]), "row 1: bandwidth_kbps: must be a number, not true or false"),
    (json.dumps([entry(latency_ms=[1])]), "row 1: latency_ms: must be a number, not a list"),
    (json.dumps([entry(latency_ms=None)]), "row 1: latency_ms: must be a number, not nothing"),
    (
        "[" + json.dumps(entry()).replace("800", "NaN") + "]",
        "row 1: bandwidth_kbps: must be a finite number (got nan)",
    ),
    (
        "[" + json.dumps(entry()).replace("800", "1" + "0" * 400) + "]",
        "row 1: bandwidth_kbps: must be a finite number",
    ),
    ("[" + json.dumps(entry()).replace("800", "1" * 5000) + "]", ": cannot be read"),
    (json.dumps([{"duration_ms": 5, "latency_ms": 1}]), "row 1: bandwidth_kbps: is missing"),
    (json.dumps([entry(), 7]), "row 2: is not a mapping"),
    (json.dumps(entry()), ": is not a list of entries"),
    ("[]", ": is not a list of entries"),
    (json.dumps([entry()])[:-5], "row 1: is not JSON"),
    ('[{"duration_ms": 1, "duration_ms": 2}]', ": cannot be read (the key 'duration_ms' is there twice)"),
    ("[" * 200_000, ": is nested too deeply"),
    (b"\xff\xfe", ": is not UTF-8 text"),
]


@pytest.mark.parametrize(("name", "text"), [("mahimahi", "1\n1000\n"), ("pensieve", "0 1\n1 2\n")])
def test_a_byte_order_mark_is_no_part_of_a_trace(tmp_path, name, text):
    tables = [
        imported(name, file(tmp_path, f"t{k}", f"{mark}{text}"), **DOWN)
        for k, mark in enumerate(("", "\ufeff"))
    ]
    assert tables[0].columns == tables[1].columns | {"trace": tables[0].columns["trace"]}


@pytest.mark.parametrize(("text", "said"), SABRE)
def test_a_broken_sabre_trace_is_refused_by_entry(tmp_path, text, said):
    assert refused("sabre", file(tmp_path, "a.json", text), **DOWN).startswith(said)


# plain pickles -------------------------------------------------------------------------------------------

plain = st.recursive(
    st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=plain, protocol=st.integers(0, 5))
def test_plain_data_is_read_as_it_was_pickled_in_every_protocol(value, protocol, tmp_path):
    value = (
        json.loads(json.dumps(value)) if isinstance(value, list) else value
    )  # no list stands in two places
    assert read_plain(file(tmp_path, "p", pickle.dumps(value, protocol))) == value


class Evil:
    def __reduce__(self):
        return os.system, ("touch fedsim-was-here",)


def loop():
    inner = []
    inner.append(inner)
    return inner


HOSTILE = {
    "os.system by REDUCE": (pickle.dumps({1: Evil()}, 4), f"STACK_GLOBAL {os.name} system at byte"),
    "os.system by GLOBAL": (b"cos\nsystem\n(S'touch fedsim-was-here'\ntR.", "GLOBAL os system at byte 0"),
    "by INST": (b"(S'touch fedsim-was-here'\nios\nsystem\n.", "INST os system"),
    "by an extension code": (b"\x80\x02\x82\x01.", "EXT1 1"),
    "a persistent id": (b"Pfile\n.", "PERSID file"),
    "an array": (pickle.dumps(np.float64(3.0), 2), "GLOBAL numpy"),
    "a set": (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
    "a tuple": (pickle.dumps((1, "x")), "TUPLE2"),
    "nothing": (pickle.dumps({1: None}), "NONE"),
    "true": (pickle.dumps({1: True}), "NEWTRUE"),
    "bytes": (pickle.dumps({1: b"x"}, 4), "SHORT_BINBYTES"),
    "a class": (pickle.dumps(Evil, 4), "STACK_GLOBAL"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["fedscale-capacity", "fedscale-behaviour"])
def test_a_pickle_with_more_than_plain_data_is_refused_by_name_and_never_run(
    tmp_path, monkeypatch, kind, name
):
    monkeypatch.chdir(tmp_path)
    data, said = HOSTILE[kind]
    head = refused(name, file(tmp_path, "p", data), **({"table": "networks"} if "capacity" in name else {}))
    assert "holds more than plain data and was not loaded: " + said in head
    assert not (tmp_path / "fedsim-was-here").exists()


def test_one_list_in_two_places_is_refused_since_it_could_be_a_loop_or_a_bomb(tmp_path):
    shared = [1]
    for value in (loop(), {1: shared, 2: shared}):
        with pytest.raises(ProfileError, match="uses one list in two places"):
            read_plain(file(tmp_path, "p", pickle.dumps(value)))


BROKEN_PICKLES = {
    "empty": b"",
    "no pickle": b"\x00\x01\x02",
    "a place in memory far away": b"\x80\x02]r\xff\xff\xff\xffj\x01\x00\x00\x00.",
    "a length that is not there": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "nothing on the stack": b"\x80\x02.",
    "two values": b"\x80\x02K\x01K\x02.",
    "a mark that is missing": b"\x80\x02]e.",
    "an odd number of items": b"\x80\x02}(K\x01u.",
    "an item for no list": b"\x80\x02K\x01K\x02a.",
    "a list as a key": b"\x80\x02}]K\x01s.",
    "a mark for a value": b"\x80\x02](a.",
}


@pytest.mark.parametrize("kind", BROKEN_PICKLES)
def test_a_broken_pickle_is_refused(tmp_path, kind):
    path = file(tmp_path, "p", BROKEN_PICKLES[kind])
    assert "is not a whole pickle" in refused("fedscale-behaviour", path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_is_cut_off_anywhere_is_refused(tmp_path, protocol):
    data = pickle.dumps(
        {1: {"active": [1, 2.5], "inactive": [2], "finish_time": 300, "model": "é"}}, protocol
    )
    for end in range(len(data)):
        with pytest.raises(ProfileError):
            read_plain(file(tmp_path, "p", data[:end]))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_pickle_is_read_or_refused_and_never_crashes(data, tmp_path):
    whole = bytearray(pickle.dumps(BEHAVIOUR, data.draw(st.sampled_from([0, 2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = file(tmp_path, "p", bytes(whole))
    with suppress(ProfileError):  # any other exception fails the test
        imported("fedscale-behaviour", path, period_s=1000.0)


# FedScale capacity ---------------------------------------------------------------------------------------

CAPACITY = {
    432802: {"computation": 162.0, "communication": 5648},
    7: {"computation": 80, "communication": 2209.0},
}


@pytest.mark.parametrize("protocol", [0, 3, 4])
def test_capacity_becomes_devices_by_the_work_of_a_sample_and_the_nearest_phone(tmp_path, protocol):
    path = file(tmp_path, "client_device_capacity", pickle.dumps(CAPACITY, protocol))
    table = imported("fedscale-capacity", path, table="devices", gflop_per_sample=0.6, licence="Apache-2.0")
    assert table.kind == "devices"
    devices = read_devices(written(table, tmp_path))
    assert devices.device.tolist() == ["432802", "7"]
    assert devices.flops_per_s == pytest.approx([0.6e9 / 0.162, 0.6e9 / 0.080])
    assert devices.sigma_ln.tolist() == [0, 0]
    # 3.7 and 7.5 GFLOP/s: nearest in ratio to the phones of 2021 (5, 3 GB) and 2023 (8, 4 GB)
    assert devices.memory_bytes.tolist() == [3e9, 4e9]
    assert "nearest in speed" in table.facts["assumed"]


def test_capacity_becomes_networks_one_a_client(tmp_path):
    path = file(tmp_path, "p", pickle.dumps(CAPACITY))
    table = imported("fedscale-capacity", path, table="networks")
    networks = read_networks(written(table, tmp_path, "parquet"))
    assert networks.network.tolist() == ["432802", "7"]
    assert networks.down_bytes_per_s == pytest.approx([706_000, 276_125])
    assert np.array_equal(networks.down_bytes_per_s, networks.up_bytes_per_s)
    assert networks.laws is not None
    assert "as wifi-mobiperf" in table.facts["assumed"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_capacity_as_a_table_may_have_two_rates(tmp_path, suffix):
    frame = pd.DataFrame(
        {"client": [4, 5], "compute_ms": [100, 50.0], "dl_kbps": [8000, 80], "ul_kbps": [800, 8]}
    )
    path = tmp_path / f"c.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    networks = read_networks(written(imported("fedscale-capacity", path, table="networks"), tmp_path))
    assert networks.down_bytes_per_s == pytest.approx([1e6, 1e4])
    assert networks.up_bytes_per_s == pytest.approx([1e5, 1e3])


def test_imported_devices_and_networks_make_a_population(tmp_path):
    path = file(tmp_path, "p", pickle.dumps(CAPACITY))
    devices = written(imported("fedscale-capacity", path, table="devices", gflop_per_sample=0.6), tmp_path)
    networks = written(imported("fedscale-capacity", path, table="networks"), tmp_path)
    population = draw(PopulationConfig(devices=devices, networks=networks, clients=400, rates="generated"), 0)
    assert set(population.device) == set(population.network) == {"432802", "7"}
    assert np.mean(population.device == "7") == pytest.approx(0.5, abs=0.1)


CAPACITIES = [
    ({1: {"computation": 0, "communication": 5}}, "client 1: computation: must be greater than 0 (got 0.0)"),
    (
        {1: {"computation": 5, "communication": -1}},
        "client 1: communication: must be greater than 0 (got -1.0)",
    ),
    (
        {1: {"computation": float("nan"), "communication": 1}},
        "client 1: computation: must be a finite number (got nan)",
    ),
    (
        {1: {"computation": 10**400, "communication": 1}},
        "client 1: computation: must be a finite number (got 'a number of",
    ),
    ({1: {"computation": 1e12, "communication": 1}}, "client 1: computation: must be at most 1e+10"),
    (
        {1: {"computation": "1_0", "communication": 1}},
        "client 1: computation: must be a finite number (got '1_0')",
    ),
    (
        {1: {"computation": [[[1]]], "communication": 1}},
        "client 1: computation: must be a number, not a list",
    ),
    ({1: {"computation": 5}}, "client 1: communication: is missing"),
    ({1: [5, 5]}, "client 1: must be a mapping of computation, communication (got 'a list')"),
    ([1, 2], ": is not a mapping of clients (got 'a list')"),
    ({}, ": is not a mapping of clients (got 'a mapping')"),
]


@pytest.mark.parametrize(("value", "said"), CAPACITIES)
def test_a_broken_capacity_is_refused_by_client_and_field(tmp_path, value, said):
    path = file(tmp_path, "p", pickle.dumps(value))
    assert refused("fedscale-capacity", path, table="networks").startswith(said)


def test_a_deeply_nested_pickle_is_refused_by_client(tmp_path):
    deep = b"\x80\x02}K\x01" + b"]" * 100_000 + b"a" * 99_999 + b"s."
    path = file(tmp_path, "p", deep)
    assert refused("fedscale-capacity", path, table="networks").startswith("client 1: must be a mapping")


def test_a_capacity_table_is_refused_by_row(tmp_path):
    path = file(tmp_path, "c.csv", "client,compute_ms,kbps\n1,100,5\n1,100,5\n")
    assert refused("fedscale-capacity", path, table="networks").startswith(
        "row 3: client: is already in row 2"
    )
    path = file(tmp_path, "d.csv", "client,compute_ms,kbps\n1,100,5\n2,-4,5\n")
    assert refused("fedscale-capacity", path, table="networks").startswith(
        "row 3: compute_ms: must be greater than 0"
    )


# FedScale behaviour --------------------------------------------------------------------------------------

HOUR = 3600
BEHAVIOUR = {
    1: {
        "duration": 5,
        "active": [0, 10 * HOUR],
        "inactive": [2 * HOUR, 30 * HOUR],
        "finish_time": 96 * HOUR,
        "model": "a",
    },
    2: {
        "active": [HOUR, 2 * HOUR, 90 * HOUR],
        "inactive": [HOUR + 20, 9 * HOUR, 9 * HOUR + 1],
        "finish_time": 96 * HOUR,
    },
    3: {"active": [50], "inactive": [55], "finish_time": 96 * HOUR},
}


def test_behaviour_becomes_windows_that_repeat_with_the_trace(tmp_path):
    path = file(tmp_path, "client_behave_trace", pickle.dumps(BEHAVIOUR))
    table = imported("fedscale-behaviour", path, licence="Apache-2.0", source="FedScale, commit 7ec441c")
    assert list(zip(*table.columns.values(), strict=True)) == [
        ("1", 0, 2 * HOUR), ("1", 10 * HOUR, 30 * HOUR),
        ("2", 2 * HOUR, 9 * HOUR), ("2", 90 * HOUR, 96 * HOUR),
    ]  # fmt: skip
    assert table.facts["source"] == "FedScale, commit 7ec441c"
    assert (table.figures["clients"], table.figures["clients never there (left out)"]) == (2, 1)
    assert table.figures["events without a partner"] == 1
    windows = read_window_table(written(table, tmp_path))
    assert windows.period_s == 96 * HOUR


def test_windows_feed_the_availability_of_a_population(tmp_path):
    table = imported("fedscale-behaviour", file(tmp_path, "p", pickle.dumps(BEHAVIOUR)))
    config = PopulationConfig(preset="phones_2020", clients=40, availability=str(written(table, tmp_path)))
    there = draw(config, 0).availability
    assert there.window(0, 3 * HOUR) == (10 * HOUR, 30 * HOUR)
    assert there.window(1, 100 * HOUR) == (98 * HOUR, 105 * HOUR)
    assert set(np.round(there.share(), 6)) == {round(22 / 96, 6), round(13 / 96, 6)}


def test_traces_of_different_lengths_need_a_period_and_begin_again_until_then(tmp_path):
    two = {
        "a": {"active": [0], "inactive": [100], "finish_time": 1000},
        "b": {"active": [0], "inactive": [100], "finish_time": 400},
    }
    path = file(tmp_path, "p", pickle.dumps(two))
    assert "end at different times, from 400 to 1000 s" in refused("fedscale-behaviour", path)
    table = imported("fedscale-behaviour", path, period_s=1000.0)
    rows = list(zip(*table.columns.values(), strict=True))
    assert rows == [("a", 0, 100), ("b", 0, 100), ("b", 400, 500), ("b", 800, 900)]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_behaviour_as_a_table(tmp_path, suffix):
    frame = pd.DataFrame({"client": [9, 9, 4], "start_s": [0, 500, 90], "end_s": [400, 9000, 1e6]})
    path = tmp_path / f"b.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    table = imported("fedscale-behaviour", path)
    assert list(zip(*table.columns.values(), strict=True)) == [
        ("9", 0, 400),
        ("9", 500, 9000),
        ("4", 90, 86_490),
    ]
    assert "period_s" not in table.facts
    again = imported("fedscale-behaviour", path, gap_s=100.0, longest_s=1000.0, period_s=1050.0)
    assert list(zip(*again.columns.values(), strict=True)) == [("9", 0, 1000), ("4", 90, 1050)]
    assert read_window_table(written(again, tmp_path)).period_s == 1050


def event(**changes):
    return {5: {"active": [0], "inactive": [900], "finish_time": 1000} | changes}


BEHAVIOURS = [
    (event(active=[5, 1]), "client 5: active entry 2: must not be before entry 1 (5) (got 1.0)"),
    (event(inactive=["soon"]), "client 5: inactive entry 1: must be a finite number (got 'soon')"),
    (event(active=[-1]), "client 5: active entry 1: must be at least 0 (got -1.0)"),
    (event(active=[float("inf")]), "client 5: active entry 1: must be a finite number (got inf)"),
    (event(active=7), "client 5: active: must be a list of seconds (got 7)"),
    (event(finish_time=0), "client 5: finish_time: must be greater than 0 (got 0.0)"),
    (event(active=[], inactive=[]), ": has no session that is long enough (got 1)"),
    ({5: {"active": [0], "inactive": [1]}}, "client 5: finish_time: is missing"),
    ({5: {"active": [0], "finish_time": 9}}, "client 5: inactive: is missing"),
]


@pytest.mark.parametrize(("value", "said"), BEHAVIOURS)
def test_a_broken_behaviour_is_refused_by_client_and_field(tmp_path, value, said):
    assert refused("fedscale-behaviour", file(tmp_path, "p", pickle.dumps(value))).startswith(said)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,5,5", "row 2: end_s: must be after start_s = 5 (got 5.0)"),
        ("1,nan,5", "row 2: start_s: must be a finite number (got 'nan')"),
        ("1,-5,5", "row 2: start_s: must be at least 0 (got -5.0)"),
        (",0,5", "row 2: client: is empty"),
        ("1,0", "row 2: needs 3 cells (got 2)"),
    ],
)
def test_a_broken_behaviour_table_is_refused_by_row_and_column(tmp_path, row, said):
    path = file(tmp_path, "b.csv", f"client,start_s,end_s\n{row}\n")
    assert refused("fedscale-behaviour", path).startswith(said)


spans = st.lists(
    st.tuples(st.floats(0, 1e5), st.floats(0.1, 3e4)).map(lambda s: (s[0], s[0] + s[1])), max_size=30
)


@given(sessions=spans, gap=st.sampled_from([0.0, 60.0, 1000.0]), least=st.sampled_from([0.0, 60.0, 5000.0]))
def test_cleaned_sessions_are_apart_long_enough_and_inside_what_was_read(sessions, gap, least):
    result = cleaned(sessions, Options(gap_s=gap, shortest_s=least, longest_s=20_000.0), 90_000.0)
    for start, stop in result:
        assert least <= stop - start <= 20_000.0 + 1e-9
        assert stop <= 90_000.0
        assert any(start == begin for begin, _ in sessions)
    for (_, stop), (start, _) in pairwise(result):
        assert start - stop > gap


# FLASH ---------------------------------------------------------------------------------------------------

MESSAGES = (
    "2020-01-29 18:00:00\tbattery_charged_on\n2020-01-29 18:10:00\twifi\n2020-01-29 18:20:00\t93.0%\n"
    "2020-01-29 19:00:00\tscreen_lock\n\n2020-01-29 20:00:00\t4G\n2020-01-30 01:00:00\tWIFI\n"
    "2020-01-30 02:00:00\tbattery_charged_off\n2020-01-30 03:00:00\tbattery_charged_on\n2020-01-30 03:30:00\tscreen_off\n"
)


def phones(messages=MESSAGES, **more):
    return json.dumps({"0": {"guid": "g", "model": "m", "messages": messages}} | more)


def test_flash_phones_are_there_while_all_the_states_hold(tmp_path):
    path = file(tmp_path, "state_traces.json", phones())
    table = imported("flash-states", path, when="charging", gap_s=0.0)
    hours = [
        (a / HOUR, b / HOUR) for a, b in zip(table.columns["start_s"], table.columns["stop_s"], strict=True)
    ]
    assert hours == [(18, 26), (27, 27.5)]
    assert table.facts["clock"].startswith("time 0 is 2020-01-29 00:00:00")
    table = imported("flash-states", path, when="charging, wifi,locked", period_s=26.5 * HOUR)
    hours = [
        (a / HOUR, b / HOUR) for a, b in zip(table.columns["start_s"], table.columns["stop_s"], strict=True)
    ]
    assert hours == [(19, 20), (25, 26)]
    assert table.facts["there"] == "while charging and wifi and locked"
    assert read_window_table(written(table, tmp_path)).period_s == 26.5 * HOUR


FLASH = [
    (
        phones("2020-01-29 18:00:00\tdance\n"),
        "phone 0 message 1: is no event (got '2020-01-29 18:00:00\\tdance')",
    ),
    (phones("2020-01-29 18:00:00 wifi\n"), "phone 0 message 1: is no event"),
    (
        phones("2020-13-29 18:00:00\twifi\n"),
        "phone 0 message 1: time: is no time (got '2020-13-29 18:00:00')",
    ),
    (phones("29.01.2020\twifi\n"), "phone 0 message 1: time: is no time (got '29.01.2020')"),
    (
        phones("2020-01-29 18:00:00\tlots%\n"),
        "phone 0 message 1: battery: must be a finite number (got 'lots')",
    ),
    (
        phones("2020-01-29 18:00:00\twifi\n2020-01-29 17:00:00\t4g\n"),
        "phone 0 message 2: time: must not be before the one above",
    ),
    (phones("\n"), ": has no event"),
    (phones(7), "phone 0: messages: must be text (got 7)"),
    (phones(b={"guid": "g"}), "phone b: messages: is missing"),
    (phones(b=[1]), "phone b: must be a mapping"),
    ("[1]", ": is not a mapping of phones (got 'a list')"),
    (phones()[:-9], "row 1: is not JSON"),
    ('{"a": ' * 100_000, ": is nested too deeply"),
]


@pytest.mark.parametrize(("text", "said"), FLASH)
def test_broken_flash_states_are_refused_by_phone_and_message(tmp_path, text, said):
    assert refused("flash-states", file(tmp_path, "s.json", text), when="charging").startswith(said)


def test_flash_speeds_become_networks_in_kilobytes_a_second(tmp_path):
    user = {"down_u": 5000, "down_sigma": 2000, "up_u": 1000.0, "up_sigma": 200.0}
    path = file(tmp_path, "speed_distri.json", json.dumps({"e6899215": user}))
    table = imported("flash-speeds", path, licence="BSD-2-Clause")
    networks = read_networks(written(table, tmp_path))
    assert (networks.down_bytes_per_s[0], networks.up_bytes_per_s[0]) == pytest.approx((5e6, 1e6))
    assert networks.laws[0].within_cv == pytest.approx(0.3)
    for field, value, said in (
        ("down_u", 0, "greater than 0"),
        ("up_sigma", -1, "at least 0"),
        ("up_u", "x", "finite"),
    ):
        broken = file(tmp_path, "b.json", json.dumps({"u": user | {field: value}}))
        assert refused("flash-speeds", broken).startswith(f"phone u: {field}: must be")
        assert said in refused("flash-speeds", broken)


# options and the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("sabr", {}, "FORMAT: no such format (got 'sabr')"),
        ("sabre", {}, "--direction: needs to know whose rate it is"),
        ("sabre", {"direction": "left"}, "--direction: no such choice (got 'left')"),
        ("sabre", {"direction": "up", "bin_s": 2.0}, "--bin-s: has no meaning for sabre"),
        ("mahimahi", {"direction": "up", "bin_s": 0.0}, "--bin-s: must be greater than 0 and finite (got 0.0)"),
        ("mahimahi", {"direction": "up", "bin_s": float("nan")}, "--bin-s: must be greater than 0 and finite"),
        ("flash-states", {}, "--when: is needed for flash-states"),
        ("flash-states", {"when": "charging,idle"}, "--when: no such state (got 'idle')"),
        ("flash-speeds", {"when": "charging"}, "--when: has no meaning for flash-speeds"),
        ("fedscale-behaviour", {"gap_s": -1.0}, "--gap-s: must be at least 0"),
    ],
)  # fmt: skip
def test_options_that_are_missing_or_mean_nothing_are_refused(tmp_path, name, options, said):
    path = file(tmp_path, "x.json", json.dumps([entry()]))
    assert refused(name, path, **options).startswith(said)


def test_capacity_needs_to_know_what_it_becomes_and_what_was_measured(tmp_path):
    path = file(tmp_path, "p", pickle.dumps(CAPACITY))
    assert refused("fedscale-capacity", path).startswith("--table: is needed")
    assert refused("fedscale-capacity", path, table="devices").startswith("--gflop-per-sample: is needed")
    head = refused("fedscale-capacity", path, table="networks", gflop_per_sample=0.6)
    assert head.startswith("--gflop-per-sample: has no meaning")


def test_files_must_be_there_one_or_as_many_as_fit_and_of_different_names(tmp_path):
    path = file(tmp_path, "x.json", json.dumps([entry()]))
    assert refused("sabre", tmp_path / "none.json", **DOWN) == ": no such file"
    assert "--up: must be given 1 times (got 2)" in refused("sabre", path, up=(path, path))
    assert "--direction: has no meaning beside --up" in refused("sabre", path, up=(path,), direction="up")
    assert "two files have one name (got 'x')" in refused("sabre", [path, path], **DOWN)
    assert "takes one file (got 2)" in refused("flash-speeds", [path, path])


def test_a_name_that_a_table_cannot_hold_is_refused(tmp_path):
    path = file(tmp_path, "p", pickle.dumps({"#1": CAPACITY[7]}))
    assert "must not be empty nor begin with # (got '#1')" in refused(
        "fedscale-capacity", path, table="networks"
    )


def test_provenance_is_kept_on_one_line_each(tmp_path):
    path = file(tmp_path, "x.json", json.dumps([entry()]))
    table = imported("sabre", path, licence="BSD-2-Clause\n# evil: 1", source="a\nlab", **DOWN)
    text = written(table, tmp_path).read_text().splitlines()
    assert text[:2] == ["# source: a lab", "# licence: BSD-2-Clause # evil: 1"]
    assert text[2].startswith("# imported: sabre, 1 file, sha256 ")
    assert imported("sabre", path, **DOWN).facts["licence"] == "not stated"


def test_the_provenance_of_several_files_names_them_and_joins_what_they_say(tmp_path):
    paths = [
        file(tmp_path, f"{k}.csv", f"# licence: {licence}\ntime_s,kbps\n0,8\n1,8\n")
        for k, licence in enumerate(("MIT", "CC0", "MIT", "CC0"))
    ]
    facts = imported("kbps", paths, **DOWN).facts
    assert (facts["source"], facts["licence"]) == ("0.csv, 1.csv, 2.csv and 1 more", "MIT; CC0")
    assert facts["imported"].startswith("kbps, 4 files, sha256 ")


def test_csv_and_parquet_hold_the_same(tmp_path):
    path = file(tmp_path, "x.json", json.dumps([entry(duration_ms=1000 / 3), entry(bandwidth_kbps=0.1)]))
    table = imported("sabre", path, licence="MIT", **DOWN)
    one, other = (links(table, tmp_path, suffix).traces["down"][0] for suffix in ("csv", "parquet"))
    assert np.array_equal(one.times_s, other.times_s)
    assert np.array_equal(one.bytes_per_s, other.bytes_per_s)


# the command ---------------------------------------------------------------------------------------------


def test_the_command_writes_a_table_says_what_it_read_and_never_replaces(tmp_path, capsys):
    path = file(tmp_path, "log.json", json.dumps([entry(), entry(bandwidth_kbps=1600)]))
    out = tmp_path / "lte.csv"
    line = ["profiles", "import", "sabre", str(path), "--direction", "down", "--out", str(out)]
    assert call([*line, "--licence", "BSD-2-Clause"]) == 0
    said = capsys.readouterr().out
    for words in ("traces: 1", "rows: 3", "hours: 0.0008333 in all", "down_mbps", "licence: BSD-2-Clause"):
        assert words in said
    assert call(["profiles", "check", str(out)]) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert call(line) == 2
    assert (
        capsys.readouterr().err
        == f"error: {out}: exists already\n  fix: choose another --out, or remove it\n"
    )
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.json", "lte.csv"]


def test_the_command_warns_when_no_licence_is_stated(tmp_path, capsys):
    path = file(tmp_path, "a", "1\n")
    assert (
        call(
            [
                "profiles",
                "import",
                "mahimahi",
                str(path),
                "--direction",
                "up",
                "--out",
                str(tmp_path / "o.parquet"),
            ]
        )
        == 0
    )
    assert "no licence is stated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "said"), [("o.txt", "not a table (got '.txt')"), ("none/o.csv", "its folder does not exist")]
)
def test_a_table_that_cannot_be_written_leaves_nothing_behind(tmp_path, capsys, out, said):
    path = file(tmp_path, "a", "1\n")
    assert (
        call(["profiles", "import", "mahimahi", str(path), "--direction", "up", "--out", str(tmp_path / out)])
        == 2
    )
    assert said in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path):
    (tmp_path / "o.csv").symlink_to(tmp_path / "elsewhere.csv")
    table = imported("mahimahi", file(tmp_path, "a", "1\n"), **DOWN)
    with pytest.raises(ProfileError, match="exists already"):
        table.write(tmp_path / "o.csv")
    assert not (tmp_path / "elsewhere.csv").exists()


def test_the_help_names_every_format(capsys):
    assert call(["profiles", "import", "-h"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Example: fedsim profiles import" in out
    for name in FORMATS:
        assert name in out


def test_a_new_file_is_a_new_format(monkeypatch, tmp_path):
    """No list is edited: a module beside the others that has `FORMATS` is found."""
    import fedsim.importers as package

    (tmp_path / "mine.py").write_text(
        "from fedsim.importers.kbps import read\nfrom fedsim.importers.traces import of_curves\n"
        'FORMATS = {"mine": of_curves("mine", read, "last_s")}\n'
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    assert list(package.formats()) == [*FORMATS, "mine"]
