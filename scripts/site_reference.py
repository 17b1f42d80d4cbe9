"""The reference of the documentation site, written anew from the code: settings, components, commands, tables, public names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import typer

import fedsim
from fedsim.cli.app import app
from fedsim.component import PACKAGES, block_of, find, kinds
from fedsim.config.experiment import Experiment
from fedsim.config.reference.attributes import prose, summary
from fedsim.config.reference.entries import Entry, entries
from fedsim.records import rows
from fedsim.records.stored.column_words import columns


def reference() -> Iterator[tuple[str, str]]:
    """Yield the pages of the reference: name and text."""
    yield "configuration", configuration()
    yield "components", components()
    yield "commands", commands()
    yield "tables", tables()
    yield "python", public()


def configuration() -> str:
    """Return the page of all keys of an experiment."""
    lines = [
        "# Configuration",
        "",
        (
            "Every key of an experiment: what it means, what it takes, and what it is when it is not given. `fedsim explain KEY` prints the "
            "same. An editor with a YAML server completes and checks a file that begins with"
        ),
        "",
        "```yaml",
        "# yaml-language-server: $schema=fedsim.json",
        "```",
        "",
        "where `fedsim schema > fedsim.json` has written the schema.",
        "",
    ]
    block, kind = "", ""
    for entry in entries(Experiment):
        top = entry.path.partition(".")[0]
        if top != block:
            block, kind = top, ""
            lines += ["", f"## {block}", "", *_said(entry)]
            continue
        if entry.kind != kind and entry.path.count(".") == 1 and entry.kind:
            kind = entry.kind
            lines += ["", f"### {block}: {kind}", ""]
        lines += [f"`{entry.path}`", f": {_cell(entry)}", ""]
    return "\n".join(lines) + "\n"


def _said(entry: Entry) -> list[str]:
    return [f"{entry.meaning} Takes {entry.values}; default: `{entry.default}`.", ""]


def _cell(entry: Entry) -> str:
    """Return what is said of a key, on one line."""
    return f"{entry.meaning} *Takes* {entry.values}; *default* `{entry.default}`."


def components() -> str:
    """Return the page of all kinds of components, with what their docstrings say."""
    lines = ["# Components", "", "What `kind:` may be in each block, with equations and sources.", ""]
    for package in PACKAGES:
        block = block_of(package)
        lines += [f"## {block}", ""]
        for kind in kinds(package):
            cls = find(package, kind)
            lines += [f"### {block}: {kind}", "", f"**{summary(cls)}**", "", prose(cls), ""]
    return "\n".join(lines)


def commands() -> str:
    """Return the page of the command line: what `--help` of every command says."""
    lines = ["# Commands", ""]
    for name, command in _commands(typer.main.get_command(app), "fedsim"):
        with typer.Context(command, info_name=name) as context:  # type: ignore[attr-defined]
            lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(command: object, name: str) -> Iterator[tuple[str, object]]:
    yield name, command
    for inner, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {inner}")


def tables() -> str:
    """Return the page of the tables of a run: every column with its type, unit and meaning."""
    lines = ["# Tables", "", inspect.cleandoc(rows.__doc__ or ""), ""]
    for table, row in rows.ROWS.items():
        said = inspect.cleandoc(row.__doc__ or "").partition("\n\n")[0]
        lines += [f"## {table}.parquet", "", f"One row: {said[0].lower()}{said[1:]}", ""]
        lines += ["| column | meaning | unit | type |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.meaning} | {c.unit} | {c.dtype} |" for c in columns(table)]
        lines.append("")
    return "\n".join(lines)


def public() -> str:
    """Return the page of the public names of the package."""
    lines = [
        "# Python",
        "",
        _as_markdown(inspect.cleandoc(fedsim.__doc__ or "").partition("Public names")[0]),
        "",
    ]
    for name in sorted(fedsim.__all__):
        value = getattr(fedsim, name)
        said = inspect.getdoc(value) or ""
        head = f"fedsim.{name}" + (_signature(value) if inspect.isroutine(value) else "")
        lines += [f"## {name}", "", "```python", head, "```", "", _as_markdown(said), ""]
        if inspect.isclass(value):
            lines += _methods(name, value)
    return "\n".join(lines)


def _methods(name: str, cls: type) -> Iterator[str]:
    for method, value in vars(cls).items():
        if method.startswith("_") or not inspect.isroutine(value) or not value.__doc__:
            continue
        yield from (
            f"`{name}.{method}{_signature(value)}`",
            "",
            _as_markdown(inspect.getdoc(value) or ""),
            "",
        )


def _signature(value: object) -> str:
    try:
        return str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"


def _as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    out: list[str] = []
    section = False
    for line in docstring.splitlines():
        head = re.match(r"^(Args|Attributes|Raises|Returns|Yields|Example):$", line)
        if head:
            section = True
            out += ["", f"*{head[1]}*", ""]
        elif section and line.startswith("    ") and not line.startswith("     "):
            out.append(f"- {line.strip()}")
        elif section and line.startswith("     "):
            out.append(f"  {line.strip()}")
        else:
            section = section and not line.strip()
            out.append(line)
    return "\n".join(out)
