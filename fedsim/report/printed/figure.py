"""A Plotly figure as one of matplotlib: the same curves, bars and boxes, for a paper or a page without scripts.

What our figures are made of is drawn: lines, markers, bands, bars, boxes, vertical lines, legends, linear, logarithmic and
categorical axes. What only a screen can do (hovering, zooming) is left out.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from fedsim.errors import HostError, RunError, message

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGE = "matplotlib"
PIXELS_PER_INCH = 110.0
WIDTH_PX = 900.0
"""Width of a figure that says none."""
DPI = 100


def to_matplotlib(figure: go.Figure, *, width_inches: float | None = None) -> Figure:
    """Return a Plotly figure as one of matplotlib; `savefig("x.pdf")` writes it.

    Args:
        figure: a figure of `fedsim.plots`, or another one of lines, markers, bars and boxes.
        width_inches: of the paper; None: as wide as a page. Heights are those of the figure.

    Returns:
        A figure that belongs to no window (`matplotlib.pyplot` is not used), and shows itself in a notebook.

    Raises:
        HostError: matplotlib is not installed.
        RunError: the figure has a kind of trace that is not drawn here.
    """
    if find_spec(PACKAGE) is None:
        fix = "pip install 'fedsim-edge[notebooks]', or use the Plotly figure as it is"
        raise HostError(message("fedsim.plots.to_matplotlib", f"{PACKAGE} is not installed", fix=fix))
    from fedsim.report.printed.panels import DRAWN, draw

    for trace in figure.data:
        if trace.type not in DRAWN:
            what, fix = "draws lines, markers, bars and boxes only", "use the Plotly figure as it is"
            raise RunError(message("fedsim.plots.to_matplotlib", what, got=trace.type, fix=fix))
    height_px = figure.layout.height or 400
    width_px = figure.layout.width or WIDTH_PX
    wide = width_px / PIXELS_PER_INCH if width_inches is None else width_inches
    paper = _paper(wide, height_px / PIXELS_PER_INCH)
    draw(figure, paper)
    return paper


def _paper(width_inches: float, height_inches: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Printed(Figure):
        """A figure that a notebook shows, whether pyplot was imported or not."""

        def _repr_png_(self) -> bytes:
            png = BytesIO()
            self.savefig(png, format="png", dpi=DPI)
            return png.getvalue()

    paper = Printed(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(paper)
    return paper
