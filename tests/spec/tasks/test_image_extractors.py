"""Several extractors that look at the same samples, from the setting to the page; and grey images of 28 x 28, from pretraining to a task."""

from __future__ import annotations

import importlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import fedsim
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.errors import DataError
from fedsim.jobs import TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.report import gallery_section
from fedsim.tasks.images import Images
from fedsim.training.diffusion import classifier

SCRIPTS = Path(__file__).parents[3] / "scripts"
LORA = LoraConfig(r=2, targets=("attention",))


def images(clients=5, **fields):
    few = {"samples": 60, "sampling_steps": 2, "partition": {"kind": "pathological", "classes": 1}}
    context = TaskContext(clients, 0, LORA, LocalConfig(steps=1, batch=4), NumericsConfig(client_batch=2))
    return Images(**few | fields).build(context)


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A classifier of digits that was never trained: other features than those of the shipped one."""
    path = tmp_path_factory.mktemp("another") / "classifier.safetensors"
    classifier.save(classifier.Classifier(1, 8, 10, width=4), path)
    return str(path)


def scores(task):
    """All metrics of version 0's samples."""
    vector = task.initial()
    return task.metrics(add_sums([task.score(vector, probe) for probe in task.probes("samples")]))


def test_each_extractor_says_of_the_same_samples_what_it_says_alone(another):
    first, second = (
        scores(images(features={"kind": kind, "classifier": another}))
        for kind in ("digits-cnn", "classifier")
    )
    both = scores(images(features={"kind": "digits-cnn", "also": ["classifier"], "classifier": another}))

    assert both == pytest.approx(first | second)
    assert first["FD(digits-cnn)"] != pytest.approx(second["FD(classifier)"])
    assert next(iter(both)) == "FD(digits-cnn)"  # the one that a run is compared by


def test_clients_with_own_models_are_looked_at_by_all_extractors(another):
    few = images(samples=4, features={"kind": "digits-cnn", "also": ["classifier"], "classifier": another})
    many = images(samples=12, features={"kind": "digits-cnn", "also": ["classifier"], "classifier": another})
    vector = few.initial()
    apart = add_sums(
        [few.score(vector, p) for client in range(3) for p in few.probes("samples", client=client)]
    )
    together = add_sums([many.score(vector, probe) for probe in many.probes("samples")])

    assert apart.keys() == together.keys() | {"rows", "own", "2_rows", "2_own"}
    for name in ("n", "outer", "2_n", "2_outer", "2_real_n", "2_held_n"):
        np.testing.assert_allclose(apart[name], together[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"also": ["digits-cnn"]}, r"task.features.also: an extractor looks twice"),
        (
            {"kind": "none", "also": ["digits-cnn"]},
            r"there is no first extractor .*\n  fix: set task.features.kind: digits-cnn",
        ),
        ({"also": ["classifier"]}, "task.features.classifier: is needed"),
        ({"also": ["inception"]}, "task.features.weights: FID needs"),
    ],
)
def test_extractors_that_cannot_look_are_refused_before_anything_starts(features, said):
    with pytest.raises(DataError, match=said):
        images(features=features)


def test_files_of_further_extractors_go_where_the_task_goes(another):
    task = images(features={"kind": "digits-cnn", "also": ["classifier"], "classifier": another})
    assert Path(another) in task.files(["model"]).values()
    moved = task.moved(lambda name: f"/node{name}")
    assert [what.classifier for what in moved.eyes] == [f"/node{another}"] * 2


def test_a_run_and_its_page_have_the_distances_of_both(another, tmp_path):
    run = fedsim.simulate(
        {
            "name": "two",
            "population": {"preset": "homogeneous", "clients": 5},
            "task": {
                "kind": "images",
                "samples": 4,
                "sampling_steps": 1,
                "grid": 1,
                "features": {"kind": "digits-cnn", "also": ["classifier"], "classifier": another},
            },
            "lora": {"r": 1, "alpha": 1, "targets": ["to_q"]},
            "local": {"steps": 1, "batch": 2},
            "protocol": {"kind": "synchronous", "cohort": 1},
            "budget": {"commits": 1},
            "evaluate": {"splits": ["samples"]},
            "runtime": {"executor": "inline"},
        },
        out=tmp_path / "two",
    )

    names = [f"{distance}({eye})" for eye in ("digits-cnn", "classifier") for distance in ("FD", "KID")]
    assert gallery_section.distances(run) == names
    (section,) = gallery_section.sections(run)
    assert len(section.figure.data) == len(names) * 3  # against time, commits and bytes
    (beside,) = run.info.task["further_extractors"]
    assert (beside["extractor"], len(beside["sha256"])) == ("classifier", 64)


# grey images of 28 x 28 -------------------------------------------------------------------------


def parquet(path, count):
    """A table of grey pictures of 28 x 28, ten classes in turn."""
    pictures = []
    for k in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.full((28, 28), 20 * (k % 10), np.uint8)).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    table = pa.table({"image": pictures, "label": [k % 10 for k in range(count)]})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": [f"c{k}" for k in range(10)], "_type": "ClassLabel"},
    }
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path
    )


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """Pictures, and what the script makes of them in two steps: (folder of data, folder of the model)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        script = importlib.import_module("pretrain_fashion_mnist")
    data = tmp_path_factory.mktemp("data")
    parquet(data / "train.parquet", 80)
    parquet(data / "test.parquet", 20)
    common = ["--data", str(data), "--batch", "4", "--epochs", "1", "--steps", "2"]
    script.main([*common, "--out", str(data / "unet")])
    return data, data / "unet", script, common


def test_the_pretraining_sees_five_classes_and_its_adapters_are_under_one_percent(fashion):
    data, unet, _, _ = fashion
    facts = json.loads((unet / "facts.json").read_text())
    looks = {"kind": "classifier", "classifier": str(unet / "classifier.safetensors")}
    context = TaskContext(5, 0, LoraConfig(r=4, targets=("attention",)), LocalConfig(steps=1, batch=4))
    task = Images(
        model=str(unet), data=str(data), classes=(5, 6, 7, 8, 9), features=looks, samples=2, sampling_steps=1
    ).build(context)

    assert facts["images"] == 5 * 8  # of classes 0 to 4
    assert task.pictures.pixels.shape == (5 * 8, 1, 28, 28)
    assert (facts["parameters"], task.layout.size) == (1_333_969, 12_288)
    assert task.layout.size < 0.01 * facts["parameters"]
    page = (SCRIPTS.parent / "experiments" / "images" / "README.md").read_text("utf-8")
    assert f"{task.layout.size:,} of {facts['parameters']:,} numbers" in page
    assert task.draw(task.initial(), [0]).shape == (1, 1, 28, 28)
    assert {f"share of c{k}" for k in range(5, 10)} <= scores(task).keys()


def test_what_is_finished_is_kept_and_what_is_removed_is_made_anew(fashion, tmp_path):
    _, unet, script, common = fashion
    again, names = tmp_path / "again", ("classifier.safetensors", "diffusion_pytorch_model.safetensors")
    shutil.copytree(unet, again)
    before = [(unet / name).read_bytes() for name in names]
    facts = json.loads((unet / "facts.json").read_text())

    script.main([*common, "--out", str(again), "--seed", "1"])
    assert [(again / name).read_bytes() for name in names] == before
    (again / names[0]).unlink()
    script.main([*common, "--out", str(again), "--seed", "1"])
    classifier_now, denoiser_now = ((again / name).read_bytes() for name in names)
    assert (classifier_now != before[0], denoiser_now == before[1]) == (True, True)
    assert json.loads((again / "facts.json").read_text())["test_loss"] == facts["test_loss"]
