"""Large populations are drawn by arrays: no line of Python runs once a client."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fedsim.config.devices import ComputeConfig
from fedsim.devices.availability import BLOCK
from fedsim.devices.population import draw_devices, with_software
from fedsim.devices.presets import preset_names

MILLION = 1_000_000


def lines_run(action):
    """How many lines of fedsim run in a call; a loop in a comprehension counts each of its rounds."""
    count = 0

    def local(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return local

    def called(frame, _event, _argument):
        return local if "fedsim" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        result = action()
    finally:
        sys.settrace(before)
    return count, result


def test_a_million_clients_of_today_take_lines_by_block_and_by_row_and_not_by_client():
    few, _ = lines_run(lambda: draw_devices("mixed_edge_2026", 50_000, seed=0))
    many, people = lines_run(lambda: draw_devices("mixed_edge_2026", MILLION, seed=0))
    assert len(people) == MILLION
    blocks = (MILLION - 50_000) / BLOCK
    assert many - few <= 60 * blocks  # some lines for each block of so many clients
    assert many < MILLION / 10


@pytest.mark.parametrize("compute", [{"uncertainty": "units"}, {"uncertainty": "stacks"}])
def test_what_is_not_known_of_stacks_is_drawn_by_arrays_too(compute):
    people = draw_devices("mixed_edge_2026", 200_000, seed=0)
    count, drawn = lines_run(lambda: with_software(people, ComputeConfig(**compute), 0))
    assert count < 20_000
    assert np.isfinite(drawn.flops_per_s).all()


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_drawn_by_arrays(preset):
    few, _ = lines_run(lambda: draw_devices(preset, 2 * BLOCK, seed=0))
    many, _ = lines_run(lambda: draw_devices(preset, 12 * BLOCK, seed=0))
    assert many - few <= 60 * 10
