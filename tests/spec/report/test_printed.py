"""Figures of matplotlib say what the Plotly figures say: the same curves, bars, words and limits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest
from worlds.small_runs import small

import fedsim
from fedsim.errors import HostError, RunError
from fedsim.report.style import ENDINGS

ONE_RUN = [name for name in fedsim.plots.__all__ if name not in ("compare", "to_matplotlib")]


def drawn(figure):
    return fedsim.plots.to_matplotlib(figure)


def lengths(axes):
    """Bars as (begin, length) along the horizontal axis, in any order."""
    return sorted((round(p.get_x(), 9), round(p.get_width(), 9)) for p in axes.patches)


@pytest.mark.parametrize("name", ONE_RUN)
def test_every_public_figure_has_its_panels_and_their_titles_on_paper(name):
    figure = getattr(fedsim.plots, name)(small())
    if figure is None:
        pytest.skip("the small run has nothing to draw there")
    paper = drawn(figure)

    panels = {(trace.xaxis, trace.yaxis) for trace in figure.data}
    titles = {axis.title.text for axis in figure.select_xaxes()} - {None}
    assert len(paper.axes) == len(panels)
    assert titles <= {axes.get_xlabel() for axes in paper.axes}


def test_curves_have_the_points_that_plotly_has():
    figure = fedsim.plots.compare([small(), small()])
    lines = [line for axes in drawn(figure).axes for line in axes.get_lines()]
    curves = [trace for trace in figure.data if trace.line.width]

    points = [np.column_stack([trace.x, trace.y]).tolist() for trace in curves]
    assert sorted(line.get_xydata().tolist() for line in lines) == sorted(points)


def test_stacked_bars_stand_on_each_other():
    """Of the visits of the slow tier: two landed, one offline, one out of memory, one late; all three of the fast one landed."""
    axes = drawn(fedsim.plots.endings(small())).axes[0]
    slow, fast = [sorted((p.get_x(), p.get_width()) for p in axes.patches if round(p.get_y() + p.get_height() / 2) == row and p.get_width()) for row in (1, 0)]  # fmt: skip
    edges = [begin for begin, _ in slow]

    assert [label.get_text().split()[0] for label in axes.get_yticklabels()] == ["fast", "slow"]
    assert fast == [(0.0, 1.0)]
    assert np.allclose(edges[1:], np.cumsum([width for _, width in slow])[:-1])
    assert sum(width for _, width in slow) == pytest.approx(1.0)


def test_bars_of_the_map_begin_where_their_phase_begins():
    figure = fedsim.plots.gantt(small())
    bars = [(round(b, 9), round(x, 9)) for t in figure.data if t.type == "bar" for b, x in zip(t.base, t.x, strict=True)]  # fmt: skip

    assert lengths(drawn(figure).axes[0]) == sorted(bars)


def test_bars_side_by_side_do_not_touch_each_other():
    axes = drawn(fedsim.plots.participation(small())).axes[0]
    spans = sorted((p.get_y(), p.get_y() + p.get_height()) for p in axes.patches)

    assert len(spans) == 4  # two tiers, two shares
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(spans))


def test_the_legend_has_the_words_of_the_page():
    paper = drawn(fedsim.plots.endings(small()))
    (legend,) = paper.legends

    words = {ENDINGS[name][0] for name in ("landed", "offline", "memory", "late")}
    assert {text.get_text() for text in legend.get_texts()} == words


def test_a_logarithmic_axis_keeps_its_range_and_its_ticks():
    figure = fedsim.plots.devices(small())
    axes = drawn(figure).axes[0]

    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == pytest.approx([10.0**edge for edge in figure.layout.xaxis.range])


@pytest.mark.parametrize("name", ["$5 phone $", "_hidden", r"a\b", "%", "é 手机"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_shown_as_they_are(name):
    figure = go.Figure([go.Scatter(x=[0, 1], y=[1, 2], name=name), go.Bar(x=[0, 1], y=[1, 2], name="b")])
    figure.update_layout(showlegend=True)
    (legend,) = drawn(figure).legends

    shown = [text.get_text().replace(r"\$", "$").lstrip("\u200b") for text in legend.get_texts()]
    assert shown == [name, "b"]


def test_boxes_of_values_and_of_quartiles_are_the_same_box():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    look = {"orientation": "h", "marker": {"color": "#0072B2"}}
    quartiles = {"q1": [2.0], "median": [3.0], "q3": [4.0], "lowerfence": [1.0], "upperfence": [5.0]}
    a = drawn(go.Figure(go.Box(x=values, name="a", **look))).axes[0]
    b = drawn(go.Figure(go.Box(name="a", **quartiles, **look))).axes[0]

    assert [line.get_xdata().tolist() for line in a.get_lines()] == [line.get_xdata().tolist() for line in b.get_lines()]  # fmt: skip


def test_a_number_that_is_wider_than_its_bar_is_not_shown():
    shares = [0.001, 0.999]
    bars = [go.Bar(y=["a"], x=[s], text=["1234"], textposition="inside", orientation="h") for s in shares]
    axes = drawn(go.Figure(bars, {"barmode": "stack"})).axes[0]

    assert [text.get_visible() for text in axes.texts] == [False, True]


def test_it_shows_itself_in_a_notebook_and_is_written_as_pdf(tmp_path):
    paper = drawn(fedsim.plots.staleness(small()))
    paper.savefig(tmp_path / "x.pdf")

    assert paper._repr_png_().startswith(b"\x89PNG")
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_not_drawn_on_paper_is_named():
    with pytest.raises(RunError, match="heatmap") as refused:
        drawn(go.Figure(go.Heatmap(z=[[1.0]])))
    assert refused.value.message.fix


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("fedsim.report.printed.figure.find_spec", lambda _name: None)

    with pytest.raises(HostError, match="matplotlib is not installed") as refused:
        drawn(go.Figure())
    assert "fedsim-edge[notebooks]" in refused.value.message.fix


def test_commits_of_the_map_are_lines_over_its_bars_from_bottom_to_top():
    bars, over = drawn(fedsim.plots.gantt(small())).axes

    (line,) = over.get_lines()
    assert line.get_ydata()[:2].tolist() == [0.0, 1.0]
    assert over.get_ylim() == (0.0, 1.0)
    assert not over.yaxis.get_visible()
    assert over.get_position().bounds == bars.get_position().bounds


def test_words_of_an_axis_do_not_reach_an_axis_of_numbers():
    figure = go.Figure(
        [go.Bar(y=["a", "b"], x=[1, 2], orientation="h"), go.Scatter(x=[0, 1], y=[3, 4], yaxis="y2")]
    )
    figure.update_layout(
        yaxis2={"overlaying": "y", "categoryarray": ["b", "a"]}, yaxis={"categoryarray": ["b", "a"]}
    )
    bars, over = drawn(figure).axes

    assert [label.get_text() for label in bars.get_yticklabels()] == ["b", "a"]
    assert over.get_lines()[0].get_ydata().tolist() == [3.0, 4.0]
