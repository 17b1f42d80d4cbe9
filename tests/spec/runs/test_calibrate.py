"""A machine measured at the real task: the row that comes out, its arithmetic, and that it can be used."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

import hetero_profiles
from fedsim.cli.app import call
from fedsim.clock.plan import prepare
from fedsim.config.devices import ComputeConfig
from fedsim.config.loading import changed
from fedsim.config.population import PopulationConfig
from fedsim.cost.formulas import train_flops
from fedsim.cost.work import Work
from fedsim.devices.population import draw_devices, with_software
from fedsim.devices.stacks.memory_models import memory_models
from fedsim.devices.stacks.table import read_stacks
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_devices
from fedsim.errors import HostError, ProfileError
from fedsim.records.verify import verify
from fedsim.runs import calibrate, measured_stack
from fedsim.runs.calibrate import Measured
from fedsim.runs.simulation import simulate

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
        [
            *("profiles", "calibrate", "--repeats", "1", "--steps", "1", "--out", str(out), "--name", "box"),
            *("-s", "local.batch=1"),
        ]
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


NETWORKS = hetero_profiles.locate("fedscale_wifi.csv")
BATCHES = [
    replace(DONE, batch=n, flops=n * 2e8, step_s=(max(0.02, n * 0.01),), layer_passes=60.0)
    for n in (1, 4, 16)
]


def test_a_machine_and_its_software_are_written_as_hardware_and_a_stack(tmp_path):
    devices, stacks = tmp_path / "hardware.csv", tmp_path / "stacks.csv"
    calibrate.write(measured_stack.hardware_table(BATCHES[0], "box", "laptop-n100", 80e9), devices)
    calibrate.write(measured_stack.stack_table(BATCHES, "box", 80e9), stacks)
    assert check(devices) == check(stacks) == []
    stack = read_stacks(stacks).stacks["box"]
    law = measured_stack.machine_law(BATCHES)
    assert stack.share_of_peak * 80e9 == pytest.approx(law.flops_per_s, rel=1e-5)
    assert (stack.launch_s, stack.tokens) == (pytest.approx(law.launch_s, rel=1e-5), (64, 1024))
    assert stack.memory == memory_models()["pytorch-float32"]
    asked = PopulationConfig(devices=devices, networks=NETWORKS, clients=5)
    people = with_software(draw_devices(asked, 5, seed=0), ComputeConfig(stacks=stacks), 0)
    assert set(people.laws.stack) == {"box"}
    for one in BATCHES:
        work = Work(0, 0, one.flops, 0.0, 64, 0, 0, layer_passes=one.layer_passes)
        seconds = people.profile(0).law.seconds(work, float(people.flops_per_s[0]))
        assert max(seconds / one.median_s, one.median_s / seconds) <= law.worst * (1 + 1e-4)


def test_a_stack_that_nobody_has_given_is_refused_where_it_is_needed(tmp_path):
    devices = tmp_path / "hardware.csv"
    calibrate.write(measured_stack.hardware_table(BATCHES[0], "box", "laptop-n100", 80e9), devices)
    asked = PopulationConfig(devices=devices, networks=NETWORKS, clients=5)
    people = draw_devices(asked, 5, seed=0)
    with pytest.raises(ProfileError, match="no such stack"):
        with_software(people, ComputeConfig(), 0)


def test_calibrate_writes_both_tables_and_a_run_over_them_takes_the_measured_time(tmp_path, capsys):
    devices, stacks = tmp_path / "hardware.csv", tmp_path / "stacks.csv"
    options = ["--repeats", "1", "--steps", "1", "--name", "box", "-s", "local.batch=1"]
    assert call(["profiles", "calibrate", "--out", str(devices), "--stacks", str(stacks), *options]) == 0
    printed = capsys.readouterr().out
    assert devices.read_text("utf-8") + stacks.read_text("utf-8") in printed
    assert "# law: " in printed
    assert check(devices) == check(stacks) == []
    settings = changed(
        calibrate.default(),
        [
            f"population={{devices: {devices}, networks: {NETWORKS}, clients: 4}}",
            f"compute.stacks={stacks}",
            "protocol={kind: synchronous, cohort: 2}",
        ],
    )
    run = simulate(settings, timeline_only=True)
    assert run.info.population["stacks_run"] == "box 1"
    assert run.info.charged.laws[0].stack == "box"
    assert verify(run) == []
    assert call(["profiles", "calibrate", "--stacks", str(stacks)]) == 3  # said before anything is measured


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "my box", "--stacks", "s.csv"], "has a blank or a comma in its name"),
        (["--name", "auto", "--stacks", "s.csv"], "means what a device's row says"),
        (["--name", "a\nb"], "is no name of a row"),
        (["--name", " "], "is no name of a row"),
        (["--like", "laptop-n10"], "no such device"),
        (["--like", "laptop-n10", "--stacks", "s.csv"], "no such device"),
    ],
)
def test_names_that_no_row_can_have_are_refused_before_anything_is_measured(
    monkeypatch, capsys, arguments, said
):
    def measured(*_args, **_settings):
        raise AssertionError("measured")

    monkeypatch.setattr(measured_stack, "measure_batches", measured)
    assert call(["profiles", "calibrate", *arguments]) == 2
    assert said in capsys.readouterr().err
