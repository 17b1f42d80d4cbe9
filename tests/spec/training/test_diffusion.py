"""Diffusion: what is predicted, at which noise; images drawn; client batches against stock PEFT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from worlds import image_models

from fedsim.adapters.moved_base import dense_size, split
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError, ExperimentError
from fedsim.jobs import Job
from fedsim.training import lora, sequential
from fedsim.training.diffusion import denoising
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.diffusion import process as diffusion
from fedsim.training.diffusion import scores as image_scores
from fedsim.training.diffusion.lora import Source
from fedsim.training.diffusion.process import Process
from fedsim.training.stacked import batched

LORA = LoraConfig(r=2, alpha=4.0, targets="all")
LOCAL = LocalConfig(lr=0.01, steps=2, batch=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {k: image_models.folder(tmp_path_factory.mktemp(k), k) for k in image_models.KINDS}


def source(name, told=True, prediction="auto", lora_config=LORA):
    return Source(name, prediction, lora_config, told and denoisers.signature(name).takes_classes)


def both(src, dtype="float64"):
    """The same denoiser as a backbone for client batches, and wrapped by stock PEFT."""
    skeleton = denoisers.skeleton(src.name)
    layout = denoiser_lora.layout(skeleton, src.lora)
    how = denoisers.signature(src.name)
    backbone = denoising.Denoiser(denoisers.weights(src.name, dtype), layout, how, src.process, told=src.told)
    trainee = lora.Trainee(denoisers.weights(src.name, dtype), layout, src.lora)
    return backbone, trainee, denoising.alone(how, src.process, told=src.told)


def shards(sizes):
    return [
        denoising.Shard(image_models.pictures(n, seed=n), np.arange(n, dtype=np.int64) % 10) for n in sizes
    ]


def change(layout, seed=3):
    """A change of all frozen weights of a layout's modules."""
    return np.random.default_rng(seed).normal(0, 0.05, dense_size(layout)).astype(np.float32)


def started(layout, clients, local=LOCAL):
    """Jobs of clients that start from an adapter in use (B is not 0)."""
    rng = np.random.default_rng(1)
    start = (lora.initial(layout, 0) + rng.normal(0, 0.05, layout.size)).astype(np.float32)
    return [Job(c, 0, start, local, 7) for c in range(clients)]


# noise and targets ------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noisy_images_and_targets_are_those_of_diffusers(prediction):
    scheduler = DDPMScheduler(**image_models.SCHEDULE, prediction_type=prediction)
    images, noise = torch.randn(2, 5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    t = torch.tensor([0, 1, 50, 98, 99])
    found = Process.of(scheduler).noised(images, noise, t)
    torch.testing.assert_close(found.x, scheduler.add_noise(images, noise, t), atol=1e-6, rtol=0)
    expected = {
        "epsilon": noise,
        "sample": images,
        "v_prediction": scheduler.get_velocity(images, noise, t),
    }
    torch.testing.assert_close(found.target, expected[prediction], atol=1e-6, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_has_no_loss_and_ddim_with_it_ends_at_the_image(prediction):
    """If the network knows x, each DDIM step stays on the line from x to its noise, so the end is x."""
    scheduler = DDPMScheduler(**image_models.SCHEDULE, prediction_type=prediction)
    process = Process.of(scheduler)
    image = diffusion.unit(torch.from_numpy(image_models.pictures(3)), torch.float64)

    def knows(x, t):
        kept = process.signal_share[t].view(-1, 1, 1, 1)
        noise = (x - kept.sqrt() * image) / (1 - kept).sqrt()
        return process.noised(image, noise, t).target

    start = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    drawn = diffusion.sampled(knows, scheduler, start, 10)
    np.testing.assert_array_equal(drawn.numpy(), image_models.pictures(3))


def test_pixels_survive_the_way_to_the_unit_interval_and_back():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(diffusion.pixels(diffusion.unit(every, torch.float32)), every)


def test_the_noise_of_a_step_has_an_address():
    job = Job(3, 1, None, LOCAL, 7)
    noise, t = diffusion.of_step(job, 4, 5, (1, 8, 8), 100)
    again, same = diffusion.of_step(job, 4, 5, (1, 8, 8), 100)
    assert torch.equal(noise, again)
    assert torch.equal(t, same)
    for other, step in (
        (replace(job, client=4), 4), (replace(job, visit=2), 4), (job, 5),
        (replace(job, seed=8), 4), (replace(job, purpose="personal"), 4),
    ):  # fmt: skip
        assert not torch.equal(noise, diffusion.of_step(other, step, 5, (1, 8, 8), 100)[0])
    assert 0 <= int(t.min()) <= int(t.max()) < 100


def test_the_noise_of_an_image_does_not_depend_on_who_is_scored_with_it():
    alone = diffusion.of_evaluation(0, "test", [5], 3, (1, 8, 8))
    among = diffusion.of_evaluation(0, "test", [2, 5, 9], 3, (1, 8, 8))
    assert torch.equal(alone[0], among[1])
    assert torch.equal(
        diffusion.of_samples(0, [4, 5], (1, 8, 8))[1:], diffusion.of_samples(0, [5], (1, 8, 8))
    )


# the networks -----------------------------------------------------------------------------------


def test_every_kind_of_denoiser_is_called_in_its_own_way(folders):
    kinds = {name: denoisers.signature(folder) for name, folder in folders.items()}
    assert {name: (s.kind, s.table, s.code) for name, s in kinds.items()} == {
        "unet": ("UNet2DModel", 0, 0), "classes": ("UNet2DModel", 10, 0),
        "condition": ("UNet2DConditionModel", 0, 12), "dit": ("DiTTransformer2DModel", 10, 0),
    }  # fmt: skip
    x, t, labels = torch.randn(2, 1, 8, 8), torch.tensor([3, 4]), torch.tensor([1, 2])
    with torch.no_grad():
        unet = denoisers.weights(folders["unet"])
        assert torch.equal(diffusion.predicted(unet, kinds["unet"], x, t, None), unet(x, t).sample)
        dit = denoisers.weights(folders["dit"])
        whole = dit(x, t, class_labels=labels).sample
        assert whole.shape[1] == 2  # the second channel is the learned variance
        assert torch.equal(diffusion.predicted(dit, kinds["dit"], x, t, labels), whole[:, :1])


@pytest.mark.parametrize("kind", ["classes", "condition", "dit"])
def test_a_denoiser_that_is_told_the_class_uses_it(folders, kind):
    model, how = denoisers.weights(folders[kind]), denoisers.signature(folders[kind])
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([9])
    with torch.no_grad():
        one, two = (diffusion.predicted(model, how, x, t, torch.tensor([c])) for c in (1, 2))
    assert float((one - two).abs().max()) > 1e-4


def test_targets_name_groups_paths_and_ends_and_a_wrong_one_is_told_what_there_is(folders):
    model = denoisers.skeleton(folders["unet"])

    def names(targets):
        return [s.name for s in denoiser_lora.chosen(model, targets)]

    assert all("attentions" in n for n in names("attention"))
    assert all("resnets" in n for n in names("resnets"))
    assert names(("attention", "resnets")) == names(("resnets", "attention"))
    assert len(names("all")) == len(denoiser_lora.sites(model))
    assert names("mid_block.attentions.0.to_q") == ["mid_block.attentions.0.to_q"]
    assert {n.rpartition(".")[2] for n in names("conv1")} == {"conv1"}
    assert all(not s.kernel for s in denoiser_lora.chosen(model, "all-linear"))
    with pytest.raises(ExperimentError, match=r"did you mean 'conv1'.*to_out\.0"):
        names("conv_1")


def test_a_layout_has_the_shapes_of_peft_and_its_initialisation(folders):
    src = source(folders["unet"])
    _, trainee, _ = both(src)
    scales = {
        name: module.scaling["default"]
        for name, module in trainee.model.base_model.model.named_modules()
        if hasattr(module, "scaling")
    }
    assert scales == {m.name: m.scale for m in trainee.layout.modules}
    conv = next(m for m in trainee.layout.modules if m.name.endswith("conv_in"))
    assert (conv.a_shape, conv.b_shape) == ((2, 1, 3, 3), (8, 2, 1, 1))
    first = lora.initial(trainee.layout, 0)
    arrays = trainee.layout.arrays(first)
    assert not arrays["conv_in.lora_B"].any()
    bound = 1 / 3  # 1 / sqrt(in x 3 x 3), what kaiming_uniform with a = sqrt(5) gives
    assert 0.2 < float(np.abs(arrays["conv_in.lora_A"]).max()) <= bound


# client batches against stock PEFT --------------------------------------------------------------


@pytest.mark.parametrize("kind", image_models.KINDS)
def test_client_batches_are_stock_peft_one_by_one_in_float64(folders, kind):
    """Linear and convolution adapters, unequal shards, a last batch shorter than the others."""
    src = source(folders[kind])
    backbone, trainee, losses = both(src)
    data, jobs = (
        shards([3, 9, 6]),
        started(backbone.layout, 3, LocalConfig(lr=0.01, epochs=1, batch=4, optimizer="sgd")),
    )
    together = batched.train(backbone, data, jobs, tokens_at_once=10_000)
    for job, own, update in zip(jobs, data, together, strict=True):
        (alone,) = sequential.train(trainee, [own], [job], losses=losses)
        np.testing.assert_allclose(update.end, alone.end, rtol=0, atol=1e-9)
        assert update.loss == pytest.approx(alone.loss, abs=1e-9)
        assert (update.steps, update.examples, update.tokens) == (alone.steps, alone.examples, alone.tokens)
        assert update.tokens == 64 * len(own)
        assert float(np.abs(update.end - job.start).max()) > 1e-4


@pytest.mark.parametrize(
    "option", ["adamw", "clip", "prox", "rank", "B", "dropout", "cosine", "upto", "tail", "anchor", "base"]
)
def test_every_option_of_local_training_holds_for_images(folders, option):
    src = source(folders["unet"], lora_config=LORA)
    backbone, trainee, losses = both(src)
    fields = {
        "clip": {"clip_norm": 0.01}, "prox": {"prox_mu": 0.5}, "anchor": {"prox_mu": 0.5}, "cosine": {"schedule": "cosine"},
    }.get(option, {})  # fmt: skip
    kind = "adamw" if option == "adamw" else "sgd"
    jobs = started(backbone.layout, 2, LocalConfig(lr=0.02, steps=2, batch=3, optimizer=kind, **fields))
    if option == "rank":
        jobs = [replace(jobs[0], rank=1), jobs[1]]
    if option == "B":
        jobs = [replace(job, trains="B") for job in jobs]
    if option == "upto":
        jobs = [replace(jobs[0], upto=1), jobs[1]]
    if option == "tail":
        jobs = [replace(job, slot_penalty=(0.1, 1)) for job in jobs]
    if option == "anchor":
        jobs = [replace(job, anchor=jobs[0].start) for job in jobs]
    if option == "base":
        jobs = [replace(jobs[0], base=change(backbone.layout)), jobs[1]]
    dropout = 0.3 if option == "dropout" else 0.0
    data = shards([3, 5])
    together = batched.train(backbone, data, jobs, tokens_at_once=10_000, dropout=dropout)
    one_by_one = sequential.train(trainee, data, jobs, dropout=dropout, losses=losses)
    # AdamW lifts rounding where a gradient is as small as rounding is
    atol = 1e-7 if option == "adamw" else 1e-9
    for mine, theirs in zip(together, one_by_one, strict=True):
        assert (mine.loss, mine.square) == pytest.approx((theirs.loss, theirs.square), abs=1e-8)
        assert mine.square >= mine.loss**2 > 0
        np.testing.assert_allclose(mine.end, theirs.end, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", image_models.KINDS)
def test_a_moved_base_is_the_weights_plus_the_change_and_goes_away_again(folders, kind):
    """Linear layers and convolutions, against the stock model with its weights changed by hand."""
    src = source(folders[kind])
    backbone, trainee, _ = both(src)
    vector, base = np.zeros(backbone.layout.size, np.float32), change(backbone.layout)
    (own,) = shards([3])
    by_hand = denoisers.weights(src.name, "float64")
    with torch.no_grad():
        for m, moved in split(backbone.layout, base):
            weight = by_hand.get_submodule(m.name).weight
            weight += torch.from_numpy(moved.astype(np.float64)).view_as(weight)
    changed = denoising.Denoiser(by_hand, backbone.layout, backbone.how, src.process, told=src.told)

    def loss(model):
        return image_scores.grid_error(model, vector, src, own, [0, 1, 2], 3, (0, "test"))

    expected, before = loss(changed), loss(backbone)
    for model in (backbone, trainee):
        model.rebase(base)
        assert loss(model) == pytest.approx(expected, rel=1e-9)
        model.rebase(None)
        assert loss(model) == pytest.approx(before, rel=1e-9)
    assert abs(expected - before) > 1e-3


def test_in_float32_they_agree_to_its_rounding_and_a_step_may_be_cut(folders):
    backbone, trainee, losses = both(source(folders["unet"]), "float32")
    jobs = started(backbone.layout, 3, LocalConfig(lr=0.02, steps=2, batch=4, optimizer="sgd"))
    data = shards([6, 6, 6])
    whole = batched.train(backbone, data, jobs, tokens_at_once=10_000)
    cut = batched.train(backbone, data, jobs, tokens_at_once=128)  # two images at a time
    alone = sequential.train(trainee, data, jobs, losses=losses)
    for one, two, three in zip(whole, cut, alone, strict=True):
        np.testing.assert_allclose(one.end, two.end, rtol=0, atol=2e-6)
        np.testing.assert_allclose(one.end, three.end, rtol=0, atol=2e-6)


def test_losses_and_samples_are_equal_by_both_ways_of_running_a_denoiser(folders):
    src = source(folders["condition"])
    backbone, trainee, _ = both(src)
    vector = started(backbone.layout, 1)[0].start
    (own,) = shards([5])
    losses = [
        image_scores.grid_error(m, vector, src, own, [4, 3, 2, 1, 0], 4, (0, "test"))
        for m in (backbone, trainee)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    drawn = [
        image_scores.drawn(m, vector, src, 0, [0, 1, 2], np.array([1, 2, 3]), 5) for m in (backbone, trainee)
    ]
    np.testing.assert_array_equal(*drawn)
    some = image_scores.drawn(backbone, vector, src, 0, [2], np.array([3]), 5)
    np.testing.assert_array_equal(drawn[0][2:], some)


def test_samples_are_those_of_stock_diffusers_from_the_same_noise(folders):
    src = source(folders["unet"])
    backbone, trainee, _ = both(src, "float32")
    vector = started(backbone.layout, 1)[0].start
    trainee.write(vector)
    ddim = DDIMScheduler.from_config(denoisers.schedule(src.name, "auto").config)
    ddim.set_timesteps(6)
    x = diffusion.of_samples(0, range(4), (1, 8, 8))
    with torch.no_grad():
        for t in ddim.timesteps:
            x = ddim.step(trainee.model(x, t).sample, t, x).prev_sample
    ours = image_scores.drawn(backbone, vector, src, 0, range(4), None, 6)
    assert int(np.abs(ours.astype(int) - diffusion.pixels(x).numpy().astype(int)).max()) <= 1


# paths and files --------------------------------------------------------------------------------


def test_paths_resolve_and_what_cannot_be_is_refused(folders):
    model = denoisers.skeleton(folders["unet"])
    layout = denoiser_lora.layout(model, LORA)
    whole = denoiser_lora.layout(model, LoraConfig(full=True))
    assert denoiser_lora.resolved(model, layout, "auto") == "swapped"
    assert denoiser_lora.resolved(model, layout, "sequential") == "sequential"
    assert denoiser_lora.resolved(model, whole, "auto") == "sequential"
    for trained, path in ((layout, "fused"), (whole, "swapped")):
        with pytest.raises(ExperimentError, match=r"numerics.training.*\n  fix: "):
            denoiser_lora.resolved(model, trained, path)


def test_a_pipeline_s_folder_is_found_with_its_schedule(tmp_path, folders):
    image_models.made("unet").save_pretrained(tmp_path / "unet")
    DDPMScheduler(num_train_timesteps=50, prediction_type="sample").save_pretrained(tmp_path / "scheduler")
    assert denoisers.signature(str(tmp_path)) == denoisers.signature(folders["unet"])
    found = denoisers.schedule(str(tmp_path), "auto")
    assert (found.config.num_train_timesteps, found.config.prediction_type) == (50, "sample")
    assert denoisers.schedule(str(tmp_path), "epsilon").config.prediction_type == "epsilon"
    denoisers.check_weights(str(tmp_path))


CHANGED = {
    "latents": {"in_channels": 4, "out_channels": 4},
    "oblong": {"sample_size": [8, 16]},
    "too few out": {"in_channels": 3, "out_channels": 1},
    "times for classes": {"class_embed_type": "timestep"},
}


def spoiled(tmp_path, what):
    import json

    if what == "nothing":
        return str(tmp_path / "missing")
    path = tmp_path / "model"
    image_models.folder(path, "unet")
    config = path / "config.json"
    raw = json.loads(config.read_text())
    if what == "no schedule":
        (path / "scheduler_config.json").unlink()
    elif what == "flow":
        (path / "scheduler_config.json").write_text('{"_class_name": "FlowMatchEulerDiscreteScheduler"}')
    elif what == "no weights":
        next(path.glob("*.safetensors")).unlink()
    elif what == "text":
        config.write_text('{"model_type": "gpt2"}')
    elif what in CHANGED:
        config.write_text(json.dumps({**raw, **CHANGED[what]}))
    elif what == "another prediction":
        schedule = path / "scheduler_config.json"
        schedule.write_text(json.dumps({**json.loads(schedule.read_text()), "prediction_type": "flow"}))
    return str(path)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "there is no such folder"), ("no schedule", "no noise schedule"), ("flow", "has no betas"),
        ("no weights", "holds no weights"), ("latents", "4 channels, so latents"),
        ("text", "is no denoiser.*got 'gpt2'"), ("oblong", "not square"),
        ("too few out", "reads 3 channels and predicts only 1"),
        ("times for classes", "more than a class .class_embed_type timestep"),
        ("another prediction", "asks for another prediction .got 'flow'"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_sentence(tmp_path, what, said):
    name = spoiled(tmp_path, what)
    with pytest.raises(DataError, match=said) as error:
        denoisers.signature(name)
        denoisers.schedule(name, "auto")
        denoisers.check_weights(name)
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert head.startswith("task.model: ")
    assert fix
    assert "\n" not in head + fix


def test_an_unreachable_hub_name_is_told_apart_from_a_folder():
    with pytest.raises(DataError, match=r"(?s)cannot get the configuration from the hub.*HF_HUB_OFFLINE"):
        denoisers.config("google/ddpm-cifar10-32")


# pretraining ------------------------------------------------------------------------------------


def test_a_pretraining_that_was_stopped_ends_where_one_in_a_piece_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "scripts"))
    import denoiser_pretraining as pretrain

    monkeypatch.setattr(pretrain, "EVERY", 2)
    images = torch.from_numpy(image_models.pictures(12))
    how = denoisers.Signature("UNet2DModel", 1, 8)
    process = Process.of(DDPMScheduler(**image_models.SCHEDULE))
    settings = pretrain.Settings(steps=5, batch=4, lr=1e-3, warm_up=2, ema=0.9, seed=0)

    class StoppedError(Exception):
        pass

    def run(checkpoint=None, stop_after=None):
        model, said = image_models.made("unet"), []
        if stop_after is not None:
            real = diffusion.errors

            def errors(*args):
                said.append(1)
                if len(said) > stop_after:
                    raise StoppedError
                return real(*args)

            monkeypatch.setattr(pretrain.diffusion, "errors", errors)
            with pytest.raises(StoppedError):
                pretrain.train(
                    model, how, process, images, None, settings, mirror=True, checkpoint=checkpoint
                )
            monkeypatch.setattr(pretrain.diffusion, "errors", real)
            return None
        return pretrain.train(
            model, how, process, images, None, settings, mirror=True, checkpoint=checkpoint, say=said.append
        )

    whole = run()
    run(tmp_path / "c.safetensors", stop_after=3)
    again = run(tmp_path / "c.safetensors")
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, atol=1e-7, rtol=0)
    settings = replace(settings, lr=2e-3)
    with pytest.raises(
        DataError, match=r"(?s)c\.safetensors: was written with other settings.*remove the file"
    ):
        run(tmp_path / "c.safetensors")
