"""Figures as data in the page: nothing that a run is called can become a program, an address or a tag there."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fedsim.errors import visible
from fedsim.redaction import redacted

OURS = ("hovertemplate",)
"""Settings of a figure that hold tags of Plotly's, written by us; names of others go into them by `worded`."""
CONFIG: Mapping[str, object] = {"displayModeBar": False, "responsive": True}
SCRIPT = """
// A figure's data follow its place; nothing else on this page is a program.
for (const block of document.querySelectorAll("script.figure")) {
  const figure = JSON.parse(block.textContent);
  Plotly.newPlot(block.previousElementSibling.firstElementChild, figure.data, figure.layout, figure.config);
}
// Paper is narrower than a screen: draw the figures to its width, then back.
const figures = () => document.querySelectorAll(".js-plotly-plot");
addEventListener("beforeprint", () => figures().forEach((f) => Plotly.relayout(f, { autosize: false, width: 680 })));
addEventListener("afterprint", () => figures().forEach((f) => Plotly.relayout(f, { autosize: true, width: null })));
"""
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


def place(figure: Any, name: str) -> Markup:
    """Return the place of a Plotly figure in a page, and its data, which `SCRIPT` draws there.

    Args:
        figure: a `plotly.graph_objects.Figure`.
        name: id of the place.
    """
    plain = json.loads(figure.to_json(validate=False))
    plain = {"data": _worded(plain["data"]), "layout": _worded(plain["layout"]), "config": CONFIG}
    height = plain["layout"].get("height", 400)
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)  # ASCII
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(
        '<div style="height:{height}px; width:100%;"><div id="{name}" class="plotly-graph-div" '
        'style="height:100%; width:100%;"></div></div>\n'
        '<script type="application/json" class="figure">{data}</script>'
    ).format(height=int(height), name=name, data=Markup(text))  # noqa: S704  without any of < > &


def _worded(value: object, key: str = "") -> object:
    """Return a part of a figure whose texts are shown as they are."""
    if isinstance(value, str):
        return value if key in OURS else html.escape(str(shown(value)), quote=False)
    if isinstance(value, Mapping):
        return {name: _worded(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_worded(part, key) for part in value]
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
