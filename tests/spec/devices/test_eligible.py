"""Idle, charging and unmetered: cutting spans by hand and by law, the swing of a day against what was published, who takes part."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import hetero_profiles
from fedsim.config.population import PopulationConfig
from fedsim.devices.availability import Availability
from fedsim.devices.charging import charging
from fedsim.devices.people.eligible import Circumstances, circumstances, eligible
from fedsim.devices.people.habits import Habits, habits
from fedsim.devices.people.places import PERIOD_S, at_home, carried_by, share_by_hour
from fedsim.devices.people.spans import Spans, less, unrolled, windows_from
from fedsim.devices.population import draw

N = 4096  # one address of randomness
DAY_S = 86_400.0
OBSERVED = yaml.safe_load(hetero_profiles.locate("charging.yaml").read_text("utf-8"))["observed"]
EVERYBODY = np.ones(N, dtype=np.bool_)
PHONES = Circumstances(carried=EVERYBODY, on_mains=~EVERYBODY, unmetered=EVERYBODY)


@pytest.fixture(scope="module")
def phones():
    return eligible(habits(), PHONES, seed=0)


@pytest.fixture(scope="module")
def homes():
    return at_home(habits(), N, 0, EVERYBODY)


def spans(*pairs, owner=0):
    at = np.array(pairs, dtype=float).reshape(-1, 2)
    return Spans(np.full(len(at), owner), at[:, 0], at[:, 1])


def pairs(left):
    return list(zip(left.owner.tolist(), left.start_s.tolist(), left.stop_s.tolist(), strict=True))


# spans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuts", "left"),
    [
        ([], [(10, 20)]),
        ([(12, 14)], [(10, 12), (14, 20)]),
        ([(0, 12)], [(12, 20)]),
        ([(18, 30)], [(10, 18)]),
        ([(10, 20)], []),
        ([(5, 25)], []),
        ([(12, 14), (13, 16)], [(10, 12), (16, 20)]),
        ([(12, 14), (14, 16)], [(10, 12), (16, 20)]),
        ([(20, 30), (0, 10)], [(10, 20)]),
    ],
)
def test_cuts_are_taken_out_of_a_span(cuts, left):
    assert pairs(less(spans((10, 20)), spans(*cuts), 1)) == [(0, *pair) for pair in left]


def test_cuts_are_taken_out_of_the_spans_of_their_owner_alone():
    several = Spans(np.array([1, 0]), np.array([0.0, 0.0]), np.array([10.0, 10.0]))
    assert pairs(less(several, spans((4, 6), owner=1), 2)) == [(0, 0, 10), (1, 0, 4), (1, 6, 10)]


@settings(max_examples=25, deadline=None)
@given(
    kept=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99), st.integers(1, 30)), max_size=8),
    cut=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99), st.integers(1, 30)), max_size=8),
)
def test_what_is_left_is_what_is_in_a_span_and_in_no_cut(kept, cut):
    def on_circle(raw):
        owner, start, length = np.array(raw, dtype=np.int64).reshape(-1, 3).T
        return unrolled(owner, start.astype(float), length.astype(float), 100.0)

    def covers(some, owner, t):
        return bool(np.any((some.owner == owner) & (some.start_s <= t) & (t < some.stop_s)))

    raw = on_circle(kept)
    joined = Availability.from_windows(*raw, n=3, period_s=100.0)
    lengths = np.minimum(joined.stops_s, 1e9) - joined.starts_s
    whole = unrolled(np.repeat(np.arange(3), np.diff(joined.offsets)), joined.starts_s, lengths, 100.0)
    cuts = on_circle(cut)
    left = less(whole, cuts, 3)
    for owner in range(3):
        for t in np.arange(0.5, 100):
            assert covers(left, owner, t) == (covers(raw, owner, t) and not covers(cuts, owner, t))
    windows, again = windows_from(left, 3, 100.0), Availability.from_windows(*left, n=3, period_s=100.0)
    assert np.array_equal(windows.starts_s, again.starts_s)
    assert np.array_equal(windows.stops_s, again.stops_s)
    assert np.array_equal(windows.offsets, again.offsets)


# against what was published ----------------------------------------------------------------------


def test_nights_have_four_times_as_many_phones_as_days(phones):
    online = share_by_hour(phones)
    cited = habits().observed["swing"]
    assert cited == 4  # Bonawitz et al. 2019
    assert online.max() / online.min() == pytest.approx(cited, rel=0.08)
    assert np.argmax(online) in (1, 2, 3, 4, 5)
    assert np.argmin(online) in range(9, 22)


@pytest.mark.parametrize("region", ["world", "north_america", "india", "europe"])
def test_the_phones_of_every_region_swing_as_was_published(region):
    config = PopulationConfig(preset=f"{region}_2026", clients=3000, availability="eligible", wifi_only=True)
    population = draw(config, 1)
    phones = carried_by(population.tier)
    hours = np.array(
        [population.availability.online(3600.0 * (hour + 0.5))[phones].mean() for hour in range(14 * 24)]
    )
    by_hour = hours.reshape(14, 24).mean(axis=0)
    assert by_hour[1:5].mean() / by_hour[11:15].mean() == pytest.approx(3.75, rel=0.12)


def test_as_many_drop_out_within_minutes_as_was_published(phones):
    times_s = np.arange(0.0, PERIOD_S, 5400.0)
    now = [phones.online(t) for t in times_s]
    later = [phones.online(t + 300.0) for t in times_s]
    left = sum(np.sum(a & ~b) for a, b in zip(now, later, strict=True))
    assert 0.05 < left / sum(np.sum(a) for a in now) < 0.10  # 6 to 10 %: Bonawitz et al. 2019


def test_charging_alone_swings_as_observed_and_much_less(phones):
    by_hour = share_by_hour(charging(N, 0))
    observed = np.array(OBSERVED["share_by_hour"])
    assert by_hour.max() / by_hour.min() == pytest.approx(observed.max() / observed.min(), rel=0.12)
    assert by_hour.max() / by_hour.min() < 2 < share_by_hour(phones).max() / share_by_hour(phones).min()


def test_phones_are_eligible_only_while_they_charge_and_are_at_home(phones, homes):
    plugged = charging(N, 0)
    for t_s in np.linspace(0, PERIOD_S, 41):
        online = phones.online(t_s)
        assert not np.any(online & ~plugged.online(t_s))
        assert not np.any(online & ~homes.online(t_s))


def test_phones_are_at_home_for_the_share_of_time_that_is_stated(homes):
    assert homes.share().mean() == pytest.approx(habits().at_home, abs=0.005)
    by_hour = share_by_hour(homes)
    assert by_hour[3] > 0.97
    assert by_hour[12] < 0.65


def test_a_phone_goes_on_being_eligible_more_often_by_night_than_by_day(phones):
    def stays(hour):
        t_s = 3600.0 * hour + DAY_S * np.arange(14)
        both = [(phones.online(t), phones.online(t + 1800.0)) for t in t_s]
        return sum(np.sum(a & b) for a, b in both) / sum(np.sum(a) for a, _ in both)

    assert stays(2.0) > 0.85
    assert stays(15.0) < 0.75


def test_few_phones_do_most_of_the_work_as_was_observed(phones):
    share = np.sort(phones.share())[::-1]
    assert 0.5 < share[: int(0.3 * N)].sum() / share.sum() < 0.9  # FLASH: 0.86 of the computation


# who takes part ----------------------------------------------------------------------------------


def test_homes_without_wifi_never_take_part_and_what_is_on_the_mains_takes_part_by_day():
    tier = np.array(["phone-mid", "phone-mid", "desktop", "laptop"], dtype=object)
    devices = circumstances(tier, np.array([False, True, True, True]))
    assert devices.carried.tolist() == [True, True, False, False]
    assert devices.on_mains.tolist() == [False, False, True, False]
    windows = eligible(habits(), devices, seed=1)
    share = windows.share()
    assert share[0] == 0
    assert 0 < share[1] < share[2]
    assert windows.window(0, 0.0) == (np.inf, np.inf)


def test_the_first_clients_of_a_larger_population_are_the_same_and_another_seed_gives_others():
    def of(n, seed):
        yes = np.ones(n, dtype=np.bool_)
        return eligible(habits(), Circumstances(yes, ~yes, yes), seed)

    small, large, other = of(500, 3), of(4200, 3), of(500, 4)
    assert np.array_equal(small.offsets, large.offsets[:501])
    assert np.array_equal(small.starts_s, large.starts_s[: small.offsets[-1]])
    assert not np.array_equal(small.offsets, other.offsets)


def test_a_population_of_a_region_is_eligible_by_its_homes():
    config = PopulationConfig(preset="india_2026", clients=2000, availability="eligible")
    population = draw(config, 0)
    share, phones = population.availability.share(), carried_by(population.tier)
    assert not np.any(share[~population.unmetered])
    # a tenth of the time of India's phones is on Wi-Fi, and they are at home for three quarters of it
    assert population.unmetered[phones].mean() == pytest.approx(0.10 / habits().at_home, abs=0.03)
    assert population.unmetered[~phones].all()
    assert share[phones & population.unmetered].mean() == pytest.approx(0.12, abs=0.05)
    assert population.sources["people_sha256"]
    assert population.sources["people_year"] == "2026"


def test_wifi_only_gives_every_home_wifi():
    config = PopulationConfig(
        preset="india_2026", clients=300, availability="eligible", wifi_only=True, time_zones=(0.0, 5.5)
    )
    population = draw(config, 0)
    assert population.unmetered.all()
    assert population.sources["time_zones"] == "0, 5.5"


def test_the_figures_are_checked():
    values = habits().model_dump()
    with pytest.raises(ValueError, match="bouts_per_hour"):
        Habits.model_validate(values | {"use": {**values["use"], "bouts_per_hour": [1.0] * 23}})
    with pytest.raises(ValueError, match="workers"):
        Habits.model_validate(values | {"workers": 1.5})
