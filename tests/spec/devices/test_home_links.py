"""Links by place: Wi-Fi at home and a cellular link elsewhere, by hand, over time, and in a run."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import experiment

from fedsim.config.population import PopulationConfig
from fedsim.devices.availability import Availability
from fedsim.devices.people.home_links import PlaceRate
from fedsim.devices.people.places import carried_by
from fedsim.devices.population import draw, draw_devices
from fedsim.devices.schemas.template import template
from fedsim.errors import ProfileError
from fedsim.network.traces import ConstantRate, RateTrace
from fedsim.records.resolved import tables_of
from fedsim.records.verify.audit import verify
from fedsim.runs.simulation import simulate

WAYS = ("down", "up")


def population(**settings):
    values = {"preset": "north_america_2026", "clients": 1500, "links": "by-place"} | settings
    return draw(PopulationConfig(**values), 5)


@pytest.fixture(scope="module")
def people():
    return population()


def test_a_rate_is_that_of_the_place_and_changes_with_it():
    home = Availability.from_windows(
        np.array([0, 0]), np.array([0.0, 70.0]), np.array([30.0, 100.0]), n=1, period_s=100.0
    )
    steps = RateTrace(np.array([0.0, 40.0, 50.0]), np.array([1.0, 2.0, 2.0]), "hold")
    link = PlaceRate(ConstantRate(9.0), steps, home, 0)
    assert [link.rate(t) for t in (0, 29.9, 30, 45, 69.9, 70, 129.9, 130)] == [9, 9, 1, 2, 2, 9, 9, 2]
    assert [link.next_change(t) for t in (0, 30, 40, 50, 69, 70, 100)] == [30, 40, 50, 70, 70, 130, 130]


def test_phones_with_wifi_at_home_move_and_nothing_else_does(people):
    moving = np.array([people.rates(client, "down") is not None for client in range(people.n)])
    assert np.array_equal(moving, carried_by(people.tier) & people.unmetered)
    assert people.varying


def test_over_time_the_wifi_share_of_the_region_comes_out(people):
    phones = carried_by(people.tier)
    at_home = people.link_rates.at_home.share()
    on_wifi = np.where(people.unmetered, at_home, 0.0)[phones].mean()
    assert on_wifi == pytest.approx(0.58, abs=0.03)  # Opensignal 2020, North America


@pytest.mark.parametrize("way", WAYS)
def test_the_mean_of_a_link_is_that_of_its_rate_over_time(people, way):
    client = int(np.flatnonzero(people.link_rates.moves)[0])
    rates, t_s, carried, end_s = people.rates(client, way), 0.0, 0.0, people.link_rates.at_home.period_s
    while t_s < end_s:
        until_s = min(rates.next_change(t_s), end_s)
        carried, t_s = carried + rates.rate(t_s) * (until_s - t_s), until_s
    assert carried / end_s == pytest.approx(people.mean_rates(way)[client], rel=1e-9)


def test_the_links_at_home_are_those_of_eligible_devices_and_the_place_decides_which_counts(people):
    eligible = population(availability="eligible", clients=300)
    assert np.array_equal(people.network[:300], eligible.network)
    client = int(np.flatnonzero(people.link_rates.moves[:300] & (eligible.availability.share() > 0))[0])
    start_s, _ = eligible.availability.window(client, 0.0)
    eligible_settings = PopulationConfig(preset="north_america_2026", clients=300, availability="eligible")
    one = draw_devices(eligible_settings, 300, 5)
    assert eligible.rates(client, "up").rate(start_s) == one.up_bytes_per_s[client]


def test_generated_rates_vary_in_both_places():
    moving = population(rates="generated", clients=200)
    client = int(np.flatnonzero(moving.link_rates.moves)[0])
    rates = moving.rates(client, "up")
    out_s = moving.link_rates.at_home.window(client, 0.0)[1]
    assert rates.next_change(0.25) == 1.0
    assert rates.next_change(out_s) <= np.floor(out_s) + 1.0


def test_it_is_the_same_client_in_a_population_of_any_size(people):
    small = population(clients=500)
    assert np.array_equal(small.mean_rates("up"), people.mean_rates("up")[:500])
    assert small.sources["links"] == "by-place"


def test_a_table_without_cellular_networks_has_no_place_elsewhere():
    with pytest.raises(ProfileError, match="a cellular network with a share, and none has one") as caught:
        population(preset="homogeneous", clients=5)
    assert "population.links: one" in str(caught.value)


def test_nor_has_one_that_names_none(tmp_path):
    tables = {name: tmp_path / f"{name}.csv" for name in ("devices", "networks")}
    tables["devices"].write_text(template("devices"))
    tables["networks"].write_text(template("networks").replace(",cellular,", ",wifi,"))
    with pytest.raises(ProfileError, match="access: no network is cellular"):
        population(preset=None, clients=5, **tables)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"links": "by-place", "rates": "x.csv", "rates_at_end": "loop"}, "links that change with the place"),
        ({"rates": {}}, "has no links in `rates`"),
        ({"rates": {"lte": "generated"}, "rates_for": ["lte"]}, "beside `rates` by link"),
        ({"rates": {"lte": "x.csv"}}, "from a file, which ends"),
        ({"rates": {"lte": "generated"}, "rates_at_end": "loop"}, "without a file of rates"),
        ({"links": "both"}, "by-place"),
        ({"availability": "always", "time_zones": [1.0]}, "always there"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        PopulationConfig(preset="world_2026", clients=3, **settings)


def test_places_have_time_zones():
    east = population(clients=400, time_zones=[8.0])
    west = population(clients=400)
    assert east.link_rates.at_home.online(0.0).mean() < west.link_rates.at_home.online(0.0).mean()


@pytest.mark.parametrize("sharing", ["private", "max-min"])
def test_a_run_by_place_has_sound_books_and_says_its_tables(sharing):
    wanted = experiment(
        {"kind": "synchronous", "cohort": 12},
        40,
        population={"preset": "world_2026", "clients": 40, "links": "by-place"},
        network={"sharing": sharing},
        budget={"commits": 12},
    )
    run = simulate(wanted, timeline_only=True)
    assert verify(run) == []
    tables = {table.role: table for table in tables_of(run.info.population)}
    assert (tables["regions"].year, tables["people"].name) == ("2026", "people.yaml")


def test_a_run_of_eligible_devices_asks_them_in_their_windows_alone():
    settings = {
        "preset": "north_america_2026",
        "clients": 60,
        "availability": "eligible",
        "on_close": "pause",
    }
    wanted = experiment({"kind": "synchronous", "cohort": 4}, 60, population=settings, budget={"commits": 6})
    run = simulate(wanted, timeline_only=True)
    assert verify(run) == []
    people = draw(wanted.population, wanted.population_seed)
    for client, time_s in zip(run.visits.client, run.visits.dispatched_s, strict=True):
        assert people.availability.window(client, time_s + 1e-6)[0] <= time_s + 1e-6
        assert people.unmetered[client]
