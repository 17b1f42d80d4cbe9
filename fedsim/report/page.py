"""Assemble the page and write it: one HTML file with its script and style inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from fedsim.errors import RunFolderError, message
from fedsim.files import atomic
from fedsim.records import gains as gain_views
from fedsim.records import views
from fedsim.records.quantities import number, percent, said
from fedsim.records.run import Run
from fedsim.report import (
    comparing,
    gain_sections,
    gallery_section,
    labels,
    sections,
    setup,
    straggler_sections,
    visit_sections,
)
from fedsim.report.parts import Card, Page, Section, listing, plural
from fedsim.report.style import ENDINGS

_ENDED = {
    "running": "The run was still going when this page was made; the tables are those written so far.",
    "killed": "The run was killed; the tables hold everything up to that moment.",
    "failed": "The run failed",
    "interrupted": "The run was interrupted",
}


def write(runs: Sequence[Run], path: Path) -> Path:
    """Write the report of one run, or the comparison of several, and return its path.

    The file needs no network: Plotly and the style are inside, once. Equal runs give equal bytes.

    Raises:
        RunFolderError: there is no run, or the file cannot be written.
    """
    if not runs:
        raise RunFolderError(message("report", "needs at least one run", fix="name a run folder"))
    page = single(runs[0]) if len(runs) == 1 else several(runs)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.replace(path, _rendered(page).encode())
    except OSError as problem:
        raise RunFolderError(message(str(path), f"cannot be written ({problem.strerror})")) from problem
    return path


def single(run: Run) -> Page:
    """Return the page about one run."""
    metric = views.headline(run)
    lead = sections.sentence(run, metric) if metric else _timeline(run)
    return Page(
        title=run.name,
        lead=lead,
        notes=_notes(run),
        cards=cards(run),
        sections=[
            setup.section(run),
            sections.progress(run),
            *gallery_section.sections(run),
            visit_sections.people(run),
            sections.devices(run),
            visit_sections.losses(run),
            visit_sections.staleness(run),
            visit_sections.phases(run),
            straggler_sections.waits(run),
            straggler_sections.fairness(run),
            sections.uplink(run),
            visit_sections.waste(run),
            gain_sections.gains(run),
        ],
        configurations=[("experiment.yaml", _yaml(run))],
        versions=_versions(run),
    )


def several(runs: Sequence[Run]) -> Page:
    """Return the page that compares runs."""
    c = labels.compared(runs)
    said_of: dict[tuple[str, str], list[str]] = {}
    for label, run in zip(c.labels, runs, strict=True):
        for note in _notes(run):
            said_of.setdefault(note, []).append(label)
    notes = [
        (f"{'All runs' if len(who) == len(runs) else listing(who)}: {heading}", text)
        for (heading, text), who in said_of.items()
    ]
    return Page(
        title=f"{plural(len(runs), 'run')} compared",
        lead=comparing.verdict(c),
        notes=notes,
        cards=[],
        sections=[
            comparing.setup(c),
            comparing.progress(c),
            *gallery_section.beside(c),
            comparing.losses(c),
            comparing.uplink(c),
        ],
        configurations=[(label, _yaml(run)) for label, run in zip(c.labels, runs, strict=True)],
        versions=_versions(runs[0]),
    )


def cards(run: Run) -> list[Card]:
    """Return the verdict in large figures."""
    found = []
    visits, total = run.visits, len(run.visits)
    metric = views.headline(run)
    if metric:
        values = views.scored(run, metric)["value"]
        note = f"test, {plural(len(values), 'score')}"
        found.append(
            Card(f"{number(values.iloc[0])} → {number(values.iloc[-1])}", metric.replace("_", " "), note)
        )
    ended = said("time_s", float(run.info.get("end_time_s") or 0.0))
    found.append(
        Card(ended, "virtual time", f"{plural(len(run.commits), 'commit')}, {plural(total, 'visit')}")
    )
    up = said("bytes", int(visits["up_bytes"].sum()))
    reduction = (
        float(views.uplink_reduction(run)["reduction"].iloc[0]) if run.info.get("charged") else float("nan")
    )
    less = f"{percent(reduction)} less than full-model FedAvg" if reduction > 0 else ""
    found.append(Card(up, "uploaded", less))
    if not total:
        return found
    outcomes = visits["outcome"].value_counts()
    lost = outcomes.drop(["landed", "polled", "in_flight"], errors="ignore")
    causes = listing([f"{n:,} {ENDINGS[str(name)][0]}" for name, n in lost.items()][:3])
    found.append(Card(percent(float(lost.sum()) / total), "of visits were lost", causes))
    inside = views.participation(run)["committed"].gt(0)
    note = f"{int(inside.sum()):,} of {plural(len(inside), 'client')} have an update in it"
    found.append(Card(percent(float(inside.mean())), "of clients are in the model", note))
    share = views.wasted_work(run).attrs["share"]
    energy = said("joules", float(visits["joules"].sum()))
    found.append(Card(energy, "energy of the devices", f"{percent(share['joules'])} of it in vain"))
    if not run.info.get("timeline_only"):
        saved = percent(float(run.info.get("saved_share") or 0.0))
        found.append(Card(saved, "of training saved", "visits lost in virtual time are never really trained"))
    gains = gain_views.gains(run)
    if len(gains):
        top = gains.iloc[0]
        note = f"mean over {plural(int(top['clients']), 'client')}; {percent(top['share_worse'])} got worse"
        found.append(
            Card(f"{top['mean']:+.3g}", f"personal gain in {str(top['metric']).replace('_', ' ')}", note)
        )
    return found


def _notes(run: Run) -> list[tuple[str, str]]:
    found = []
    status, reason = str(run.info["status"]), str(run.info.get("reason") or "")
    if status != "done":
        text = _ENDED.get(status, status)
        ended = text if text.endswith(".") else f"{text}: {reason}" if reason else f"{text}."
        found.append((status.capitalize(), ended))
    if run.info.get("timeline_only"):
        found.append(
            (
                "Timeline only",
                "Nothing was trained: the schedule, bytes and joules are those of a trained run.",
            )
        )
    if text := setup.charge(run):
        found.append(("Charged as another model", text))
    return found


def _timeline(run: Run) -> str:
    hours = said("time_s", float(run.info.get("end_time_s") or 0.0))
    return f"{plural(len(run.visits), 'visit')} and {plural(len(run.commits), 'commit')} in {hours} of virtual time."


def _yaml(run: Run) -> str:
    return yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True)


def _versions(run: Run) -> str:
    versions = run.info.get("versions", {})
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _rendered(page: Page) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    def drawn(section: Section) -> Any:
        options = {"displayModeBar": False, "responsive": True}
        name = f"figure-{section.anchor}"
        html = section.figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=options)
        return Markup(html)  # noqa: S704  Plotly escapes what it embeds

    def unbroken(text: str) -> Any:
        """Keep a number and its unit on one line."""
        return re.sub(r"(?<=\d) (?=(?:s|min|h|days|[kMGTP]?B|[kMG]?J|%)(?!\w))", "\u00a0", text)

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = unbroken
    source = files("fedsim.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    script = Markup(get_plotlyjs())  # noqa: S704  Plotly's own script
    return environment.from_string(source).render(page=page, drawn=drawn, plotly=script)
