"""Which rate each link has over time: constant, by a law around its mean, or a trace of a table."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.config.paths import absolute
from fedsim.config.population import PopulationConfig
from fedsim.devices.link_rates import Clients, link_rates, rates_by_link
from fedsim.devices.presets import recipe_of_preset
from fedsim.errors import ProfileError

NETS = recipe_of_preset("homogeneous").networks
NAMES = np.array([NETS.network[0]] * 5, dtype=object)
MEANS = {"down": np.full(5, 100.0), "up": np.full(5, 10.0)}


def rates(**settings):
    config = PopulationConfig(preset="homogeneous", clients=5, **settings)
    return link_rates(config, NAMES, MEANS, NETS, seed=0)


def table(tmp_path, text="trace,time_s,up_kbps\na,0,8\na,10,8\nb,0,16\nb,10,16\n"):
    path = tmp_path / "r.csv"
    path.write_text(text)
    return {"rates": str(path), "rates_at_end": "loop"}


def test_constant_rates_need_no_trace():
    varying, means, sources = rates()
    assert varying is None
    assert means is MEANS
    assert sources == {"rates": "constant"}


def test_generated_rates_have_the_links_means():
    varying, means, sources = rates(rates="generated")
    assert means is MEANS
    assert {varying.of(client, "up").mean_bytes_per_s for client in range(5)} == {10.0}
    assert sources == {"rates": "generated"}


def test_the_first_clients_have_the_traces_in_order_and_the_table_s_means(tmp_path):
    varying, means, sources = rates(**table(tmp_path))
    assert [varying.of(client, "up").rate(3.0) for client in (0, 1)] == [1000.0, 2000.0]
    assert varying.of(0, "down") is None
    assert means["up"][:2].tolist() == [1000.0, 2000.0]
    assert means["down"] is MEANS["down"]
    assert sources["rates_directions"] == "up"


def test_at_the_client_s_level_the_mean_is_the_drawn_one(tmp_path):
    varying, means, _ = rates(**table(tmp_path), rates_level="client")
    assert means["up"] == pytest.approx([10.0] * 5)
    assert varying.of(4, "up").rate(3.0) == pytest.approx(10.0)


def test_a_file_that_is_not_there_is_refused_by_its_field():
    with pytest.raises(ProfileError, match=r"population\.rates: no such file \(got 'none\.csv'\)"):
        rates(rates="none.csv", rates_at_end="loop")


TWO = recipe_of_preset("mixed_edge_2025").networks
MIXED = np.array(["lte", "wifi-fibre", "lte", "wifi-fibre", "lte"], dtype=object)


def of_two(**settings):
    config = PopulationConfig(preset="mixed_edge_2025", clients=5, **settings)
    return link_rates(config, MIXED, MEANS, TWO, seed=0)


@pytest.fixture
def names():
    """Two networks of the preset, as the clients above have them."""
    first, second = TWO.network[:2].tolist()
    MIXED[:] = [first, second, first, second, first]
    return first, second


def test_a_file_of_rates_may_be_that_of_one_network_alone(tmp_path, names):
    varying, means, sources = of_two(**table(tmp_path), rates_for=[names[0]])
    assert varying.of(0, "up").rate(3.0) == 1000.0
    assert varying.of(1, "up") is None
    assert means["up"][[1, 3]].tolist() == [10.0, 10.0]
    assert set(means["up"][[0, 2, 4]]) <= {1000.0, 2000.0}
    assert sources["rates_for"] == names[0]


def test_generated_rates_may_be_those_of_one_network_alone(names):
    varying, means, sources = of_two(rates="generated", rates_for=[names[1]])
    assert varying.of(0, "up") is None
    assert varying.of(1, "up").mean_bytes_per_s == 10.0
    assert means is MEANS
    assert sources == {"rates": "generated", "rates_for": names[1]}


def test_a_network_that_is_not_in_the_table_is_refused(tmp_path, names):
    with pytest.raises(ProfileError, match=r"population\.rates_for: no such network in .* \(got 'ltee'\)"):
        of_two(**table(tmp_path), rates_for=["ltee"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rates_for": ["a"]}, "links that are constant"),
        ({"rates": "generated", "rates_for": []}, "no network"),
    ],
)
def test_rates_for_without_rates_or_networks_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        PopulationConfig(preset="homogeneous", clients=5, **settings)


def test_a_trace_that_ends_with_nothing_is_not_held(tmp_path):
    settings = table(tmp_path, "trace,time_s,up_kbps\na,0,8\na,10,0\n")
    with pytest.raises(ProfileError, match="row 3: up_kbps: trace a ends with 0"):
        rates(**settings | {"rates_at_end": "hold"})
    assert rates(**settings)[0].of(0, "up").rate(12.0) == 1000.0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,0,1e-5\na,10,1e-5\n", "row 2: up_kbps: trace a carries less than a bit a second"),
        ("a,0,8\na,1e-4,8\na,2e-4,9\n", "row 2: up_kbps: trace a has steps of less than 0.0005 s"),
    ],
)
def test_a_trace_that_nobody_could_follow_to_its_end_is_refused(tmp_path, rows, said):
    with pytest.raises(ProfileError, match=said):
        rates(**table(tmp_path, "trace,time_s,up_kbps\n" + rows))


# rates by kind of link ---------------------------------------------------------------------------

LINKS = Clients(
    np.array(["lte", "wifi-fibre", "5g-sub6", "wifi-dsl", "wifi-dsl"], dtype=object),
    np.array(["phone-mid", "phone-low", "phone-mid", "laptop", "tablet"], dtype=object),
)


def by_link(rates, **settings):
    config = PopulationConfig(preset="mixed_edge_2025", clients=5, rates=rates, **settings)
    return rates_by_link(config, LINKS, MEANS, TWO, seed=0)


def varies(varying):
    return [varying.of(client, "up") is not None for client in range(5)]


def test_every_kind_of_link_may_have_rates_of_its_own(tmp_path):
    file = table(tmp_path)
    varying, means, sources = by_link(
        {"lte": file["rates"], "wifi": "generated", "5g-sub6": "constant"}, rates_at_end="loop"
    )
    assert varies(varying) == [True, True, False, True, True]
    assert varying.of(0, "up").rate(3.0) == 1000.0
    assert varying.of(0, "down") is None
    assert varying.of(1, "up").mean_bytes_per_s == 10.0
    assert means["up"].tolist() == [1000.0, 10.0, 10.0, 10.0, 10.0]
    assert len(sources["rates_sha256"]) == 64
    assert sources["rates"] == f"lte {file['rates']}, wifi generated, 5g-sub6 constant"


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"cellular": "generated"}, [True, False, True, False, False]),
        ({"laptop": "generated"}, [False, False, False, True, False]),
        ({"wifi": "generated", "wifi-dsl": "constant"}, [False, True, False, False, False]),
        ({"wifi": "generated", "phone-low": "constant"}, [False, True, False, True, True]),
        ({"phone-mid": "generated", "lte": "constant"}, [False, False, True, False, False]),
        ({"wired": "generated"}, [False] * 5),
    ],
)
def test_a_row_comes_before_an_access_and_that_before_a_class_whatever_the_order(rates, expected):
    for order in (rates, dict(reversed(rates.items()))):
        varying, means, _ = by_link(order)
        assert varies(varying) == expected
        assert means["up"].tolist() == [10.0] * 5


def test_only_constant_kinds_are_constant_links():
    varying, means, sources = by_link({"lte": "constant"})
    assert varying is None
    assert np.array_equal(means["up"], MEANS["up"])
    assert sources == {"rates": "lte constant"}


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"ltee": "generated"}, r"neither a network of .* \(got 'ltee'\)"),
        ({"lte": "nothing.csv"}, r"population\.rates: no such file"),
    ],
)
def test_kinds_and_files_that_do_not_exist_are_refused(rates, said):
    with pytest.raises(ProfileError, match=said) as caught:
        by_link(rates, **({"rates_at_end": "loop"} if "lte" in rates else {}))
    assert "\n  fix: " in str(caught.value)


def test_files_of_kinds_are_found_beside_the_experiment(tmp_path):
    table(tmp_path)
    placed = absolute({"population": {"rates": {"lte": "r.csv", "wifi": "generated"}}}, tmp_path, "e.yaml")
    assert placed["population"]["rates"] == {"lte": str(tmp_path / "r.csv"), "wifi": "generated"}
