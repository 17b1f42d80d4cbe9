"""Public measurements of training on devices: enough of them, each with its source, and the stacks that are fitted to them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

import hetero_profiles

sys.path.append(str(Path(__file__).parents[3]))  # last: an installed fedsim stays the one that is tested

from benchmarks.devices import tables
from benchmarks.devices.measured import points, read, rows

FITTED = tables.fitted()


def test_there_are_many_measurements_of_many_sources_and_stacks():
    measured = rows()
    assert len(measured) >= 170
    assert len({row["url"].split("@")[0] for row in measured}) >= 20
    assert len({row["stack"] for row in measured if row["fit"] == "yes"}) == 9


def test_nothing_is_fitted_to_that_only_others_quote():
    assert not [row for row in rows() if row["fit"] == "yes" and row["quality"] == "second-hand"]
    assert all(row["why_not"] for row in rows() if row["fit"] == "no")


def test_a_pass_takes_what_its_tokens_a_second_say():
    for row in rows():
        if (
            row["fit"] == "yes" and row["tokens_per_s"] and row["s_per_step"]
        ):  # QVAC prints both, up to 48 % apart
            steps_s = float(row["s_per_pass"]) * int(row["accumulate"])
            assert steps_s == pytest.approx(float(row["s_per_step"]), rel=0.5), row["source"]


def test_every_cell_of_hardware_has_a_kind_and_a_source():
    groups = {
        "cpu": "cpu_gflop_per_s",
        "gpu": "gpu_gflop_per_s",
        "matrix": "matrix_gflop_per_s",
        "memory": "ram_gb",
    }
    for row in read(hetero_profiles.locate("devices_2026.csv")):
        for group, column in groups.items():
            assert bool(row[f"{group}_kind"]) == bool(row[f"{group}_source"]) == bool(row[column]), row[
                "device"
            ]


def test_what_is_from_memory_is_called_assumed():
    for row in read(hetero_profiles.locate("devices_2026.csv")):
        for group in ("cpu", "gpu", "matrix", "npu", "bandwidth", "memory", "power"):
            if "from memory" in row[f"{group}_source"]:
                assert row[f"{group}_kind"] == "assumed", row["device"]


# the fit ----------------------------------------------------------------------------------------


def test_the_fit_once_more_gives_the_shipped_stacks():
    shipped = {row["stack"]: row for row in read(hetero_profiles.locate("stacks.csv"))}
    lines = [line for line in tables.stacks_csv(FITTED).splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        for name in ("share_of_peak", "launch_s", "expand_share", "share_sigma_ln"):
            assert float(row[name]) == pytest.approx(float(shipped[row["stack"]][name]), rel=0.02), row[
                "stack"
            ]
        assert row["points"] == shipped[row["stack"]]["points"]


def test_four_in_five_rows_are_within_half_as_much_again_from_the_others():
    off = np.concatenate([tables.factors(s.errors.row_out) for s in FITTED])
    assert len(off) == len(points()) >= 110
    assert np.mean(off <= 1.5) >= 0.8
    assert np.median(off) <= 1.25
    assert np.mean(off <= 3) >= 0.97  # the rest: llama.cpp on phones, as benchmarks/devices/README.md says


def test_devices_that_are_left_out_are_predicted_better_than_by_a_share_of_peak():
    law = np.concatenate([tables.factors(s.errors.device_out) for s in FITTED])
    constant = np.concatenate([tables.factors(s.constant.device_out) for s in FITTED])
    assert np.median(law) < np.median(constant)
    assert np.mean(law <= 1.5) > np.mean(constant <= 1.5) >= 0.5


def test_one_fit_has_short_and_long_batches_of_one_model():
    stack = next(s for s in FITTED if s.stack == "pytorch-cuda")
    of = {point.tokens: k for k, point in enumerate(stack.points) if point.row["model"] == "qwen-7b"}
    short, long = (stack.errors.row_out[of[tokens]] for tokens in (256, 8192))
    assert max(short, 1 / short) < 1.3
    assert max(long, 1 / long) < 1.3


def test_the_page_says_what_the_fit_says():
    page = (tables.HERE / "README.md").read_text("utf-8")
    assert tables.readme(FITTED) in page


def test_no_stack_of_one_chip_is_taken_to_be_better_known_than_those_of_several():
    shipped = read(hetero_profiles.locate("stacks.csv"))
    pooled = min(float(row["share_sigma_ln"]) for row in shipped if int(row["devices"]) < 3)
    several = [float(row["share_sigma_ln"]) for row in shipped if int(row["devices"]) >= 3]
    assert pooled == pytest.approx(np.sqrt(np.mean(np.square(several))), rel=0.01)
