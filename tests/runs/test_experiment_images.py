"""The experiment on Fashion-MNIST: when an order is established, how a learning rate is chosen, and a page that says what the runs say."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
from worlds.loaded_scripts import fixture_of, loaded_script

from fedsim.checks.blocks import check
from fedsim.config.loading import sweep_points
from fedsim.records.studies.kept import Key

FOLDER = Path(__file__).parents[2] / "experiments" / "images"
HERE = [
    "task.model=builtin",
    "task.data=builtin",
    "task.features={kind: digits-cnn}",
    "task.classes=[5, 6, 7, 8, 9]",
]
"""Shipped digits in place of the reader's files."""
STATED = "24f059bd8ce59f4a7ecb84ba34a04209a467beed4d567ce43871f5cffa158d2a"
"""SHA-256 of marks.csv as it was committed before anything was run."""
FIVE = ("fd_own", "kid_own", "fd_lite", "kid_lite", "gap")


compare = fixture_of(FOLDER / "compare.py", "compare_images")
tables = fixture_of(FOLDER / "tables.py", "tables_images")


def kept(lora, full, **other):
    """Rows of two methods under one split: values of all five measures by seed, or of single ones by name."""
    by_way = {"lora": dict.fromkeys(FIVE, lora), "full": dict.fromkeys(FIVE, full)}
    for name, values in other.items():
        way, _, measure = name.partition("_")
        by_way[way][measure] = values
    return {
        Key("s", way, seed): {measure: numbers[seed] for measure, numbers in of.items()}
        for way, of in by_way.items()
        for seed in range(len(lora))
    }


ORDER = {"study": "s", "form": "order", "first": "lora", "second": "full", "most": ""}
LOW, HIGH = [1.0, 1.1, 1.2], [2.0, 2.15, 2.2]


@pytest.mark.parametrize(
    ("lora", "full", "other", "verdict"),
    [
        (LOW, HIGH, {}, "nearer"),
        (HIGH, LOW, {}, "farther"),
        (LOW, HIGH, {"full_gap": LOW}, "open"),
        (LOW, HIGH, {"full_gap": [0.1, 0.2, 0.3]}, "the measures disagree"),
        ([1.0, 3.0, 1.2], HIGH, {}, "open"),
        (LOW[:2], HIGH[:2], {}, "open"),
        (LOW, [2.0, math.nan, 2.2], {}, "open"),
        ([], [], {}, "not run"),
    ],
)
def test_an_order_is_established_where_all_five_measures_say_so(tables, lora, full, other, verdict):
    assert tables.judged(kept(lora, full, **other), ORDER).verdict == verdict


def test_a_share_of_the_bytes_is_exact(tables):
    mark = {**ORDER, "form": "share", "most": "0.01"}
    rows = kept([0.0], [0.0], lora_update_bytes=[49.0], full_update_bytes=[5000.0])
    assert tables.judged(rows, mark).verdict == "nearer"
    rows = kept([0.0], [0.0], lora_update_bytes=[50.0], full_update_bytes=[5000.0])
    assert tables.judged(rows, mark).verdict == "farther"


def test_the_pretrained_model_is_version_0_of_the_shared_adapter(tables):
    rows = kept(LOW, HIGH, **{f"lora_start_{measure}": HIGH for measure in FIVE})
    assert tables.judged(rows, {**ORDER, "second": "pretrained"}).verdict == "nearer"
    assert tables.value(rows, "s", "pretrained", 1, "gap") == HIGH[1]


def test_the_loss_of_held_out_images_is_that_of_the_model_which_a_client_uses(tables):
    rows = kept(LOW, HIGH, lora_held_own=[0.1, 0.1, 0.1], lora_held_shared=[0.3, 0.2, 0.4])
    found = tables.judged(rows, {**ORDER, "form": "lower", "first": "lora and one epoch", "second": "lora"})
    assert found.by_measure["held"].mean == pytest.approx(-0.2)
    assert found.by_measure["held"].n == 3


@pytest.mark.parametrize(
    ("losses", "then"),
    [
        ({}, 1e-3),
        ({1e-3: 0.1}, 4e-3),
        ({1e-3: 0.1, 4e-3: 0.2}, 2.5e-4),
        ({1e-3: 0.1, 4e-3: 0.2, 2.5e-4: 0.3}, None),
        ({1e-3: 0.2, 4e-3: 0.1}, 1.6e-2),
        ({1e-3: 0.3, 4e-3: 0.2, 1.6e-2: 0.1}, 6.4e-2),
        ({1e-3: 0.3, 4e-3: 0.2, 1.6e-2: 0.15, 6.4e-2: 0.1}, None),
        ({1e-3: 0.3, 4e-3: math.inf}, 2.5e-4),
    ],
)
def test_a_learning_rate_is_looked_for_until_both_neighbours_are_worse(compare, losses, then):
    assert compare.next_rate(losses) == then


def test_the_files_have_the_learning_rates_that_were_chosen(compare, tables):
    known = tables.cells_of(compare.RATES_KEPT)
    for _, way, name in compare.files():
        losses = {float(row["rate"]): float(row["loss"]) for row in known if row["way"] == way}
        if losses:
            assert compare.next_rate(losses) is None
            chosen = min(losses, key=losses.__getitem__)
            assert {point.local.lr for _, point in sweep_points(FOLDER / f"{name}.yaml", HERE)} == {chosen}


def test_every_file_is_an_experiment_of_three_seeds_that_draws_as_many_images(compare):
    names = [name for _, _, name in compare.files()]
    assert sorted([*names, "base"]) == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    for study, way, name in compare.files():
        points = [point for _, point in sweep_points(FOLDER / f"{name}.yaml", HERE)]
        assert [point.seed for point in points] == [0, 1, 2]
        for point in points:
            check(point, name)
            clients = point.population.clients if way in ("local-only", "personal") else 1
            assert clients * point.task.samples == 480
            assert point.task.partition.kind == ("pathological" if study == "two classes" else "dirichlet")
        for _, point in sweep_points(
            FOLDER / f"{name}.yaml", [*HERE, *compare.CHOOSING, "sweep={local.lr: [0.1]}"]
        ):
            check(point, name)
            assert (point.seed, point.evaluate.splits, point.task.share) == (100, ("clients",), (0.5, 1.0))


def test_marks_stand_as_they_were_stated(tables):
    assert hashlib.sha256((FOLDER / "marks.csv").read_bytes()).hexdigest() == STATED
    assert all(mark["form"] in ("order", "lower", "share") for mark in tables.marks())
    for mark in (mark for mark in tables.marks() if mark["form"] == "order"):
        assert {mark["first"], mark["second"]} <= {*tables.WAYS, tables.PRETRAINED}


def test_the_page_says_what_the_runs_say(tables):
    assert "\n".join(tables.tables()) in (FOLDER / "README.md").read_text("utf-8")


def test_a_run_on_digits_is_kept_in_all_columns_and_fills_the_tables(compare, tables, tmp_path, monkeypatch):
    """The shipped digits with two extractors: the way from a folder to the page."""
    from fedsim.builtin import digits

    monkeypatch.setattr(compare, "EYES", {"own": "digits-cnn", "lite": "classifier"})
    classifier = digits.model_folder() / "classifier.safetensors"
    settings = [
        *(setting for setting in HERE if not setting.startswith("task.features")),
        f"task.features={{kind: digits-cnn, also: [classifier], classifier: {classifier}}}",
        "task.samples=2",
        "task.sampling_steps=1",
        "task.grid=1",
        "population.clients=8",
        "protocol.cohort=2",
        "local.steps=1",
        "budget.commits=1",
        "personal.clients=2",
        "evaluate.windows=4",
        "sweep={seed: [0]}",
    ]
    for way in ("lora", "personal"):
        assert compare.swept(way, settings, tmp_path / way) == 0
    runs = compare.runs_of(tmp_path, ["lora", "personal"])
    found = {way: compare.figures(of[0]) for way, of in runs.items()}
    assert found["lora"]["update_bytes"] == 2 * found["personal"]["update_bytes"] > 0
    assert {f"start_{measure}" for measure in FIVE} <= found["lora"].keys()
    assert not {f"start_{measure}" for measure in FIVE} & found["personal"].keys()
    assert {"held_shared", "held_own", "worse"} <= found["lora"].keys() & found["personal"].keys()
    assert 0 <= found["lora"]["gap"] <= 1
    rows = {Key("Dirichlet 0.1", way, 0): values for way, values in found.items()}
    assert len(list(tables.ends(rows, "Dirichlet 0.1"))) == 2 + 3
    assert len(list(tables.held(rows, "Dirichlet 0.1"))) == 2 + 3
    with loaded_script(FOLDER / "figures.py", "figures_images") as figures:
        figures.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_what_is_named_is_run_wherever_the_settings_stand(compare, tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(compare, "swept", lambda name, settings, out: done.append((name, settings, out)) or 0)
    words = ["run", str(tmp_path), "-s", "seed=1", "wide", "lora", "-s", "task.grid=1"]
    assert compare.main(words) == 0
    assert done == [(name, ["seed=1", "task.grid=1"], tmp_path / name) for name in ("lora", "wide")]
    assert compare.main(["run", str(tmp_path)]) == 0
    assert [name for name, _, _ in done[2:]] == [name for _, _, name in compare.files()]
    assert compare.main(["tune", str(tmp_path), "lora-2-classes"]) == 2
    assert "no lora-2-classes; there are lora, full, local-only, personal, wide" in capsys.readouterr().err
    assert compare.main(["remake", str(tmp_path), "lora"]) == 2
    assert "takes the folder alone" in capsys.readouterr().err


def test_a_chosen_learning_rate_is_put_into_the_files_of_its_method(compare, tmp_path, monkeypatch):
    for path in FOLDER.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(compare, "HERE", tmp_path)
    compare.put_rate("lora", 6.25e-5)
    rates = {
        name: {point.local.lr for _, point in sweep_points(tmp_path / f"{name}.yaml", HERE)}
        for name in ("lora", "lora-2-classes", "full")
    }
    assert rates["lora"] == rates["lora-2-classes"] == {6.25e-5}
    assert rates["full"] != {6.25e-5}
    changed = (tmp_path / "lora.yaml").read_text("utf-8").splitlines()
    assert (
        sum(
            a != b
            for a, b in zip(changed, (FOLDER / "lora.yaml").read_text("utf-8").splitlines(), strict=True)
        )
        == 1
    )
