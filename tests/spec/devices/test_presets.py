"""Presets: every file is one, a law of latency is inverted exactly, and a recipe says what it is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from fedsim.devices.presets import Latency, Preset, preset, preset_names, recipe_of_preset

LAW = Latency(
    median_ms=100.0, sigma_ln=0.5, low_ms=50.0, high_ms=400.0, gflop_per_sample=2.0, nearest=("phone",)
)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_recipe_of_positive_shares(name):
    recipe = recipe_of_preset(name)
    assert recipe.device_weight.sum() > 0
    assert recipe.network_weight.sum() > 0
    assert recipe.sources["preset"] == name
    assert len(recipe.sources["devices_sha256"]) == len(recipe.sources["networks_sha256"]) == 64
    assert preset(name).licence


def test_speeds_lie_within_the_range_of_the_latency_and_in_its_order():
    speed = LAW.flops_per_s(np.array([0.0, 0.5, 1.0]))
    assert speed[0] == pytest.approx(2e9 / 0.05)
    assert speed[2] == pytest.approx(2e9 / 0.4)
    assert speed[0] > speed[1] > speed[2]


def test_the_law_is_a_lognormal_cut_to_its_range():
    latency_ms = 2e12 / LAW.flops_per_s((np.arange(100_000) + 0.5) / 100_000)
    below = np.mean(latency_ms <= 100.0)
    cdf = [0.5 * math.erfc(-math.log(ms / 100.0) / (0.5 * math.sqrt(2))) for ms in (50.0, 100.0, 400.0)]
    assert below == pytest.approx((cdf[1] - cdf[0]) / (cdf[2] - cdf[0]), abs=1e-4)


def test_a_preset_has_shares_of_devices_or_a_latency_and_not_both():
    fields = {
        "about": "",
        "source": "",
        "licence": "",
        "devices": "d",
        "networks": "n",
        "network_share": "share",
    }
    with pytest.raises(ValidationError, match="exactly one"):
        Preset(**fields)
    with pytest.raises(ValidationError, match="exactly one"):
        Preset(**fields, device_share="share", latency=LAW)
    with pytest.raises(ValidationError, match="a `region`, which has it"):
        Preset(**fields, region="world")
    assert (
        Preset(**{k: v for k, v in fields.items() if k != "network_share"}, region="world").region == "world"
    )
