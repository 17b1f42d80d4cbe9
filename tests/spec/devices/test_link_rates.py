"""Which rate each link has over time: constant, by a law around its mean, or a trace of a table."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.config.population import PopulationConfig
from fedsim.devices.link_rates import link_rates
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
