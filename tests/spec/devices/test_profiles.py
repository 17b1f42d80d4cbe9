"""Who the clients are: presets have their published figures, draws are addressed, and broken tables are named cell by cell."""

from __future__ import annotations

import csv
import io
import itertools
import time
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

import hetero_profiles
from fedsim.config.population import PopulationConfig
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import train_memory_bytes
from fedsim.devices.population import Profile, draw, draw_devices
from fedsim.devices.presets import preset_names
from fedsim.devices.summary import show
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_devices, read_networks
from fedsim.errors import ProfileError

N = 200_000
P5_P50_P95 = (0.05, 0.5, 0.95)


@pytest.fixture(scope="module")
def mixed():
    return draw_devices("mixed_edge_2025", N, seed=0)


@pytest.fixture(scope="module")
def phones():
    return draw_devices("phones_2020", N, seed=0)


@pytest.fixture(scope="module")
def fedscale():
    return draw_devices("fedscale_like", N, seed=0)


@pytest.fixture(scope="module")
def flash():
    return draw_devices("flash_like", N, seed=0)


def gflop_per_s(population):
    return np.quantile(population.flops_per_s, P5_P50_P95) / 1e9


def mbps(bytes_per_s):
    return np.quantile(bytes_per_s, P5_P50_P95) * 8 / 1e6


# quantiles: the published figures, to 3 % of themselves -------------------------------------------------


def test_mixed_edge_2025_has_the_stated_effective_speeds(mixed):
    assert gflop_per_s(mixed) == pytest.approx([2.8, 15.7, 104], rel=0.03)


def test_phones_2020_has_the_stated_effective_speeds(phones):
    assert gflop_per_s(phones) == pytest.approx([2.1, 8.1, 30], rel=0.03)
    assert np.log(phones.flops_per_s).std() == pytest.approx(0.82, abs=0.01)


def test_the_links_of_a_population_have_the_stated_rates_over_all_clients(mixed, phones):
    for population in (mixed, phones):
        assert mbps(population.down_bytes_per_s) == pytest.approx([5, 59, 385], rel=0.03)
        assert mbps(population.up_bytes_per_s) == pytest.approx([0.9, 15, 158], rel=0.03)


def test_fedscale_like_has_26_percent_below_3_mbps_and_one_rate_for_both_directions(fedscale):
    assert np.mean(fedscale.down_bytes_per_s < 3e6 / 8) == pytest.approx(0.26, abs=0.005)
    assert mbps(fedscale.down_bytes_per_s) == pytest.approx([1.0, 6.1, 37], rel=0.03)
    assert np.array_equal(fedscale.down_bytes_per_s, fedscale.up_bytes_per_s)


def test_fedscale_like_has_the_stated_latencies_inside_their_range(fedscale):
    latency_ms = 0.6e9 / fedscale.flops_per_s * 1e3
    assert np.quantile(latency_ms, P5_P50_P95) == pytest.approx([36, 82, 167], rel=0.02)
    assert 15 <= latency_ms.min() < latency_ms.max() <= 200


def test_fedscale_like_draws_speed_and_rate_independently_and_memory_from_the_nearest_phone(fedscale):
    assert abs(spearmanr(fedscale.flops_per_s, fedscale.down_bytes_per_s)[0]) < 0.01
    table = read_devices(hetero_profiles.locate("devices.csv"))
    speed = dict(zip(table.device, table.flops_per_s, strict=True))
    used = sorted(set(fedscale.device))
    for client in range(200):
        nearest = min(used, key=lambda d: abs(np.log(speed[d] / fedscale.flops_per_s[client])))
        assert fedscale.device[client] == nearest


def test_flash_like_has_the_wifi_of_its_19_users_and_three_speeds_in_the_ratio_of_its_phones(flash):
    down, up = np.log(flash.down_bytes_per_s), np.log(flash.up_bytes_per_s)
    # kB/s, as FLASH gives them: mu 8.551, 8.040; 1 kB = 1000 bytes
    assert (down.mean(), up.mean()) == pytest.approx((8.551 + np.log(1e3), 8.040 + np.log(1e3)), abs=0.01)
    assert (down.std(), up.std()) == pytest.approx((0.471, 0.682), abs=0.005)
    assert np.corrcoef(down, up)[0, 1] == pytest.approx(0.45, abs=0.01)
    speed = {tier: set(flash.flops_per_s[flash.tier == tier]) for tier in set(flash.tier)}
    assert {tier: len(values) for tier, values in speed.items()} == dict.fromkeys(speed, 1)
    low, mid, high = (speed[tier].pop() for tier in ("phone-low", "phone-mid", "phone-high"))
    assert (high / low, high / mid) == pytest.approx((2596 / 527.7, 916 / 527.7), rel=0.01)
    assert np.mean(flash.tier == "phone-low") == pytest.approx(18820 / 35407, abs=0.005)


def test_homogeneous_clients_are_all_the_same():
    population = draw_devices("homogeneous", 1000, seed=3)
    assert all(len(set(values)) == 1 for name, values in population.columns().items() if name != "client")


def test_93_percent_of_the_mixed_population_hold_a_270m_model_in_memory(mixed):
    needed = train_memory_bytes(charged(ChargeAs(preset="gemma-3-270m"), full=False))
    assert np.mean(mixed.usable_memory_bytes >= needed) == pytest.approx(0.93, abs=0.002)


# dependence --------------------------------------------------------------------------------------------


def test_fast_devices_have_more_memory_though_nothing_says_so(mixed):
    assert spearmanr(mixed.flops_per_s, mixed.memory_bytes)[0] == pytest.approx(0.77, abs=0.01)
    for device in set(mixed.device):
        assert len(set(mixed.memory_bytes[mixed.device == device])) == 1


def test_down_and_up_are_correlated_as_each_network_states(mixed):
    table = read_networks(hetero_profiles.locate("networks.csv"))
    for name, rho in zip(table.network, table.correlation, strict=True):
        down, up = (
            np.log(rate[mixed.network == name]) for rate in (mixed.down_bytes_per_s, mixed.up_bytes_per_s)
        )
        assert np.corrcoef(down, up)[0, 1] == pytest.approx(rho, abs=0.06 if name == "5g-mmwave" else 0.02)


def test_a_row_spreads_over_its_range_as_its_p5_to_p95(mixed):
    nano = mixed.flops_per_s[mixed.device == "jetson-nano"] / 1e9  # 46, 38..53: ln(53/38) = 3.29 sigma
    assert np.log(nano).std() == pytest.approx(np.log(53 / 38) / 3.2897, rel=0.08)
    assert np.median(nano) == pytest.approx(46, rel=0.01)


def test_only_phones_are_on_cellular_networks_and_every_network_keeps_its_share(mixed):
    table = read_networks(hetero_profiles.locate("networks.csv"))
    cellular = np.isin(mixed.network.astype(str), table.network[table.cellular].astype(str))
    phone = np.char.startswith(mixed.tier.astype(str), "phone")
    assert not np.any(cellular & ~phone)
    assert cellular[phone].mean() == pytest.approx(0.385 / 0.7724, abs=0.005)
    for name, share in zip(table.network, table.shares.pick("share_mixed"), strict=True):
        assert np.mean(mixed.network == name) == pytest.approx(share, abs=0.004)


def test_wifi_only_is_the_default_with_charging_and_can_be_lifted():
    def cellular(**settings):
        config = PopulationConfig(preset="phones_2020", clients=500, **settings)
        return int(np.isin(draw(config, 0).network.astype(str), ["3g", "lte", "5g-sub6", "5g-mmwave"]).sum())

    assert cellular(availability="charging") == cellular(wifi_only=True) == 0
    assert cellular() == cellular(availability="charging", wifi_only=False) > 100


def test_framing_is_1514_bytes_on_wifi_and_1500_on_cellular(mixed):
    wifi = np.char.startswith(mixed.network.astype(str), "wifi")
    assert set(mixed.framing[wifi]) == {1514 / 1448}
    assert set(mixed.framing[~wifi]) == {1500 / 1448}


def test_units_are_si():
    lte = draw_devices("mixed_edge_2025", 3000, seed=1)
    client = int(np.flatnonzero((lte.network == "lte") & (lte.device == "phone-mid-2021"))[0])
    profile = lte.profile(client)
    assert profile.memory_bytes == 7.5e9
    assert profile.usable_memory_bytes == 0.45 * 7.5e9
    assert profile.memory_bytes_per_s == 25.6e9
    assert profile.up_radio_w == 2.89
    # 79.5 mW per Mbps: at 1 Mbps a byte takes 8 us, so 0.0795 W * 8e-6 s
    assert profile.up_radio_j_per_byte == pytest.approx(0.0795 * 8e-6)


# addressed draws ---------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9000), preset=st.sampled_from(["mixed_edge_2025", "fedscale_like"]))
def test_the_first_clients_of_a_larger_population_are_the_same_clients(n, preset):
    small, large = draw_devices(preset, n, seed=7), draw_devices(preset, 9000, seed=7)
    for name, values in small.columns().items():
        assert np.array_equal(values, large.columns()[name][:n]), name


def test_another_seed_is_another_population():
    one, two = (draw_devices("mixed_edge_2025", 100, seed=seed) for seed in (0, 1))
    assert not np.any(one.flops_per_s == two.flops_per_s)


def test_what_a_client_is_does_not_depend_on_which_networks_are_allowed():
    free, wifi = (draw_devices("mixed_edge_2025", 5000, seed=0, wifi_only=only) for only in (False, True))
    assert np.array_equal(free.flops_per_s, wifi.flops_per_s)
    fixed = ~np.char.startswith(free.tier.astype(str), "phone")
    assert np.array_equal(free.up_bytes_per_s[fixed], wifi.up_bytes_per_s[fixed])


def test_drawing_is_vectorised():
    clients = 200_000
    started = time.process_time()
    draw_devices("mixed_edge_2025", clients, seed=0)
    # A Python loop with a dozen steps a client would take several microseconds each.
    assert (time.process_time() - started) / clients < 5e-6


def test_a_profile_is_the_row_of_the_columns():
    population = draw_devices("mixed_edge_2025", 20, seed=0)
    columns = population.columns()
    assert list(columns) == [field.name for field in fields(Profile) if field.name != "law"]
    for client in range(len(population)):
        profile = population.profile(client)
        assert all(getattr(profile, name) == values[client] for name, values in columns.items())
        assert profile.law is None  # the table has speeds
    assert isinstance(profile.flops_per_s, float)
    assert not isinstance(profile.flops_per_s, np.floating)


@pytest.mark.parametrize("preset", ["mixed_edge_2025", "mixed_edge_2026"])
def test_many_profiles_at_once_are_those_of_one_after_the_other(preset):
    population = draw_devices(preset, 50, seed=0)
    clients = np.array([49, 0, 7, 7])

    assert population.profiles_of(clients) == [population.profile(client) for client in clients.tolist()]
    assert population.profiles_of(clients[:0]) == []


@pytest.mark.parametrize("client", [-1, 20])
def test_a_client_that_does_not_exist_is_an_error(client):
    with pytest.raises(IndexError, match="population of 20"):
        draw_devices("mixed_edge_2025", 20, seed=0).profile(client)


def test_the_sources_name_what_was_used_and_its_hash():
    sources = draw(PopulationConfig(preset="mixed_edge_2025", clients=3, availability="charging"), 0).sources
    assert sources["preset"] == "mixed_edge_2025"
    assert (sources["devices"], sources["networks"]) == ("devices.csv", "networks.csv")
    assert sources["availability"] == "charging"
    assert all(len(sources[f"{of}_sha256"]) == 64 for of in ("devices", "networks", "availability"))
    assert all(isinstance(value, str) for value in sources.values())


@pytest.mark.parametrize("preset", preset_names())
def test_show_has_a_row_a_tier_and_one_for_all(preset):
    table = show(preset, n=2000)
    assert table[-1]["tier"] == "all"
    assert sum(row["share"] for row in table[:-1]) == pytest.approx(1)
    assert all(row["gflop_per_s_p5"] <= row["gflop_per_s_p50"] <= row["gflop_per_s_p95"] for row in table)


# the user's own tables ---------------------------------------------------------------------------------

DEVICES = [
    {"device": "small", "class": "phone-low", "share": "3", "ram_gb": "2"},
    {"device": "large", "class": "laptop", "share": "1", "ram_gb": "16"},
]
DEVICE = {
    "eff_lora_gflop_per_s": "10",
    "eff_lora_lo_gflop_per_s": "5",
    "eff_lora_hi_gflop_per_s": "20",
    "memory_bandwidth_gb_per_s": "10",
    "train_w": "3",
    "idle_w": "0.3",
    "battery_wh": "15",
}
NETWORK = {
    "network": "home",
    "access": "wifi",
    "down_mbps": "100",
    "down_sigma_ln": "0.5",
    "up_mbps": "10",
    "up_sigma_ln": "0.5",
    "down_up_correlation": "0.5",
    "rtt_ms": "20",
    "rtt_sigma_ln": "0.3",
    "packet_bytes": "1514",
    "down_radio_w": "0.6",
    "down_radio_mw_per_mbps": "6",
    "up_radio_w": "0.7",
    "up_radio_mw_per_mbps": "9",
    "share": "1",
}


def write(path, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text("# source: made up\n" + text.getvalue())
    return path


@pytest.fixture
def files(tmp_path):
    devices = write(tmp_path / "devices.csv", [row | DEVICE for row in DEVICES])
    return devices, write(tmp_path / "networks.csv", [NETWORK])


def test_own_tables_are_drawn_by_their_share(files):
    devices, networks = files
    config = PopulationConfig(devices=devices, networks=networks, clients=4000)
    population = draw(config, 0)
    assert np.mean(population.device == "small") == pytest.approx(0.75, abs=0.02)
    assert population.sources["devices"] == str(devices)
    assert check(devices) == check(networks) == []


BROKEN_DEVICES = [
    ("ram_gb", "-4", "row 3: ram_gb: must be greater than 0 (got -4.0)"),
    ("ram_gb", "0", "row 3: ram_gb: must be greater than 0 (got 0.0)"),
    ("ram_gb", "4 GB", "row 3: ram_gb: must be a finite number (got '4 GB')"),
    ("ram_gb", "3,5", "row 3: ram_gb: must be a finite number (got '3,5')"),
    ("ram_gb", "", "row 3: ram_gb: is empty\n"),
    ("train_w", "nan", "row 3: train_w: must be a finite number (got 'nan')"),
    ("eff_lora_gflop_per_s", "inf", "row 3: eff_lora_gflop_per_s: must be a finite number (got inf)"),
    ("eff_lora_lo_gflop_per_s", "30", "eff_lora_gflop_per_s: must be at least eff_lora_lo_gflop_per_s = 30"),
    ("eff_lora_hi_gflop_per_s", "7", "eff_lora_hi_gflop_per_s: must be at least eff_lora_gflop_per_s = 10"),
    ("idle_w", "9", "row 3: train_w: must be at least idle_w = 9 (got 3.0)"),
    ("battery_wh", "-1", "row 3: battery_wh: must be at least 0 (got -1.0)"),
    ("class", "phone", "row 3: class: no such class (got 'phone')"),
    ("device", "large", "row 4: device: is already in row 3 (got 'large')"),
    ("device", "", "row 3: device: is empty\n"),
    ("share", "-1", "row 3: share: must be at least 0 (got -1.0)"),
]
BROKEN_NETWORKS = [
    ("down_mbps", "-5", "row 3: down_mbps: must be greater than 0 (got -5.0)"),
    ("up_mbps", "0", "row 3: up_mbps: must be greater than 0 (got 0.0)"),
    ("rtt_ms", "soon", "row 3: rtt_ms: must be a finite number (got 'soon')"),
    ("down_up_correlation", "1.2", "row 3: down_up_correlation: must be at most 1 (got 1.2)"),
    ("up_sigma_ln", "-0.1", "row 3: up_sigma_ln: must be at least 0 (got -0.1)"),
    ("packet_bytes", "1.5", "row 3: packet_bytes: must be at least 1448 (got 1.5)"),
    ("access", "lte", "row 3: access: no such access (got 'lte')"),
]


@pytest.mark.parametrize(("column", "value", "said"), BROKEN_DEVICES)
def test_a_broken_device_cell_is_named_by_row_and_column(tmp_path, column, value, said):
    path = write(tmp_path / "d.csv", [DEVICE | DEVICES[0] | {column: value}, DEVICE | DEVICES[1]])
    with pytest.raises(ProfileError) as caught:
        read_devices(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path} row ")
    assert "\n  fix: " in str(caught.value)
    assert str(caught.value) == check(path)[0]


@pytest.mark.parametrize(("column", "value", "said"), BROKEN_NETWORKS)
def test_a_broken_network_cell_is_named_by_row_and_column(tmp_path, column, value, said):
    path = write(tmp_path / "n.csv", [NETWORK | {column: value}])
    with pytest.raises(ProfileError) as caught:
        read_networks(path)
    assert said in str(caught.value)
    assert "\n  fix: " in str(caught.value)
    assert str(caught.value) == check(path)[0]


@pytest.mark.parametrize("column", [name for name in (DEVICE | DEVICES[0]) if name != "share"])
def test_a_missing_device_column_is_named(tmp_path, column):
    rows = [{name: value for name, value in (row | DEVICE).items() if name != column} for row in DEVICES]
    path = write(tmp_path / "d.csv", rows)
    assert check(path)[0].startswith(f"{path}: {column}: the column is missing")


@pytest.mark.parametrize("column", list(NETWORK))
def test_a_missing_network_column_is_named(tmp_path, column):
    path = write(tmp_path / "n.csv", [{name: value for name, value in NETWORK.items() if name != column}])
    assert check(path)[0].startswith(f"{path}: {column}: the column is missing")


def test_a_misspelt_column_is_recognised(tmp_path):
    rows = [
        {("ram" if name == "ram_gb" else name): v for name, v in (row | DEVICE).items()} for row in DEVICES
    ]
    assert "rename 'ram' if that is it" in check(write(tmp_path / "d.csv", rows))[0]


def test_check_lists_every_problem_and_not_only_the_first(tmp_path):
    path = write(
        tmp_path / "d.csv", [DEVICE | DEVICES[0] | {"ram_gb": "x", "train_w": "-1"}, DEVICES[1] | DEVICE]
    )
    assert [problem.splitlines()[0] for problem in check(path)] == [
        f"{path} row 3: ram_gb: must be a finite number (got 'x')",
        f"{path} row 3: train_w: must be greater than 0 (got -1.0)",
        f"{path} row 3: train_w: must be at least idle_w = 0.3 (got -1.0)",
    ]


FILES = {
    "empty": (b"", "has no rows"),
    "header only": (b"device,class\n", "has no rows"),
    "comments only": (b"# source: x\n# licence: y\n", "has no rows"),
    "ragged": (b"device,class\na,b,c\n", "row 2: needs 2 cells (got 3)"),
    "semicolons": (b"device;class;ram_gb\na;b;1\n", "cells are not separated by commas"),
    "two columns of one name": (b"device,class,class\na,b,c\n", "two columns have one name (got 'class')"),
    "not text": (b"\xff\xfe\x00\x01", "is not UTF-8 text"),
    "something else": (b"x,y\n1,2\n", "is neither a device, nor a network, nor an availability table"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_table_is_said_so(tmp_path, kind):
    path = tmp_path / "table.csv"
    path.write_bytes(FILES[kind][0])
    assert FILES[kind][1] in check(path)[0]
    assert "\n  fix: " in check(path)[0]


def test_a_file_that_is_missing_or_of_another_kind_is_said_so(tmp_path):
    assert "no such file" in check(tmp_path / "none.csv")[0]
    (tmp_path / "devices.xlsx").write_bytes(b"x")
    assert "not a table (got '.xlsx')" in check(tmp_path / "devices.xlsx")[0]
    (tmp_path / "devices.parquet").write_bytes(b"not parquet")
    assert "is not a Parquet file" in check(tmp_path / "devices.parquet")[0]


def test_shares_must_be_there_unambiguous_and_not_all_zero(tmp_path, files):
    _, networks = files
    row = DEVICE | DEVICES[0]
    zero = write(tmp_path / "zero.csv", [row | {"share": "0"}])
    assert "share: all shares are 0" in check(zero)[0]
    two = write(
        tmp_path / "two.csv", [{k: v for k, v in row.items() if k != "share"} | {"share_a": 1, "share_b": 1}]
    )
    with pytest.raises(ProfileError, match="several share columns"):
        draw(PopulationConfig(devices=two, networks=networks, clients=1), 0)


def test_clients_that_need_wifi_and_find_none_are_an_error(tmp_path, files):
    devices, _ = files
    cellular = write(tmp_path / "lte.csv", [NETWORK | {"access": "cellular"}])
    with pytest.raises(ProfileError, match="every network is cellular"):
        draw(PopulationConfig(devices=devices, networks=cellular, clients=1), 0)


@pytest.mark.parametrize(
    ("name", "hint"), [("mixed_edge_202", "did you mean 'mixed_edge_202"), ("x", "one of")]
)
def test_an_unknown_preset_is_an_error_that_names_the_nearest(name, hint):
    with pytest.raises(ProfileError, match="no such preset") as caught:
        draw_devices(name, 1, seed=0)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [("chargin", "did you mean 'charging'?"), ("nights.csv", "the file of a table with client")],
)
def test_an_availability_that_is_neither_a_word_nor_a_file_is_an_error(value, hint):
    with pytest.raises(ProfileError, match=r"population\.availability: no such file") as caught:
        draw(PopulationConfig(preset="homogeneous", clients=1, availability=value), 0)
    assert hint in str(caught.value)


def test_any_mixture_of_broken_cells_is_answered_and_never_crashes(tmp_path):
    odd = ("", "-1", "0", "nan", "1e999", "x", "é", '"', "1,2")
    for k, (value, column) in enumerate(
        itertools.product(odd, ("device", "class", "ram_gb", "idle_w", "share"))
    ):
        path = write(tmp_path / f"{k}.csv", [DEVICE | DEVICES[0] | {column: value}, DEVICE | DEVICES[1]])
        problems = check(path)
        assert all("row 3" in problem for problem in problems)
        assert problems or column == "device" or value == "0"
