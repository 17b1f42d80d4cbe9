"""docs/claims.md: one row a claim, with its outcome; what studies write into it, and draw, is what their runs say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from worlds.loaded_scripts import loaded_script

from fedsim.records.studies.claims import HEAD, begin, end, filled, of_marks
from fedsim.records.studies.pages import table

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "docs" / "claims.md"
STUDIES = re.findall(
    r"<!-- claims: written by `python experiments/(\w+)/tables\.py` -->", CLAIMS.read_text("utf-8")
)
"""Those that write their rows themselves."""


def test_every_claim_has_an_outcome_and_its_page_is_there():
    lines = [line for line in CLAIMS.read_text("utf-8").splitlines() if line.startswith("| ")]
    claims = [line.strip("| ").split(" | ") for line in lines if not line.startswith(("| claim |", "| ---"))]
    assert len(claims) >= 20
    for claim in claims:
        assert len(claim) == len(HEAD)
        assert re.match(
            r"\*\*(confirmed|refuted|not decided|did not come out|not run|not tested)\*\*", claim[-1]
        )
    for link in re.findall(r"\]\(([^)]+)\)", CLAIMS.read_text("utf-8")):
        assert (CLAIMS.parent / link).exists()


@pytest.mark.parametrize("study", STUDIES)
def test_rows_of_a_study_are_what_its_runs_say(study):
    with loaded_script(ROOT / "experiments" / study / "tables.py", f"claims_of_{study}") as tables:
        rows = list(tables.claims())

    assert len(rows) >= 10
    assert "\n".join([begin(study), *table(HEAD, rows), end(study)]) in CLAIMS.read_text("utf-8")


def test_every_study_with_marks_writes_its_rows():
    marked = {path.parent.name for path in (ROOT / "experiments").glob("*/marks.csv")}
    assert set(STUDIES) == marked


def test_rows_are_put_where_the_page_has_a_place_for_them():
    page = f"one\n{begin('a')}\n{end('a')}\ntwo\n{begin('b')}\nold\n{end('b')}\n"
    found = filled(page, "b", [("it is so", "x", "y", "1", "**confirmed**")])

    assert found.startswith(f"one\n{begin('a')}\n{end('a')}\ntwo\n{begin('b')}\n| claim |")
    assert "| it is so | x | y | 1 | **confirmed** |" in found
    assert "old" not in found
    with pytest.raises(ValueError, match=r"experiments/c/tables\.py"):
        filled(page, "c", [])


def test_the_end_of_another_study_is_not_that_of_one():
    with pytest.raises(ValueError, match="end of claims of a"):
        filled(f"{begin('a')}\nwords\n{begin('b')}\n{end('b')}\n", "a", [])


def test_a_note_is_on_a_mark():
    with pytest.raises(ValueError, match="on no mark: spred"):
        list(of_marks({}, [{"mark": "speed"}], "a", "figure", notes={"spred": "twice"}))


@pytest.mark.parametrize(
    ("study", "found"),
    [
        ("availability", lambda of: of.commits_over(of.read(), "pause", "lost")),
        ("availability", lambda of: of.commits_over(of.read(), "pause, 120 at work", "lost")),
        ("availability", lambda of: of.commits_over(of.read(), "pause, 120 at work", "lost, 120 at work")),
        ("availability", lambda of: of.commits_over(of.read(), "pause, four days", "lost, four days")),
        ("instructions", lambda of: of.sooner()[-1].split(" | ")[-1].strip(" |")),
    ],
)
def test_rows_that_people_write_have_the_numbers_of_the_stored_runs(study, found):
    with loaded_script(ROOT / "experiments" / study / "compare.py", f"numbers_of_{study}") as compare:
        number = found(compare)
    rows = [line for line in CLAIMS.read_text("utf-8").splitlines() if f"{number}" in line]
    assert any(f"experiments/{study}/" in line or "the same" in line for line in rows), number


@pytest.mark.parametrize("study", ["fedgen_edge", "images", "slow"])
def test_the_figures_of_a_study_are_drawn_of_its_csvs(study, monkeypatch):
    """Each that the page shows, and none of them empty."""
    drawn: dict[str, int] = {}

    def save(figure: Figure, path: Path, **_: object) -> None:
        marks = (mark for ax in figure.axes for mark in (*ax.lines, *ax.images, *ax.collections, *ax.patches))
        drawn[Path(path).name] = sum(1 for _ in marks)

    monkeypatch.setattr(Figure, "savefig", save)
    runpy.run_path(str(ROOT / "experiments" / study / "figures.py"), run_name="__main__")
    page = (ROOT / "experiments" / study / "README.md").read_text("utf-8")
    shown = set(re.findall(r"!\[[^\]]*\]\(([\w-]+\.png)\)", page)) - {"uplink.png"}

    assert shown
    assert shown <= set(drawn)
    assert min(drawn.values()) > 0
