"""The images task: reading, clients, scores, pictures, adapters in stock PEFT and diffusers, whole runs."""

from __future__ import annotations

import importlib
import io
import json
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from worlds import image_models

import fedsim
from fedsim.builtin import digits
from fedsim.checks.blocks import check
from fedsim.cli.demos.images import IMAGES
from fedsim.component import build
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.errors import DataError, ExperimentError
from fedsim.jobs import SPLIT, Job, Probe, TaskContext
from fedsim.metrics import direction as metrics
from fedsim.metrics.frechet import frechet
from fedsim.metrics.sums import add_sums
from fedsim.records import views
from fedsim.report.gallery_section import pictures
from fedsim.rng import stream
from fedsim.server.after import gallery
from fedsim.tasks._images import data as _images_data
from fedsim.tasks._images.data import Source
from fedsim.tasks.images import Images
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion

LORA = LoraConfig(r=2, alpha=4.0, targets=("attention", "resnets"))
LOCAL = LocalConfig(lr=3e-3, steps=2, batch=8)


def images(clients=5, lora=LORA, local=LOCAL, seed=0, **fields):
    fields = {
        "partition": {"kind": "pathological", "classes": 1},
        "samples": 60,
        "sampling_steps": 4,
    } | fields
    return Images(**fields).build(TaskContext(clients, seed, lora, local, NumericsConfig(client_batch=2)))


@pytest.fixture(scope="module")
def task():
    return images()


@pytest.fixture(scope="module")
def condition(tmp_path_factory):
    return image_models.folder(tmp_path_factory.mktemp("condition"), "condition")


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def grey(value, size=8):
    return np.full((size, size), value, np.uint8)


def read(data, channels=1, size=8, **columns):
    fields = {"config": None, "revision": None, "image_column": None, "label_column": None} | columns
    return _images_data.read(Source(str(data), channels=channels, size=size, **fields)).splits


# reading ----------------------------------------------------------------------------------------


def test_the_shipped_digits_are_all_there_and_a_fifth_is_test():
    found = read("builtin")
    assert {split: len(part) for split, part in found.items()} == {"train": 1442, "test": 355}
    assert found["train"].pixels.shape == (1442, 1, 8, 8)
    assert sorted(np.unique(found["train"].pixels).tolist()) == [round(v * 255 / 16) for v in range(17)]
    pixels, labels = digits.images()
    assert digits.data_hash(pixels, labels).startswith(
        json.loads((digits.model_folder() / "facts.json").read_text())["sha256"][:16]
    )


def test_a_folder_of_class_folders_is_read_with_and_without_splits(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            place = tmp_path / "split" / split / name
            place.mkdir(parents=True)
            for k in range(3):
                Image.fromarray(grey(100 * label + k)).save(place / f"{k}.png")
    found = read(tmp_path / "split")
    assert found["train"].names == ("cat", "dog")
    assert found["test"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found["train"].pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    for k in range(17):
        Image.fromarray(grey(k)).save(tmp_path / "split" / "train" / "cat" / f"more{k}.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "split" / "train" / "cat").rename(tmp_path / "one" / "cat")
    alone = read(tmp_path / "one")
    assert (len(alone["train"]), len(alone["test"])) == (18, 2)
    assert alone["train"].names == ("cat",)


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["train/a/1", "TEST/a/2", "train/b/3"], {"a": 1, "b": 1}, {"a": 1}),
        (["data/train/a/1", "data/val/a/2"], {"a": 1}, {"a": 1}),
        (["train/train/1", "train/bus/2", "test/train/3"], {"train": 1, "bus": 1}, {"train": 1}),
        (["train/1", "train/2", "test/3"], {"all": 2}, {"all": 1}),
        (["train/a/1", "test/a/2", "unlabeled/3"], {"a": 1, "unlabeled": 1}, {"a": 1}),
        ([f"{name}/{k}" for name in ("train", "bus", "test_tubes") for k in range(10)], 9, 1),
        ([f"train/{k}" for k in range(10)], {"all": 9}, {"all": 1}),
        ([f"tests_{k}" for k in range(10)], {"all": 9}, {"all": 1}),
        ([f"all/of/it/{name}/{k}" for name in ("bus", "eval") for k in range(10)], 9, 1),
    ],
)
def test_which_folder_is_a_split_and_which_a_class(tmp_path, files, train, test):
    """CIFAR-100 has a class of trains."""
    for k, file in enumerate(files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(k)).save(tmp_path / f"{file}.png")
    for part, expected in zip(read(tmp_path).values(), (train, test), strict=True):
        counts = dict(zip(part.names, np.bincount(part.labels, minlength=len(part.names)), strict=True))
        if isinstance(expected, int):
            assert counts == dict.fromkeys({file.split("/")[-2] for file in files}, expected)
        else:
            assert {name: n for name, n in counts.items() if n} == expected


def parquet(path, rows, column="img", label="label", names=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [{"bytes": encoded(array), "path": None} for array, _ in rows]
    table = pa.table({column: values, label: [y for _, y in rows]})
    if names:
        features = {
            column: {"_type": "Image"},
            label: {"names": names, "_type": "ClassLabel"},
        }
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path)


def test_parquet_of_the_hub_s_format_is_read_with_its_class_names_and_through_datasets(tmp_path):
    coloured = np.zeros((8, 8, 3), np.uint8)
    coloured[..., 0] = 200
    rows = [(coloured + k, k % 2) for k in range(6)]
    for split in ("train", "test"):
        parquet(tmp_path / f"{split}-00000-of-00001.parquet", rows, names=["plane", "car"])
    found = read(tmp_path, channels=3)
    assert found["train"].names == ("plane", "car")
    assert found["train"].pixels.shape == (6, 3, 8, 8)
    assert found["test"].pixels[0, :, 0, 0].tolist() == [200, 0, 0]
    from fedsim.tasks import _tables

    known = {}
    loaded = _tables.from_hub(str(tmp_path), None, None, class_names=known)
    assert known == {"label": ["plane", "car"]}
    by_datasets = _images_data._of_table(
        loaded["train"], Source(str(tmp_path), None, None, None, None, 3, 8), "", {}
    )
    np.testing.assert_array_equal(by_datasets.pixels, found["train"].pixels)
    assert by_datasets.labels == [str(label) for label in found["train"].labels]


def test_images_are_cropped_resized_and_turned_grey_and_labels_may_be_words(tmp_path):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = (0, 255, 0)
    parquet(tmp_path / "train.parquet", [(wide, w) for w in ("b", "a", "b") * 10], "picture", "what")
    found = read(tmp_path, image_column="picture", label_column="what")
    assert found["train"].names == ("a", "b")
    assert found["train"].pixels.shape[1:] == (1, 8, 8)
    assert np.unique(found["train"].pixels).tolist() == [150]  # PIL's luma of pure green
    with pytest.raises(
        DataError, match=r"which column is the image\?\n  fix: set task.image_column to one of"
    ):
        read(tmp_path)
    with pytest.raises(DataError, match=r"no such column \(got 'pictures'\)\n  fix: did you mean 'picture'"):
        read(tmp_path, image_column="pictures", label_column="what")


def damaged(path):
    """A table whose second image is cut short."""
    values = [{"bytes": raw, "path": None} for raw in (encoded(grey(0)), b"\x89PNG")]
    pq.write_table(pa.table({"img": values, "label": [0, 0]}), path)


def test_a_single_file_has_its_class_names_and_an_image_is_no_data_set(tmp_path):
    rows = [(grey(k), k % 2) for k in range(40)]
    parquet(tmp_path / "all.parquet", rows, names=["cat", "dog"])
    assert read(tmp_path / "all.parquet")["test"].names == ("cat", "dog")
    (tmp_path / "a.png").write_bytes(encoded(grey(0)))
    with pytest.raises(DataError, match=r"is a single image .*\n  fix: give the folder"):
        read(tmp_path / "a.png")


def test_a_test_split_may_lack_the_last_classes(tmp_path):
    parquet(tmp_path / "train.parquet", [(grey(k), k % 3) for k in range(9)])
    parquet(tmp_path / "test.parquet", [(grey(k), k % 2) for k in range(4)])
    assert {part.names for part in read(tmp_path).values()} == {("0", "1", "2")}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: (p / "notes.txt").write_text("x"), "holds no images"),
        (lambda p: (p / "a.png").write_bytes(b"no picture"), r"a\.png: the image cannot be read"),
        (lambda p: damaged(p / "train.parquet"), r"train\.parquet: row 2: the image cannot be read"),
        (lambda p: parquet(p / "train.parquet", [(grey(0), 0), (grey(0), None)]), "row 2 has no label"),
        (
            lambda p: parquet(p / "train.parquet", [(grey(0), 5)], names=["a", "b"]),
            "none of the 2 named ones .got '5'",
        ),
        (lambda p: parquet(p / "train.parquet", []), "the table has no rows"),
        (lambda p: parquet(p / "test.parquet", [(grey(0), 0)]), "hold no train split"),
        (
            lambda p: parquet(p / "train.parquet", [(grey(0), -1)], names=["a", "b"]),
            "none of the 2 named ones .got '-1'",
        ),
    ],
)
def test_unusable_data_are_refused_in_one_sentence(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(DataError, match=said) as error:
        read(tmp_path)
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert fix
    assert "\n" not in head


# clients ----------------------------------------------------------------------------------------


def test_every_client_has_one_new_digit_and_keeps_some_images_apart(task):
    assert task.classes == digits.NEW
    for client in range(5):
        mine, apart = task.splits.training[client], task.splits.held_out[client]
        assert len(np.unique(task.pictures.labels[np.concatenate([mine, apart])])) == 1
        assert not set(mine) & set(apart)
        assert len(apart) == round(0.1 * (len(mine) + len(apart)))
        assert task.tokens(client, LocalConfig(epochs=2)) == 2 * 64 * len(mine)
        assert task.tokens(client, LOCAL) == 2 * 8 * 64
    rows = np.concatenate([*task.splits.training, *task.splits.held_out])
    assert sorted(rows.tolist()) == list(range(len(task.pictures)))
    assert task.describe()["classes_per_client"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("partition", "check"),
    [
        ({"kind": "dirichlet", "alpha": 0.1}, lambda n, c: n.max() - n.min() <= 1 and c.max() < 5),
        ({"kind": "pathological", "classes": 2}, lambda _, c: c.max() == 2),
        ({"kind": "quantity", "law": "zipf"}, lambda n, _: n.max() > 5 * n.min()),
        ({"kind": "iid"}, lambda _, c: c.min() == 5),
    ],
)
def test_labels_and_amounts_are_skewed_as_asked(partition, check):
    task = images(clients=20, partition=partition)
    whole = [np.concatenate([a, b]) for a, b in zip(task.splits.training, task.splits.held_out, strict=True)]
    sizes = np.array([len(rows) for rows in whole])
    kinds = np.array([len(np.unique(task.pictures.labels[rows])) for rows in whole])
    assert check(sizes, kinds)


def test_classes_and_a_share_of_each_leave_the_rest_to_pretraining():
    first, second = (images(classes=(1, 3), clients=2, share=part) for part in ((0, 0.5), (0.5, 1)))
    assert np.unique(first.pictures.labels).tolist() == [1, 3]
    known = {p.tobytes() for p in first.pictures.pixels}
    assert len(known & {p.tobytes() for p in second.pictures.pixels}) <= 2  # hardly any digit is drawn twice
    whole = images(classes=(1, 3), clients=2)
    assert len(first.pictures) + len(second.pictures) == len(whole.pictures)


@pytest.mark.parametrize(
    ("fields", "clients", "said"),
    [
        ({"classes": (3, 12)}, 2, r"task.classes: the data have no such class \(got \[12\]\)"),
        ({}, 1000, "population.clients: too many for the data: 1000 clients need 2000 images"),
        (
            {"partition": {"kind": "dirichlet", "over": "topics"}},
            5,
            "task.partition.over: images have no topics",
        ),
        ({"features": {"kind": "classifier"}}, 5, "task.features.classifier: is needed"),
        ({"model": "missing/"}, 5, "task.model: there is no such folder"),
        ({"share": (0, 0.001)}, 1, r"task.share: it leaves no image of some classes .got '5, 6, 7, 8, 9'"),
        (
            {"sampling_steps": 201},
            5,
            r"task.sampling_steps: .* fewer steps \(got 201\)\n  fix: set at most 200",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(fields, clients, said):
    with pytest.raises((DataError, ExperimentError), match=said):
        images(clients=clients, **fields)


def test_a_model_that_cannot_be_run_without_a_class_is_told_one(tmp_path):
    """A UNet2DConditionModel with a table beside its context: the smaller of both says how many classes."""
    from diffusers import DDPMScheduler

    model = image_models.made("condition")
    fields = {name: value for name, value in model.config.items() if not name.startswith("_")}
    type(model)(**fields | {"num_class_embeds": 20}).save_pretrained(tmp_path)
    DDPMScheduler(**image_models.SCHEDULE).save_pretrained(tmp_path)
    how = {"model": str(tmp_path), "features": {"kind": "none"}}
    told = images(**how)
    assert (told.how.table, told.how.code, told.how.classes) == (20, 12, 12)
    assert np.isfinite(total(told, told.initial(), "test", windows=8)["error"])
    with pytest.raises(ExperimentError, match="this UNet2DConditionModel cannot be run without a class"):
        images(**how, conditional=False)


def test_settings_that_contradict_themselves_are_refused():
    for fields, said in (
        ({"share": (0.5, 0.5)}, "is empty"), ({"classes": (1, 1)}, "names one twice"),
        ({"samples": 1}, "have no spread"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            Images(**fields)
    found = build("tasks", {"kind": "images", "charge_as": {"preset": "ddpm-cifar10-32"}})
    assert found.charge(full=False).shape.params == 35_746_307


def test_a_task_is_pickled_without_weights(task):
    again = pickle.loads(pickle.dumps(task))
    assert again.describe() == task.describe()
    job = Job(2, 0, task.initial(), LOCAL, 0)
    np.testing.assert_array_equal(again.train([job])[0].end, task.train([job])[0].end)


# scores -----------------------------------------------------------------------------------------


def total(task, vector, split, client=None, windows=None):
    return add_sums([task.score(vector, p) for p in task.probes(split, windows, client)])


def test_the_loss_is_the_squared_error_at_fixed_noise(task):
    """Written out for one piece with the stock model: version 0 is the pretrained network."""
    probe = task.probes("test")[0]
    sums = task.score(task.initial(), probe)
    pictures_, order = task.test, task.rows("test", None)
    rows = order[probe.start : probe.stop]
    model, process = denoisers.weights(task.source.name), task.source.process
    expected, noises = 0.0, diffusion.of_evaluation(0, "test", rows.tolist(), 8, (1, 8, 8))
    with torch.no_grad():
        for row, noise in zip(rows, noises, strict=True):
            clean = diffusion.unit(torch.from_numpy(pictures_.pixels[row]), torch.float32).expand(
                8, -1, -1, -1
            )
            t = process.grid(8)
            made = process.noised(clean, noise, t)
            expected += float((model(made.x, t).sample - noise).square().mean((1, 2, 3)).sum())
    assert sums["error"] == pytest.approx(expected, rel=1e-5)
    assert sums["draws"] == 8 * len(rows)
    assert task.metrics(sums)["loss"] == pytest.approx(expected / (8 * len(rows)), rel=1e-5)


def test_the_distances_of_pieces_add_up_to_those_of_all_samples(task):
    vector = task.initial()
    assert [(p.start, p.stop) for p in task.probes("samples")] == [(0, 50), (50, 60)]
    sums = total(task, vector, "samples")
    drawn = task.draw(vector, range(60))
    from fedsim.metrics.frechet import Moments
    from fedsim.metrics.kernel import kernel_distance
    from fedsim.tasks._images import features as _images_features

    seen = _images_features.features(task.features, drawn)
    real = _images_features.features(task.features, task.pictures.pixels)
    found = task.metrics(sums)
    assert found["FD(digits-cnn)"] == pytest.approx(frechet(Moments.of(seen), Moments.of(real)), rel=1e-6)
    parts = [kernel_distance(part, real) for part in (seen[:50], seen[50:])]
    assert found["KID(digits-cnn)"] == pytest.approx((50 * parts[0] + 10 * parts[1]) / 60, rel=1e-6)
    assert found["FD(digits-cnn) of test images"] < 0.01 * found["FD(digits-cnn)"]
    shares = {name: value for name, value in found.items() if name.startswith("share of ")}
    assert list(shares) == ["share of the clients' classes", *(f"share of {d}" for d in digits.NEW)]
    assert sum(list(shares.values())[1:]) == pytest.approx(shares["share of the clients' classes"])
    assert metrics.rises("share of the clients' classes")
    assert not metrics.rises("FD(digits-cnn)")
    assert metrics.ranks("share of the clients' classes")
    assert not metrics.ranks("share of frog")  # neither more nor less frogs are better


@pytest.mark.parametrize(
    ("samples", "pieces"), [(2, [2]), (50, [50]), (51, [51]), (52, [50, 2]), (101, [50, 51])]
)
def test_no_piece_of_samples_is_a_single_one_which_would_have_no_kernel_distance(task, samples, pieces):
    from dataclasses import replace

    probes = replace(task, samples=samples).probes("samples")
    assert [p.stop - p.start for p in probes] == pieces
    assert [p.start for p in probes[1:]] == [p.stop for p in probes[:-1]]


def test_clients_with_own_models_draw_from_noises_of_their_own(task):
    """Together they start where one model with so many samples starts; real images are counted once."""
    from dataclasses import replace

    few, many = replace(task, samples=4), replace(task, samples=12)
    vector = task.initial()
    apart = [few.score(vector, p) for client in range(3) for p in few.probes("samples", client=client)]
    together = total(many, vector, "samples")
    added = add_sums(apart)
    for name in ("n", "total", "outer", "real_n", "held_n", "seen"):
        np.testing.assert_allclose(added[name], together[name], rtol=1e-5)


@pytest.mark.parametrize("samples", [4, 52])
def test_the_kernel_distance_of_clients_own_models_is_that_of_what_all_of_them_draw(task, samples):
    """Not the mean of their own distances, which is larger, and the more so, the more unlike they are."""
    from dataclasses import replace

    from fedsim.metrics.kernel import kernel_distance, within
    from fedsim.tasks._images import features as _images_features

    few, vector = replace(task, samples=samples), task.initial()
    models = [
        vector + np.float32(0.3) * stream(1, "own", k).standard_normal(vector.size).astype(np.float32)
        for k in range(3)
    ]
    pieces = [(k, p) for k in range(3) for p in few.probes("samples", client=k)]
    found = few.metrics(add_sums([few.score(models[k], p) for k, p in pieces]))["KID(digits-cnn)"]

    drawn = [few.draw(models[k], range(p.start, p.stop)) for k, p in pieces]
    seen = [_images_features.features(task.features, images) for images in drawn]
    real = _images_features.features(task.features, task.pictures.pixels)
    rows, n = np.concatenate(seen), 3 * samples
    own = sum(len(part) * within(part) for part in seen) / n
    stratified = (own - within(rows)) / n  # a client with itself, which pairs leave out
    assert found == pytest.approx(kernel_distance(rows, real) + stratified, rel=1e-6)
    assert found < np.mean([kernel_distance(part, real) for part in seen])


def test_real_images_are_looked_at_once_a_process(monkeypatch):
    from fedsim.tasks._images import features as _images_features

    own, real, looked = images(), _images_features.features, []

    def counted(what, pixels):
        looked.append(len(pixels))
        return real(what, pixels)

    monkeypatch.setattr(_images_features, "features", counted)
    for _ in range(2):
        total(own, own.initial(), "samples")
    assert looked == [50, len(own.pictures), len(own.test), 10, 50, 10]


def test_a_sample_depends_on_its_number_alone(task):
    vector = task.initial()
    np.testing.assert_array_equal(task.draw(vector, range(3, 6)), task.draw(vector, [3, 4, 5]))
    shown = task.score(vector, Probe(SPLIT, 3, 6))["images"]
    np.testing.assert_array_equal(shown, task.draw(vector, [3, 4, 5]))


def test_a_conditional_model_is_told_the_clients_classes(condition):
    how = {"model": condition, "features": {"kind": "digits-cnn"}}
    told, untold = images(**how), images(**how, conditional=False)
    assert (told.source.told, untold.source.told) == (True, False)
    vector = np.random.default_rng(0).normal(0, 0.1, told.layout.size).astype(np.float32)
    one, two = told.draw(vector, [0, 1]), untold.draw(vector, [0, 1])
    assert np.abs(one.astype(int) - two).max() > 0
    with pytest.raises(DataError, match="there is nothing to look at samples with"):
        images(model=condition, features={"kind": "none"}).probes("samples")


def test_training_lowers_the_loss_of_a_client_s_digit(task):
    local = LocalConfig(lr=3e-3, steps=12, batch=16)
    start = task.initial()
    (update,) = task.train([Job(0, 0, start, local, 0)])
    before, after = (total(task, v, "client", 0)["error"] for v in (start, update.end))
    assert after < 0.9 * before


# adapters out -----------------------------------------------------------------------------------


def trained(task):
    (update,) = task.train([Job(0, 0, task.initial(), LocalConfig(lr=0.02, steps=2, batch=8), 0)])
    return update.end


def by_ddim(model, source, told=None, **more):
    noise = diffusion.of_samples(0, range(2), denoisers.signature(source.name).shape)

    def predict(x, t):
        with torch.no_grad():
            return diffusion.predicted(model, denoisers.signature(source.name), x, t, told)

    return diffusion.sampled(predict, denoisers.schedule(source.name, "auto"), noise, 4).numpy()


def test_the_adapter_loads_in_stock_peft_with_equal_samples(task, tmp_path):
    from peft import PeftModel

    vector = trained(task)
    assert task.save_adapter(vector, tmp_path) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(denoisers.weights(task.source.name), str(tmp_path)).eval()
    drawn, mine = by_ddim(model, task.source), task.draw(vector, [0, 1])
    # the last steps are clipped to 8 bits: rounding moves at most one level
    assert np.abs(drawn.astype(int) - mine).max() <= 1
    with torch.no_grad():
        merged = by_ddim(model.merge_and_unload(), task.source)
    assert np.abs(merged.astype(int) - mine).max() <= 1


def test_a_stock_pipeline_of_diffusers_draws_the_same_images_at_equal_seed(task, tmp_path):
    """Nothing of ours but the seeds: the saved adapter, the model's own schedule, diffusers' DDIM loop."""
    from diffusers import DDIMPipeline, DDIMScheduler
    from peft import PeftModel

    from fedsim.rng import seed_of

    vector = trained(task)
    task.save_adapter(vector, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(denoisers.weights(task.source.name), str(tmp_path))
    pipeline = DDIMPipeline(model.merge_and_unload(), DDIMScheduler.from_pretrained(task.source.name))
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed_of(0, "sample", i)) for i in range(3)]
    drawn = pipeline(3, seeds, num_inference_steps=task.sampling_steps, output_type="np").images
    drawn = (drawn * 255).round().astype(int).transpose(0, 3, 1, 2)
    assert np.abs(drawn - task.draw(vector, range(3))).max() <= 1
    assert np.abs(drawn - task.draw(task.initial(), range(3))).max() > 5


def test_the_adapter_loads_in_stock_diffusers_with_its_alpha_and_equal_samples(condition, tmp_path):
    task = images(
        model=condition, features={"kind": "digits-cnn"}, lora=LoraConfig(r=2, alpha=16.0, targets="all")
    )
    vector = trained(task)
    task.save_adapter(vector, tmp_path)
    model, told = denoisers.weights(condition), torch.tensor([task.classes[0], task.classes[1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_lora_adapter(str(tmp_path / "diffusers"), prefix=None, use_safetensors=True)
    scales = {m.scaling["default_0"] for m in model.modules() if hasattr(m, "scaling")}
    assert scales == {8.0}  # alpha / r, not 1
    mine = task.draw(vector, [0, 1])
    assert np.abs(by_ddim(model, task.source, told).astype(int) - mine).max() <= 1
    assert np.abs(by_ddim(denoisers.weights(condition), task.source, told).astype(int) - mine).max() > 5


def test_a_whole_model_is_trained_and_saved_as_diffusers_folder(tmp_path):
    whole = images(clients=2, classes=(5, 6), lora=LoraConfig(full=True))
    start = whole.initial()
    assert whole.layout.size == whole.shape.params == start.size
    (update,) = whole.train([Job(0, 0, start, LocalConfig(lr=1e-3, steps=1, batch=4), 0)])
    assert 0 < np.abs(update.end - start).max() < 0.01
    whole.save_adapter(update.end, tmp_path)
    named = dict(denoisers.weights(str(tmp_path)).named_parameters())
    np.testing.assert_array_equal(
        np.concatenate([named[t.name].detach().numpy().ravel() for t in whole.layout.tensors]), update.end
    )
    assert denoisers.schedule(str(tmp_path), "auto").config.num_train_timesteps == 200


# runs -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    experiment = Experiment.model_validate({
        "name": "images",
        "population": {"preset": "homogeneous", "clients": 5},
        "task": {
            "kind": "images", "partition": {"kind": "pathological", "classes": 1}, "samples": 30, "sampling_steps": 4,
        },
        "lora": {"r": 2, "alpha": 2, "targets": ["attention", "resnets"]},
        "local": {"lr": 3e-3, "steps": 3, "batch": 16},
        "protocol": {"kind": "synchronous", "cohort": 5},
        "budget": {"commits": 2},
        "evaluate": {"every_commits": 2, "splits": ["test", "samples"], "windows": 40},
        "personal": {"kind": "fine-tune", "clients": 2},
        "runtime": {"executor": "inline"},
    })  # fmt: skip
    return fedsim.simulate(experiment, out=tmp_path_factory.mktemp("run") / "run")


def test_a_run_scores_losses_distances_and_shares(run):
    first, last = (views.scored(run, "loss")["value"].iloc[i] for i in (0, -1))
    assert last < first
    fd = views.scored(run, "FD(digits-cnn)", "samples")["value"]
    assert len(fd) == 2
    assert all(map(math.isfinite, fd))
    facts = run.info.task
    assert (facts["samples"], facts["extractor"], facts["resize"]) == (
        30,
        "digits-cnn",
        "8-bit pixels, as they are",
    )
    assert len(facts["extractor_sha256"]) == 64
    assert run.info.charged.adapter_bytes == 4 * run.info.task["trainable_params"]
    assert list(run.personal["metric"]) == ["loss", "loss"]


def test_runs_are_compared_by_what_they_draw(run, tmp_path):
    """FD and KID, against time, commits and bytes; a run with another extractor is left out."""
    from dataclasses import replace

    from fedsim.report import gallery_section
    from fedsim.report.several import labels

    other = replace(run, info=replace(run.info, name="other"))
    task = {**run.info.task, "extractor_sha256": "0"}
    blind = replace(run, info=replace(run.info, name="blind", task=task))
    (section,) = gallery_section.beside(labels.compared([run, other, blind]))
    (table,) = section.tables
    assert [row[:2] for row in table.rows] == [(name, "30") for name in [row[0] for row in table.rows]]
    assert len(table.rows) == 2
    assert "1 run without this extractor left out." in section.text
    fd, kid = (views.scored(run, f"{name}(digits-cnn)", "samples")["value"] for name in ("FD", "KID"))
    (small,) = {row[2:] for row in table.rows}
    assert [float(small[k].replace(",", "")) for k in (0, 3, 4, 7)] == pytest.approx(
        [fd.iloc[0], fd.iloc[-1], kid.iloc[0], kid.iloc[-1]], rel=1e-2
    )
    assert len(section.figure.data) == 2 * 2 * 3  # runs, distances, axes
    assert {trace.name for trace in section.figure.data} == {row[0] for row in table.rows}
    mute = replace(run, scores=run.scores[run.scores["split"] != "samples"])
    assert gallery_section.beside(labels.compared([mute])) == []


def test_a_report_says_how_many_samples_each_distance_rests_on(run):
    from dataclasses import replace

    from fedsim.report import gallery_section

    assert gallery_section.drawn(run) == [30, 30]
    more = run.scores.copy()
    more.loc[(more["metric"] == "samples drawn") & (more["version"] > 0), "value"] = 300.0
    (section,) = gallery_section.sections(replace(run, scores=more))
    assert "N = 30 (at the end 300) samples against 719" in section.text[1]


def test_a_run_says_how_far_its_scores_are():
    said = []
    fedsim.simulate(
        Experiment.model_validate({
            "population": {"preset": "homogeneous", "clients": 5},
            "task": {"kind": "images", "samples": 260, "sampling_steps": 1, "grid": 1},
            "lora": {"r": 1, "alpha": 1, "targets": ["to_q"]}, "local": {"steps": 1, "batch": 2},
            "protocol": {"kind": "synchronous", "cohort": 1}, "budget": {"commits": 1},
            "evaluate": {"every_commits": 5, "splits": ["samples"]}, "runtime": {"executor": "inline"},
        }),
        on_event=lambda kind, facts: said.append(facts) if kind == "scoring" else None,
    )  # fmt: skip
    assert [(f["version"], f["done"], f["of"]) for f in said] == [
        (0, 0, 260), (0, 150, 260), (1, 0, 260), (1, 150, 260),
    ]  # fmt: skip


def test_a_run_leaves_pictures_in_its_folder_and_in_the_page(run):
    said = json.loads((run.folder / "samples" / "samples.json").read_text())
    assert [entry["file"] for entry in said][:3] == ["real.png", "before.png", "after.png"]
    assert len(said) == 5
    for entry in said:
        with Image.open(run.folder / "samples" / entry["file"]) as picture:
            assert picture.size == (10 * 42 + 2, 4 * 42 + 2)
    page = (run.folder / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == 5
    assert "FD(digits-cnn) between samples and the clients" in page
    assert "N = 30 samples against 719 real images" in page
    assert "that of 177 real test images is 3.9" in page
    assert len(pictures(run.folder)) == 5


def test_a_grid_shows_every_image_enlarged_by_a_whole_factor():
    tiles = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)
    sheet = gallery.grid(tiles, columns=2)
    assert sheet.shape == (2 * 42 + 2, 2 * 42 + 2, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((2, 2), (2, 44), (44, 2), (44, 44))] == [0, 1, 2, 255]
    assert Image.open(io.BytesIO(gallery.png(sheet))).size == (86, 86)


def test_the_demo_s_verdict_says_what_changed(run):
    from dataclasses import replace

    text = IMAGES.verdict([replace(run, info=replace(run.info, name="images-sync"))])
    assert text.startswith(
        "FD(digits-cnn) of 30 samples to the 719 images of the clients (real test images: 4):\n  images-sync "
    )
    assert "which the pretrained model never saw" in text
    assert "samples/after.png" in text


def test_the_demo_asks_for_what_the_readme_says():
    sync, fedbuff = IMAGES.experiments()
    assert (sync.name, fedbuff.name) == ("images-sync", "images-fedbuff")
    assert sync.population == fedbuff.population
    assert sync.task.partition.classes == 1
    assert sync.evaluate.splits == ("test", "samples")


# the moving average -----------------------------------------------------------------------------


def test_a_moving_average_forgets_its_start_and_stays_off_the_wire():
    """Constant models: after n versions the distance is the product of the decays; clients start from the raw one."""
    from fedsim.adapters.adapter import Adapter, Layout, Tensor
    from fedsim.aggregators._base import ServerModel
    from fedsim.server.values.averaging import Average

    layout = Layout(tensors=(Tensor("x", (3,)),))
    zero, one = (ServerModel(Adapter(layout, np.full(3, v, np.float32))) for v in (0.0, 1.0))
    average, left = Average(zero, 0.6), 1.0
    for version in range(1, 30):
        average.follow(one, version)
        left *= min(0.6, version / (10 + version))
        np.testing.assert_allclose(average.model.adapter.vector, 1 - left, rtol=1e-6)
    off = Average(zero, 0.0)
    off.follow(one, 1)
    assert off.model is one


def test_a_run_with_an_average_has_the_same_visits_and_losses_and_other_scores():
    def run(ema):
        return fedsim.simulate(
            Experiment.model_validate({
                "population": {"preset": "homogeneous", "clients": 4},
                "task": {"kind": "quadratic"},
                "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
                "protocol": {"kind": "synchronous", "cohort": 4},
                "budget": {"commits": 6},
                "evaluate": {"every_commits": 1, "ema": ema},
                "runtime": {"executor": "inline"},
            })
        )  # fmt: skip

    plain, averaged = run(0.0), run(0.5)
    assert plain.visits.equals(averaged.visits)
    assert plain.commits.equals(averaged.commits)
    losses = [views.scored(r, "loss")["value"].to_numpy() for r in (plain, averaged)]
    assert losses[0][0] == losses[1][0]
    assert (losses[0][1:] != losses[1][1:]).all()


# experiments ------------------------------------------------------------------------------------

CIFAR = Path(__file__).parents[3] / "experiments" / "cifar10"


@pytest.mark.parametrize("name", sorted(p.stem for p in CIFAR.glob("*.yaml")))
def test_the_experiments_on_cifar10_are_complete_but_for_their_data(name):
    from fedsim.config import loading as config

    read_ = config.load(CIFAR / f"{name}.yaml", ["task.model=builtin", "task.data=builtin"])
    check(read_, name)
    base = config.load(CIFAR / "base.yaml", ["task.model=builtin", "task.data=builtin"])
    same = name in ("gpu", "local-only")
    assert same or read_.task.samples == base.task.samples
    assert read_.task.charge_as.preset == "ddpm-cifar10-32"
    assert "samples" in read_.evaluate.splits


def test_the_pretraining_on_cifar10_writes_a_model_and_a_classifier_that_an_experiment_starts_from(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(CIFAR.parents[1] / "scripts"))
    script = importlib.import_module("pretrain_cifar10")
    for split, each in (("train", 8), ("test", 2)):
        rows = [(np.full((32, 32, 3), 3 * i, np.uint8), i % 10) for i in range(10 * each)]
        parquet(tmp_path / f"{split}.parquet", rows, names=[f"class {c}" for c in range(10)])
    out = tmp_path / "unet"
    common = ["--data", str(tmp_path), "--out", str(out), "--batch", "4", "--epochs", "1"]
    script.main([*common, "--steps", "2"])
    facts = json.loads((out / "facts.json").read_text())
    assert facts["images"] == 5 * 8  # of classes 0 to 4
    looks = {"kind": "classifier", "classifier": str(out / "classifier.safetensors")}
    task = images(
        model=str(out), data=str(tmp_path), classes=(5, 6, 7, 8, 9), features=looks,
        lora=LoraConfig(r=2, targets="attention"),
    )  # fmt: skip
    assert task.pictures.pixels.shape == (5 * 8, 3, 16, 16)
    assert task.pictures.names[5:] == tuple(f"class {c}" for c in range(5, 10))
