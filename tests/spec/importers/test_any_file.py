"""Any file at all given to any importer of rates: a table that can be used, or one sentence with a way out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import experiment
from worlds.cases import tried
from worlds.raw_logs import EXAMPLES

from fedsim.devices.table_checks import check
from fedsim.errors import FedsimError, ProfileError
from fedsim.importers import import_table
from fedsim.importers.options import Options
from fedsim.network.rate_tables import read_rate_table
from fedsim.runs.simulation import simulate

NAMES = ("g-nettrack", "ghent", "lumos5g", "kbps", "pensieve", "mahimahi", "sabre")
SUFFIX = {name: "." + EXAMPLES[name][0].rpartition(".")[2] for name in NAMES}
PIECES = [
    *("", " ", "-", "nan", "inf", "-inf", "-1", "-0", "0", "0.0", "1", "1e308", "1e-308", "5e-324", "1e400", "1e10"),
    *("9" * 40, "9" * 5000, "1_0", "0x10", "3,5", "1.2.3", "true", "null", "[]", "{}", "\u0663", "\u00e9", "\ufeff"),
    *("\x00", '"', '""', "'", ",", ";", "\t", "\r", "\n", "#", "# kbps: 1", "2019.12.16_13.40.04", "9999.99.99_99.99.99"),
    *("Timestamp", "time_s,kbps", "run_num", '{"duration_ms": 1}', "[" * 3000),
]  # fmt: skip
RATES = "trace,time_s,down_kbps\na,0,8\na,5,16\nb,0,8\nb,1,8\n"
CASES = settings(
    deadline=timedelta(seconds=10),
    max_examples=tried(400),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damaged(draw, example):
    """A file that was right, with pieces of it replaced, dropped, doubled or moved, or nothing like it."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
        )
    lines = example.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        k = draw(st.integers(0, max(0, len(lines) - 1)))
        line = lines[k] if lines else ""
        what = draw(st.sampled_from(["cell", "cell", "cell", "cut", "insert", "drop", "double", "swap"]))
        if what == "cell":
            mark = "," if "," in line else " "
            cells = line.split(mark)
            cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(PIECES))
            lines[k : k + 1] = [mark.join(cells)]
        elif what == "cut":
            lines[k : k + 1] = [line[: draw(st.integers(0, len(line)))]]
        elif what == "insert":
            at = draw(st.integers(0, len(line)))
            lines[k : k + 1] = [line[:at] + draw(st.sampled_from(PIECES)) + line[at:]]
        elif what == "drop":
            del lines[k : k + 1]
        elif what == "double":
            lines[k:k] = [line] * draw(st.integers(1, 3))
        elif lines:
            lines[k], lines[0] = lines[0], lines[k]
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode("utf-8", "surrogatepass")


def refused_in_one_sentence(act):
    """Do something; whether it was refused, which must be one line that says what is wrong, and one what to do."""
    try:
        act()
    except ProfileError as problem:
        said = problem.message
    else:
        return False
    assert said.fix, said
    assert "\n" not in said.headline + said.fix
    assert not said.others
    return True


def usable(path, at_end="loop"):
    """Use every trace of a table a little."""
    for traces in read_rate_table(path, at_end).traces.values():
        for trace in traces:
            assert trace.mean_bytes_per_s > 0
            assert trace.next_change(0.0) > 0


@pytest.mark.parametrize("name", NAMES)
@CASES
@given(data=st.data())
def test_a_damaged_file_is_read_whole_or_refused_in_one_sentence(name, data, tmp_path):
    real = data.draw(st.sampled_from([name, name, name, *NAMES]))
    path = tmp_path / f"x{SUFFIX[name]}"
    path.write_bytes(data.draw(damaged(EXAMPLES[real][1])))
    direction = data.draw(st.sampled_from(["down", "up", "both"]))
    more = {}
    if name == "mahimahi":
        more["bin_s"] = data.draw(st.sampled_from([None, 1e-9, 0.001, 0.3, 1.0, 1e9]))
    if name == "kbps":
        more["last_s"] = data.draw(st.sampled_from([None, 1e-9, 2.0]))
    out = tmp_path / "out.csv"
    out.unlink(missing_ok=True)
    options = Options(direction=direction, **more)
    if not refused_in_one_sentence(lambda: import_table(name, [path], options).write(out)):
        assert check(out) == []
        usable(out)


@CASES
@given(data=st.data())
def test_a_damaged_table_of_rates_is_read_whole_or_refused_in_one_sentence(data, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(data.draw(damaged(RATES)))
    at_end = data.draw(st.sampled_from(["loop", "hold", "fail"]))
    if not refused_in_one_sentence(lambda: usable(path, at_end)) and at_end == "loop":
        assert check(path) == []


def test_a_name_with_a_line_break_is_said_on_one_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'trace,time_s,down_kbps\n"a\nb",5,16\nc,0,8\nc,1,8\n')
    assert refused_in_one_sentence(lambda: usable(path))


@settings(CASES, max_examples=tried(150), deadline=timedelta(seconds=20))
@given(data=st.data())
def test_a_run_on_damaged_rates_ends_or_says_why_not(data, tmp_path):
    """An hour of virtual time at most, whatever the rates are."""
    path = tmp_path / "x.csv"
    path.write_bytes(data.draw(damaged(RATES)))
    at_end = data.draw(st.sampled_from(["loop", "hold", "fail"]))
    sharing = data.draw(st.sampled_from(["private", "max-min"]))
    population = {"preset": "homogeneous", "clients": 3, "rates": str(path), "rates_at_end": at_end}
    charged = {"kind": "quadratic", "charge_as": {"preset": "gpt2", "r": 8, "tokens_per_visit": 20_000}}
    asked = experiment(
        {"kind": "buffered", "concurrency": 2, "buffer": 1},
        3,
        population=population,
        network={"sharing": sharing},
        budget={"time_s": 3600.0},
        task=charged,
    )
    try:
        assert simulate(asked, timeline_only=True).info.status == "done"
    except FedsimError as problem:
        said = problem.message
    else:
        return
    assert said.fix
