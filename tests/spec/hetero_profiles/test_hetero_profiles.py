"""The data package: every table passes its own check, states its source and licence, and needs nothing but Python."""

from __future__ import annotations

import ast
import csv

import pytest
import yaml

import hetero_profiles
from fedsim.devices.presets import preset_names
from fedsim.devices.table_checks import check

TABLES = [name for name in hetero_profiles.names() if name.endswith(".csv")]


def rows(name):
    lines = hetero_profiles.locate(name).read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def facts(name):
    lines = hetero_profiles.locate(name).read_text("utf-8").splitlines()
    return dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))


def test_the_package_offers_devices_networks_charging_and_ten_presets():
    assert {"devices.csv", "networks.csv", "charging.yaml"} <= set(hetero_profiles.names())
    assert preset_names() == [
        *("europe_2026", "fedscale_like", "flash_like", "homogeneous", "india_2026", "mixed_edge_2025"),
        *("mixed_edge_2026", "north_america_2026", "phones_2020", "world_2026"),
    ]


def test_every_name_can_be_located():
    assert all(hetero_profiles.locate(name).is_file() for name in hetero_profiles.names())


@pytest.mark.parametrize("name", ["device.csv", "../pyproject.toml", "presets", ""])
def test_a_name_that_is_not_there_is_an_error_that_lists_what_is(name):
    with pytest.raises(FileNotFoundError, match=r"charging\.yaml, devices\.csv, .*networks\.csv"):
        hetero_profiles.locate(name)


def test_the_package_needs_the_standard_library_only():
    tree = ast.parse(hetero_profiles.locate("devices.csv").with_name("__init__.py").read_text("utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "pathlib"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_passes_its_own_check_and_states_source_and_licence(name):
    assert check(hetero_profiles.locate(name)) == []
    assert facts(name)["source"]
    assert facts(name)["licence"].startswith("Apache-2.0")
    for row in rows(name):
        assert any(cell for column, cell in row.items() if column == "source" or column.endswith("_source"))


@pytest.mark.parametrize("name", [n for n in hetero_profiles.names() if n.endswith(".yaml")])
def test_every_yaml_file_states_what_it_is_its_source_and_its_licence(name):
    values = yaml.safe_load(hetero_profiles.locate(name).read_text("utf-8"))
    assert values["about"]
    assert values["source"]
    assert values["licence"].startswith("Apache-2.0")


def test_every_file_is_in_the_readme():
    readme = hetero_profiles.locate("devices.csv").with_name("README.md").read_text("utf-8")
    for name in hetero_profiles.names():
        assert f"`{'presets/*.yaml' if name.startswith('presets/') else name}`" in readme
    for preset in preset_names():
        assert f"`{preset}`" in readme


def test_the_devices_reach_from_microcontrollers_to_desktops():
    devices = rows("devices.csv")
    assert len(devices) == 40
    assert {"mcu", "iot", "sbc", "jetson", "phone-low", "phone-mid", "phone-high", "tablet", "laptop"} <= {
        row["class"] for row in devices
    }
    assert len(rows("networks.csv")) == 8


@pytest.mark.parametrize(
    ("classes", "percent"),
    [
        (("phone-low",), 31),
        (("phone-mid",), 31),
        (("phone-high",), 15),
        (("tablet",), 4.5),
        (("sbc",), 4.5),
        (("jetson",), 2.7),
        (("laptop", "laptop-dgpu"), 10.7),
    ],
)
def test_the_mixed_population_has_the_shares_it_is_said_to_have(classes, percent):
    share = sum(float(row["share_mixed"]) for row in rows("devices.csv") if row["class"] in classes)
    assert 100 * share == pytest.approx(percent, abs=0.55)


def test_phones_2020_has_the_class_weights_of_flash():
    share = {"phone-low": 0.0, "phone-mid": 0.0, "phone-high": 0.0}
    for row in rows("devices.csv"):
        if float(row["share_phones2020"]):
            share[row["class"]] += float(row["share_phones2020"])
    assert share == pytest.approx({"phone-low": 0.532, "phone-mid": 0.464, "phone-high": 0.004})


def test_microcontrollers_and_gateways_have_no_share_anywhere():
    for row in rows("devices.csv"):
        if row["class"] in ("mcu", "iot"):
            assert float(row["share_mixed"]) == float(row["share_phones2020"]) == 0
