"""What an experiment has come to is said once and shown alike: the clients drawn, who is online, what follows from other keys."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from worlds import plan, windows

import fedsim
from fedsim.checks.gate import prepared
from fedsim.checks.resolved import resolved
from fedsim.cli.app import call
from fedsim.records.resolved import Drawn, Followed, Resolved
from fedsim.report.setup import section

BLOCKS = {
    "name": "own",
    "population": {"preset": "mixed_edge_2025", "clients": 60},
    "task": {"kind": "quadratic", "layout": "lora"},
    "local": {"optimizer": "sgd", "steps": 1},
    "protocol": {"kind": "synchronous", "cohort": 3},
    "budget": {"time_s": 20},
    "runtime": {"executor": "inline"},
}


def of(**blocks):
    return resolved(prepared(fedsim.Experiment.model_validate({**BLOCKS, **blocks})))


def value_of(facts, key):
    return next((followed.value for followed in facts.followed if followed.key == key), None)


def test_clients_are_counted_by_class_and_network():
    made = prepared(fedsim.Experiment.model_validate(BLOCKS))
    facts = resolved(made)
    pairs = list(zip(made.population.tier.tolist(), made.population.network.tolist(), strict=True))

    assert {(g.tier, g.network): g.clients for g in facts.drawn} == {
        pair: pairs.count(pair) for pair in pairs
    }
    assert facts.clients == 60


def test_the_share_online_is_that_of_the_windows():
    online = [[(0.0, 50.0)], [(10.0, 20.0)], [(0.0, 100.0)], [(90.0, 100.0)]]
    facts = resolved(plan({"kind": "synchronous", "cohort": 1}, [1.0] * 4, online=online))

    assert facts.online_at_start == 0.5
    assert facts.online_mean == pytest.approx((0.5 + 0.1 + 1.0 + 0.1) / 4)
    assert facts.online == "50.0 % of the clients at the start, 42.5 % on average"
    assert windows(online).online(0.0).tolist() == [True, False, True, False]


def test_those_who_are_always_there_are_said_to_be():
    assert of().online == "everybody, always"


@pytest.mark.parametrize(("availability", "value"), [("charging", "true"), ("always", "false")])
def test_wifi_only_follows_from_the_availability_and_is_said(availability, value):
    facts = of(population={**BLOCKS["population"], "availability": availability})

    assert value_of(facts, "population.wifi_only") == value
    cellular = {g.network for g in facts.drawn if "lte" in g.network or "5g" in g.network}
    assert bool(cellular) == (value == "false")


def test_what_is_given_does_not_follow():
    facts = of(population={**BLOCKS["population"], "availability": "charging", "wifi_only": False})

    assert value_of(facts, "population.wifi_only") is None


@pytest.mark.parametrize(
    ("blocks", "key", "value"),
    [
        ({"lora": {"r": 8, "rank_by": "memory"}}, "lora.ranks", "[1, 2, 4, 8]"),
        ({}, "lora.targets", "1 layers"),
        ({"protocol": {"kind": "synchronous", "cohort": 12}}, "numerics.client_batch", "3"),
        ({"protocol": {"kind": "buffered"}}, "aggregator.normalize", "K"),
        ({}, "aggregator.normalize", "weights"),
        ({}, "aggregator.weight", "examples"),
        ({"aggregator": {"kind": "fedit", "normalize": "none"}}, "aggregator.normalize", None),
        ({"numerics": {"client_batch": 2}}, "numerics.client_batch", None),
        ({"seed": 7, "seeds": {"data": 1}}, "seeds.training", "7"),
        ({"seed": 7, "seeds": {"data": 1}}, "seeds.data", None),
        ({"seed": 7}, "seeds.data", None),
        ({"personal": {"kind": "fine-tune"}}, "personal.lr", "0.001"),
        ({"energy": {"battery": {}}}, "energy.battery.capacity_wh", "battery_wh of each device's row"),
    ],
)
def test_settings_that_are_left_open_are_said_with_what_they_have_come_to(blocks, key, value):
    assert value_of(of(**blocks), key) == value


FACTS = Resolved(
    (Drawn("phone-low", "lte", 3), Drawn("phone-low", "wifi", 1), Drawn("laptop", "wifi", 2)),
    0.5,
    0.25,
    (Followed("population.wifi_only", "true", "because population.availability is charging"),),
)


def test_the_lines_and_the_table_say_the_same():
    assert FACTS.lines() == [
        "drawn: phone-low 4 (lte 3, wifi 1), laptop 2 (wifi 2)",
        "online: 50.0 % of the clients at the start, 25.0 % on average",
        "set by other keys: population.wifi_only: true (because population.availability is charging)",
    ]
    assert FACTS.table() == [
        {"drawn": "phone-low", "clients": "4", "lte": "3", "wifi": "1"},
        {"drawn": "laptop", "clients": "2", "lte": "0", "wifi": "2"},
        {"drawn": "all", "clients": "6", "lte": "3", "wifi": "3"},
    ]


def test_it_is_said_at_the_start_in_a_dry_run_in_the_run_folder_and_in_the_report(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own.yaml"
    file.write_text(
        yaml.safe_dump(BLOCKS | {"population": {**BLOCKS["population"], "availability": "charging"}})
    )
    facts = resolved(prepared(fedsim.read(file)))

    assert call(["run", str(file), "--dry-run", "--timeline-only"]) == 0
    printed = capsys.readouterr().out
    assert call(["run", str(file), "--timeline-only", "--out", "run"]) == 0
    started = capsys.readouterr().err
    stored = json.loads((tmp_path / "run" / "run.json").read_text())["resolved"]
    loaded = fedsim.load(tmp_path / "run")
    setup = section(loaded)

    assert loaded.info.resolved == facts
    assert sum(group["clients"] for group in stored["drawn"]) == 60
    for line in facts.lines():
        assert line in started
    assert f"online: {facts.online}" in printed
    assert "population.wifi_only: true (because population.availability is charging)" in printed
    cells = [cell for table in setup.tables for row in table.rows for cell in row]
    assert facts.online in cells
    assert any("population.wifi_only: true" in cell for cell in cells)
    assert [table.rows for table in setup.tables if table.caption == "Clients that were drawn"] == [
        [[*row.values()] for row in facts.table()]
    ]


def test_a_run_of_before_says_nothing_and_is_still_shown():
    from worlds.small_runs import small

    assert small().info.resolved is None
    assert section(small()).tables


# exact shares -----------------------------------------------------------------------------------

EXACT = {"preset": "mixed_edge_2025", "clients": 200, "shares": "exact"}


def counts(population, name):
    values, numbers = np.unique(population.columns()[name].astype(str), return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_exact_shares_are_the_same_with_every_seed_and_who_has_which_is_not(seed):
    first, other = (
        prepared(fedsim.Experiment.model_validate({**BLOCKS, "seed": s, "population": EXACT})).population
        for s in (99, seed)
    )

    for name in ("tier", "device", "network"):
        assert counts(first, name) == counts(other, name)
    assert first.device.tolist() != other.device.tolist()
    assert other.sources["shares"] == "exact"


def test_what_the_task_says_of_its_data_is_said_at_the_start_and_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text("a line of text that is long enough\n" * 400)
    (tmp_path / "data" / "notes.pdf").write_bytes(b"%PDF")
    blocks = {**BLOCKS, "population": {"preset": "homogeneous", "clients": 3}, "local": {"steps": 1}}
    blocks |= {"task": {"kind": "language", "data": "data", "sequence": 16}, "budget": {"commits": 1}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(blocks))
    notices = (
        "1 file left out (no text or table that can be read): notes.pdf",
        "no test text was given: the last tenth is held out, and nobody trains on it",
    )

    assert of(**blocks).notices == notices
    assert call(["run", "own.yaml", "--timeline-only", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert all(f"note: {notice}\n" in said for notice in notices)
    assert call(["run", "own.yaml", "--timeline-only"]) == 0
    said = capsys.readouterr().err
    assert all(f"note: {notice}" in said for notice in notices)
    assert fedsim.load("runs/own").info.resolved.notices == notices
