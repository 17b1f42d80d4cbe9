"""Regions: sampled shares are those that are cited, shares are of what they are said to be of, and broken tables are named by row."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import hetero_profiles
from fedsim.config.population import PopulationConfig
from fedsim.devices.draws import allot_down
from fedsim.devices.people.places import carried_by
from fedsim.devices.people.region_rows import LEAVES, TREE
from fedsim.devices.people.regions import read_region
from fedsim.devices.population import draw, draw_devices
from fedsim.devices.presets import recipe_of_preset
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_devices, read_networks
from fedsim.errors import ProfileError
from fedsim.records.resolved import tables_of

N = 60_000
REGIONS = ("world", "north_america", "india", "europe")
TABLE = hetero_profiles.locate("regions_2026.csv")


@pytest.fixture(scope="module")
def drawn():
    return {name: draw_devices(f"{name}_2026", N, seed=0) for name in REGIONS}


@pytest.fixture(params=REGIONS)
def region(request, drawn):
    return request.param, drawn[request.param]


def rows():
    lines = (line for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#"))
    return list(csv.DictReader(lines))


def systems(population):
    return population.hardware.table.os[population.hardware.row].astype(str)


def on_cellular(population):
    return ~population.unmetered  # a network is metered where it is cellular


# what is sampled is what is cited ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cited"),
    [("world", 0.25), ("north_america", 0.51), ("india", 0.10), ("europe", 0.33)],
)
def test_iphones_are_the_share_of_phones_that_is_cited(drawn, name, cited):
    phones = carried_by(drawn[name].tier)
    assert np.mean(systems(drawn[name])[phones] == "ios") == pytest.approx(cited, abs=0.009)


@pytest.mark.parametrize(
    ("name", "cited"),
    [("world", 0.50), ("north_america", 0.58), ("india", 0.10), ("europe", 0.61)],
)
def test_phones_are_on_wifi_for_the_share_that_is_cited(drawn, name, cited):
    phones = carried_by(drawn[name].tier)
    assert np.mean(~on_cellular(drawn[name])[phones]) == pytest.approx(cited, abs=0.009)


def test_the_world_has_the_phones_tablets_and_computers_that_are_counted(drawn):
    tier = drawn["world"].tier.astype(str)
    counted = np.array([5285, 590, 1400 + 267], dtype=float)
    sampled = [
        carried_by(tier).mean(),
        np.mean(tier == "tablet"),
        np.isin(tier, ("laptop", "laptop-dgpu", "desktop")).mean(),
    ]
    assert sampled == pytest.approx(counted / counted.sum(), abs=0.005)


def test_phones_in_use_have_less_memory_than_phones_sold_and_iphones_more_than_others(drawn):
    phones, ios = carried_by(drawn["world"].tier), systems(drawn["world"]) == "ios"
    memory_gb = drawn["world"].memory_bytes / 1e9
    assert 5.5 < memory_gb[phones].mean() < 7.4  # sold in 2024-12: Counterpoint
    assert memory_gb[phones & ios].mean() > memory_gb[phones & ~ios].mean() + 1


def test_macs_beside_windows_are_as_page_views_have_them(drawn):
    for name, mac, windows in (("world", 13.66, 71.72), ("north_america", 31.34, 53.43)):
        computers = np.isin(drawn[name].tier.astype(str), ("laptop", "laptop-dgpu", "desktop"))
        macs = np.mean(systems(drawn[name])[computers] == "macos")
        assert macs == pytest.approx(mac / (mac + windows), abs=0.01)


def test_every_share_of_the_table_comes_out_when_it_is_sampled(region):
    name, population = region
    tier, os = population.tier.astype(str), systems(population)
    is_a = {
        group: np.isin(tier, classes) & np.isin(os, systems_) for group, (classes, systems_) in LEAVES.items()
    }
    for whole in ("computer", "tablet", "android-phone", "phone", "devices"):
        is_a[whole] = np.logical_or.reduce([is_a[part] for part in TREE[whole]])
    is_a |= {"phone-link": is_a["phone"], "cellular": on_cellular(population)}
    is_a["wifi"] = ~is_a["cellular"]
    for row in rows():
        if row["region"] == name and row["of"] != "phone-link":
            whole = is_a[row["of"]]
            part = is_a.get(row["group"], population.network == row["group"])
            sigma = np.sqrt(0.25 / whole.sum())
            assert np.mean(part[whole]) == pytest.approx(float(row["share"]), abs=0.001 + 4 * sigma), row


def test_no_tablet_or_computer_is_on_a_cellular_network(region):
    _, population = region
    assert not np.any(on_cellular(population) & ~carried_by(population.tier))


@pytest.mark.parametrize("name", REGIONS)
def test_every_share_says_where_it_is_from(name):
    for row in rows():
        assert row["source"]
        assert row["kind"] in ("assumed", "derived", "second-hand", "read")
        assert row["url"].startswith("http") or row["kind"] in ("assumed", "derived")
        assert row["dated"]


def test_inside_a_group_devices_have_the_shares_of_their_own_table():
    recipe = recipe_of_preset("india_2026")
    mid = recipe.devices.tier == "phone-mid"
    own = recipe.devices.shares.pick(None)[mid]
    assert recipe.device_weight[mid] == pytest.approx(0.9 * 0.9 * 0.41 * own / own.sum())
    assert recipe.device_weight.sum() == pytest.approx(1)
    assert recipe.network_weight.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", REGIONS)
def test_exact_shares_of_every_group_are_those_of_the_region_to_within_a_client(name):
    """Where groups lie across classes, too: iPhones among phones of the high class, Macs among laptops and desktops."""
    shares = {(row["of"], row["group"]): float(row["share"]) for row in rows() if row["region"] == name}
    recipe = recipe_of_preset(f"{name}_2026")
    tier, os = recipe.devices.tier.astype(str), recipe.devices.hardware.os.astype(str)

    def of(whole):
        """Yield every group below one, with its share of all clients."""
        for part in TREE[whole]:
            yield part, shares[whole, part]
            if part in TREE:
                yield from ((below, share * shares[whole, part]) for below, share in of(part))

    def members(group):
        if group in TREE:
            return np.logical_or.reduce([members(part) for part in TREE[group]])
        return np.isin(tier, LEAVES[group][0]) & np.isin(os, LEAVES[group][1])

    groups = [(members(group), share) for group, share in of("devices")]
    for n in (1, 3, 20, 24, 385, 393):
        drawn = allot_down(recipe.device_weight, np.linspace(0, 1, n, endpoint=False), recipe.device_groups)
        counts = np.bincount(drawn, minlength=len(tier))
        for who, share in groups:
            assert abs(counts[who].sum() - n * share) < 1


def test_exact_phones_are_on_wifi_for_their_share_to_within_a_client():
    config = PopulationConfig(preset="north_america_2026", clients=1000, shares="exact")
    population = draw_devices(config, 1000, seed=3)
    phones = carried_by(population.tier)
    assert np.sum(phones) == 433
    assert np.sum(on_cellular(population)[phones]) == pytest.approx(433 * 0.42, abs=1)


# a table of one's own -----------------------------------------------------------------------------


def brazil(tmp_path, region="brazil"):
    """The world with iPhones at 60 % of phones, under another name."""
    table = changed("phone", "iphone", share="0.6")
    table = [
        row | {"share": "0.4"} if (row["of"], row["group"]) == ("phone", "android-phone") else row
        for row in table
    ]
    return write(tmp_path / "mine.csv", [row | {"region": region} for row in table])


def iphones(population):
    phones = carried_by(population.tier)
    return np.mean(systems(population)[phones] == "ios")


@pytest.mark.parametrize("region", ["brazil", "world"])
def test_a_preset_of_a_region_takes_the_shares_of_ones_own_table(tmp_path, region):
    asked = {} if region == "world" else {"region": "brazil"}  # else that of the preset
    path = brazil(tmp_path, region)
    config = PopulationConfig(preset="world_2026", clients=2000, regions=path, **asked)
    population = draw(config, 0)
    assert iphones(population) == pytest.approx(0.6, abs=0.05)
    assert (population.sources["region"], population.sources["regions"]) == (region, str(path))
    tables = {table.role: table for table in tables_of(population.sources)}
    assert tables["regions"].sha256 == read_region(path).sha256
    assert (tables["regions"].year, tables["devices"].year) == ("", "2026")


def test_the_same_shares_draw_the_same_clients(tmp_path):
    path = write(tmp_path / "same.csv", WORLD)
    of_preset = draw_devices("world_2026", 500, seed=1)
    of_table = draw_devices(PopulationConfig(preset="world_2026", clients=500, regions=path), 500, seed=1)
    for name, values in of_preset.columns().items():
        assert np.array_equal(values, of_table.columns()[name]), name


def test_own_tables_of_devices_and_networks_take_them_too(tmp_path):
    tables = {
        "devices": hetero_profiles.locate("devices_2026.csv"),
        "networks": hetero_profiles.locate("networks_2026.csv"),
        "regions": brazil(tmp_path),
    }
    assert iphones(draw(PopulationConfig(**tables, clients=2000), 0)) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"preset": "mixed_edge_2026"}, "has no meaning for a preset of no region"),
        ({"preset": "india_2026"}, r"no such region \(got 'india'\)"),
        ({"preset": "world_2026", "region": "brasil"}, "did you mean 'brazil'"),
    ],
)
def test_regions_that_do_not_fit_are_refused(tmp_path, asked, said):
    with pytest.raises(ProfileError, match=said):
        draw(PopulationConfig(**asked, clients=5, regions=brazil(tmp_path)), 0)
    with pytest.raises(ValueError, match="has `region` without `regions`"):
        PopulationConfig(preset="world_2026", clients=5, region="india")


def test_of_a_table_of_several_regions_one_is_named(tmp_path):
    two = write(tmp_path / "two.csv", [*WORLD, *[row | {"region": "mars"} for row in WORLD]])
    with pytest.raises(ProfileError, match=r"has several regions .*\n  fix: name one .*world, mars"):
        read_region(two)


def test_a_region_without_phones_needs_no_row_that_says_none(tmp_path):
    table = [row for row in WORLD if row["of"] not in ("devices", "phone-link")]
    cells = {"region": "world", "kind": "assumed", "source": "an office", "share": "1"}
    table += [cells | {"of": "devices", "group": "computer"}, cells | {"of": "phone-link", "group": "wifi"}]
    config = PopulationConfig(
        preset="world_2026", clients=50, regions=write(tmp_path / "o.csv", table), shares="exact"
    )
    population = draw(config, 0)
    assert set(population.tier) <= {"laptop", "laptop-dgpu", "desktop"}
    assert np.all(population.unmetered)
    with pytest.raises(
        ProfileError, match="by-place needs a cellular network with a share, and none has one"
    ):
        draw(config.model_copy(update={"links": "by-place"}), 0)


@pytest.mark.parametrize("n", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_clients_are_drawn_by_blocks_and_never_one_by_one(monkeypatch, n):
    calls = []

    def counted(*address):
        calls.append(address)
        return np.random.default_rng(len(calls))

    monkeypatch.setattr("fedsim.devices.draws.stream", counted)
    monkeypatch.setattr("fedsim.devices.stacks.software.stream", counted)
    population = draw_devices("world_2026", n, seed=0)
    assert len(population) == n
    assert len(calls) <= 2 * -(-n // 4096)


# broken tables -----------------------------------------------------------------------------------

WORLD = [{key: row[key] for key in ("region", "of", "group", "share", "kind", "source")} for row in rows()]
WORLD = [row for row in WORLD if row["region"] == "world"]


def write(path, table):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    path.write_text(text.getvalue())
    return path


def changed(whole, part, **cells):
    return [row | cells if (row["of"], row["group"]) == (whole, part) else row for row in WORLD]


BROKEN = {
    "a sum of 0.9": (
        changed("phone", "iphone", share="0.15"),
        "share: the shares of phone in world must sum",
    ),
    "a share above 1": (changed("phone", "iphone", share="1.25"), "share: must be at most 1 (got 1.25)"),
    "a negative share": (changed("phone", "iphone", share="-0.1"), "share: must be at least 0"),
    "no number": (changed("phone", "iphone", share="25 %"), "share: must be a finite number (got '25 %')"),
    "an unknown whole": (changed("phone", "iphone", of="phones"), "of: no such of (got 'phones')"),
    "a part of another whole": (changed("phone", "iphone", group="ipad"), "group: is no part of phone"),
    "the same twice": ([*WORLD, WORLD[0]], "group: is already in row 2 (got 'phone')"),
    "an unknown kind": (changed("phone", "iphone", kind="guess"), "kind: no such kind (got 'guess')"),
    "no source": (changed("phone", "iphone", source=""), "source: is empty"),
    "a whole that is missing": (
        [row for row in WORLD if row["of"] != "computer"],
        "of: region world does not say how computer are divided",
    ),
    "no column of shares": (
        [{key: cell for key, cell in row.items() if key != "share"} for row in WORLD],
        "share: the column is missing",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_of_regions_is_named_by_row_and_column_and_explained(tmp_path, name):
    table, said = BROKEN[name]
    path = write(tmp_path / "regions.csv", table)
    with pytest.raises(ProfileError) as caught:
        read_region(path, "world")
    assert said in str(caught.value)
    assert "\n  fix: " in str(caught.value)
    assert str(caught.value) == check(path)[0]


def test_a_sound_table_passes_and_an_unknown_region_is_said_with_those_there_are(tmp_path):
    path = write(tmp_path / "regions.csv", WORLD)
    assert check(path) == []
    with pytest.raises(ProfileError, match=r"no such region .*wrld") as caught:
        read_region(path, "wrld")
    assert "did you mean 'world'?" in str(caught.value)


def test_a_region_needs_devices_of_all_its_groups_and_networks_of_its_table(tmp_path):
    devices = read_devices(hetero_profiles.locate("devices_2026.csv"))
    networks = read_networks(hetero_profiles.locate("networks.csv"))
    old = read_devices(hetero_profiles.locate("devices.csv"))
    with pytest.raises(ProfileError, match="needs a table that says what devices run"):
        read_region(TABLE, "world").device_weights(old)
    names = write(tmp_path / "a.csv", changed("cellular", "lte", group="lte-advanced"))
    with pytest.raises(ProfileError, match=r"no such network .*lte-advanced"):
        read_region(names, "world").network_weights(networks)
    kinds = write(tmp_path / "b.csv", changed("cellular", "3g", group="wifi-dsl"))
    with pytest.raises(ProfileError, match="is not a network of cellular"):
        read_region(kinds, "world").network_weights(networks)
    text = hetero_profiles.locate("devices_2026.csv").read_text("utf-8").splitlines()
    (tmp_path / "d.csv").write_text("\n".join(line for line in text if ",macos," not in line))
    with pytest.raises(ProfileError, match="has mac, and no device is one"):
        read_region(TABLE, "world").device_weights(read_devices(tmp_path / "d.csv"))
    assert read_region(TABLE, "world").device_weights(devices).sum() == pytest.approx(1)
