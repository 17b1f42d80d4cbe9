"""What would be ignored, or fail in mid-run, is refused before it begins; a sweep's points have the values of their own axes."""

from __future__ import annotations

import pytest
import yaml

from fedsim import Experiment, simulate
from fedsim.checks.blocks import check
from fedsim.cli.app import call
from fedsim.config.loading import load, sweep_points
from fedsim.errors import ExperimentError

BASE = {
    "population": {"preset": "homogeneous", "clients": 20},
    "task": {"kind": "quadratic", "layout": "lora"},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
    "protocol": {"kind": "synchronous", "cohort": 4},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline"},
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(BASE), "utf-8")
    return path


def test_a_block_of_a_grid_is_the_same_for_every_point(file):
    """A key in it that is another axis changes the point, and not the grid."""
    grid = "sweep={lora: [{r: 4}, {r: 2}], lora.dropout: [0.0, 0.5]}"
    points = sweep_points(file, [grid])

    assert [(point.lora.r, point.lora.dropout) for _, point in points] == [
        (4, 0.0),
        (4, 0.5),
        (2, 0.0),
        (2, 0.5),
    ]
    assert [changes["lora"] for changes, _ in points] == [{"r": 4}, {"r": 4}, {"r": 2}, {"r": 2}]


@pytest.mark.parametrize("order", [[True, False], [False, True]])
def test_a_key_that_one_point_removes_is_there_in_the_next(file, order):
    points = sweep_points(
        file, [f"sweep={{lora: [{{r: 4}}], lora.full: {str(order).lower()}}}", "task.layout=lora"]
    )
    assert {point.lora.r for _, point in points if not point.lora.full} == {4}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("population.networks=my.yaml", "has `networks` beside `preset`"),
        ("evaluate.splits=[]", "evaluate.splits: scores nothing"),
        ("evaluate.splits=[test, test]", "evaluate.splits: has a split twice"),
        ("lora={depth_by: tier, depths: {}}", "without a depth for each tier"),
        ("lora={full: true, dropout: 0.9}", "lora.dropout: has no meaning with full: true"),
    ],
)
def test_what_says_nothing_is_refused(file, setting, said):
    with pytest.raises(ExperimentError, match=said.replace(".", r"\.")):
        check(load(file, [setting]))


def test_files_of_an_extractor_start_at_the_file_that_names_them(file):
    (file.parent / "sub").mkdir()
    text = {
        **BASE,
        "task": {"kind": "images", "features": {"kind": "classifier", "classifier": "clf.safetensors"}},
    }
    path = file.parent / "sub" / "img.yaml"
    path.write_text(yaml.safe_dump(text), "utf-8")

    assert str(load(path).task.features.classifier) == str(path.parent / "clf.safetensors")


def test_a_run_that_is_named_twice_is_one_run(tmp_path, capsys):
    simulate(Experiment.model_validate(BASE), out=tmp_path / "runs" / "q", report=False)
    folder = str(tmp_path / "runs" / "q")

    assert call(["compare", folder, folder, f"{tmp_path}/runs/../runs"]) == 0
    assert "n = 3" not in (out := capsys.readouterr().out)
    assert "#2" not in out


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_target_is_a_finite_number(tmp_path, capsys, value, command):
    simulate(Experiment.model_validate(BASE), out=tmp_path / "q", report=False)

    assert call([command, str(tmp_path / "q"), "--target", value]) == 2
    assert "--target: is no" in capsys.readouterr().err
