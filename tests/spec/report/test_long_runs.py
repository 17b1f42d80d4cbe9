"""A page has a size that a browser opens at once, however long its run was: figures sum up, the tables have every row."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from worlds.small_runs import INFO, small

from fedsim import report
from fedsim.report.run_map import figure
from fedsim.report.run_map.figure import MOST_CLIENTS, MOST_STRETCHES, MOST_VISITS, maps, stretches


def repeated(times):
    """The small run again and again, one after the other, by as many clients as a map has rows: its bars are most then."""
    run = small()
    visits, commits, clients = run.visits, run.commits, run.clients
    at = np.repeat(np.arange(times), len(visits))
    longer = visits.loc[np.tile(visits.index, times)].reset_index(drop=True)
    for name in ("dispatched_s", "downloaded_s", "trained_s", "landed_s", "ended_s"):
        longer[name] += 30.0 * at
    longer["client"] += 4 * (at % 10)
    longer["order"] = np.arange(len(longer))
    later = commits.loc[np.tile(commits.index, times)].reset_index(drop=True)
    later["version"] = np.arange(len(later)) + 1
    later["time_s"] += 30.0 * np.repeat(np.arange(times), len(commits))
    many = clients.loc[np.tile(clients.index, 10)].reset_index(drop=True)
    many["client"] = np.arange(len(many))
    return small(visits=longer, commits=later, clients=many, info=replace(INFO, end_time_s=30.0 * times))


def page_of(run, place):
    html = report.write([run], place / "page.html").read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    return [len(text) for text in re.findall(r'class="figure">(.*?)</script>', html)], len(html)


def test_ten_times_as_many_visits_make_no_larger_page(tmp_path, monkeypatch):
    """5,600 and 56,000 visits: the largest part is a map of at most so many bars a stretch."""
    monkeypatch.setattr(figure, "MOST_STRETCHES", 4)
    shorter, size = page_of(repeated(800), tmp_path)
    longer, largest = page_of(repeated(8_000), tmp_path)
    map_bytes = max(longer)

    assert len(shorter) == len(longer)
    assert largest < 1.1 * size
    assert (
        MOST_STRETCHES * map_bytes / 4 + (largest - map_bytes) < 4_000_000
    )  # with Plotly's own 4.8 MB below 10 MB


def test_a_run_is_cut_into_stretches_that_cover_it():
    starts_s = np.random.default_rng(0).uniform(0.0, 100.0, 3 * MOST_VISITS + 5)
    cut = stretches(starts_s, 100.0)

    assert len(cut) == 4
    assert cut[0][0] == 0.0
    assert cut[-1][1] == 100.0
    assert [end for _, end in cut[:-1]] == [begin for begin, _ in cut[1:]]
    inside = [int(((starts_s >= b) & (starts_s < e)).sum()) for b, e in cut]
    assert inside == [MOST_VISITS, MOST_VISITS, MOST_VISITS, 5]


def test_of_a_run_too_long_for_that_stretches_are_spread_evenly():
    starts_s = np.random.default_rng(0).uniform(0.0, 100.0, 50_000)
    cut = stretches(starts_s, 100.0)

    assert len(cut) == MOST_STRETCHES
    assert [begin for begin, _ in cut] == pytest.approx(
        [100 * k / MOST_STRETCHES for k in range(MOST_STRETCHES)]
    )
    for begin, end in cut:
        assert MOST_VISITS - 1 <= ((starts_s >= begin) & (starts_s < end)).sum() <= MOST_VISITS + 1


def test_visits_that_all_begin_at_once_are_one_stretch():
    assert stretches(np.zeros(2 * MOST_VISITS), 9.0) == [(0.0, 9.0)]
    assert stretches(np.zeros(0), 9.0) == [(0.0, 9.0)]


def test_every_stretch_of_the_page_is_the_map_of_that_stretch(tmp_path):
    run = repeated(2 * MOST_VISITS // 7 + 1)
    html = report.write([run], tmp_path / "page.html").read_text(encoding="utf-8")
    blocks = [json.loads(text) for text in re.findall(r'class="figure">(.*?)</script>', html)]
    shown = next(block for block in blocks if "others" in block)
    choices = [shown, *shown["others"]]
    drawn = list(maps(run))

    assert html.count('type="range"') == 1
    assert f'max="{len(drawn) - 1}"' in html
    assert [made["layout"]["xaxis"]["range"] for made in choices] == [
        list(each.layout.xaxis.range) for _, _, each in drawn
    ]
    for made in choices:
        rows = {bar for trace in made["data"] if trace["type"] == "bar" for bar in trace["y"]}
        assert len(rows) <= MOST_CLIENTS
        assert any(trace["name"] == "commit" for trace in made["data"])
    assert len({made["name"] for made in choices}) == len(choices)
