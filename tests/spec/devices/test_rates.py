"""Rates over time: traces by hand and at their ends, the generator's law, tables of rates, and a population's links."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.rates import arrival_s, carried_bytes
from pydantic import ValidationError
from worlds import experiment
from worlds.text_files import written

import hetero_profiles
from fedsim.config.population import PopulationConfig
from fedsim.devices.population import draw
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_networks
from fedsim.errors import ProfileError, RunError
from fedsim.network.generated import BLOCK_S, LognormalAR1, RateLaw
from fedsim.network.predict import PlannedTransfer, transfers_s
from fedsim.network.rate_tables import read_rate_table
from fedsim.network.sharing.flow import OneWayLink
from fedsim.network.tcp import SHORTEST_S
from fedsim.network.traces import ConstantRate, RateTrace
from fedsim.rng import stream
from fedsim.runs.simulation import simulate

INF = math.inf


def trace(times, rates, at_end="hold", **settings):
    return RateTrace(np.array(times, dtype=float), np.array(rates, dtype=float), at_end, **settings)


def arrives_s(rates, start_s, n_bytes):
    """When the last byte is there that goes over a link without delay, headers or slow start."""
    transfer, link = PlannedTransfer(0, n_bytes, start_s), OneWayLink(rates, 0.0, 1.0)
    return start_s + transfers_s([transfer], [link], ConstantRate(INF))[0]


def test_a_loop_of_nothing_is_refused_by_name_and_one_that_holds_nothing_never_ends():
    """A transfer over it would go round for ever, and so would whoever waits for its next byte."""
    with pytest.raises(ValueError, match=r"r\.csv: trace a: loops and never carries anything"):
        trace([0, 5, 9], [0, 0, 7], "loop", where="r.csv: trace a")
    assert arrives_s(trace([0, 5], [0, 0], "hold"), 0, 1) == INF


# by hand: rates 1, 0, 3 from 0, 4, 9 s --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_s", "n_bytes", "end_s"),
    [
        (0.0, 4, 4.0),  # all of the first step
        (0.0, 4.5, 9 + 0.5 / 3),  # waits for the outage to end
        (0.0, 10, 11.0),
        (5.0, 3, 10.0),  # begins in the outage
        (3.5, 0.25, 3.75),
        (7.0, 0, 7.0),
    ],
)
def test_a_transfer_ends_when_the_integral_of_the_rate_is_its_size(start_s, n_bytes, end_s):
    link = trace([0, 4, 9], [1, 0, 3])
    assert arrives_s(link, start_s, n_bytes) == pytest.approx(end_s, rel=1e-15)


def test_the_end_is_held_looped_or_an_error():
    hold, loop, fail = (
        trace([0, 4, 9], [1, 0, 3], end, where="r.csv: trace a") for end in ("hold", "loop", "fail")
    )
    assert [hold.rate(t) for t in (0, 3.9, 4, 9, 1e9)] == [1, 1, 0, 3, 3]
    assert [loop.rate(t) for t in (0, 3.9, 4, 9, 13, 18)] == [1, 1, 0, 1, 0, 1]
    assert arrives_s(loop, 0, 9) == 19.0  # 4 a lap of 9 s: two laps and one second
    assert (hold.next_change(9), loop.next_change(8), loop.next_change(9)) == (INF, 9, 13)
    assert (fail.rate(8.9), fail.next_change(8), arrives_s(fail, 0, 4)) == (0, 9, 4)
    for ask in (
        lambda: fail.rate(9),
        lambda: fail.next_change(9),
        lambda: arrives_s(fail, 0, 5),
        lambda: arrives_s(fail, 10, 1),
    ):
        with pytest.raises(
            RunError, match=r"r\.csv: trace a: the trace ends at 9 s, .* until at least"
        ) as caught:
            ask()
        assert "\n  fix: population.rates_at_end: loop or hold" in str(caught.value)


def test_a_phase_moves_a_loop_and_a_scale_multiplies_it():
    link = trace([0, 4, 9], [1, 0, 3], "loop").of(phase_s=3.0, scale=2.0)
    assert [link.rate(t) for t in (0, 1, 5.9, 6, 10)] == [2, 0, 0, 2, 0]
    assert link.next_change(0) == 1
    assert arrives_s(link, 0, 3) == 6.5
    assert link.mean_bytes_per_s == pytest.approx(2 * 4 / 9)


def test_a_link_that_never_carries_again_never_finishes():
    assert arrives_s(trace([0, 5], [1, 0]), 0, 6) == INF
    assert arrives_s(trace([0], [7]), 2, 14) == 4


@pytest.mark.parametrize(
    "broken",
    [
        {"times": [1, 2], "rates": [1, 1]},
        {"times": [0, 2, 2], "rates": [1, 1, 1]},
        {"times": [0, 1], "rates": [1, -1]},
        {"times": [0, 1], "rates": [1, math.nan]},
        {"times": [0, INF], "rates": [1, 1]},
        {"times": [], "rates": []},
        {"times": [0, 1], "rates": [1]},
        {"times": [0], "rates": [1], "at_end": "loop"},
        {"times": [0, 1], "rates": [1, 1], "at_end": "repeat"},
        {"times": [0, 1], "rates": [1, 1], "phase_s": 0.5},
        {"times": [0, 1], "rates": [1, 1], "scale": 0.0},
    ],
)
def test_steps_that_make_no_sense_are_refused(broken):
    with pytest.raises(ValueError, match="rates: "):
        trace(**broken)


# for every trace -----------------------------------------------------------------------------------------

lengths = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8)
some_rates = st.lists(st.floats(0, 1e6) | st.just(0.0) | st.floats(1, 10), min_size=9, max_size=9)
ends = st.sampled_from(["hold", "loop"])


@st.composite
def links(draw_):
    gaps, rates, end = draw_(lengths), draw_(some_rates), draw_(ends)
    times = np.append(0.0, np.cumsum(gaps))
    rates = [*rates[: len(times) - 1], draw_(st.floats(1, 1e5))]  # it goes on after the end
    if end == "loop":
        rates[0] = max(rates[0], 1.0)
    link = trace(times, rates, end)
    return link.of(
        phase_s=draw_(st.floats(0, 5e3)) if end == "loop" else 0.0, scale=draw_(st.floats(1e-3, 1e3))
    )


def assert_same_end(link, one_s, other_s, n_bytes):
    """Equal, or an outage apart: rounding decides on which side of it the last byte of a whole step lies."""
    if one_s != pytest.approx(other_s, rel=1e-9):
        low, high = sorted((one_s, other_s))
        assert carried_bytes(link, low, high) <= 1e-9 * n_bytes


@settings(deadline=None, max_examples=200)
@given(link=links(), start_s=st.floats(0, 5e4), laps=st.floats(1e-6, 30))
def test_a_transfer_ends_where_walking_from_step_to_step_does(link, start_s, laps):
    n_bytes = laps * max(link.mean_bytes_per_s * float(link.times_s[-1]), 1e-3 * link.scale)
    end_s = arrives_s(link, start_s, n_bytes)
    assert_same_end(link, end_s, max(arrival_s(link, start_s, n_bytes), start_s + SHORTEST_S), n_bytes)
    if end_s > start_s + SHORTEST_S:
        carried = carried_bytes(link, start_s, end_s)
        assert carried == pytest.approx(n_bytes, rel=1e-7, abs=2e-6 * link.scale)  # of an instant of rounding


@settings(deadline=None)
@given(link=links(), t_s=st.floats(0, 1e5))
def test_the_rate_stays_until_the_next_change_which_is_later(link, t_s):
    until = link.next_change(t_s)
    assert until > t_s
    if until < INF:
        assert link.rate(t_s) == link.rate(math.nextafter(until, 0.0)) == link.rate((t_s + until) / 2)


@settings(deadline=None)
@given(link=links(), start_s=st.floats(0, 1e4), laps=st.floats(1e-3, 9), at=st.floats(0.01, 0.99))
def test_a_step_that_changes_nothing_changes_nothing(link, start_s, laps, at):
    n_bytes = laps * max(link.mean_bytes_per_s * float(link.times_s[-1]), 1e-3 * link.scale)
    times, rates = link.times_s, link.bytes_per_s
    times = np.insert(times, 1, at * times[1])
    if not 0 < times[1] < times[2]:
        return
    same = trace(times, np.insert(rates, 1, rates[0]), link.at_end).of(phase_s=link.phase_s, scale=link.scale)
    assert_same_end(link, arrives_s(same, start_s, n_bytes), arrives_s(link, start_s, n_bytes), n_bytes)


quarters = st.integers(0, 400).map(lambda k: k / 4)


@given(t_s=quarters, lap=st.integers(0, 10**6))
def test_a_loop_repeats_exactly(t_s, lap):
    link = trace([0, 4.25, 9, 128], [1, 0, 3, 0], "loop")
    assert link.rate(t_s + 128.0 * lap) == link.rate(t_s)


# the generator -------------------------------------------------------------------------------------------

LTE = RateLaw(0.45, 0.75, 0.01, 1.7)
MMWAVE = RateLaw(1.05, 0.98, 0.1, 56.0)
CALM = RateLaw(0.58, 0.83, 0.0, 1.0)


def series(law, client, seconds, direction="down", mean=1.0, seed=0):
    link = LognormalAR1(mean, law, seed, client, direction)
    return np.array([link.rate(float(t)) for t in range(seconds)])


@pytest.fixture(scope="module")
def calm():
    """40 clients for 10 blocks, as multiples of their mean."""
    return np.array([series(CALM, client, 10 * BLOCK_S) for client in range(40)])


def test_the_parameters_of_the_logarithm_follow_from_those_of_the_rate():
    # exp(sX) of a normal X has cv^2 = exp(s^2) - 1, and correlation (exp(s^2 phi) - 1) / (exp(s^2) - 1)
    square = LTE.sigma_ln**2
    assert math.expm1(square) == pytest.approx(0.45**2)
    assert math.expm1(square * LTE.phi) / math.expm1(square) == pytest.approx(0.75)
    assert LTE.begins / (LTE.begins + LTE.ends) == pytest.approx(0.01)


def test_the_logarithm_of_a_generated_rate_has_the_stated_mean_deviation_and_autocorrelation(calm):
    log = np.log(calm)
    sigma, phi, n = CALM.sigma_ln, CALM.phi, log.size
    # sampling errors of an AR(1): of the mean, the variance and the autocorrelation
    mean_se = sigma * math.sqrt((1 + phi) / (1 - phi) / n)
    sd_se = sigma * math.sqrt((1 + phi**2) / (1 - phi**2) / (2 * n))
    phi_se = math.sqrt((1 - phi**2) / n)
    assert log.mean() == pytest.approx(-(sigma**2) / 2, abs=4 * mean_se)
    assert log.std() == pytest.approx(sigma, abs=4 * sd_se)
    centred = log + sigma**2 / 2
    lag1 = (centred[:, 1:] * centred[:, :-1]).mean() / (centred**2).mean()
    assert lag1 == pytest.approx(phi, abs=4 * phi_se)


def test_the_generated_rate_itself_has_the_mean_the_cv_and_the_autocorrelation_of_the_table(calm):
    assert calm.mean() == pytest.approx(1, abs=0.01)
    assert calm.std() / calm.mean() == pytest.approx(0.58, abs=0.01)
    x = calm - calm.mean()
    assert (x[:, 1:] * x[:, :-1]).mean() / x.var() == pytest.approx(0.83, abs=0.01)


def test_an_ar1_goes_on_across_the_blocks(calm):
    """The step from the last second of a block to the first of the next is a step like any other."""
    x = (np.log(calm) + CALM.sigma_ln**2 / 2) / CALM.sigma_ln
    borders = np.arange(1, 10) * BLOCK_S
    noise = (x[:, borders] - CALM.phi * x[:, borders - 1]).ravel() / math.sqrt(1 - CALM.phi**2)
    assert noise.std() == pytest.approx(1, abs=4 / math.sqrt(2 * noise.size))
    assert noise.mean() == pytest.approx(0, abs=4 / math.sqrt(noise.size))


def test_the_generator_is_the_recursion_on_the_addressed_noise():
    """Second implementation: one plain loop from two blocks before, and a chain that keeps its state."""
    z = np.concatenate([stream(3, "rate", 7, block).standard_normal((2, BLOCK_S))[0] for block in range(3)])
    rngs = [stream(3, "rate", 7, block) for block in range(3)]
    u = np.concatenate([(rng.standard_normal((2, BLOCK_S)), rng.random(BLOCK_S))[1] for rng in rngs])
    x, out, expected = 0.0, False, []
    for noise, chance in zip(z, u, strict=True):
        x = MMWAVE.phi * x + math.sqrt(1 - MMWAVE.phi**2) * noise
        out = True if chance < MMWAVE.begins else False if chance >= 1 - MMWAVE.ends else out
        expected.append(0 if out else math.exp(MMWAVE.sigma_ln * x - MMWAVE.sigma_ln**2 / 2) / 0.9)
    link = LognormalAR1(1.0, MMWAVE, 3, 7, "down")
    asked = [link.rate(2 * BLOCK_S + t + 0.5) for t in range(BLOCK_S)]
    assert asked == pytest.approx(expected[2 * BLOCK_S :], rel=1e-6)


def test_outages_have_the_stated_share_and_mean_length():
    out = np.array([series(MMWAVE, client, 20 * BLOCK_S) == 0 for client in range(20)])
    # an on/off chain of eigenvalue e: variance of the share p (1 - p) (1 + e) / (1 - e) / n
    e = 1 - MMWAVE.begins - MMWAVE.ends
    share_se = math.sqrt(0.1 * 0.9 * (1 + e) / (1 - e) / out.size)
    assert out.mean() == pytest.approx(0.1, abs=4 * share_se)
    begun = (out[:, 1:] & ~out[:, :-1]).sum()
    assert out.sum() / begun == pytest.approx(56, rel=4 / math.sqrt(begun))


def test_the_mean_over_time_is_that_of_the_link_outages_included():
    for law in (LTE, MMWAVE):
        means = np.array([series(law, client, 5 * BLOCK_S, mean=5e5).mean() for client in range(30)])
        assert means.mean() == pytest.approx(5e5, abs=4 * means.std() / math.sqrt(30))


def test_down_and_up_share_their_outages_but_not_their_noise():
    down, up = (series(MMWAVE, 5, 10 * BLOCK_S, way) for way in ("down", "up"))
    assert np.array_equal(down == 0, up == 0)
    assert 0 < (down == 0).mean() < 1
    on = down > 0
    assert (
        abs(np.corrcoef(np.log(down[on]), np.log(up[on]))[0, 1]) < 0.3
    )  # 0.98 a second: few independent ones


@settings(deadline=None, max_examples=30)
@given(order=st.permutations([0.0, 17.5, 2047.999, 2048.0, 1e5, 99_999.5, 3e6]), client=st.integers(0, 10**6))
def test_a_generated_rate_is_a_function_of_time_alone(order, client):
    one = {t: LognormalAR1(1e6, LTE, 0, client, "up").rate(t) for t in order}
    again = LognormalAR1(1e6, LTE, 0, client, "up")
    assert one == {t: again.rate(t) for t in sorted(order)}


def test_clients_seeds_and_directions_differ():
    links = [
        LognormalAR1(1.0, CALM, s, c, d)
        for s, c, d in ((0, 0, "down"), (0, 1, "down"), (1, 0, "down"), (0, 0, "up"))
    ]
    assert len({link.rate(9.0) for link in links}) == 4


def test_a_law_without_variation_is_a_constant_rate():
    link = LognormalAR1(1e5, RateLaw(0, 0.5, 0, 1), 0, 0, "up")
    assert {link.rate(float(t)) for t in range(5000)} == {1e5}
    assert link.next_change(0.25) == 1.0


@pytest.mark.parametrize(
    "figures",
    [(-1, 0, 0, 1), (0.5, 1.0, 0, 1), (0.5, 0.5, 0.95, 30), (0.5, 0.5, 0.1, 0.5), (0.5, 0.5, 0.5, 1.5)],
)
def test_a_law_out_of_range_is_refused(figures):
    with pytest.raises(ValueError, match=r"range|at least 1"):
        RateLaw(*figures)


# tables --------------------------------------------------------------------------------------------------

GOOD = "# source: made up\n# licence: CC0\ntrace,time_s,down_kbps,up_kbps\na,0,800,80\na,10,0,8\nb,0,1,2\na,20,400,40\nb,5,3,4\n"


def test_a_table_holds_traces_by_label_in_either_unit(tmp_path):
    table = read_rate_table(written(tmp_path / "r.csv", GOOD), "hold")
    assert table.names == ("a", "b")
    down, up = table.traces["down"][0], table.traces["up"][0]
    assert (down.times_s.tolist(), down.bytes_per_s.tolist()) == ([0, 10, 20], [100_000, 0, 50_000])
    assert up.bytes_per_s.tolist() == [10_000, 1_000, 5_000]
    assert table.traces["down"][1].at_end == "hold"
    for unit, value in (("bytes_per_s", 125_000), ("kbps", 1000), ("mbps", 1)):
        path = written(tmp_path / f"{unit}.csv", f"trace,time_s,up_{unit}\na,0,{value}\na,1,0\n")
        assert check(path) == []
        table = read_rate_table(path, "loop")
        assert list(table.traces) == ["up"]
        assert table.traces["up"][0].rate(0.5) == 125_000


BROKEN = [
    ("a,0,1\na,nan,1", "row 3: time_s: must be a finite number (got 'nan')"),
    ("a,0,1\na,5,-1", "row 3: down_kbps: must be at least 0 (got -1.0)"),
    ("a,0,inf\na,5,1", "row 2: down_kbps: must be a finite number (got inf)"),
    ("a,0,fast\na,5,1", "row 2: down_kbps: must be a finite number (got 'fast')"),
    ("a,0,1e13\na,5,1", "row 2: down_kbps: must be at most 1e+12"),
    ("a,0,\na,5,1", "row 2: down_kbps: is empty\n"),
    (",0,1\na,5,1", "row 2: trace: is empty\n"),
    ("a,1,1\na,5,1", "row 2: time_s: the first time of trace a must be 0 (got 1.0)"),
    ("a,0,1\nb,0,1\na,5,1\nb,4,1\na,5,1", "row 6: time_s: must be after row 4 of trace a (5 s) (got 5.0)"),
    ("a,0,1\na,9,1\na,4,1", "row 4: time_s: must be after row 3 of trace a (9 s) (got 4.0)"),
    ("a,0,1\nb,0,1\na,2,1", "row 3: time_s: trace b has no end"),
    ("a,0,0\na,5,0\na,7,3", "row 2: down_kbps: trace a never carries anything"),
    ("a,0,1,2\na,5,1", "row 2: needs 3 cells (got 4)"),
]


@pytest.mark.parametrize(("rows", "said"), BROKEN)
def test_a_broken_row_is_named_by_row_and_column(tmp_path, rows, said):
    path = written(tmp_path / "r.csv", f"trace,time_s,down_kbps\n{rows}\n")
    with pytest.raises(ProfileError) as caught:
        read_rate_table(path, "loop")
    assert f"{path} {said}" in f"{caught.value}\n"
    assert "\n  fix: " in str(caught.value)
    assert check(path)[0] == str(caught.value)


def test_a_table_without_a_rate_or_with_one_twice_is_named(tmp_path):
    assert "there is no column of rates" in check(written(tmp_path / "n.csv", "trace,time_s\na,0\n"))[0]
    twice = written(tmp_path / "t.csv", "trace,time_s,up_kbps,up_mbps\na,0,1,1\na,1,1,1\n")
    assert "up: has a rate in two units" in check(twice)[0]


# populations ---------------------------------------------------------------------------------------------


def population(clients=6, preset="mixed_edge_2025", **settings):
    return draw(PopulationConfig(preset=preset, clients=clients, **settings), 0)


def test_constant_is_the_default_and_has_no_rates_over_time():
    plain = population()
    assert not plain.varying
    assert plain.rates(0, "down") is None
    assert plain.sources["rates"] == "constant"


def test_generated_rates_follow_the_law_of_the_client_s_network_around_its_own_rate():
    plain, varying = population(40), population(40, rates="generated")
    table = read_networks(hetero_profiles.locate("networks.csv"))
    law = dict(zip(table.network, table.laws, strict=True))
    assert varying.varying
    for client in range(40):
        for way in ("down", "up"):
            link = varying.rates(client, way)
            assert link.law == law[varying.network[client]]
            assert link.mean_bytes_per_s == getattr(plain.profile(client), f"{way}_bytes_per_s")
    assert np.array_equal(plain.flops_per_s, varying.flops_per_s)


@pytest.mark.parametrize(
    "preset", ["fedscale_like", "flash_like", "homogeneous", "mixed_edge_2025", "phones_2020"]
)
def test_every_preset_can_generate(preset):
    assert population(3, preset, rates="generated").rates(2, "up").rate(10.0) >= 0


@pytest.mark.parametrize("client", [-1, 6])
def test_a_client_that_does_not_exist_has_no_rate(client):
    with pytest.raises(IndexError, match="population of 6"):
        population(rates="generated").rates(client, "up")


def test_a_file_gives_each_client_a_trace_and_its_mean(tmp_path):
    path = written(tmp_path / "r.csv", GOOD)
    traced = population(2000, rates=str(path), rates_at_end="loop")
    assert traced.rates(0, "down").bytes_per_s.tolist() == [100_000, 0, 50_000]
    assert traced.rates(1, "up").bytes_per_s.tolist() == [250, 500]
    of_a = np.array([traced.rates(c, "down").where.startswith(f"{path}: trace a") for c in range(2000)])
    assert of_a.mean() == pytest.approx(0.5, abs=0.05)
    assert set(traced.down_bytes_per_s[of_a]) == {50_000}
    assert set(traced.up_bytes_per_s[~of_a]) == {250}
    assert len(traced.sources["rates_sha256"]) == 64
    assert traced.sources["rates_at_end"] == "loop"
    assert [traced.rates(c, "down").where for c in range(7)] == [
        population(7, rates=str(path), rates_at_end="loop").rates(c, "down").where for c in range(7)
    ]


def test_a_direction_that_the_file_lacks_stays_as_drawn(tmp_path):
    path = written(tmp_path / "r.csv", "trace,time_s,up_mbps\na,0,1\na,9,1\n")
    plain, traced = population(), population(rates=str(path), rates_at_end="hold")
    assert traced.rates(0, "down") is None
    assert np.array_equal(plain.down_bytes_per_s, traced.down_bytes_per_s)
    assert set(traced.up_bytes_per_s) == {125_000}
    assert traced.sources["rates_directions"] == "up"


def test_a_random_phase_begins_anywhere_in_the_loop_and_by_address(tmp_path):
    path = written(tmp_path / "r.csv", GOOD)
    many = population(3000, rates=str(path), rates_at_end="loop", rates_phase="random")
    phases = np.array(
        [many.rates(c, "down").phase_s / many.rates(c, "down").times_s[-1] for c in range(3000)]
    )
    assert np.quantile(phases, (0.1, 0.5, 0.9)) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert all(many.rates(c, "up").phase_s == many.rates(c, "down").phase_s for c in range(20))
    few = population(5, rates=str(path), rates_at_end="loop", rates_phase="random")
    assert [few.rates(c, "up").phase_s for c in range(5)] == [many.rates(c, "up").phase_s for c in range(5)]


def test_at_the_client_s_level_a_trace_gives_the_shape_and_the_draw_the_mean(tmp_path):
    path = written(tmp_path / "r.csv", GOOD)
    plain = population(50)
    shaped = population(50, rates=str(path), rates_at_end="loop", rates_level="client")
    for client in range(50):
        link = shaped.rates(client, "up")
        assert link.mean_bytes_per_s == pytest.approx(plain.up_bytes_per_s[client])
        assert carried_bytes(link, 0, 3 * link.times_s[-1]) == pytest.approx(
            3 * link.times_s[-1] * link.mean_bytes_per_s
        )
    assert shaped.up_bytes_per_s == pytest.approx(plain.up_bytes_per_s)


def test_a_trace_that_ends_names_file_client_and_time(tmp_path):
    path = written(tmp_path / "r.csv", GOOD)
    link = population(rates=str(path), rates_at_end="fail").rates(0, "up")
    with pytest.raises(RunError) as caught:
        link.rate(31.0)
    assert str(caught.value).startswith(
        f"{path}: trace a (client 0, up): the trace ends at 20 s, and the run needs it until at least 31 s"
    )


def test_a_network_table_must_say_how_its_rates_vary(tmp_path):
    lines = hetero_profiles.locate("networks.csv").read_text().splitlines()
    text = "\n".join(lines).replace("outage_mean_s", "outage_length").replace("share_mixed", "share")
    devices = tmp_path / "d.csv"
    devices.write_text(hetero_profiles.locate("devices.csv").read_text().replace("share_mixed", "share"))
    config = PopulationConfig(
        devices=devices, networks=written(tmp_path / "n.csv", text), clients=3, rates="generated"
    )
    with pytest.raises(ProfileError, match="does not say how its rates vary") as caught:
        draw(config, 0)
    assert "outage_mean_s" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("within_cv", "-1", "within_cv: must be at least 0"),
        ("autocorrelation_1s", "1", "autocorrelation_1s: must be at most 0.99"),
        ("outage_share", "nan", "outage_share: must be a finite number"),
        ("outage_mean_s", "0", "outage_mean_s: must be at least 1"),
        ("outage_mean_s", "1", "outage_mean_s: must be at least 1 / (1 - outage_share) = 1.021"),
    ],
)
def test_a_broken_variation_is_named_by_row_and_column(tmp_path, column, value, said):
    lines = [
        line for line in hetero_profiles.locate("networks.csv").read_text().splitlines() if line[0] != "#"
    ]
    header, row = lines[0].split(","), lines[1].split(",")
    row[header.index(column)] = value
    path = written(tmp_path / "n.csv", "\n".join([lines[0], ",".join(row)]))
    assert any(f"{path} row 2: {said}" in problem for problem in check(path))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rates": "r.csv"}, "from a file, which ends"),
        ({"rates_at_end": "loop"}, "has `rates_at_end` without a file"),
        ({"rates": "generated", "rates_phase": "random"}, "has `rates_phase` without a file"),
        ({"rates_level": "client"}, "has `rates_level` without a file"),
        ({"rates": "r.csv", "rates_at_end": "hold", "rates_phase": "random"}, "traces that do not loop"),
    ],
)
def test_options_that_mean_nothing_or_are_missing_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        PopulationConfig(preset="homogeneous", clients=1, **fields)


@pytest.mark.parametrize(
    ("value", "hint"),
    [("generatd", "did you mean 'generated'?"), ("none.csv", "the file of a table with trace")],
)
def test_rates_that_are_neither_a_word_nor_a_file_are_an_error(value, hint):
    with pytest.raises(ProfileError, match=r"population\.rates: no such file") as caught:
        population(rates=value, rates_at_end="loop")
    assert hint in str(caught.value)


@pytest.mark.parametrize("sharing", ["private", "max-min"])
def test_a_run_that_outlives_a_trace_ends_with_the_name_of_the_file(tmp_path, sharing):
    path = written(tmp_path / "r.csv", GOOD)
    wanted = experiment(
        {"kind": "synchronous", "cohort": 2},
        4,
        population={"preset": "mixed_edge_2025", "clients": 4, "rates": str(path), "rates_at_end": "fail"},
        network={"sharing": sharing},
        budget={"commits": 50},
    )
    with pytest.raises(RunError, match=r"r\.csv: trace b .* the trace ends at 5 s"):
        simulate(wanted, timeline_only=True)
