"""Assemble the page and write it: one HTML file with its script and style inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from fedsim.errors import RunFolderError, message
from fedsim.files.atomic import write_atomically
from fedsim.files.disk import telling
from fedsim.records import views
from fedsim.records.info import RunInfo
from fedsim.records.quantities import said
from fedsim.records.run import Run
from fedsim.report import (
    drawn,
    gain_sections,
    gallery_section,
    sections,
    setup,
    straggler_sections,
    tables_section,
    visit_sections,
)
from fedsim.report.answers import section as answers
from fedsim.report.cards import cards
from fedsim.report.parts import Page, Section, Table, listing, plural
from fedsim.report.run_map.section import section as map_section
from fedsim.report.several import draws, labels
from fedsim.report.several import sections as several_sections
from fedsim.report.several.differences import contest, verdict
from fedsim.report.several.targets import of_one_run

LONG = 20
"""Letters of a word that a column has room for; a longer one may be broken anywhere."""


def write(runs: Sequence[Run], path: Path, *, targets: Sequence[float] = ()) -> Path:
    """Write the report of one run, or the comparison of several, and return its path.

    The file needs no network: Plotly and the style are inside, once. Equal runs give equal bytes.

    Args:
        runs: one or several.
        path: of the page.
        targets: values of the headline metric whose times are compared, beside those that the runs declare.

    Raises:
        RunFolderError: there is no run, or the file cannot be written.
        HostError: the disk is full.
    """
    if not runs:
        raise RunFolderError(message("report", "needs at least one run", fix="name a run folder"))
    page = single(runs[0], targets) if len(runs) == 1 else several(runs, targets)
    path = Path(path)
    try:
        with telling(path, "free some space; the tables are whole without the page"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _rendered(page).encode())
    except OSError as problem:
        raise RunFolderError(message(str(path), f"cannot be written ({problem.strerror})")) from problem
    return path


def single(run: Run, targets: Sequence[float] = ()) -> Page:
    """Return the page about one run."""
    metric = views.headline(run)
    lead = _timeline(run) if metric is None else sections.sentence(run, metric)
    return Page(
        title=run.name,
        lead=lead,
        notes=_notes(run),
        cards=cards(run),
        sections=[
            _with_targets(sections.progress(run, metric), run, targets),
            *gallery_section.sections(run),
            *answers.sections(run),
            setup.section(run),
            visit_sections.clients(run),
            map_section(run),
            sections.devices(run),
            visit_sections.endings(run),
            visit_sections.staleness(run),
            visit_sections.phases(run),
            straggler_sections.waiting(run),
            straggler_sections.fairness(run),
            sections.uplink(run),
            visit_sections.wasted_work(run),
            gain_sections.gains(run),
            *([tables_section.section(run)] if run.folder is not None else []),
        ],
        configurations=[("experiment.yaml", _yaml(run))],
        versions=_versions(run),
    )


def _with_targets(progress: Section, run: Run, targets: Sequence[float]) -> Section:
    """Return the section with when each target was reached that somebody has named, and at what cost."""
    found = contest(labels.compared([run]))
    further = [] if found is None else of_one_run(found, targets)
    return replace(progress, tables=[*progress.tables, *further])


def several(runs: Sequence[Run], targets: Sequence[float] = ()) -> Page:
    """Return the page that compares runs."""
    compared = labels.compared(runs)
    said_of: dict[tuple[str, str], list[str]] = {}
    for label, run in zip(compared.labels, runs, strict=True):
        for note in _notes(run):
            said_of.setdefault(note, []).append(label)
    notes = [
        (f"{'All runs' if len(who) == len(runs) else listing(who)}: {heading}", text)
        for (heading, text), who in said_of.items()
    ]
    return Page(
        title=f"{plural(len(runs), 'run')} compared",
        lead=verdict(compared) + draws.lead(compared),
        notes=notes,
        cards=[],
        sections=[
            several_sections.progress(compared, targets),
            *draws.sections(compared),
            several_sections.setup(compared),
            *gallery_section.beside(compared),
            several_sections.endings(compared),
            several_sections.uplink(compared),
        ],
        configurations=[(label, _yaml(run)) for label, run in zip(compared.labels, runs, strict=True)],
        versions=_versions(runs[0]),
    )


def _notes(run: Run) -> list[tuple[str, str]]:
    """Return the boxes that a reader must not miss: how it ended, and what was not trained or not charged as itself."""
    notes = []
    info = run.info
    if info.status != "done":
        notes.append((info.status.capitalize(), _ended(info)))
    if info.timeline_only:
        text = "Nothing was trained: the schedule, bytes and joules are those of a trained run."
        notes.append(("Timeline only", text))
    if text := setup.charge(run):
        notes.append(("Charged as another model", text))
    return notes


def _ended(info: RunInfo) -> str:
    """Return the sentence about a run that did not come to its end."""
    if info.status == "running":
        return "The run was still going when this page was made; the tables are those written so far."
    if info.status == "killed":
        return "The run was killed; the tables hold everything up to that moment."
    text = "The run was interrupted" if info.status == "interrupted" else "The run failed"
    return f"{text}: {info.reason}" if info.reason else f"{text}."


def _timeline(run: Run) -> str:
    hours = said("time_s", run.info.end_time_s)
    return f"{plural(run.count('visits'), 'visit')} and {plural(run.count('commits'), 'commit')} in {hours} of virtual time."


def _yaml(run: Run) -> str:
    return yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True)


def _versions(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.info.versions.items())


def _look(table: Table, column: int, name: object) -> Markup:
    """Return the class of a cell: of a column of words, or of a name with a word that no column is as wide as."""
    classes = [
        *(["words"] if column in table.columns_of_words else []),
        *(["long"] if any(len(word) > LONG for word in re.split(r"[\s-]", str(name))) else []),
    ]
    return Markup(' class="{}"').format(" ".join(classes)) if classes else Markup("")


def _rendered(page: Page) -> str:
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    def unbroken(text: str) -> Any:
        """Keep a number and its unit on one line."""
        return re.sub(r"(?<=\d) (?=(?:s|min|h|days|[kMGTP]?B|[kMG]?J|%)(?!\w))", "\u00a0", text)

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=drawn.shown,
    )
    environment.filters["unbroken"] = unbroken
    source = files("fedsim.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    plotly, script = Markup(get_plotlyjs()), Markup(drawn.SCRIPT)  # noqa: S704  Plotly's own, and ours
    return environment.from_string(source).render(
        page=page,
        drawn=drawn.place,
        look=_look,
        style=Markup(drawn.STYLE),  # noqa: S704  ours
        plotly=plotly,
        script=script,
        policy=Markup(drawn.policy([plotly, script])),  # noqa: S704
    )
