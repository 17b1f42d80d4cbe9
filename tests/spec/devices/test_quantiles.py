"""Sampled clients of every preset against the distributions that its tables and its sources state."""

from __future__ import annotations

import csv
from statistics import NormalDist

import numpy as np
import pytest

import hetero_profiles
from fedsim.devices.population import draw_devices
from fedsim.devices.presets import preset, preset_names
from fedsim.network.base import MBPS

CLIENTS = 40_000
QUANTILES = {
    0.05: -1.6448536269514722,
    0.25: -0.6744897501960817,
    0.5: 0.0,
    0.75: 0.6744897501960817,
    0.95: 1.6448536269514722,
}
"""Quantile -> where a standard normal has it."""
FEWEST = 400
"""Clients that a row must have for its quantiles to be looked at."""


def rows(table):
    lines = hetero_profiles.locate(table).read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.fixture(scope="module", params=preset_names())
def sampled(request):
    return preset(request.param), draw_devices(request.param, CLIENTS, seed=1)


def off(values, *laws):
    """By how many standard errors the shares below some points are off those of the least of lognormals (median, sigma)."""
    (median, sigma), n = laws[0], len(values)
    for z in QUANTILES.values():
        at = np.log(median) + sigma * z
        above = np.prod([1 - NormalDist(np.log(m), s).cdf(at) for m, s in laws])
        error = np.sqrt(max(above * (1 - above), 1e-6) / n)
        yield abs(np.mean(np.log(values) > at) - above) / error


def test_links_of_each_network_have_its_medians_and_spreads(sampled):
    chosen, people = sampled
    looked_at = 0
    for row in rows(chosen.networks):
        mine = people.network == row["network"]
        if mine.sum() < FEWEST:
            continue
        looked_at += 1
        for name, unit in (("down", MBPS), ("up", MBPS), ("rtt", 1e-3)):
            column = "rtt_ms" if name == "rtt" else f"{name}_mbps"
            values = people.rtt_s if name == "rtt" else people.mean_rates(name)
            sigma = float(row[f"{name}_sigma_ln"]) * chosen.spread
            median = float(row[column]) * unit
            if sigma == 0:
                assert np.allclose(values[mine], median)
            else:
                laws = [(median, sigma)]
                if name != "rtt" and row.get("hop_mbps"):  # the slower of the line and of the Wi-Fi before it
                    laws.append((float(row["hop_mbps"]) * unit, float(row["hop_sigma_ln"])))
                assert max(off(values[mine], *laws)) < 4.5, (row["network"], name)
    assert looked_at


def test_speeds_of_each_device_have_the_range_of_its_row(sampled):
    chosen, people = sampled
    if chosen.latency is not None or people.laws is not None:
        pytest.skip("its speeds follow from a law of latencies, or from hardware and software")
    looked_at = 0
    for row in rows(chosen.devices):
        mine = people.device == row["device"]
        if mine.sum() < FEWEST:
            continue
        looked_at += 1
        lo, median, hi = (1e9 * float(row[f"eff_lora_{part}gflop_per_s"]) for part in ("lo_", "", "hi_"))
        sigma = chosen.spread * np.log(hi / lo) / (2 * QUANTILES[0.95])
        if sigma == 0:
            assert np.allclose(people.flops_per_s[mine], median)
        else:
            assert max(off(people.flops_per_s[mine], (median, sigma))) < 4.5, row["device"]
    assert looked_at


def test_devices_come_up_by_their_shares(sampled):
    chosen, people = sampled
    if chosen.device_share is None:
        pytest.skip("its devices are those next to a drawn speed, or of a region's groups (test_regions.py)")
    share = chosen.device_share
    weights = (
        {row["device"]: float(row[share]) for row in rows(chosen.devices)}
        if isinstance(share, str)
        else {name: float(weight) for name, weight in share.items()}
    )
    whole = sum(weights.values())
    for name, weight in weights.items():
        p = weight / whole
        found = np.mean(people.device == name)
        assert abs(found - p) <= 4.5 * np.sqrt(p * (1 - p) / CLIENTS) + 1e-12, name


# what the sources say ---------------------------------------------------------------------------


def test_people_of_today_are_as_the_cited_shares_say():
    people = draw_devices("mixed_edge_2026", CLIENTS, seed=1)
    tiers, devices = people.tier.astype(str), people.device.astype(str)
    phone, iphone = np.char.startswith(tiers, "phone"), np.char.startswith(devices, "iphone")
    assert np.mean(phone) == pytest.approx(0.77, abs=0.01)
    assert iphone.sum() / phone.sum() == pytest.approx(0.25, abs=0.01)  # Counterpoint 2025: phones in use
    # Counterpoint: the mean of what was sold was 7.4 GB in 2024-12 and 8.4 in 2025-12; phones are kept for nearly four years
    assert np.mean(people.memory_bytes[phone]) / 1e9 == pytest.approx(6.5, abs=1.0)
    assert np.all(people.memory_bytes[iphone] >= 6e9)


def test_speeds_of_today_follow_from_measured_stacks():
    people = draw_devices("mixed_edge_2026", CLIENTS, seed=1)
    median = {
        stack: np.median(people.flops_per_s[people.laws.stack == stack]) / 1e9
        for stack in ("cpp", "llama.cpp-phone", "mlx")
    }
    assert 0.5 < median["cpp"] < 5  # EdgeFlowerTune's phones: 3.3 GFLOP/s of 97
    assert 5 < median["llama.cpp-phone"] < 30  # QVAC: 8 to 42 GFLOP/s on three phones of 2024-25
    assert 800 < median["mlx"] < 4000  # mlx-examples: 4,100 on an M1 Max
