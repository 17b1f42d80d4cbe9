"""The draws of a population: by address, by share, to the nearest row, and networks that a device can use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedsim.devices.availability import BLOCK
from fedsim.devices.draws import (
    allot,
    allot_down,
    choose,
    draws,
    links,
    nearest_row,
    network_weights,
    remainders,
)
from fedsim.devices.presets import recipe_of_preset
from fedsim.errors import ProfileError


def test_a_client_draws_the_same_in_a_population_of_any_size():
    few, many = draws(10, seed=3), draws(BLOCK + 5, seed=3)
    for small, large in zip(few, many, strict=True):
        assert np.array_equal(small, large[:, :10])
    assert not np.array_equal(draws(10, seed=4)[0], few[0])


def test_rows_come_up_by_their_weight_and_those_of_weight_0_never():
    chance = np.linspace(0, 1, 10_000, endpoint=False)
    rows = choose(np.array([1.0, 0.0, 3.0]), chance)
    assert np.bincount(rows, minlength=3).tolist() == [2500, 0, 7500]


def test_the_nearest_row_is_nearest_in_ratio():
    speed = np.array([100.0, 1.0, 10.0, 5.0])
    allowed = np.array([0, 1, 2])
    assert nearest_row(speed, allowed, np.array([0.1, 3.1, 3.2, 31.0, 32.0, 1e9])).tolist() == [
        1,
        1,
        2,
        2,
        0,
        0,
    ]


@pytest.mark.parametrize("seed", range(20))
def test_sixty_of_a_hundred_are_48_of_80_with_every_seed(seed):
    chance = draws(80, seed)[0][0]

    assert np.bincount(allot(np.array([60.0, 40.0]), chance)).tolist() == [48, 32]


def test_exact_shares_differ_by_less_than_one_client_in_groups_and_in_rows():
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, n = int(rng.integers(1, 12)), int(rng.integers(0, 300))
        weight = rng.exponential(size=rows) * (rng.random(rows) > 0.2)
        weight[0] = 1.0
        groups = rng.choice(["a", "b", "c"], size=rows)
        got = np.bincount(allot(weight, rng.random(n), groups), minlength=rows)

        assert got.sum() == n
        assert not got[weight == 0].any()
        for group in np.unique(groups):
            of = groups == group
            assert abs(got[of].sum() - n * weight[of].sum() / weight.sum()) < 1
            if weight[of].sum():
                assert (np.abs(got[of] - got[of].sum() * weight[of] / weight[of].sum()) < 1).all()


def test_groups_come_before_their_rows():
    """Ten rows of 5 % in one group and two of 25 % in the other: five clients each, whatever the rows round to."""
    weight = np.array([5.0] * 10 + [25.0] * 2)
    groups = np.array(["many"] * 10 + ["few"] * 2)

    got = np.bincount(allot(weight, np.linspace(0, 0.9, 10), groups), minlength=12)
    assert got[:10].sum() == got[10:].sum() == 5


def test_down_a_tree_no_group_at_any_level_and_no_row_is_off_by_a_client():
    rng = np.random.default_rng(1)
    for _ in range(100):
        rows, n = int(rng.integers(1, 15)), int(rng.integers(0, 200))
        weight = rng.exponential(size=rows) * (rng.random(rows) > 0.2)
        weight[0] = 1.0
        narrow = rng.integers(0, 6, size=rows)
        levels = [(narrow // 3).astype(str), narrow.astype(str)]
        got = np.bincount(allot_down(weight, rng.random(n), levels), minlength=rows)

        assert got.sum() == n
        assert not got[weight == 0].any()
        for names in (*levels, np.arange(rows)):
            for name in np.unique(names):
                of = names == name
                assert abs(got[of].sum() - n * weight[of].sum() / weight.sum()) < 1


def test_the_whole_numbers_of_a_tree_by_hand():
    """Ten clients: 4.4 and 5.6; of the 4.4 two rows of 2.2, and of the 5.6 rows of 2.8, 1.4 and 1.4."""
    weight, wide = np.array([2.2, 2.2, 2.8, 1.4, 1.4]), np.array(["a", "a", "b", "b", "b"])
    got = np.bincount(allot_down(weight, np.linspace(0, 0.9, 10), [wide]))
    assert got.tolist() == [2, 2, 3, 2, 1]


def test_those_who_may_be_on_cellular_networks_are_on_one_by_their_share_whatever_its_rows_round_to():
    """Of 10 phones 4 are on cellular networks: five rows of 0.8 clients each, and six of 1."""
    weight = np.array([0.08] * 5 + [0.1] * 6)
    cellular = np.array([True] * 5 + [False] * 6)
    everybody = np.ones(10, dtype=bool)
    chosen = links(everybody, weight, weight, np.linspace(0, 0.9, 10), exact=True, accesses=cellular)
    assert np.sum(cellular[chosen]) == 4


def test_the_largest_remainders_are_rounded_up():
    assert remainders(np.array([47.0, 16.0, 15.9, 12.0, 6.0, 3.1]), 10).tolist() == [5, 2, 1, 1, 1, 0]
    assert remainders(np.array([0.0, 1.0]), 3).tolist() == [0, 3]


def recipe(cellular_share, cellular_devices):
    """Two networks and two devices: the first network is cellular, the first device has a modem."""
    mixed = recipe_of_preset("mixed_edge_2025")
    nets = replace(mixed.networks, cellular=np.array([True, False]))
    devices = replace(mixed.devices, cellular=np.array([True, False]))
    return replace(
        mixed,
        networks=nets,
        devices=devices,
        network_weight=np.array([cellular_share, 1 - cellular_share]),
        device_weight=np.array([cellular_devices, 1 - cellular_devices]),
    )


def test_devices_with_a_modem_take_the_cellular_share_of_those_without():
    mobile, fixed = network_weights(recipe(0.3, 0.6), wifi_only=False)
    assert fixed.tolist() == [0.0, 0.7]
    assert mobile == pytest.approx([0.5, 0.5])
    assert 0.6 * mobile[0] == pytest.approx(0.3)


def test_on_wifi_alone_nobody_is_cellular():
    mobile, fixed = network_weights(recipe(0.3, 0.6), wifi_only=True)
    assert mobile.tolist() == fixed.tolist() == [0.0, 0.7]


def test_with_cellular_networks_alone_nobody_can_be_on_wifi():
    with pytest.raises(ProfileError, match="every network is cellular"):
        network_weights(recipe(1.0, 0.6), wifi_only=False)
