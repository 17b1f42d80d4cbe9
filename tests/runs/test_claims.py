"""docs/claims.md: one row a claim, with its outcome; what studies write into it is what their runs say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from worlds.loaded_scripts import loaded_script

from fedsim.records.studies.claims import END, HEAD, begin, put
from fedsim.records.studies.pages import table

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "docs" / "claims.md"
STUDIES = ("fedgen_edge", "images", "published", "slow")


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
    assert "\n".join([begin(study), *table(HEAD, rows), END]) in CLAIMS.read_text("utf-8")


def test_rows_are_put_where_the_page_has_a_place_for_them(tmp_path):
    page = tmp_path / "claims.md"
    page.write_text(f"one\n{begin('a')}\n{END}\ntwo\n{begin('b')}\nold\n{END}\n", "utf-8")
    put(page, "b", [("it is so", "x", "y", "1", "**confirmed**")])

    assert page.read_text("utf-8").startswith(f"one\n{begin('a')}\n{END}\ntwo\n{begin('b')}\n| claim |")
    assert "| it is so | x | y | 1 | **confirmed** |" in page.read_text("utf-8")
    with pytest.raises(ValueError, match=r"experiments/c/tables\.py"):
        put(page, "c", [])
