"""Logs as their authors published them: G-NetTrack, Ghent and Lumos5G, by hand; and files of another format than was said."""

from __future__ import annotations

import numpy as np
import pytest
from worlds.raw_logs import EXAMPLES, G_NETTRACK, GHENT, HEADER, LUMOS, LUMOS_HEADER, lumos, second

from fedsim.cli.app import call
from fedsim.devices.table_checks import check
from fedsim.errors import ProfileError
from fedsim.importers import import_table
from fedsim.importers.options import Options
from fedsim.importers.recognise import format_of
from fedsim.network.rate_tables import read_rate_table

DOWN = {"direction": "down"}


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return path


def imported(name, path, **options):
    return import_table(name, [path], Options(**options))


def traces(name, path, tmp_path, **options):
    out = tmp_path / "out.csv"
    imported(name, path, **options).write(out)
    assert check(out) == []
    return read_rate_table(out, "loop")


def refused(name, path, **options):
    with pytest.raises(ProfileError) as caught:
        imported(name, path, **options)
    problem = caught.value.message
    assert problem.fix
    assert "\n" not in problem.headline + problem.fix
    return problem


# G-NetTrack Pro ------------------------------------------------------------------------------------------


def test_both_bitrates_of_a_log_are_read_and_hold_until_the_next_row(tmp_path):
    table = traces("g-nettrack", file(tmp_path, "B_2019.csv", G_NETTRACK), tmp_path, direction="both")
    down, up = (table.traces[way][0] for way in ("down", "up"))
    assert table.names == ("B_2019",)
    assert down.times_s.tolist() == up.times_s.tolist() == [0, 1, 4, 5]
    assert [down.rate(t) for t in (0, 1, 4)] == [1000, 3000, 0]
    assert [up.rate(t) for t in (0, 1, 4)] == [10_000, 0, 2000]


@pytest.mark.parametrize(("way", "mean"), [("down", (1000 + 3 * 3000 + 0) / 5), ("up", (10_000 + 2000) / 5)])
def test_one_bitrate_of_a_log_is_read_by_its_name(tmp_path, way, mean):
    table = traces("g-nettrack", file(tmp_path, "a.csv", G_NETTRACK), tmp_path, direction=way)
    assert list(table.traces) == [way]
    assert table.traces[way][0].mean_bytes_per_s == pytest.approx(mean)


def test_midnight_is_a_second_like_any_other(tmp_path):
    rows = [HEADER, second("2019.12.31_23.59.59", 8, 8), second("2020.01.01_00.00.01", 8, 8)]
    trace = traces("g-nettrack", file(tmp_path, "a.csv", "\n".join(rows)), tmp_path, **DOWN).traces["down"][0]
    assert trace.times_s.tolist() == [0, 2, 3]


def broken(old, new):
    return G_NETTRACK.replace(old, new)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (broken("13.40.08", "13:40:08"), "row 5: Timestamp: must be a time as 2019.12.16_13.40.04 (got '2019.12.16_13:40:08')"),
        (broken("13.40.08", "13.40.03"), "row 5: Timestamp: must not be before row 4 (got '2019.12.16_13.40.03')"),
        (broken("12.16_13.40.08", "13.16_13.40.08"), "row 5: Timestamp: must be a time"),
        (broken(",-,16,0,", ",-,x,0,"), "row 3: DL_bitrate: must be a finite number (got 'x')"),
        (broken(",-,16,0,", ",-,-,0,"), "row 3: DL_bitrate: must be a finite number (got '-')"),
        (broken(",-,16,0,", ",-,-16,0,"), "row 3: DL_bitrate: must be at least 0 (got -16.0)"),
        (broken("DL_bitrate", "DL"), ": DL_bitrate: the column is missing"),
        (broken("2019.12.16_13.40.08", ""), "row 5: Timestamp: is empty"),
        (HEADER, ": has no rows"),
    ],
)  # fmt: skip
def test_a_broken_log_is_refused_by_row_and_column(tmp_path, text, said):
    path = file(tmp_path, "a.csv", text)
    assert (
        refused("g-nettrack", path, **DOWN)
        .headline.removeprefix(str(path))
        .removeprefix(" ")
        .startswith(said)
    )


# Ghent ---------------------------------------------------------------------------------------------------


def test_the_example_of_the_ghent_set(tmp_path):
    trace = traces("ghent", file(tmp_path, "report_bus_0001.log", GHENT), tmp_path, **DOWN).traces["down"][0]
    assert trace.times_s.tolist() == pytest.approx([0, 1, 2.001, 3, 4])
    assert trace.bytes_per_s[:4].tolist() == pytest.approx(
        [2_493_100, 2_763_504 / 1.001, 2_728_896 / 0.999, 1_954_600]
    )
    carried = np.sum(np.diff(trace.times_s) * trace.bytes_per_s[:-1])
    assert carried == pytest.approx(2_493_100 + 2_763_504 + 2_728_896 + 1_954_600)


def test_time_that_no_line_accounts_for_carries_nothing(tmp_path):
    """Two seconds, then ten of which the line accounts for one: nine seconds without a byte."""
    text = "1 1000 0 0 8000 1000\n2 2000 0 0 4000 1000\n3 12000 0 0 2000 1000\n"
    trace = traces("ghent", file(tmp_path, "a.log", text), tmp_path, **DOWN).traces["down"][0]
    assert trace.times_s.tolist() == [0, 1, 2, 11, 12]
    assert trace.bytes_per_s[:4].tolist() == [8000, 4000, 0, 2000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": is empty"),
        ("1 2 3 4 5\n", "row 1: needs 6 cells (got 5)"),
        (
            "1 1000 0 0 8 1000\n2 900 0 0 8 1000\n",
            "row 2: elapsed ms: must be after row 1 (1000 ms) (got 900)",
        ),
        ("1 1000 0 0 8 0\n", "row 1: ms: must be greater than 0 (got 0.0)"),
        ("1 1000 0 0 -8 1000\n", "row 1: bytes: must be at least 0 (got -8.0)"),
        ("1 x 0 0 8 1000\n", "row 1: elapsed ms: must be a finite number (got 'x')"),
        ("1 1000 0 0 0 1000\n", ": never carries anything"),
        (b"\xff\xfe1", ": is not UTF-8 text"),
    ],
)
def test_a_broken_ghent_log_is_refused_by_row(tmp_path, text, said):
    path = file(tmp_path, "a.log", text)
    assert refused("ghent", path, **DOWN).headline.removeprefix(str(path)).removeprefix(" ").startswith(said)


# Lumos5G -------------------------------------------------------------------------------------------------


def test_every_run_is_a_trace_and_one_that_carries_nothing_is_left_out(tmp_path):
    table = traces("lumos5g", file(tmp_path, "Lumos5G-v1.0.csv", LUMOS), tmp_path, **DOWN)
    assert table.names == ("Lumos5G-v1.0-1", "Lumos5G-v1.0-2")
    first, second_run = table.traces["down"]
    assert first.times_s.tolist() == [0, 1, 3, 4]
    assert [first.rate(t) for t in (0, 1, 3)] == [1e6, 2e6, 0]
    assert second_run.mean_bytes_per_s == 1e7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LUMOS.replace(lumos(1, 4, 0), lumos(1, 2, 0)), "row 4: seq_num: must be after row 3 of run 1 (2) (got 2.0)"),
        (LUMOS.replace(lumos(2, 1, 80), lumos(2, 1, "")), "row 5: Throughput: is empty"),
        (LUMOS.replace(lumos(2, 1, 80), lumos("", 1, 8)), "row 5: run_num: is empty"),
        (LUMOS.replace("Throughput", "Speed"), ": Throughput: the column is missing"),
        ("\n".join([LUMOS_HEADER, lumos(1, 1, 0)]), ": never carries anything"),
    ],
)  # fmt: skip
def test_a_broken_lumos_file_is_refused_by_row_and_column(tmp_path, text, said):
    path = file(tmp_path, "a.csv", text)
    assert (
        refused("lumos5g", path, **DOWN).headline.removeprefix(str(path)).removeprefix(" ").startswith(said)
    )


def test_a_file_of_several_traces_goes_with_no_second_file(tmp_path):
    path = file(tmp_path, "a.csv", LUMOS)
    assert "--up: has no meaning for lumos5g" in refused("lumos5g", path, up=(path,)).headline


# of which format a file is -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_is_known_by_its_first_lines(tmp_path, name):
    assert format_of(file(tmp_path, *EXAMPLES[name])) == name


@pytest.mark.parametrize(
    "text", ["", "hello\n", "a,b\n1,2\n", "1 2 3\n", "{}", b"\x80\x04}", b"\xff\xfe\x00"]
)
def test_a_file_of_no_known_format_is_not_guessed_at(tmp_path, text):
    assert format_of(file(tmp_path, "x", text)) is None


@pytest.mark.parametrize(
    "wanted", ["kbps", "pensieve", "ghent", "mahimahi", "lumos5g", "g-nettrack", "sabre"]
)
@pytest.mark.parametrize("real", ["g-nettrack", "ghent", "lumos5g", "kbps", "pensieve", "sabre"])
def test_who_names_another_format_is_told_which_it_is(tmp_path, wanted, real):
    if wanted == real:
        return
    path = file(tmp_path, *EXAMPLES[real])
    problem = refused(wanted, path, **DOWN)
    assert problem.what.startswith(f"is not {wanted}, and looks like {real}: ")
    assert problem.fix == f"fedsim profiles import {real} {path.name}"


def test_the_command_says_it_too(tmp_path, capsys):
    path = file(tmp_path, *EXAMPLES["g-nettrack"])
    assert (
        call(
            ["profiles", "import", "kbps", str(path), "--direction", "down", "--out", str(tmp_path / "o.csv")]
        )
        == 2
    )
    assert "looks like g-nettrack" in capsys.readouterr().err


def test_a_raw_log_as_the_rates_of_a_population_is_told_of_the_importer(tmp_path):
    with pytest.raises(ProfileError, match="fedsim profiles import"):
        read_rate_table(file(tmp_path, *EXAMPLES["g-nettrack"]), "loop")
