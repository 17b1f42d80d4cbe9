"""Who shares a link: homes, cells and regions as they are drawn, and transfers that meet on them."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import simpy

import hetero_profiles
from fedsim.config.experiment import Experiment
from fedsim.config.population import PopulationConfig
from fedsim.devices.groups.members import ALONE, grouped, poisson
from fedsim.devices.population import draw, draw_devices
from fedsim.devices.table_checks import check
from fedsim.errors import ProfileError
from fedsim.network.base import MBPS
from fedsim.network.shared import FluidNetwork
from fedsim.network.sharing.max_min_tree import Bottleneck
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

REGIONS = {"regions": 4, "down_mbps": 50.0, "up_mbps": 20.0}


def population(n=2000, seed=1, **shared):
    """The first clients of a mixed population that shares these links."""
    config = PopulationConfig(preset="mixed_edge_2026", clients=n, shared_links=shared or None)
    return draw_devices(config, n, seed)


def layer(drawn, kind):
    return next(layer for layer in drawn.groups.layers if layer.kind == kind)


# who ------------------------------------------------------------------------------------------------


def test_groups_have_as_many_clients_as_asked_for_by_one_plus_poisson():
    """P(one alone) = exp(-1), P(two) = exp(-1), P(three) = exp(-1) / 2 for a mean of two."""
    kind, names = np.zeros(40_000, dtype=np.int64), np.array(["a"], dtype=object)
    group, names = grouped(kind, names, np.ones(40_000, dtype=bool), 2.0, 5, "homes")
    sizes = np.bincount(group)[:-1]  # the last may be cut off
    assert len(names) == group.max() + 1
    assert sizes.mean() == pytest.approx(2.0, abs=0.03)
    shares = np.bincount(sizes)[:4] / len(sizes)
    assert shares == pytest.approx([0, np.exp(-1), np.exp(-1), np.exp(-1) / 2], abs=0.012)


def test_poisson_is_sure_in_the_end_and_of_mean_nought_at_once():
    assert poisson(0.0).tolist() == [1.0]
    assert all(poisson(mean)[-1] == pytest.approx(1.0, abs=1e-12) for mean in (0.5, 30.0, 499.0))


def test_whose_home_a_client_is_in_does_not_depend_on_how_many_there_are():
    small, large = (population(n, homes={"clients": 3.0}, cells={}) for n in (700, 2000))
    for client in range(690):  # the last homes may be cut off
        assert small.groups.path(client, "up")[0].name == large.groups.path(client, "up")[0].name
    assert small.down_bytes_per_s[:600].tolist() == large.down_bytes_per_s[:600].tolist()


def test_a_home_is_of_one_row_of_the_table_and_has_the_line_of_its_first_client():
    alone, shared = population(), population(homes={"clients": 3.0})
    homes = layer(shared, "home")
    cellular = np.isin(shared.network.astype(str), ["3g", "lte", "5g-sub6", "5g-mmwave"])
    assert ((homes.group == ALONE) == cellular).all()
    for home in range(50):
        members = np.flatnonzero(homes.group == home)
        assert len(set(shared.network[members])) == 1
        line = homes.bytes_per_s["down"][home]
        assert (shared.down_bytes_per_s[members] <= line).all()
        assert alone.down_bytes_per_s[members[0]] == shared.down_bytes_per_s[members[0]]
    assert shared.down_bytes_per_s[cellular].tolist() == alone.down_bytes_per_s[cellular].tolist()


def test_a_client_is_as_fast_as_the_slower_of_its_hop_and_its_line(tmp_path):
    """Without spread, a hop of 30 before lines of 100 down and 10 up."""
    row = written(tmp_path, hop_mbps=30, hop_sigma_ln=0, down_sigma_ln=0, up_sigma_ln=0)
    drawn = draw_devices(PopulationConfig(devices=phone(tmp_path), networks=row, clients=5), 5, 0)
    assert drawn.down_bytes_per_s.tolist() == pytest.approx([30 * MBPS] * 5)
    assert drawn.up_bytes_per_s.tolist() == pytest.approx([10 * MBPS] * 5)
    assert drawn.groups is None


def test_cells_carry_what_the_table_says_or_what_is_given():
    table, given = population(cells={"clients": 30}), population(cells={"clients": 30, "down_mbps": 7.0})
    cells = layer(table, "cell")
    lte = [k for k, (row, _) in enumerate(cells.names) if cells.rows[row] == "lte"]
    assert set(cells.bytes_per_s["down"][lte]) == {44 * MBPS}
    assert set(cells.bytes_per_s["up"][lte]) == {28 * MBPS}
    assert set(layer(given, "cell").bytes_per_s["down"]) == {7 * MBPS}
    assert layer(given, "cell").bytes_per_s["up"].tolist() == cells.bytes_per_s["up"].tolist()


def test_regions_are_those_of_outages():
    outages = {"by": "region", "regions": 4, "per_day": 1.0, "mean_s": 60.0}
    config = PopulationConfig(
        preset="mixed_edge_2026", clients=900, outages=outages, shared_links={"regions": REGIONS}
    )
    drawn = draw(config, 3)
    assert layer(drawn, "region").group.tolist() == drawn.availability.group.tolist()


def test_a_home_and_a_cell_lie_in_one_region_each():
    drawn, alone = (
        population(homes={"clients": 3.0}, cells={"clients": 9.0}, regions=REGIONS),
        population(regions=REGIONS),
    )
    region, drawn_region = layer(drawn, "region").group, layer(alone, "region").group
    for kind in ("home", "cell"):
        group = layer(drawn, kind).group
        for one in range(60):
            members = np.flatnonzero(group == one)
            assert set(region[members]) == {drawn_region[members[0]]}
    assert np.bincount(region).min() > 300


def test_a_path_goes_from_the_home_to_the_region():
    drawn = population(homes={}, cells={}, regions=REGIONS)
    kinds = {tuple(link.name[0].split(" ")[0] for link in drawn.groups.path(c, "down")) for c in range(200)}
    assert kinds == {("home", "region"), ("cell", "region")}
    region = drawn.groups.path(0, "up")[-1]
    assert region == Bottleneck(("region", region.name[1]), 20 * MBPS)


def test_what_was_drawn_is_written_down():
    drawn = population(60, homes={}, regions=REGIONS)
    rows = json.loads(drawn.sources["shared_links"])
    assert sorted(c for name, *_, clients in rows for c in clients if name.startswith("region")) == list(
        range(60)
    )
    for name, down, up, clients in rows:
        for client in clients:
            assert (name, down) in [
                (" ".join(map(str, b.name)), b.bytes_per_s) for b in drawn.groups.path(client, "down")
            ]
            assert up in [b.bytes_per_s for b in drawn.groups.path(client, "up")]
    assert "shared_links" not in population(60).sources


def test_a_large_population_has_the_sum_of_its_groups_instead():
    many = population(20_001, regions=REGIONS)
    assert len(many.sources["shared_links"]) == 64


# tables -----------------------------------------------------------------------------------------------


def written(folder, name="nets.csv", **cells):
    """A network table of one row."""
    path = folder / name
    row = {
        "network": "net", "access": "wifi", "down_mbps": 100, "down_sigma_ln": 0.5, "up_mbps": 10, "up_sigma_ln": 0.5,
        "down_up_correlation": 0.5, "rtt_ms": 20, "rtt_sigma_ln": 0.3, "packet_bytes": 1514, "down_radio_w": 0.6,
        "up_radio_w": 0.7, "down_radio_mw_per_mbps": 6, "up_radio_mw_per_mbps": 9, "share": 1,
    } | cells  # fmt: skip
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    return path


def phone(folder):
    """A device table of one phone."""
    lines = hetero_profiles.locate("devices.csv").read_text("utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    row = next(row for row in rows if row["device"] == "phone-mid-2021") | {"share": 1}
    path = folder / "devices.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    return path


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"hop_mbps": -1, "hop_sigma_ln": 1}, "row 2: hop_mbps: must be greater than 0"),
        ({"hop_mbps": 300}, "row 2: hop_sigma_ln: is empty, and hop_mbps is not"),
        ({"hop_mbps": "", "hop_sigma_ln": 1}, "row 2: hop_mbps: is empty, and hop_sigma_ln is not"),
        ({"hop_mbps": "fast", "hop_sigma_ln": 1}, "row 2: hop_mbps: must be a finite number"),
        ({"hop_mbps": 300, "hop_sigma_ln": 9}, "row 2: hop_sigma_ln: must be at most 5"),
        ({"cell_down_mbps": 40, "cell_up_mbps": 20}, "cell_down_mbps: is for rows with access cellular, and this one has wifi"),
        (
            {"access": "cellular", "hop_mbps": 40, "hop_sigma_ln": 1},
            "hop_mbps: is for rows with access wifi, and this one has cellular",
        ),
        ({"access": "cellular", "cell_down_mbps": 40}, "cell_up_mbps: is empty, and cell_down_mbps is not"),
        ({"access": "cellular", "cell_down_mbps": 40, "cell_up_mbps": 0}, "cell_up_mbps: must be greater than 0"),
        ({"rate_kind": "guessed", "rate_source": "me"}, "rate_kind: no such rate_kind (got 'guessed')"),
        ({"rtt_kind": "measured", "rtt_source": ""}, "rtt_source: is empty"),
    ],
)  # fmt: skip
def test_cells_of_hops_and_radio_cells_that_make_no_sense_are_named(cells, expected, tmp_path):
    [problem] = check(written(tmp_path, **cells))
    assert expected in problem
    assert "fix: " in problem


def test_cells_of_which_nothing_says_what_they_carry_are_refused(tmp_path):
    nets = written(tmp_path, access="cellular")
    config = PopulationConfig(
        devices=phone(tmp_path), networks=nets, clients=4, shared_links={"cells": {"down_mbps": 9.0}}
    )
    with pytest.raises(
        ProfileError, match=r"shared_links\.cells\.up_mbps: .* does not say what a cell of net carries"
    ):
        draw_devices(config, 4, 0)


# transfers --------------------------------------------------------------------------------------------


def test_uploads_of_one_home_share_its_line_and_all_share_the_server():
    """Three links of 50/s, two behind a line of 10/s, a server of 15/s: 5/s each until 20 s, then 15/s for the last."""
    line = (Bottleneck(("home", 0), 10.0),)
    link = SimpleNamespace(down_bytes_per_s=50.0, up_bytes_per_s=50.0, rtt_s=0.0, framing=1.0)
    links = SimpleNamespace(
        profile=lambda _: link, mean_rates=lambda _: np.full(3, 50.0), varying=False, rates=lambda *_: None
    )
    groups = SimpleNamespace(path=lambda client, _: line if client < 2 else ())
    env = simpy.Environment()
    network = FluidNetwork(env, links, 15.0, 1e9, groups=groups)
    downloads = [network.transfer("down", client, size) for client, size in enumerate((100, 100, 200))]
    uploads = [network.transfer("up", client, 100) for client in range(3)]
    env.run()
    assert [d.done.value for d in downloads] == pytest.approx([20.0, 20.0, 20 + 100 / 15])
    assert [u.done.value for u in uploads] == pytest.approx([20.0, 20.0, 2.0])


def experiment(**population):
    return Experiment.model_validate(
        {
            "population": {"preset": "mixed_edge_2026", "clients": 40, **population},
            "task": {"kind": "quadratic", "dimension": 50_000},
            "local": {"optimizer": "sgd", "steps": 2},
            "protocol": {"kind": "buffered", "concurrency": 30, "buffer": 10},
            "network": {"server_up_mbps": 400, "server_down_mbps": 400},
            "budget": {"commits": 6},
            "runtime": {"executor": "inline"},
        }
    )


SHARED = {
    "homes": {"clients": 4.0},
    "cells": {"clients": 8.0},
    "regions": {"regions": 2, "down_mbps": 3.0, "up_mbps": 2.0},
}


def test_a_run_with_shared_links_is_slower_repeats_to_the_bit_and_passes_the_auditor():
    alone = simulate(experiment(), timeline_only=True)
    runs = [simulate(experiment(shared_links=SHARED), timeline_only=True) for _ in range(2)]
    for table in ("visits", "commits"):
        pd.testing.assert_frame_equal(*(getattr(run, table) for run in runs), check_exact=True)
    assert verify(runs[0]) == []
    [drawn] = [f for f in runs[0].info.resolved.followed if f.key == "population.shared_links"]
    assert drawn.value.endswith(" cells, 2 regions")
    assert runs[0].info.end_time_s > 1.2 * alone.info.end_time_s


@pytest.mark.parametrize(("kind", "factor"), [("region", 0.4), ("home", 0.05)])
def test_the_auditor_finds_transfers_that_a_shared_link_cannot_have_carried(kind, factor):
    run = simulate(experiment(shared_links=SHARED), timeline_only=True)
    rows = json.loads(run.info.population["shared_links"])
    narrower = [
        [name, *(rate * (factor if name.startswith(kind) else 1) for rate in rates), clients]
        for name, *rates, clients in rows
    ]
    info = replace(run.info, population={**run.info.population, "shared_links": json.dumps(narrower)})
    problems = verify(replace(run, info=info))
    assert any(f"the link of {kind}" in str(problem) for problem in problems)


EVERYTHING = {
    "population": {
        "preset": "mixed_edge_2025",
        "clients": 40,
        "shared_links": {
            "homes": {"clients": 4.0},
            "cells": {"clients": 6.0, "down_mbps": 30.0, "up_mbps": 8.0},
            "regions": {"regions": 2, "down_mbps": 40.0, "up_mbps": 9.0},
        },
    },
    "task": {"kind": "quadratic", "dimension": 50_000},
    "local": {"optimizer": "sgd", "steps": 2},
    "protocol": {"kind": "buffered", "concurrency": 30, "buffer": 10},
    "network": {
        "server_up_mbps": 60.0,
        "server_down_mbps": 15.0,
        "connection": "persistent",
        "keep_alive_s": 5.0,
        "congestion": "loss-based",
        "loss": 0.001,
        "loss_bursts": {"loss": 0.05, "share": 0.2},
        "tls": {"version": "1.2"},
    },
    "budget": {"commits": 12},
    "runtime": {"executor": "inline"},
}
INSTANTS = ["dispatched_s", "downloaded_s", "trained_s", "landed_s"]


def test_a_schedule_on_shared_links_is_the_same_on_every_processor():
    """Homes, cells, regions, TLS, kept connections and spells of loss at once; the digest is that of every machine."""
    run = simulate(Experiment.model_validate(EVERYTHING), timeline_only=True)
    instants = run.visits.sort_values("order")[INSTANTS].to_numpy("<f8")
    assert hashlib.sha256(instants.tobytes()).hexdigest() == (
        "846347409b3e39ef53b661185466e004ca7270c1882ad84755863618f2d6fb24"
    )
    assert verify(run) == []
