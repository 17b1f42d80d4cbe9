"""Figures as data in the page: nothing that a run is called can become a program, an address or a tag there."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from fedsim.errors import visible
from fedsim.redaction import redacted
from fedsim.report.parts import Section
from fedsim.report.style import DARK

if TYPE_CHECKING:
    import plotly.graph_objects as go

OURS = ("hovertemplate",)
"""Settings of a figure that hold tags of Plotly's, written by us; names of others go into them by `worded`."""
CONFIG: Mapping[str, object] = {"displayModeBar": False, "responsive": True}
WEB = files("fedsim.report").joinpath("web")
STYLE = WEB.joinpath("page.css").read_text(encoding="utf-8")
"""How a page looks."""
SCRIPT = WEB.joinpath("figures.js").read_text(encoding="utf-8").replace("{/* colours */}", json.dumps(DARK))
"""Draws the figures of a page."""
SPACES = "\n\t\u00a0\u2009\u202f"
"""What is not printed and may stand on a page."""


def shown(value: object) -> object:
    """Return what stands on the page for a value: of a text, without secrets, every character to be seen."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return redacted(visible(value, also=SPACES))


def worded(text: object) -> str:
    """Return words for a text that Plotly reads tags and `%{...}` in, shown there as they are.

    >>> worded("<b>%{x}")
    '&lt;b&gt;%&#123;x}'
    """
    return html.escape(str(shown(text)), quote=False).replace("%{", "%&#123;")


def place(section: Section) -> Markup:
    """Return the place of a section's figure in a page, and its data, which `SCRIPT` draws there.

    Of a section with stretches the data hold a figure each.
    """
    shown_figure, *others = [_plain(figure, name) for name, figure in section.stretches] or [
        _plain(section.figure, "")
    ]
    figure = {**shown_figure, "config": CONFIG, **({"others": others} if others else {})}
    text = json.dumps(figure, separators=(",", ":"), allow_nan=False)  # ASCII
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    layout = shown_figure["layout"]
    height = layout.get("height", 400) if isinstance(layout, dict) else 400
    return Markup(
        '<div class="plot" style="height:{height}px"><div id="figure-{name}" class="plotly-graph-div" role="img" '
        'aria-label="{reading}" style="height:100%; width:100%;"></div></div>\n'
        '<script type="application/json" class="figure">{data}</script>'
    ).format(height=int(height), name=section.anchor, reading=shown(f"{section.title}: {section.reading}"),
             data=Markup(text))  # fmt: skip  # noqa: S704  without any of < > &


def _plain(figure: go.Figure, name: str) -> dict[str, object]:
    """Return a figure as data that can be written down: its texts shown as they are."""
    plain = json.loads(figure.to_json(validate=False))
    words = cache(_as_they_are)  # clients of a map have thousands of bars
    return {
        "data": _worded(plain["data"], words),
        "layout": _worded(plain["layout"], words),
        **({"name": name} if name else {}),
    }


def _as_they_are(text: str) -> str:
    return html.escape(str(shown(text)), quote=False)


def _worded(value: object, words: Callable[[str], str], key: str = "") -> object:
    """Return a part of a figure whose texts are shown as they are."""
    if isinstance(value, str):
        return value if key in OURS else words(value)
    if isinstance(value, Mapping):
        return {name: _worded(part, words, name) for name, part in value.items()}
    if isinstance(value, list):
        return [part if isinstance(part, float) else _worded(part, words, key) for part in value]
    return value


def policy(scripts: Sequence[str]) -> str:
    """Return what a browser may do on a page: run these scripts, show its own pictures and style, and nothing else.

    Args:
        scripts: texts of its `<script>` elements.
    """
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
