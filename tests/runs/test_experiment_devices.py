"""The experiment on devices old and new: its page says what its table of runs says, and one of its runs comes out again."""

from __future__ import annotations

from pathlib import Path

from worlds.loaded_scripts import fixture_of

import fedsim

FOLDER = Path(__file__).parents[2] / "experiments" / "devices"


compare = fixture_of(FOLDER / "compare.py", "compare_devices")


def test_the_page_says_what_the_runs_say(compare):
    assert "\n".join(compare.table()) in (FOLDER / "README.md").read_text("utf-8")


def test_every_schedule_protocol_and_population_has_three_seeds_or_more(compare):
    rows = compare.read()
    for schedule in compare.SCHEDULES:
        for protocol in compare.PROTOCOLS:
            for devices in compare.DEVICES:
                seeds = {row["seed"] for row in compare.of(rows, schedule, protocol, devices)}
                assert len(seeds) >= 3


def test_a_run_comes_out_as_it_stands_in_the_table(compare):
    run = fedsim.simulate(compare.experiment("demo", "sync", "2026", 1), timeline_only=True)
    row = next(row for row in compare.of(compare.read(), "demo", "sync", "2026") if row["seed"] == "1")
    assert {name: f"{value:.6g}" for name, value in compare.figures(run).items()} == {
        name: cell for name, cell in row.items() if name in compare.figures(run)
    }
