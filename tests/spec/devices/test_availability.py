"""When clients are online: windows by hand, laws for every set of windows, charging phones as observed, and files."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from worlds.text_files import written

import hetero_profiles
from fedsim.config.fields import DAY_S
from fedsim.config.population import PopulationConfig
from fedsim.devices.availability import Availability, windows_of
from fedsim.devices.charging import charging
from fedsim.devices.online import in_time_zones
from fedsim.devices.population import draw
from fedsim.devices.table_checks import check
from fedsim.devices.tables import read_window_table
from fedsim.errors import ProfileError

INF = math.inf


def windows(*pairs, period_s=INF, gap_s=0.0):
    """One client with these windows."""
    starts, stops = (np.array(side, dtype=np.float64) for side in zip(*pairs, strict=True))
    return Availability.from_windows(
        np.zeros(len(pairs), dtype=np.int64), starts, stops, n=1, period_s=period_s, gap_s=gap_s
    )


# by hand: a day of 100 s --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now_s", "window"),
    [
        (0.0, (10.0, 20.0)),  # before the first
        (10.0, (10.0, 20.0)),  # the start belongs to it
        (19.9, (10.0, 20.0)),
        (20.0, (50.0, 60.0)),  # the stop does not
        (60.0, (INF, INF)),  # after the last
    ],
)
def test_a_window_is_the_one_that_holds_now_or_else_the_next(now_s, window):
    assert windows((10, 20), (50, 60)).window(0, now_s) == window


@pytest.mark.parametrize(
    ("now_s", "window"),
    [
        (0.0, (0.0, 5.0)),  # the tail of the window that began before time 0
        (4.9, (0.0, 5.0)),
        (5.0, (30.0, 40.0)),
        (40.0, (90.0, 105.0)),  # one window across the end of the period
        (95.0, (90.0, 105.0)),
        (104.9, (90.0, 105.0)),
        (105.0, (130.0, 140.0)),
        (1_000_195.0, (1_000_190.0, 1_000_205.0)),
    ],
)
def test_a_window_that_crosses_the_end_of_the_period_is_one(now_s, window):
    assert windows((90, 100), (0, 5), (30, 40), period_s=100).window(0, now_s) == window
    assert windows((90, 105), (30, 40), period_s=100).window(0, now_s) == window


def test_always_is_one_window_without_end():
    always = Availability.always(3)
    assert always.window(2, 1e9) == (0.0, INF)
    assert always.online(1e9).tolist() == [True, True, True]
    assert always.next_start_s(0.0) == INF
    assert always.share().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("pairs", [[(0, 100)], [(0, 50), (50, 100)], [(30, 90), (80, 135)], [(7, 1000)]])
def test_windows_that_go_all_the_way_round_are_always(pairs):
    whole = windows(*pairs, period_s=100)
    assert whole.window(0, 12_345.0) == (0.0, INF)
    assert whole.online(12_345.0).tolist() == [True]
    assert whole.share().tolist() == [1.0]
    assert whole.next_start_s(0.0) == INF


def test_a_client_without_windows_never_comes():
    two = Availability.from_windows(np.array([1]), np.array([5.0]), np.array([6.0]), n=3, period_s=10.0)
    assert two.window(0, 0.0) == (INF, INF)
    assert two.online(5.0).tolist() == [False, True, False]
    assert two.share() == pytest.approx([0, 0.1, 0])
    nothing = np.array([])
    nobody = Availability.from_windows(nothing.astype(np.int64), nothing, nothing, n=2, period_s=10.0)
    assert nobody.next_start_s(0.0) == INF
    assert nobody.online(0.0).tolist() == [False, False]


def test_overlapping_touching_and_nearly_touching_windows_are_one():
    assert windows((0, 10), (5, 7), (10, 12), (13, 20)).window(0, 0.0) == (0.0, 12.0)
    assert windows((0, 10), (5, 7), (10, 12), (13, 20), gap_s=1).window(0, 0.0) == (0.0, 20.0)
    assert windows((2, 10), (95, 99), period_s=100, gap_s=3).window(0, 97.0) == (95.0, 110.0)


def test_the_share_is_time_online_over_the_period_or_over_the_time_covered():
    assert windows((10, 20), (90, 105), period_s=100).share() == pytest.approx([0.25])
    assert windows((10, 20), (90, 100)).share() == pytest.approx([0.2])


def test_the_next_start_is_the_earliest_after_now_over_all_clients():
    client, start = np.array([0, 1, 1]), np.array([10.0, 40.0, 95.0])
    once = Availability.from_windows(client, start, start + 3, n=2)
    again = Availability.from_windows(client, start, start + 8, n=2, period_s=100.0)
    assert [once.next_start_s(now) for now in (0, 10, 39.9, 40, 95)] == [10, 40, 40, 95, INF]
    assert [again.next_start_s(now) for now in (0, 10, 95, 109, 110)] == [10, 40, 110, 110, 140]


def test_the_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        windows((1, 2)).starts_s[0] = 0


# for every set of windows -------------------------------------------------------------------------------

N, PERIOD_S = 4, 100.0
times = st.floats(0, 1000, allow_nan=False).map(lambda t: round(t, 3)) | st.integers(0, 1000).map(float)
spans = st.lists(
    st.tuples(st.integers(0, N - 1), st.floats(0, 250), st.floats(1e-3, 120)), min_size=1, max_size=25
)
periods = st.sampled_from([PERIOD_S, 86.7, INF])


def availability(spans, period_s):
    client, start, length = (np.array(side) for side in zip(*spans, strict=True))
    return Availability.from_windows(client, start, start + length, n=N, period_s=period_s)


@settings(deadline=None)
@given(spans=spans, period_s=periods, now_s=times)
def test_online_is_exactly_when_the_window_holds_now(spans, period_s, now_s):
    there = availability(spans, period_s)
    found = [there.window(client, now_s) for client in range(N)]
    assert there.online(now_s).tolist() == [start <= now_s < stop for start, stop in found]


@settings(deadline=None)
@given(spans=spans, period_s=periods, now_s=times)
def test_a_client_is_online_exactly_when_one_of_the_given_windows_holds_it(spans, period_s, now_s):
    there = availability(spans, period_s).online(now_s)
    edge = 1e-9 * (1 + now_s)
    for client in range(N):
        ages = [
            (now_s - start if period_s == INF else (now_s - start) % period_s, length)
            for c, start, length in spans
            if c == client
        ]
        if any(min(abs(age), abs(age - length)) < edge or period_s - age < edge for age, length in ages):
            continue  # rounding decides at the very edge
        assert there[client] == any(0 <= age < length for age, length in ages)


@settings(deadline=None)
@given(spans=spans, period_s=periods, now_s=times)
def test_asking_is_pure(spans, period_s, now_s):
    there = availability(spans, period_s)
    before = [there.window(client, now_s) for client in range(N)]
    for other in (0.0, 500.0, now_s + 1):
        there.window(0, other), there.online(other), there.next_start_s(other)
    assert [there.window(client, now_s) for client in range(N)] == before


@settings(deadline=None)
@given(spans=spans, period_s=periods, client=st.integers(0, N - 1))
def test_walking_from_window_to_window_always_gets_on_and_leaves_gaps_between(spans, period_s, client):
    there = availability(spans, period_s)
    now_s, last_stop = 0.0, -1.0
    for _ in range(30):
        start, stop = there.window(client, now_s)
        if start == INF:
            break
        assert max(start, now_s) < stop
        assert start > last_stop
        if stop == INF:
            break
        now_s = last_stop = stop
        assert not there.online(stop)[client]  # half-open


quarters = st.integers(0, 1000).map(lambda k: k / 4)  # additions are exact


@settings(deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, N - 1), quarters, quarters.map(lambda q: q + 0.25)), min_size=1),
    now_s=quarters,
)
def test_windows_repeat_with_the_period(spans, now_s):
    there = availability(spans, 128.0)
    later = now_s + 128.0 * 3
    assert there.online(now_s).tolist() == there.online(later).tolist()


@settings(deadline=None)
@given(spans=spans, period_s=periods, now_s=times)
def test_the_next_start_is_the_minimum_over_clients_and_somebody_comes_then(spans, period_s, now_s):
    there = availability(spans, period_s)
    next_s = there.next_start_s(now_s)
    assert next_s > now_s
    if next_s < INF:
        assert there.online(next_s).any()
    offline = [there.window(client, now_s)[0] for client in np.flatnonzero(~there.online(now_s))]
    assert next_s <= min(offline, default=INF)


@settings(deadline=None)
@given(spans=spans, period_s=st.sampled_from([PERIOD_S, 86.7]))
def test_the_share_agrees_with_counting_instants(spans, period_s):
    there = availability(spans, period_s)
    instants = (np.arange(2000) + 0.5) / 2000 * period_s
    counted = np.mean([there.online(float(t)) for t in instants[::10]], axis=0)
    assert there.share() == pytest.approx(counted, abs=0.005 * 2 * (len(spans) + 1))


# charging -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phones():
    return charging(4000, seed=0)


@pytest.fixture(scope="module")
def observed():
    return yaml.safe_load(hetero_profiles.locate("charging.yaml").read_text("utf-8"))["observed"]


def share_by_hour(there, start_hour=0):
    """Mean share online by local hour, from six instants an hour over two weeks."""
    instants = np.arange(0, 14 * DAY_S, 600) + 300
    online = np.array([there.online(float(t)).mean() for t in instants])
    return np.roll(online.reshape(14, 24, 6).mean(axis=(0, 2)), start_hour)


def test_phones_charge_as_much_of_the_time_as_observed(phones, observed):
    assert phones.share().mean() == pytest.approx(observed["mean_share"], abs=0.007)


def test_the_hours_of_the_day_are_those_observed(phones, observed):
    hours = share_by_hour(phones)
    assert np.sqrt(np.mean((hours - observed["share_by_hour"]) ** 2)) < 0.03
    assert np.corrcoef(hours, observed["share_by_hour"])[0, 1] > 0.7
    assert hours.max() / hours.min() == pytest.approx(1.6, abs=0.2)


def test_devices_differ_as_observed(phones, observed):
    quantiles = np.quantile(phones.share(), (0.05, 0.25, 0.5, 0.75, 0.95))
    assert quantiles == pytest.approx(observed["device_share_p5_p25_p50_p75_p95"], abs=0.03)


def test_sessions_are_as_long_as_observed_in_the_middle(phones, observed):
    minutes = (phones.stops_s - phones.starts_s)[np.isfinite(phones.stops_s)] / 60
    median, longest_tenth = np.quantile(minutes, (0.5, 0.9))
    assert median == pytest.approx(observed["session_minutes_p50_p90"][0], rel=0.2)
    assert longest_tenth == pytest.approx(observed["session_minutes_p50_p90"][1], rel=0.35)
    assert minutes.min() >= 1


def test_a_phone_that_charges_goes_on_charging_about_as_often_as_observed(phones, observed):
    left_s = []
    for now_s in np.arange(0, 14 * DAY_S, 6 * 3600):
        some = np.flatnonzero(phones.online(float(now_s)))[:100]
        left_s += [phones.window(int(client), float(now_s))[1] - now_s for client in some]
    for later_s, share in observed["still_charging_after_s"].items():
        assert np.mean(np.array(left_s) > later_s) == pytest.approx(share, abs=0.09)


def test_plugs_do_not_flap(phones):
    same = np.diff(np.repeat(np.arange(phones.n), np.diff(phones.offsets))) == 0
    assert np.min((phones.starts_s[1:] - phones.stops_s[:-1])[same]) > 60


def test_the_start_hour_turns_the_day(phones):
    late = charging(4000, seed=0, start_hour=18.0)
    assert share_by_hour(late, 18) == pytest.approx(share_by_hour(phones), abs=1e-12)
    assert late.online(0.0).tolist() == phones.online(18 * 3600.0).tolist()


def test_the_first_phones_of_a_larger_draw_are_the_same_and_another_seed_gives_others(phones):
    few = charging(50, seed=0)
    assert all(few.window(c, t) == phones.window(c, t) for c in range(50) for t in (0.0, 5e4, 1.3e6))
    assert charging(50, seed=1).starts_s[:5].tolist() != few.starts_s[:5].tolist()
    across = charging(5000, seed=0)  # more than one block
    assert across.starts_s[: len(phones.starts_s)].tolist() == phones.starts_s.tolist()


# files --------------------------------------------------------------------------------------------------


def test_a_csv_of_windows_repeats_with_the_period_it_states(tmp_path):
    path = written(tmp_path / "w.csv", "# period_s: 100\nclient,start_s,stop_s\n0,90,100\n1,5,9\n0,0,10\n")
    there = windows_of(read_window_table(path), n=2, seed=0)
    assert check(path) == []
    assert there.window(0, 95.0) == (90.0, 110.0)
    assert there.window(1, 10.0) == (105.0, 109.0)


def test_without_a_period_windows_do_not_repeat(tmp_path):
    there = windows_of(
        read_window_table(written(tmp_path / "w.csv", "client,start_s,stop_s\n0,5,9\n")), n=1, seed=0
    )
    assert there.window(0, 9.0) == (INF, INF)


def test_a_client_has_its_own_windows_and_the_others_those_of_somebody(tmp_path):
    path = written(tmp_path / "w.csv", "client,start_s,stop_s\n3,30,31\n0,0,1\n7,70,71\n")
    there = windows_of(read_window_table(path), n=200, seed=0)
    first = [there.window(client, 0.0)[0] for client in range(200)]
    assert (first[0], first[3], first[7]) == (0, 30, 70)
    assert {value: first.count(value) for value in set(first)} == pytest.approx(
        {0: 67, 30: 67, 70: 67}, abs=25
    )
    fewer = windows_of(read_window_table(path), n=90, seed=0)
    assert [fewer.window(client, 0.0)[0] for client in range(90)] == first[:90]


def test_traces_go_to_clients_in_order_of_appearance(tmp_path):
    path = written(tmp_path / "w.csv", "trace,start_s,stop_s\nb,2,3\na,1,2\nb,7,8\n")
    there = windows_of(read_window_table(path), n=2, seed=0)
    assert [there.window(client, 0.0) for client in range(2)] == [(2.0, 3.0), (1.0, 2.0)]
    assert there.window(0, 3.0) == (7.0, 8.0)
    assert windows_of(read_window_table(path), n=1, seed=0).n == 1


def test_parquet_and_csv_give_the_same(tmp_path):
    frame = pd.DataFrame({"client": [0, 0, 1], "start_s": [1.0, 5.0, 2.0], "stop_s": [2.0, 6.0, 4.0]})
    frame.attrs["period_s"] = 10.0
    frame.to_parquet(tmp_path / "w.parquet")
    text = "# period_s: 10\n" + frame.to_csv(index=False)
    one, two = (
        windows_of(read_window_table(path), n=5, seed=0)
        for path in (tmp_path / "w.parquet", written(tmp_path / "w.csv", text))
    )
    assert check(tmp_path / "w.parquet") == []
    assert one.period_s == two.period_s == 10
    assert one.starts_s.tolist() == two.starts_s.tolist()
    assert one.offsets.tolist() == two.offsets.tolist()


BROKEN = [
    ("0,5,5", "row 2: stop_s: must be after start_s = 5 (got 5.0)"),
    ("0,5,4", "row 2: stop_s: must be after start_s = 5 (got 4.0)"),
    ("0,-1,4", "row 2: start_s: must be at least 0 (got -1.0)"),
    ("0,nan,4", "row 2: start_s: must be a finite number (got 'nan')"),
    ("0,1,inf", "row 2: stop_s: must be a finite number (got inf)"),
    ("0,noon,4", "row 2: start_s: must be a finite number (got 'noon')"),
    ("0,1,", "row 2: stop_s: is empty\n"),
    (",1,2", "row 2: client: is empty\n"),
    ("-1,1,2", "row 2: client: must be at least 0 (got -1.0)"),
    ("0.5,1,2", "row 2: client: must be a whole number (got 0.5)"),
    ("phone,1,2", "row 2: client: must be a finite number (got 'phone')"),
    ("0,1,5\n1,3,9\n0,4,6", "row 4: start_s: overlaps the window of row 2, which ends at 5 (got 4.0)"),
    ("0,1,5,6", "row 2: needs 3 cells (got 4)"),
]


@pytest.mark.parametrize(("rows", "said"), BROKEN)
def test_a_broken_window_is_named_by_row_and_column(tmp_path, rows, said):
    path = written(tmp_path / "w.csv", f"client,start_s,stop_s\n{rows}\n")
    with pytest.raises(ProfileError) as caught:
        windows_of(read_window_table(path), n=2, seed=0)
    assert f"{path} {said}" in f"{caught.value}\n"
    assert "\n  fix: " in str(caught.value)
    assert check(path)[0] == str(caught.value)


@pytest.mark.parametrize("column", ["client", "start_s", "stop_s"])
def test_a_missing_column_is_named(tmp_path, column):
    header = [name for name in ("client", "start_s", "stop_s") if name != column]
    path = written(tmp_path / "w.csv", ",".join(header) + "\n1,2\n")
    assert check(path)[0].startswith(f"{path}: {column}: the column is missing")


@pytest.mark.parametrize("period", ["0", "-5", "a week", "inf", "nan"])
def test_a_period_must_be_a_positive_number(tmp_path, period):
    path = written(tmp_path / "w.csv", f"# period_s: {period}\nclient,start_s,stop_s\n0,1,2\n")
    assert f"period_s: must be a number greater than 0 (got '{period}')" in check(path)[0]


def test_a_window_beyond_the_period_is_an_error(tmp_path):
    path = written(tmp_path / "w.csv", "# period_s: 10\nclient,start_s,stop_s\n0,8,12\n")
    assert "row 3: stop_s: lies beyond the period of 10 s (got 12.0)" in check(path)[0]


def test_a_population_takes_its_windows_from_a_file(tmp_path):
    path = written(tmp_path / "nights.csv", "client,start_s,stop_s\n0,5,9\n")
    config = PopulationConfig(preset="homogeneous", clients=3, availability=str(path))
    population = draw(config, 0)
    assert population.availability.window(2, 0.0) == (5.0, 9.0)
    assert len(population.sources["availability_sha256"]) == 64


# time zones ---------------------------------------------------------------------------------------------


def test_a_shift_moves_each_client_s_windows_around_the_period():
    client, start = np.array([0, 1, 1]), np.array([10.0, 10.0, 90.0])
    there = Availability.from_windows(client, start, start + 8, n=3, period_s=100.0)
    moved = there.shifted(np.array([5.0, -15.0, 50.0]))
    assert [moved.window(c, 20.0) for c in (0, 1)] == [(15.0, 23.0), (75.0, 83.0)]
    assert moved.window(1, 90.0) == (95.0, 103.0)
    assert moved.window(2, 0.0) == (INF, INF)
    assert moved.share() == pytest.approx(there.share())


@settings(deadline=None)
@given(spans=spans, shift_s=st.floats(-300, 300), now_s=st.floats(0, 500))
def test_a_shifted_client_is_online_when_it_was_before(spans, shift_s, now_s):
    there = availability(spans, PERIOD_S)
    moved = there.shifted(np.full(N, shift_s))
    then_s = (now_s - shift_s) % PERIOD_S
    for client in range(N):
        mine = slice(there.offsets[client], there.offsets[client + 1])
        edges = np.concatenate([there.starts_s[mine], there.stops_s[mine], [0.0]])
        edges = np.append(edges[np.isfinite(edges)] % PERIOD_S, PERIOD_S)
        if np.abs(edges - then_s).min() < 1e-6:
            continue  # rounding decides at the very edge
        assert moved.online(now_s)[client] == there.online(then_s)[client]


def test_always_there_stays_always_there_and_windows_that_do_not_repeat_cannot_move():
    whole = windows((0, 100), period_s=100)
    assert whole.shifted(np.array([33.0])).window(0, 5.0) == (0.0, INF)
    with pytest.raises(ValueError, match="only windows that repeat"):
        windows((1, 2)).shifted(np.array([1.0]))


def test_eight_hours_ahead_brings_everything_eight_hours_earlier_for_half_of_the_clients():
    there = charging(2000, seed=0)
    zoned = in_time_zones(there, (0.0, 8.0), seed=0)
    windows_of = ([each.window(c, 0.0) for c in range(2000)] for each in (there, zoned))
    same = np.isclose(*windows_of, rtol=0.0, atol=1e-6).all(axis=1)  # a shift by nothing rounds a stop
    assert same.mean() == pytest.approx(0.5, abs=0.05)
    later = there.online(5 * DAY_S + 8 * 3600.0)
    assert np.array_equal(zoned.online(5 * DAY_S)[~same], later[~same])
    few = in_time_zones(charging(30, seed=0), (0.0, 8.0), seed=0)
    assert [few.window(c, 0.0) for c in range(30)] == [zoned.window(c, 0.0) for c in range(30)]


def test_time_zones_flatten_the_day_of_a_population():
    def share(**settings):
        config = PopulationConfig(preset="homogeneous", clients=2000, availability="charging", **settings)
        return share_by_hour(draw(config, 0).availability)

    one, many = share(), share(time_zones=tuple(range(24)))
    assert np.ptp(many) < 0.25 * np.ptp(one)
    assert many.mean() == pytest.approx(one.mean(), rel=1e-6)


def test_a_table_of_windows_must_repeat_to_have_time_zones(tmp_path):
    rows = "client,start_s,stop_s\n0,3600,7200\n"
    once, daily = written(tmp_path / "a.csv", rows), written(tmp_path / "b.csv", f"# period_s: 86400\n{rows}")

    def drawn(path):
        config = PopulationConfig(preset="homogeneous", clients=2, availability=str(path), time_zones=(1,))
        return draw(config, 0)

    assert drawn(daily).availability.window(1, 0.0) == (0.0, 3600.0)
    with pytest.raises(ProfileError, match=r"a\.csv: period_s: windows that do not repeat"):
        drawn(once)


@pytest.mark.parametrize(("zones", "said"), [((1.0,), "always there"), ((), "has no `time_zones`")])
def test_time_zones_that_mean_nothing_are_refused(zones, said):
    with pytest.raises(ValidationError, match=said):
        PopulationConfig(preset="homogeneous", clients=2, time_zones=zones)
