"""The public figures, and the map of a run: what its bars say."""

from __future__ import annotations

import math

import pytest
from worlds.small_runs import small

import fedsim
from fedsim.report.run_map.figure import MOST_VISITS, gantt, stretch
from fedsim.report.run_map.section import section

ONE_RUN = [name for name in fedsim.plots.__all__ if name not in ("compare", "to_matplotlib")]


@pytest.mark.parametrize("name", ONE_RUN)
def test_a_public_figure_is_drawn_of_a_run_or_there_is_nothing_to_draw(name):
    figure = getattr(fedsim.plots, name)(small())

    assert figure is None or len(figure.data) > 0


def test_runs_are_drawn_beside_each_other():
    figure = fedsim.plots.compare([small(), small()])

    assert figure is not None
    assert len(figure.data) > 0


def bars(figure):
    """Each bar as (what, client, begin, end), in seconds."""
    return {
        (trace.name, int(y.split()[1]), round(base, 6), round(base + x, 6))
        for trace in figure.data
        if trace.type == "bar"
        for y, base, x in zip(trace.y, trace.base, trace.x, strict=True)
    }


def test_every_phase_of_every_visit_is_a_bar_from_its_begin_to_its_end():
    """A second way, row by row; times of the small run are seconds below a minute."""
    run = small()
    figure = gantt(run, 0.0, 59.0)
    drawn = bars(figure)
    for row in run.visits.itertuples():
        if row.dispatched_s > 59.0:
            continue
        ends = [row.downloaded_s, row.trained_s, row.ended_s]
        begins = [row.dispatched_s, row.downloaded_s, row.trained_s]
        for what, begin, end in zip(("download", "train", "upload"), begins, ends, strict=True):
            if not math.isnan(begin):  # it came to that
                stop = row.ended_s if math.isnan(end) else end
                if stop > begin:
                    assert (what, row.client, round(begin, 6), round(stop, 6)) in drawn


def test_a_stretch_without_visits_has_no_map():
    run = small()

    assert gantt(run, 1e9, 2e9) is None
    assert stretch(run) == (0.0, run.info.end_time_s)
    assert len(run.visits) < MOST_VISITS


def test_the_section_says_what_is_shown():
    made = section(small())

    assert made.text[0].startswith("The whole run, all clients.")
    assert made.figure is not None
