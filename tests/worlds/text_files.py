"""Files for whatever is read from a folder."""

from __future__ import annotations

import textwrap

import yaml


def written(path, content):
    """Write bytes, a text without its common indent, or a block as YAML; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = textwrap.dedent(content) if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text)
    return path
