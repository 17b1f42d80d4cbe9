"""A machine measured at the real task: the row that comes out, its arithmetic, and that it can be used."""

from __future__ import annotations

import csv

import pytest

from fedsim.cli.app import call
from fedsim.clock.plan import prepare
from fedsim.cost.formulas import train_flops
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_devices
from fedsim.errors import HostError, ProfileError
from fedsim.runs import calibrate
from fedsim.runs.calibrate import Measured

DONE = Measured(
    model="tiny",
    sequence=64,
    batch=8,
    flops=2e9,
    step_s=(0.1, 0.2, 0.4),
    overhead_s=0.05,
    memory_bytes=8_000_000_000,
    memory_bytes_per_s=12.5e9,
)


def test_speed_is_flops_over_seconds_and_its_spread_is_the_other_way_round():
    assert DONE.median_s == 0.2
    assert DONE.flops_per_s(0.5) == pytest.approx(10e9)
    assert DONE.flops_per_s(0.05) == pytest.approx(2e9 / 0.38)
    assert DONE.flops_per_s(0.95) == pytest.approx(2e9 / 0.11)


def test_a_row_says_what_was_measured_and_what_was_taken_over():
    row = calibrate.row(DONE, "mine", "laptop-n100")
    assert (row["device"], row["class"], row["eff_lora_gflop_per_s"]) == ("mine", "laptop", "10")
    assert (row["ram_gb"], row["memory_bandwidth_gb_per_s"]) == ("8", "12.5")
    assert (row["train_w"], row["idle_w"], row["battery_wh"]) == ("20", "5", "42")
    assert "tiny, batch 8 of 64 tokens, median 0.2 s a step of 3 visits, 0.05 s of it fixed" in row["source"]
    assert "class, power and battery not measured, as laptop-n100" in row["source"]
    assert "cpu_quota" not in row


def test_rows_with_and_without_a_quota_stand_in_one_table(tmp_path):
    path = tmp_path / "devices.csv"
    rows = [calibrate.row(DONE, "whole", "pi-4b"), calibrate.row(DONE, "quarter", "pi-4b", quota=0.25)]
    calibrate.write(calibrate.table(rows), path)
    assert check(path) == []
    table = read_devices(path)
    assert table.cpu_quota.tolist() == [1.0, 0.25]
    assert table.cpu_period_s.tolist() == [0.1, 0.1]
    assert "0.2 s of CPU a step" in rows[1]["source"]


def test_the_default_task_is_measured_and_its_row_can_be_simulated(tmp_path, capsys):
    out = tmp_path / "mine.csv"
    code = call(
        ["profiles", "calibrate", "--repeats", "3", "--steps", "1", "--out", str(out), "--name", "box"]
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(out.read_text("utf-8"))
    assert check(out) == []
    table = read_devices(out)
    assert table.device.tolist() == ["box"]
    assert 1e6 < table.flops_per_s[0] < 1e14
    assert str(tmp_path) not in printed
    assert call(["profiles", "calibrate", "--out", str(out)]) == 3  # said before anything is measured


def test_three_batches_are_measured_as_rows_that_can_be_sent_and_the_law_that_they_tell(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    options = ["--repeats", "1", "--steps", "1", "--hardware", "Toaster 9", "-s", "local.batch=1"]
    assert call(["profiles", "contribute", "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert check(out) == []
    lines = [line for line in out.read_text("utf-8").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert [row["tokens_a_pass"] for row in rows] == ["64", "256", "1024"]
    assert {(row["hardware"], row["quality"], row["fit"]) for row in rows} == {("Toaster 9", "own", "no")}
    assert float(rows[2]["tokens_per_s"]) * float(rows[2]["s_per_step"]) == pytest.approx(1024, rel=1e-4)
    assert "# law: " in printed
    assert "GFLOP/s with many tokens" in printed


@pytest.fixture(scope="module")
def plan():
    return prepare(calibrate.default())


def test_the_flops_are_those_that_the_clock_would_charge(plan):
    found = calibrate.measure(plan, repeats=2, steps=1)
    assert found.flops == train_flops(plan.task.shape, 8 * 64)
    assert (found.batch, found.sequence, len(found.step_s)) == (8, 64, 2)
    assert found.model == "builtin"
    assert 0 <= found.overhead_s < found.median_s
    assert found.memory_bytes_per_s > 1e8


def test_cpu_time_is_what_counts_under_a_quota(plan, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr("fedsim.runs.calibrate.time.process_time", lambda: 3.0 * next(ticks))
    found = calibrate.measure(plan, repeats=2, steps=2, quota=True)
    assert found.step_s == (1.5, 1.5)  # 3 s of CPU a visit of two steps
    assert found.overhead_s == pytest.approx(1.5)


def test_a_device_to_be_like_must_exist_and_a_file_is_not_overwritten(tmp_path):
    with pytest.raises(ProfileError, match=r"no such device(?s:.*)did you mean 'laptop-n100'"):
        calibrate.row(DONE, "mine", "laptop-n10")
    path = tmp_path / "devices.csv"
    calibrate.write(calibrate.table([calibrate.row(DONE, "mine", "laptop-n100")]), path)
    with pytest.raises(HostError, match="the file exists"):
        calibrate.write("", path)
