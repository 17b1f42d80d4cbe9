"""How long training takes: each effect by hand and in closed form, then all of it in runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds import device, experiment, plan

import hetero_profiles
from fedsim.checks.blocks import misfits
from fedsim.clock.device_training import Machines
from fedsim.clock.estimate import estimate
from fedsim.clock.plan import prepare
from fedsim.config.devices import ComputeConfig
from fedsim.config.thermal import PRESETS, Thermal
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import train_flops
from fedsim.cost.work import Work
from fedsim.devices.compute import step_noise, training, under_quota_s
from fedsim.devices.population import draw_devices
from fedsim.devices.stacks.measured_speeds import read_speeds, unit_normals, with_speeds
from fedsim.devices.thermal import cooled_k, heated_k, onset_s
from fedsim.errors import ExperimentError, ProfileError
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

PHONE = replace(device(0, flops_per_s=1e9, train_w=5.0, idle_w=0.5), tier="phone-mid", memory_bytes_per_s=2e9)
WORK = Work(0, 0, 600e9, 0.0, 1000, 0, 0, steps=20, moved_bytes=100e9)


def seconds(profile=PHONE, work=WORK, noise=1.0, **compute):
    return training(profile, work, ComputeConfig(**compute), noise=noise).duration_s


# one effect at a time ---------------------------------------------------------------------------


def test_with_nothing_switched_on_time_is_flops_over_speed_to_the_bit():
    for flops in (1.0, 1e9 / 3, 7.1e15):
        work = replace(WORK, flops=flops)
        assert training(PHONE, work).duration_s == seconds(work=work) == flops / 1e9


def test_no_training_is_faster_than_its_bytes_go_through_memory():
    assert seconds(bandwidth_floor=True) == 600.0  # 100 GB at 2 GB/s take 50 s only
    slow = replace(PHONE, memory_bytes_per_s=0.1e9)
    assert seconds(slow, bandwidth_floor=True) == 1000.0
    assert seconds(slow) == 600.0


def test_each_pass_pays_the_overhead_and_noise_multiplies_all_of_it():
    assert seconds(step_overhead_s=0.5) == 600.0 + 20 * 0.5
    assert seconds(step_overhead_s=0.5, noise=1.1) == pytest.approx(610.0 * 1.1)


def test_a_quota_lets_a_share_of_every_period_run():
    # measured with a busy loop: 1.148, 1.126 and 1.44 s
    measured = {(0.6, 0.5): 1.150, (0.3, 0.25): 1.125, (0.15, 0.1): 1.41}
    for (cpu_s, quota), expected in measured.items():
        assert under_quota_s(cpu_s, quota, 0.1) == pytest.approx(expected)
    assert under_quota_s(0.05, 0.5, 0.1) == 0.05  # the first budget is enough
    assert under_quota_s(1000.0, 0.25, 0.1) == pytest.approx(4000.0, rel=1e-3)
    assert seconds(replace(PHONE, cpu_quota=0.25)) == under_quota_s(600.0, 0.25, 0.1)


@given(cpu_s=st.floats(1e-3, 1e3), quota=st.floats(0.05, 1.0), period_s=st.floats(0.01, 1.0))
def test_a_quota_takes_the_ideal_time_but_for_less_than_one_pause(cpu_s, quota, period_s):
    pause_s = (1 - quota) * period_s
    found = under_quota_s(cpu_s, quota, period_s)
    assert cpu_s / quota - pause_s - 1e-9 <= found <= cpu_s / quota + 1e-6 * cpu_s


# noise ------------------------------------------------------------------------------------------


def test_step_noise_has_mean_one_and_averages_out_over_the_steps():
    sigma = 0.2
    for steps in (1, 16):
        drawn = np.array([step_noise(sigma, steps, 0, 3, visit) for visit in range(4000)])
        deviation = math.sqrt(math.expm1(sigma**2) / steps)
        assert drawn.mean() == pytest.approx(1.0, abs=4 * deviation / math.sqrt(4000))
        assert drawn.std() == pytest.approx(deviation, rel=0.06)


def test_noise_is_addressed_by_client_and_visit():
    assert step_noise(0.1, 5, 0, 1, 2) == step_noise(0.1, 5, 0, 1, 2)
    others = {step_noise(0.1, 5, *address) for address in ((0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2))}
    assert len(others) == 4
    assert step_noise(0.0, 5, 0, 1, 2) == 1.0


def test_units_of_one_device_differ_by_a_lognormal_factor():
    plain = draw_devices("homogeneous", 4000, seed=0)
    noisy = with_speeds(plain, ComputeConfig(unit_sigma=0.12), "any", seed=0)
    logs = np.log(noisy.flops_per_s / plain.flops_per_s)
    assert logs.std() == pytest.approx(0.12, rel=0.05)
    assert np.median(logs) == pytest.approx(0.0, abs=0.008)
    fewer = with_speeds(
        draw_devices("homogeneous", 10, seed=0), ComputeConfig(unit_sigma=0.12), "any", seed=0
    )
    assert fewer.flops_per_s.tolist() == noisy.flops_per_s[:10].tolist()
    assert unit_normals(5000, 1)[:10].tolist() == unit_normals(10, 1).tolist()


def test_sigmas_may_differ_by_class_of_device():
    compute = ComputeConfig(unit_sigma={"phone-low": 0.3}, step_sigma={"phone-low": 0.1})
    mixed = draw_devices("mixed_edge_2025", 500, seed=0)
    changed = with_speeds(mixed, compute, "any", seed=0).flops_per_s != mixed.flops_per_s
    assert changed.tolist() == (mixed.tier == "phone-low").tolist()
    assert compute.step_sigma_of("laptop") == 0.0


# heat -------------------------------------------------------------------------------------------

HEAT = PRESETS["moderate"]
STEP = {"governor": "step"}


def test_a_phone_at_5_watts_throttles_after_161_seconds_and_one_at_4_watts_never():
    # 30 K in the long run, 25 K at the cap: 90 s x ln(30 / 5)
    assert onset_s(HEAT, 0.0, 5.0) == pytest.approx(90 * math.log(6)) == pytest.approx(161.26, abs=0.01)
    assert onset_s(HEAT, 0.0, 4.0) == math.inf
    assert onset_s(HEAT, 25.0, 5.0) == 0.0


def test_work_beyond_the_onset_runs_at_the_throttled_speed():
    found = training(PHONE, WORK, ComputeConfig(thermal=STEP), heat_k=0.0)
    onset = 90 * math.log(6)
    assert found.duration_s == pytest.approx(onset + (600 - onset) / 0.75)
    assert found.share(onset) == pytest.approx(onset / 600)
    assert found.share(found.duration_s) == pytest.approx(1.0)
    assert found.heat_after_k(found.duration_s) == 25.0
    # 5 W until then, and after it the 25 K / 6 K/W that hold the cap
    hot = found.duration_s - onset
    assert found.joules(found.duration_s, 0.5) == pytest.approx(4.5 * onset + (25 / 6 - 0.5) * hot)


def test_a_short_training_on_a_cool_phone_is_not_slowed():
    short = replace(WORK, flops=100e9)
    found = training(PHONE, short, ComputeConfig(thermal="severe"))
    assert found.duration_s == 100.0
    idle_k = 6.0 * 0.5
    assert found.heat_after_k(100.0) == pytest.approx(30 + (idle_k - 30) * math.exp(-100 / 90))


def test_only_devices_without_a_fan_get_hot():
    assert seconds(replace(PHONE, tier="laptop"), thermal="severe") == 600.0
    anything = {"tiers": ["laptop"], "throttled_speed": 0.5}
    assert seconds(replace(PHONE, tier="laptop"), thermal=anything) > 600.0


def test_rest_cools_in_closed_form_and_may_be_cut_anywhere():
    assert cooled_k(HEAT, 25.0, 0.5, 135.0) == pytest.approx(3 + 22 / math.e)
    assert cooled_k(HEAT, 25.0, 0.5, 1e9) == pytest.approx(3.0)
    half = cooled_k(HEAT, cooled_k(HEAT, 25.0, 0.5, 40.0), 0.5, 60.0)
    assert half == pytest.approx(cooled_k(HEAT, 25.0, 0.5, 100.0))


@given(
    heat_k=st.floats(0, 25), watts=st.floats(0.1, 20), one=st.floats(0, 500), two=st.floats(0, 500),
    work_s=st.floats(1, 5000),
)  # fmt: skip
def test_heat_never_passes_the_cap_and_a_warmer_phone_is_never_faster(heat_k, watts, one, two, work_s):
    assert heated_k(HEAT, heat_k, watts, one + two) == pytest.approx(
        heated_k(HEAT, heated_k(HEAT, heat_k, watts, one), watts, two), abs=1e-9
    )
    assert heated_k(HEAT, heat_k, watts, one) <= 25.0
    profile, work = replace(PHONE, train_w=watts, idle_w=0.1), replace(WORK, flops=work_s * 1e9)
    compute = ComputeConfig(thermal="moderate")
    warm, cool = (training(profile, work, compute, heat_k=k).duration_s for k in (heat_k, 0.0))
    assert work_s - 1e-9 <= cool <= warm + 1e-9 <= work_s / 0.75 + 1e-6


def test_a_phone_carries_its_heat_to_the_next_visit_and_loses_it_in_between():
    machines = Machines(ComputeConfig(thermal=STEP), seed=0)
    first = machines.begin_training(PHONE, WORK, 0, now_s=100.0)
    machines.end_training(PHONE, first, first.duration_s, 100.0 + first.duration_s)
    ended = 100.0 + first.duration_s
    again = machines.begin_training(PHONE, WORK, 1, now_s=ended)
    assert (again.onset_s, again.duration_s) == (0.0, 600.0 / 0.75)
    later = machines.begin_training(PHONE, WORK, 1, now_s=ended + 135.0)
    assert later.heat_k == pytest.approx(3 + 22 / math.e)
    assert machines.begin_training(PHONE, WORK, 1, now_s=ended + 1e5).duration_s == pytest.approx(
        first.duration_s
    )


def test_a_cap_below_the_surroundings_is_refused():
    with pytest.raises(ValidationError, match="cap_c must be above ambient_c"):
        Thermal(cap_c=20.0)


# measured speeds --------------------------------------------------------------------------------


def test_the_measured_work_takes_the_measured_time():
    targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    work = {"r": 8, "targets": targets, "sequence": 64, "batch": 8}
    flops = train_flops(charged(ChargeAs(preset="gemma-3-270m", **work), full=False), 512)
    speed = {row.device: row.flops_per_s for row in read_speeds(hetero_profiles.locate("lora_speeds.csv"))}
    assert flops / speed["jetson-nano"] == pytest.approx(11.8274, rel=1e-4)  # s a step, as published
    assert flops / speed["phone-mid-2021"] == pytest.approx(170.56, rel=1e-4)


def test_the_shipped_speeds_are_counted_as_fedsim_counts():
    from fedsim.files.user_tables import numbers, read_rows

    rows = read_rows(hetero_profiles.locate("lora_speeds.csv"))
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    work = {
        "edgeflowertune": {"preset": "gemma-3-270m", "targets": attention, "sequence": 64, "batch": 8},
        "qvac-q8_0": {"preset": "gemma-3-1b", "sequence": 128},
        "qvac-q4_0": {"preset": "gemma-3-1b", "sequence": 128},
    }
    for model, stack, gflop in zip(
        rows.cells["model"], rows.cells["stack"], numbers(rows, "gflop_per_token"), strict=True
    ):
        assert work[stack]["preset"] == model
        assert gflop * 1e9 == pytest.approx(train_flops(charged(ChargeAs(**work[stack]), full=False), 1))
    devices = read_rows(hetero_profiles.locate("devices.csv")).cells["device"]
    assert set(rows.cells["device"]) <= set(devices)


def test_a_calibrated_device_has_its_measured_speed_and_the_others_keep_theirs():
    mixed = draw_devices("mixed_edge_2025", 3000, seed=0)
    compute = ComputeConfig(calibration="measured", stack="qvac-q8_0")
    found = with_speeds(mixed, compute, "gemma-3-1b", seed=0)
    pixel = mixed.device == "phone-pixel-9"
    assert pixel.sum() > 10
    assert found.flops_per_s[pixel] == pytest.approx(2.0 * 4.061147136e9)
    untouched = ~np.isin(mixed.device, found.sources["calibrated"].split(", "))
    assert found.flops_per_s[untouched].tolist() == mixed.flops_per_s[untouched].tolist()
    assert "phone-pixel-9" in found.sources["calibrated"]


@pytest.mark.parametrize(
    ("compute", "model", "problem"),
    [
        ({"calibration": "measured"}, "gpt2", "compute.calibration: has no speed for this model (got 'gpt2')"),
        ({"calibration": "measured"}, "gemma-3-1b", "has several speeds of gemma-3-1b on this device"),
        ({"calibration": "measured", "stack": "x"}, "gemma-3-1b", "compute.stack: has no speed of gemma-3-1b (got 'x')"),
    ],
)  # fmt: skip
def test_a_calibration_that_does_not_say_which_is_refused(compute, model, problem):
    population = draw_devices("homogeneous", 3, seed=0)
    with pytest.raises(ProfileError) as refused:
        with_speeds(population, ComputeConfig(**compute), model, seed=0)
    assert problem in str(refused.value)
    assert "fix: " in str(refused.value)


def test_a_table_of_one_s_own_is_checked_row_by_row(tmp_path):
    path = tmp_path / "mine.csv"
    header = "device,model,stack,tokens_per_s,gflop_per_token\n"
    path.write_text(header + "a,m,s,10,2\na,m,s,11,2\n")
    with pytest.raises(ProfileError, match=r"mine.csv row 3: stack: is in row 2 already"):
        read_speeds(path)
    path.write_text(header + "a,m,s,10,0\n")
    with pytest.raises(ProfileError, match=r"row 2: gflop_per_token: must be greater than 0"):
        read_speeds(path)
    path.write_text(header + "a,m,s,10,2\n")
    assert [(row.device, row.flops_per_s) for row in read_speeds(path)] == [("a", 20e9)]


# in a run ---------------------------------------------------------------------------------------

SYNC = {"kind": "synchronous", "cohort": 2}


def course(**blocks):
    made = plan(SYNC, [400.0, 300.0], **blocks)
    made.population.profiles[:] = [
        replace(p, tier="phone-mid", train_w=5.0, idle_w=0.5) for p in made.population.profiles
    ]
    run = simulate(made, timeline_only=True)
    assert verify(run) == []
    found = run.visits.sort_values(["visit", "client"])
    return made, (found.trained_s - found.downloaded_s).tolist(), found


def test_effects_act_on_the_training_phase_of_a_run():
    _, plain, _ = course()
    assert plain == pytest.approx([400.0, 300.0] * 5)
    made, slow, _ = course(compute={"step_overhead_s": 2.0})
    assert slow == pytest.approx(
        [s + 2.0 * made.work(c).steps for s, c in zip(plain, [0, 1] * 5, strict=True)]
    )
    _, noisy, _ = course(compute={"step_sigma": 0.3})
    steps = made.work(0).steps
    expected = [
        base * step_noise(0.3, steps, 0, c, v) for v in range(5) for c, base in enumerate((400.0, 300.0))
    ]
    assert noisy == pytest.approx(expected)


def test_phones_that_train_round_after_round_get_slower_and_an_estimate_is_of_a_cool_one():
    made, found, visits = course(compute={"thermal": "severe"}, budget={"commits": 3})
    first, second = found[:2], found[2:4]
    for client in (0, 1):
        profile, work = made.population.profile(client), made.work(client)
        cool = estimate(profile, work, 0.0, compute=made.experiment.compute)
        assert first[client] == pytest.approx(cool.train_s)
        assert visits.joules.iloc[client] == pytest.approx(cool.joules, rel=1e-6)
    rest_s = first[0] - first[1]  # the faster one waits for the round, and cools
    heat_k = cooled_k(PRESETS["severe"], 25.0, 0.5, rest_s)
    warm = training(profile, work, made.experiment.compute, heat_k=heat_k)
    assert first[1] < second[1] == pytest.approx(warm.duration_s, rel=1e-4)
    assert second[0] == pytest.approx(400.0 / (25 / 6 / 5), rel=1e-4)  # the slower one stays at the cap


def test_a_trained_run_has_the_schedule_of_its_timeline_with_every_effect_on():
    blocks = {
        "compute": {"step_sigma": 0.2, "step_overhead_s": 0.1, "thermal": "severe", "bandwidth_floor": True},
        "energy": {"tail": True},
        "budget": {"commits": 4},
    }
    made, _, timeline = course(**blocks)
    trained = simulate(made)
    assert verify(trained) == []
    found = trained.visits.sort_values(["visit", "client"])
    for column in ("downloaded_s", "trained_s", "landed_s", "joules", "gross_joules", "flops"):
        assert found[column].tolist() == timeline[column].tolist()


def test_layers_are_counted_where_they_are_known_and_refused_where_they_are_not():
    charge = {"preset": "gpt2", "adapted_layers": [10, 11], "tokens_per_visit": 1000}
    by_layer = experiment(
        SYNC, 2, task={"kind": "quadratic", "charge_as": charge}, compute={"flops": "layers"}
    )
    made = prepare(by_layer)
    shape = charged(ChargeAs(preset="gpt2", adapted_layers=(10, 11)), full=False)
    assert made.work(0).flops == train_flops(shape, 1000, layered=True)
    with pytest.raises(ExperimentError, match="the layers of quadratic are not known"):
        prepare(experiment(SYNC, 2, compute={"flops": "layers"}))


@pytest.mark.parametrize(
    ("compute", "name", "what"),
    [
        ({"calibration": "measurd"}, "compute.calibration", "no such file"),
        (
            {"stack": "qvac"},
            "compute.stack",
            "has no effect without a calibration, where the table of devices has speeds",
        ),
        ({"dequantisation": "copy"}, "compute.dequantisation", "has no effect without the bandwidth floor"),
        ({"unit_sigma": {"phone": 0.1}}, "compute.unit_sigma", "no such class of devices"),
        ({"thermal": {"tiers": ["phones"]}}, "compute.thermal.tiers", "no such class of devices"),
    ],
)
def test_settings_without_effect_are_refused_with_a_way_out(compute, name, what):
    [problem] = misfits(experiment(SYNC, 2, compute=compute))
    assert (problem.name, problem.what) == (name, what)
    assert problem.fix


@given(
    flops=st.floats(1e6, 1e15),
    more=st.floats(1, 10),
    floor=st.booleans(),
    overhead=st.floats(0, 1),
    heat=st.sampled_from(["none", "moderate", "severe"]),
)
@settings(max_examples=60)
def test_more_work_never_takes_less_time(flops, more, floor, overhead, heat):
    compute = {"bandwidth_floor": floor, "step_overhead_s": overhead, "thermal": heat}
    assert seconds(work=replace(WORK, flops=flops), **compute) <= seconds(
        work=replace(WORK, flops=flops * more), **compute
    )
