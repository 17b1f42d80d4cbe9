"""The experiment on depth by device: its page says who can train, its files run at a tiny size, its tables are filled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from worlds.loaded_scripts import fixture_of

import fedsim
from fedsim.clock.plan import prepare
from fedsim.config.loading import sweep_points
from fedsim.cost.memory.plan import REFUSED, depth_in

FOLDER = Path(__file__).parents[2] / "experiments" / "depth"
CHARGED = "charge_as: {preset: smollm2-135m, r: 16, sequence: 512, batch: 8, tokens_per_visit: 20000}"
CLOSED_FORM = [
    "sweep={seed: [0]}",
    f"task={{kind: quadratic, layout: lora, layers: 5, {CHARGED}}}",
    "local={optimizer: sgd, lr: 0.1, steps: 2}",
    "evaluate={every_s: 600, targets: [2.0]}",
    "runtime={executor: inline}",
]
"""The schedule of the experiment on the closed-form task, charged alike."""
TINY = [
    "sweep={seed: [0]}",
    "task.model=builtin",
    "task.data=builtin",
    "task.sequence=16",
    "local.steps=1",
    "local.batch=2",
    "budget.time_s=2400",
    "evaluate={every_s: 1200, windows: 2, targets: [100.0]}",
    "runtime={executor: inline}",
]


compare = fixture_of(FOLDER / "compare.py", "compare_depth")


def asked(way, overrides):
    """The experiment of a file with seed 0, and other settings."""
    return sweep_points(FOLDER / f"{way}.yaml", overrides)[0][1]


def run_of(way, folder, overrides):
    return fedsim.simulate(asked(way, overrides), out=folder / way / "seed-0", report=False)


def test_the_page_says_which_clients_can_train_how_many_layers(compare):
    page = (FOLDER / "README.md").read_text("utf-8")
    for way, name in compare.WAYS.items():
        plan = prepare(asked(way, CLOSED_FORM))
        plans, of = plan.training_plans
        words = [plans[i].memory.words for i in of]
        depths = Counter(depth_in(plan) or 5 for plan in words if plan != REFUSED)
        told = ", ".join(f"{depths[d]} x {d}" for d in sorted(depths))
        assert f"| {name} | {sum(depths.values())} | {told} |" in page


def test_every_way_runs_and_the_tables_and_the_figure_are_made(compare, tmp_path, capsys):
    for way in compare.WAYS:
        run_of(way, tmp_path, [*CLOSED_FORM, "budget.time_s=7200"])

    assert compare.main(["table", str(tmp_path), str(tmp_path / "figure.png")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Until a perplexity of 2:")
    for name in compare.WAYS.values():
        assert f"| {name} |" in text
    assert "| LEGEND, 80 devices | 1.5 to 2.8 | 42.3 % less |" in text
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    runs = compare.read(tmp_path)
    heard = {way: compare.participants(some[0]) for way, some in runs.items()}
    assert heard["by-memory"][0] > heard["full"][0] == heard["rank-by-memory"][0]


def test_a_wrong_command_is_told_what_there_is(compare, tmp_path, capsys):
    assert compare.main([]) == 2
    assert "compare.py run runs/depth" in capsys.readouterr().out
    assert compare.main(["table", str(tmp_path)]) == 2
    assert "no finished runs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tiny_size_of_the_real_thing_runs(compare, tmp_path):
    for way in compare.WAYS:
        run = run_of(way, tmp_path, TINY)
        assert run.info.status == "done"
    assert "depth by deadline" in "\n".join(compare.lines(compare.read(tmp_path)))
