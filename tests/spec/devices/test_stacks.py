"""Speed is hardware x software x work: the law of a step by hand, who runs what, and what is not known of it."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worlds import device, experiment
from worlds.shipped_tables import said_of_changed

import hetero_profiles
from fedsim.checks.blocks import misfits
from fedsim.checks.notices import notices
from fedsim.clock.plan import prepare
from fedsim.config.devices import ComputeConfig
from fedsim.config.population import PopulationConfig
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import expanded_bytes, layer_passes
from fedsim.cost.work import Work
from fedsim.devices.compute import training
from fedsim.devices.population import draw, draw_devices, with_software
from fedsim.devices.presets import says_what_devices_are
from fedsim.devices.schemas.template import template
from fedsim.devices.stacks.fitting import TimedPass, law_of
from fedsim.devices.stacks.law import StepLaw, soft_maximum
from fedsim.devices.stacks.table import read_stacks
from fedsim.devices.summary import trust
from fedsim.devices.table_checks import check
from fedsim.errors import ProfileError
from fedsim.records.verify import verify
from fedsim.report.setup import section
from fedsim.runs.simulation import simulate

SYNC = {"kind": "synchronous", "cohort": 2}
WORK = Work(0, 0, 6e12, 0.0, 1000, 0, 0, steps=10, moved_bytes=4e9, layer_passes=400.0, expanded_bytes=1e9)
PEOPLE = draw_devices("mixed_edge_2026", 3000, seed=0)


# the law ----------------------------------------------------------------------------------------


def test_with_many_tokens_a_step_is_its_arithmetic_and_with_few_its_launches():
    law = StepLaw("x", launch_s=0.01)
    assert law.seconds(replace(WORK, layer_passes=0.0), 1e12) == 6.0
    assert law.seconds(replace(WORK, flops=0.0), 1e12) == 4.0  # 400 layer passes of 10 ms
    assert law.seconds(WORK, 1e12) == pytest.approx((6.0**4 + 4.0**4) ** 0.25)


def test_time_no_longer_falls_with_the_tokens_where_launches_are_all_there_is():
    law = StepLaw("x", launch_s=0.01)
    few, fewer = (law.seconds(replace(WORK, flops=flops), 1e12) for flops in (1e12, 0.5e12))
    assert 4.0 < fewer < few < 1.001 * 4.0
    many, more = (law.seconds(replace(WORK, flops=flops), 1e12) for flops in (1e14, 2e14))
    assert more == pytest.approx(2 * many, rel=1e-5)


def test_a_step_takes_the_longer_of_arithmetic_and_memory_and_all_of_the_rest():
    law = StepLaw("x", moved_bytes_per_s=0.5e9, expanded_bytes_per_s=2e9, pass_overhead_s=0.1)
    assert law.seconds(WORK, 1e12) == 8.0 + 0.5 + 10 * 0.1  # 4 GB at 0.5 GB/s, 1 GB at 2 GB/s
    assert law.seconds(WORK, 1e11) == 60.0 + 0.5 + 1.0


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (3.0, 1e-9), (0.0, 0.0), (1e-200, 1e-200), (1e200, 3e199)])
def test_the_soft_maximum_is_between_the_larger_and_the_fourth_root_of_two_times_it(a, b):
    found = soft_maximum(a, b)
    assert max(a, b) <= found <= 2**0.25 * max(a, b) * (1 + 1e-15)
    assert found == soft_maximum(b, a)


def test_the_law_has_these_bits_on_every_processor():
    law = StepLaw("x", 0.0023, 0.25, 0.7 * 150e9, 0.116 * 150e9)
    assert law.seconds(WORK, 0.426 * 7e12).hex() == "0x1.25d5e042596b8p+2"  # as 50 decimals have it, too


def test_a_layer_is_passed_forward_backward_and_once_more_when_it_is_computed_again():
    def passes(**settings):
        return layer_passes(charged(ChargeAs(preset="gemma-3-270m", **settings), full=False))

    assert passes() == 2 * 18
    assert passes(checkpoint=True) == 3 * 18
    assert passes(adapted_layers=(16, 17)) == 18 + 2


def test_only_quantised_weights_are_unpacked():
    shape = charged(ChargeAs(preset="qwen-0.5b", weight_bytes=0.5), full=False)
    assert expanded_bytes(shape) == shape.matmul_params * 2.5 * 2
    assert expanded_bytes(replace(shape, weight_bytes=2.0)) == 0.0


def test_a_client_of_a_population_trains_by_the_law_of_its_stack():
    profile = replace(device(0, flops_per_s=1e12), law=StepLaw("x", launch_s=0.01))
    assert training(profile, WORK).duration_s == pytest.approx((6.0**4 + 4.0**4) ** 0.25)
    assert training(replace(profile, law=None), WORK).duration_s == 6.0


# who runs what ----------------------------------------------------------------------------------


def test_each_device_runs_what_its_row_says_in_its_shares():
    flagships = PEOPLE.device == "snapdragon-8-elite-phone"
    assert set(PEOPLE.laws.stack[flagships]) == {"cpp", "llama.cpp-phone"}
    assert np.mean(PEOPLE.laws.stack[flagships] == "cpp") == pytest.approx(0.5, abs=0.2)
    assert set(PEOPLE.laws.stack[PEOPLE.device == "apple-m3-pro"]) <= {"mlx"}


def test_speed_is_the_share_of_the_peak_that_the_stack_reaches():
    mac = int(np.flatnonzero(PEOPLE.device == "apple-m1")[0])
    mlx = read_stacks().stacks["mlx"]
    assert PEOPLE.profile(mac).flops_per_s == mlx.share_of_peak * 2600e9
    assert PEOPLE.profile(mac).law == StepLaw("mlx", mlx.launch_s, 0.0, 0.7 * 68e9, math.inf, mlx.memory)


def test_a_card_of_its_own_has_its_own_memory_and_phones_what_the_system_leaves_them():
    laptop = PEOPLE.profile(int(np.flatnonzero(PEOPLE.device == "laptop-rtx-3060")[0]))
    iphone = PEOPLE.profile(int(np.flatnonzero(PEOPLE.device == "iphone-16")[0]))
    assert (laptop.memory_bytes, laptop.usable_memory_bytes) == (16e9, pytest.approx(0.9 * 6e9))
    assert iphone.usable_memory_bytes == pytest.approx(0.375 * 8e9)


def test_a_client_of_a_seed_is_the_same_in_a_population_of_any_size():
    fewer = draw_devices("mixed_edge_2026", 500, seed=0)
    assert all(fewer.profile(c) == PEOPLE.profile(c) for c in range(0, 500, 37))


def test_stacks_can_be_named_by_class():
    chosen = with_software(PEOPLE, ComputeConfig(stack={"phone-mid": "cpp-blas", "laptop": "auto"}), 0)
    mid = PEOPLE.tier == "phone-mid"
    assert set(chosen.laws.stack[mid]) == {"cpp-blas"}
    assert (chosen.laws.stack[~mid] == PEOPLE.laws.stack[~mid]).all()
    assert chosen.flops_per_s[mid] == pytest.approx(PEOPLE.flops_per_s[mid] * 0.5 / 0.0337)


def test_or_by_operating_system_and_a_class_comes_first():
    systems = PEOPLE.hardware.table.os[PEOPLE.hardware.row].astype(str)
    high = PEOPLE.tier == "phone-high"
    chosen = with_software(PEOPLE, ComputeConfig(stack={"ios": "mesp", "phone-high": "auto"}), 0)
    assert set(chosen.laws.stack[(systems == "ios") & ~high]) == {"mesp"}
    assert (chosen.laws.stack[high] == PEOPLE.laws.stack[high]).all()
    chosen = with_software(PEOPLE, ComputeConfig(stack={"ios": "mesp"}), 0)
    assert set(chosen.laws.stack[systems == "ios"]) == {"mesp"}
    assert (chosen.laws.stack[systems != "ios"] == PEOPLE.laws.stack[systems != "ios"]).all()


def test_a_quarter_of_the_phones_are_iphones():
    phones = np.char.startswith(PEOPLE.tier.astype(str), "phone")
    iphones = np.char.startswith(PEOPLE.device.astype(str), "iphone")
    assert iphones.sum() / phones.sum() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("stack", "says"),
    [
        ("mlx", "does not run on"),
        ("mxl", "no such stack"),
        ({"phone-mid": "mlx"}, "does not run on phone-mid"),
        ("cpp -1, mlx", "must have a share greater than 0"),
    ],
)
def test_a_stack_that_cannot_run_is_refused_with_those_that_can(stack, says):
    with pytest.raises(ProfileError, match=says):
        with_software(PEOPLE, ComputeConfig(stack=stack), 0)


def test_own_stacks_stand_beside_the_shipped_ones(tmp_path):
    text = hetero_profiles.locate("stacks.csv").read_text("utf-8").splitlines()
    head, mlx = next(x for x in text if x.startswith("stack,")), next(x for x in text if x.startswith("mlx,"))
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join((head, mlx.replace("mlx,MLX", "mlx-9,MLX 9").replace(",0.426,", ",0.5,"))))
    own = with_software(PEOPLE, ComputeConfig(stacks=mine, stack={"laptop-dgpu": "auto"}), 0)
    assert (own.flops_per_s == PEOPLE.flops_per_s).all()
    mac = draw_devices("mixed_edge_2026", 3000, seed=0)
    macs = mac.device == "apple-m1"
    only = replace(mac, hardware=replace(mac.hardware, row=mac.hardware.row[macs]), device=mac.device[macs])
    faster = with_software(only, ComputeConfig(stacks=mine, stack="mlx-9"), 0)
    assert faster.flops_per_s == pytest.approx(0.5 * 2600e9)
    assert str(mine) in faster.sources["stacks"]


# what is not known ------------------------------------------------------------------------------


def test_devices_are_drawn_within_the_spread_of_their_stack():
    drawn = with_software(PEOPLE, ComputeConfig(uncertainty="units"), 0)
    off = np.log(drawn.flops_per_s / PEOPLE.flops_per_s)
    for stack in ("cpp", "llama.cpp-phone"):
        members = PEOPLE.laws.stack == stack
        assert off[members].std() == pytest.approx(read_stacks().stacks[stack].share_sigma_ln, rel=0.1)
        assert abs(off[members].mean()) < 0.1


def test_or_a_whole_stack_is_faster_or_slower_than_was_measured():
    first, again, second = (
        np.log(with_software(PEOPLE, ComputeConfig(uncertainty="stacks", uncertainty_draw=k), seed).flops_per_s / PEOPLE.flops_per_s)
        for k, seed in ((0, 0), (0, 7), (1, 0))
    )  # fmt: skip
    for stack in set(PEOPLE.laws.stack):
        assert np.ptp(first[PEOPLE.laws.stack == stack]) < 1e-9
    alone = ~np.isin(PEOPLE.laws.stack, ("cpp", "llama.cpp-phone"))  # who has one stack to run
    assert first[alone] == pytest.approx(again[alone])
    assert not np.allclose(first, second)


def test_a_population_says_how_good_its_times_are():
    assert "good to a factor of" in trust(PEOPLE)
    assert trust(draw_devices("mixed_edge_2025", 100, 0)).startswith("caution: Four in five")


# settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "compute", "key"),
    [
        ("mixed_edge_2025", {"uncertainty": "units"}, "uncertainty"),
        ("mixed_edge_2025", {"stack": "mlx"}, "stack"),
        ("mixed_edge_2025", {"stack": {"laptop": "mlx"}, "calibration": "measured"}, "stack"),
        ("mixed_edge_2026", {"calibration": "measured"}, "calibration"),
        ("mixed_edge_2026", {"stacks": "gone.csv"}, "stacks"),
        ("mixed_edge_2026", {"stack": {"toaster": "mlx"}}, "stack"),
        ("mixed_edge_2026", {"bandwidth_floor": True}, "bandwidth_floor"),
        ("mixed_edge_2026", {"uncertainty_draw": 3}, "uncertainty_draw"),
        ("mixed_edge_2026", {"dequantisation": "copy"}, "dequantisation"),
    ],
)
def test_settings_without_an_effect_and_names_that_are_not_there_are_refused(preset, compute, key):
    problems = misfits(experiment(SYNC, 10, population={"preset": preset, "clients": 10}, compute=compute))
    assert [p.path for p in problems if p.path[0] == "compute"] == [("compute", key)]


def test_a_preset_says_whether_it_knows_what_devices_are():
    def population(preset):
        return experiment(SYNC, 10, population={"preset": preset, "clients": 10}).population

    assert says_what_devices_are(population("mixed_edge_2026"))
    assert not says_what_devices_are(population("mixed_edge_2025"))


def test_a_run_over_hardware_is_simulated_recorded_and_sound(tmp_path):
    settings = experiment(
        SYNC,
        20,
        population={"preset": "mixed_edge_2026", "clients": 20},
        compute={"uncertainty": "units"},
        budget={"commits": 3},
    )
    run = simulate(settings, out=tmp_path / "run", report=False)
    assert run.info.population["stacks"] == "stacks.csv"
    assert "cpp" in run.info.population["stacks_run"]
    assert verify(run) == []
    facts = dict(section(run).tables[0].rows)
    assert "lie outside what is known of the stacks" in facts["Notes"]


# tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("devices_2026.csv", ",0.74,", ",fast,", "cpu_gflop_per_s: must be a finite number"),
        ("devices_2026.csv", "linux,pytorch-cpu,0.74,", "linux,pytorch-cpu,,", "has no peak"),
        ("devices_2026.csv", "pi-zero-2w,sbc", "pi-zero-2w,toaster", "class: no such class"),
        ("devices_2026.csv", ",measured,", ",guessed,", "_kind: no such"),
        ("stacks.csv", ",cpu,android", ",cpu,beos", "os: no such operating system"),
        ("stacks.csv", ",cpu,android", ",dsp,android", "peak: no such peak"),
        ("stacks.csv", "0.0337", "-0.0337", "share_of_peak: must be greater than 0"),
        ("memory_limits.csv", "0.29", "2.9", "background: must be at most 1"),
        ("measurements/public.csv", ",read,", ",guessed,", "quality: no such quality"),
        ("measurements/public.csv", "11.3659", "-1", "s_per_step: must be greater than 0"),
        ("measurements/public.csv", ",yes,,", ",no,,", "why_not: is empty"),
        ("measurements/public.csv", ",1,64,8,64,no,float32,4,", ",1,64,8,,no,float32,4,", "tokens_a_pass: is empty"),
    ],
)  # fmt: skip
def test_a_broken_table_is_named_by_row_and_column(tmp_path, name, old, new, says):
    assert says in said_of_changed(tmp_path, name, old, new)


def test_a_measurement_stands_once_in_its_table(tmp_path):
    path = tmp_path / "twice.csv"
    text = hetero_profiles.locate("measurements/public.csv").read_text("utf-8")
    path.write_text(text + text.splitlines()[-1] + "\n")
    assert [p for p in check(path) if "once more" in p]


# a machine of one's own -------------------------------------------------------------------------


@pytest.mark.parametrize(("speed", "launch_s"), [(5e9, 2e-4), (4e11, 1.7e-3), (2e13, 2e-3)])
def test_the_law_of_a_machine_is_found_from_three_passes(speed, launch_s):
    flops = [share * speed * 60 * launch_s for share in (0.3, 1.5, 20.0)]
    passes = [TimedPass(f, 60.0, soft_maximum(f / speed, 60 * launch_s)) for f in flops]
    law = law_of(passes)
    assert law.flops_per_s == pytest.approx(speed, rel=0.01)
    assert law.launch_s == pytest.approx(launch_s, rel=0.01)
    assert law.worst == pytest.approx(1.0, abs=0.01)


def test_passes_of_one_size_do_not_tell_speed_from_launches():
    with pytest.raises(ProfileError, match="passes of one size"):
        law_of([TimedPass(1e9, 60.0, 1.0)] * 3)


def owned(tmp_path, **cells):
    """A population of one device, a laptop with a card; `cells` of its row replace those of the shipped table."""
    rows = list(csv.DictReader(line for line in shipped_hardware().splitlines() if not line.startswith("#")))
    row = next(row for row in rows if row["device"] == "laptop-rtx-3060") | cells | {"share": "1"}
    devices, networks = tmp_path / "devices.csv", tmp_path / "networks.csv"
    devices.write_text(",".join(row) + "\n" + ",".join(f'"{cell}"' for cell in row.values()) + "\n")
    networks.write_text(template("networks"))
    return draw(PopulationConfig(devices=devices, networks=networks, clients=4), 0)


def shipped_hardware():
    return (Path(hetero_profiles.__file__).parent / "devices_2026.csv").read_text(encoding="utf-8")


def test_a_card_without_its_memory_is_not_given_the_ram(tmp_path):
    with_it = with_software(owned(tmp_path), ComputeConfig(), 0)
    assert with_it.profile(0).usable_memory_bytes == pytest.approx(0.9 * 6e9)

    with pytest.raises(
        ProfileError, match=r"computes on a card, and laptop-rtx-3060 has no vram_gb .*\n  fix: fill vram_gb"
    ):
        with_software(owned(tmp_path, vram_gb=""), ComputeConfig(), 0)
    with pytest.raises(ProfileError, match="laptop-rtx-3060 has no vram_gb"):  # by its shaders, too
        with_software(owned(tmp_path, vram_gb="", stack="llama.cpp"), ComputeConfig(), 0)


def test_what_computes_in_the_ram_beside_a_card_reads_at_the_rate_of_the_ram(tmp_path):
    cells = {"stack": "pytorch-cpu", "cpu_gflop_per_s": "300", "cpu_kind": "assumed", "cpu_source": "me"}
    with pytest.raises(ProfileError, match=r"computes in the RAM of laptop-rtx-3060.*\n  fix: fill ram_band"):
        with_software(owned(tmp_path, **cells), ComputeConfig(), 0)

    beside = with_software(owned(tmp_path, **cells, ram_bandwidth_gb_per_s="51.2"), ComputeConfig(), 0)
    assert beside.profile(0).law.moved_bytes_per_s == pytest.approx(0.7 * 51.2e9)
    assert beside.profile(0).memory_bytes_per_s == 51.2e9
    assert beside.profile(0).usable_memory_bytes < 16e9  # of the RAM

    on_it = with_software(owned(tmp_path, ram_bandwidth_gb_per_s="51.2"), ComputeConfig(), 0)
    assert on_it.profile(0).law.moved_bytes_per_s == pytest.approx(0.7 * 336e9)


# what is said before a run starts ------------------------------------------------------------------


def said(population=None, charge=None, **blocks):
    people = {"preset": "mixed_edge_2026"} if population is None else population
    task = {"kind": "quadratic", "charge_as": {"preset": "gemma-3-270m"} | (charge or {})}
    made = prepare(experiment(SYNC, 20, population=people | {"clients": 20}, task=task, **blocks))
    return list(notices(made))


def test_passes_outside_what_stacks_were_fitted_to_are_said_to_be_extrapolated(tmp_path):
    """Phones with `cpp`, fitted to 512 tokens a pass, and laptops with `pytorch-cpu`, to 64."""
    people = {name: tmp_path / f"{name}.csv" for name in ("devices", "networks")}
    people["devices"].write_text(template("hardware"))
    people["networks"].write_text(template("networks"))
    people = {name: str(path) for name, path in people.items()}
    [both] = said(people, {"sequence": 64, "batch": 2})
    outside = "passes of 128 tokens lie outside what is known of the stacks of 100 % of the clients"
    assert both == f"{outside}, whose times are extrapolated: cpp 512, pytorch-cpu 64"
    [laptops] = said(people, {"sequence": 512, "batch": 1})
    assert laptops.endswith("extrapolated: pytorch-cpu 64")
    [phones] = said(people, {"sequence": 64, "batch": 1})
    assert phones.endswith("extrapolated: cpp 512")


def test_settings_for_clients_that_nobody_is_are_said_to_have_no_effect():
    compute = {"stack": {"ios": "mesp", "server": "auto"}, "unit_sigma": {"mcu": 0.1, "phone-mid": 0.1}}
    [notice] = [n for n in said(compute=compute) if "no effect" in n]
    assert notice.endswith("no effect: compute.unit_sigma.mcu, compute.stack.server")


def test_stacks_that_nobody_runs_and_spreads_of_nothing_are_said_to_have_no_effect(tmp_path):
    text = template("stacks")
    (tmp_path / "s.csv").write_text(text)
    [unused] = [n for n in said(compute={"stacks": str(tmp_path / "s.csv")}) if "no effect" in n]
    assert unused.endswith("no effect: compute.stacks")

    cells = text.splitlines()[-1].split(",")
    cells[1:4] = ["certain", "cpu", "android ios macos linux windows"]
    cells[5] = cells[7] = "0"  # share_sigma_ln, launch_sigma_ln
    people = {name: tmp_path / f"{name}.csv" for name in ("devices", "networks")}
    people["devices"].write_text(template("hardware").replace("android", "linux"))
    people["networks"].write_text(template("networks"))
    (tmp_path / "s.csv").write_text("\n".join([*text.splitlines()[:-1], ",".join(cells)]))
    compute = {
        "stacks": str(tmp_path / "s.csv"),
        "stack": "my-stack",
        "uncertainty": "stacks",
        "app": "foreground",
    }
    [certain] = [n for n in said({k: str(v) for k, v in people.items()}, compute=compute) if "no effect" in n]
    assert certain.endswith("no effect: compute.uncertainty, compute.app")


def test_batteries_and_heat_of_nobody_are_said_to_have_no_effect(tmp_path):
    people = {name: tmp_path / f"{name}.csv" for name in ("devices", "networks")}
    lines = template("hardware").splitlines()
    cells = lines[-1].split(",")
    cells[1], cells[8] = "server", "0"  # class, battery_wh
    people["devices"].write_text("\n".join([*lines[:-2], ",".join(cells)]))
    people["networks"].write_text(template("networks"))
    asked = {"compute": {"thermal": "moderate"}, "energy": {"battery": {}}}
    [notice] = [n for n in said({k: str(v) for k, v in people.items()}, **asked) if "no effect" in n]
    assert notice.endswith("no effect: energy.battery, compute.thermal")
    assert not any("no effect" in notice for notice in said(**asked))


def test_exact_shares_of_a_law_of_speeds_are_said_to_be_of_networks_alone():
    assert said({"preset": "fedscale_like", "shares": "exact"}) == [
        "population.shares: exact is of networks alone: the devices of fedscale_like follow from a law of speeds"
    ]


def test_cells_of_nobody_are_said_to_have_no_effect(tmp_path):
    shared = {"homes": {}, "cells": {"clients": 5, "down_mbps": 40, "up_mbps": 10}}
    people = {name: tmp_path / f"{name}.csv" for name in ("devices", "networks")}
    people["devices"].write_text(template("hardware"))
    both = {name: str(path) for name, path in people.items()} | {"shared_links": shared}
    people["networks"].write_text(template("networks"))
    assert not any("no effect" in notice for notice in said(both))
    people["networks"].write_text(
        template("networks").rstrip()[:-1] + "0"
    )  # nobody is on the last row, `mobile`
    [cells] = [notice for notice in said(both) if "no effect" in notice]
    assert cells.endswith("no effect: population.shared_links.cells")


def test_a_system_whose_classes_are_named_too_chooses_nobodys_stack():
    stack = {"ios": "mesp", "phone-high": "auto", "tablet": "auto"}  # iPhones and iPads are of these classes
    [notice] = [n for n in said(compute={"stack": stack}) if "no effect" in n]
    assert notice.endswith("no effect: compute.stack.ios")


def test_by_place_is_said_to_move_nothing_where_devices_take_part_at_home_alone():
    people = {"preset": "world_2026", "availability": "eligible", "links": "by-place"}
    assert any("by-place moves no transfer" in notice for notice in said(population=people))
    assert not any("by-place" in notice for notice in said(population=people | {"availability": "always"}))


def test_own_stacks_of_which_no_table_says_their_memory_are_said_to_be_plain(tmp_path):
    lines = [line for line in template("stacks").splitlines() if not line.startswith("#")]
    (tmp_path / "s.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    compute = {"stacks": str(tmp_path / "s.csv"), "stack": {"phone-mid": "my-stack"}}
    assert any(
        "what my-stack keeps in memory is taken as `plain`" in notice for notice in said(compute=compute)
    )
    (tmp_path / "s.csv").write_text("\n".join(lines))
    assert not any("plain" in notice for notice in said(compute=compute))


def test_a_stack_of_ones_own_is_no_measured_one_whatever_it_is_called(tmp_path):
    text = template("stacks").replace("my-stack", "cpp").replace("derived", "fitted")
    (tmp_path / "s.csv").write_text(text)
    own = with_software(PEOPLE, ComputeConfig(stacks=tmp_path / "s.csv"), 0)
    assert "the figures of cpp are your own, and of pytorch-cpu, " in trust(own)
    assert "the figures of pytorch-cpu, pytorch-cuda-jetson follow from a single measurement" in trust(PEOPLE)


def test_a_tail_of_which_the_networks_say_nothing_is_refused(tmp_path):
    tables = {name: tmp_path / f"{name}.csv" for name in ("hardware", "networks")}
    for name, path in tables.items():
        path.write_text(template(name))
    people = {"devices": str(tables["hardware"]), "networks": str(tables["networks"]), "clients": 3}
    asked = {"population": people, "energy": {"tail": True}}
    assert misfits(experiment(SYNC, 3, **asked)) == []
    lines = [line for line in template("networks").splitlines() if not line.startswith("#")]
    bare = list(csv.DictReader(lines))
    with tables["networks"].open("w") as file:
        writer = csv.DictWriter(
            file, [name for name in bare[0] if not name.startswith("tail")], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(bare)
    [problem] = misfits(experiment(SYNC, 3, **asked))
    assert (problem.name, problem.what[:13]) == ("energy.tail", "has no effect")


def test_of_several_stacks_all_have_a_share(tmp_path):
    asked = "pytorch-cuda 0.9, torchtune"
    with pytest.raises(ProfileError, match="names several stacks, and not every one has a share"):
        with_software(owned(tmp_path, stack=asked), ComputeConfig(), 0)


def test_what_is_said_of_times_leaves_out_software_that_nobody_has_measured():
    half = np.where(np.arange(len(PEOPLE)) % 2, "cpp", "mesp").astype(object)
    rows = read_stacks().stacks
    assumed = replace(PEOPLE, laws=replace(PEOPLE.laws, stack=half, rows=rows))

    assert trust(assumed).startswith(
        "how good the times of 50 % of the clients are is not known: the figures of mesp are assumed"
    )
    cpp = np.full(len(PEOPLE), "cpp", dtype=object)
    measured = replace(PEOPLE, laws=replace(PEOPLE.laws, stack=cpp, rows=rows))
    assert trust(measured).startswith("times of this population are good to a factor of")
