"""Weights that a checkpoint lacks, has in other shapes, spoilt or too many of: refused by name, of text and of denoisers."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from worlds import image_models

from fedsim.cli import app
from fedsim.config.learning import LoraConfig
from fedsim.errors import DataError, ExperimentError
from fedsim.training import hub, lora
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers
from fedsim.training.loading import checkpoint

TEXT, IMAGES = "model.safetensors", "diffusion_pytorch_model.safetensors"
CHANGES = {
    "a layer's MLP": (lambda name: ".1.mlp." in name or "mid_block" in name, None, "the checkpoint lacks"),
    "one bias or norm": (
        lambda name: "norm" in name and name.endswith("weight"),
        None,
        "the checkpoint lacks",
    ),
    "a weight of another shape": (
        lambda name: "down_proj" in name or name == "conv_in.weight",
        lambda w: w[:-1].contiguous(),
        "of other shapes: .* is [0-9x ]+, not [0-9x ]+",
    ),
    "a weight that is NaN": (
        lambda name: name.endswith(("up_proj.weight", "conv_out.weight")),
        lambda w: torch.where(torch.arange(w.numel()).view(w.shape) == 3, torch.nan, w),
        "not finite in",
    ),
    "a weight that is infinite": (
        lambda name: name.endswith(("up_proj.weight", "conv_out.weight")),
        lambda w: w + torch.inf,
        "not finite in",
    ),
}


def spoilt(model, tmp_path, file, chosen, change):
    """A copy of a model's folder of which the first chosen weights are left out or changed; returns their names too."""
    path = tmp_path / "spoilt"
    shutil.copytree(model, path)
    tensors = load_file(path / file)
    names = sorted(name for name in tensors if chosen(name))
    assert names
    for name in names:
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change(tensors[name])
    save_file(tensors, path / file, metadata={"format": "pt"})
    return str(path), names


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return image_models.folder(tmp_path_factory.mktemp("unet"), "unet")


def refused(load, said):
    with pytest.raises(DataError, match=said) as error:
        load()
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert head.startswith("task.model: ")
    assert "\n" not in head
    assert fix
    return head


@pytest.mark.parametrize("what", CHANGES)
def test_weights_of_a_text_model_that_are_missing_or_spoilt_are_named(llama, tmp_path, what):
    chosen, change, said = CHANGES[what]
    path, names = spoilt(llama, tmp_path, TEXT, chosen, change)

    head = refused(lambda: hub.weights(path), said)
    assert any(name in head for name in names)


@pytest.mark.parametrize("what", CHANGES)
def test_weights_of_a_denoiser_that_are_missing_or_spoilt_are_named(unet, tmp_path, what):
    chosen, change, said = CHANGES[what]
    path, names = spoilt(unet, tmp_path, IMAGES, chosen, change)

    head = refused(lambda: denoisers.weights(path), said)
    assert any(name in head for name in names)


def test_every_weight_is_missed_when_it_alone_is_left_out(llama, tmp_path):
    for at, name in enumerate(sorted(load_file(f"{llama}/{TEXT}"))):
        path, _ = spoilt(llama, tmp_path / str(at), TEXT, lambda key, name=name: key == name, None)
        assert name in refused(lambda path=path: hub.weights(path), "lacks")


def test_every_way_to_load_refuses_it(llama, unet, tmp_path):
    """Training, whole models and client batches load for themselves."""
    text, _ = spoilt(llama, tmp_path / "text", TEXT, lambda name: ".0.mlp." in name, None)
    adapters, whole = LoraConfig(r=2, alpha=4.0), LoraConfig(full=True)
    refused(lambda: lora.trainee(text, adapters), "lacks")
    refused(lambda: lora.backbone(text, adapters, "auto"), "lacks")
    refused(lambda: lora.pretrained(text, lora.layout(hub.skeleton(text), whole)), "lacks")
    images, _ = spoilt(unet, tmp_path / "images", IMAGES, lambda name: "mid_block" in name, None)
    layout = denoiser_lora.layout(denoisers.skeleton(images), whole)
    source = denoiser_lora.Source(images, "auto", whole, told=False)
    refused(lambda: denoiser_lora.pretrained(source, layout), "lacks")


def test_a_folder_that_others_have_quantised_is_told_what_to_do(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "coded")
    path = tmp_path / "coded" / "config.json"
    settings = json.loads(path.read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}}
    path.write_text(json.dumps(settings))

    head = refused(lambda: hub.skeleton(str(path.parent)), "its weights are stored quantised")
    assert "bitsandbytes" in head


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32])
def test_coded_weights_are_refused_by_name(llama, unet, tmp_path, kind):
    """As numbers they would all be near zero, or far too large: their scales lie beside them."""
    cases = (
        (llama, TEXT, "up_proj.weight", hub.weights),
        (unet, IMAGES, "conv_out.weight", denoisers.weights),
    )
    for model, file, end, load in cases:
        path, names = spoilt(
            model,
            tmp_path / file,
            file,
            lambda name, end=end: name.endswith(end),
            lambda w: (100 * w).to(kind),
        )
        assert names[0] in refused(lambda path=path, load=load: load(path), "holds coded weights")
    text, _ = spoilt(
        llama, tmp_path / "early", TEXT, lambda name: name.endswith("up_proj.weight"), lambda w: w.to(kind)
    )
    refused(lambda: hub.check_weights(text), "holds coded weights")


def test_whole_numbers_that_are_no_matrix_of_weights_may_be_there(llama, tmp_path):
    path = tmp_path / "masked"
    shutil.copytree(llama, path)
    tensors = load_file(path / TEXT)
    tensors["model.layers.0.self_attn.bias"] = torch.ones(4, 4, dtype=torch.uint8)
    save_file(tensors, path / TEXT, metadata={"format": "pt"})
    assert hub.weights(str(path)) is not None


def with_config(llama, tmp_path, **changes):
    path = tmp_path / "changed"
    shutil.copytree(llama, path)
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(settings | changes))
    return str(path)


def test_a_model_of_very_many_layers_is_refused_before_it_is_built(llama, tmp_path):
    path = with_config(llama, tmp_path, num_hidden_layers=10**5)
    assert "num_hidden_layers" in refused(lambda: hub.skeleton(path), "is more than 10,000")


def test_a_model_without_a_layer_to_adapt_is_refused(llama, tmp_path):
    path = with_config(llama, tmp_path, num_hidden_layers=0)
    with pytest.raises(ExperimentError, match="has no linear layer that can have an adapter"):
        lora.layout(hub.skeleton(path), LoraConfig(r=2))


def test_tied_weights_are_not_missing(llama):
    tensors = load_file(f"{llama}/{TEXT}")
    assert "lm_head.weight" not in tensors
    model = hub.weights(llama)
    assert torch.equal(model.lm_head.weight, tensors["model.embed_tokens.weight"])


def test_weights_that_the_model_does_not_use_are_said(llama, tmp_path, caplog):
    path = tmp_path / "more"
    shutil.copytree(llama, path)
    tensors = load_file(path / TEXT)
    extra = {name.replace(".1.", ".2."): w.clone() for name, w in tensors.items() if ".1." in name}
    save_file(tensors | extra, path / TEXT, metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING, logger="fedsim"):
        hub.weights(str(path))

    assert "model.layers.2" in caplog.text
    assert "which its model does not use" in caplog.text


@pytest.mark.parametrize(("model", "file"), [("llama", TEXT), ("unet", IMAGES)])
def test_a_part_of_a_checkpoint_that_is_not_there_is_named_before_anything_is_loaded(
    model, file, tmp_path, request
):
    path = tmp_path / "parts"
    shutil.copytree(request.getfixturevalue(model), path)
    index = path / f"{file}.index.json"
    check = hub.check_weights if model == "llama" else denoisers.check_weights
    index.write_text(json.dumps({"weight_map": {"a": file, "b": "model-00002-of-00002.safetensors"}}))
    refused(lambda: check(str(path)), "lacks model-00002-of-00002.safetensors")
    for wrong in ("[]", "{", '{"weight_map": [1]}', '{"weight_map": {"a": 3}}'):
        index.write_text(wrong)
        refused(lambda: check(str(path)), "is no list of files")


def test_an_adapter_in_the_place_of_a_model_is_refused(llama, tmp_path):
    layout = lora.layout(hub.skeleton(llama), LoraConfig(r=2, alpha=4.0))
    lora.save(np.zeros(layout.size, np.float32), llama, LoraConfig(r=2, alpha=4.0), tmp_path / "adapter")
    refused(lambda: hub.config(str(tmp_path / "adapter")), "holds an adapter")
    both = tmp_path / "both"
    shutil.copytree(llama, both)
    shutil.copy(tmp_path / "adapter" / "adapter_config.json", both)
    refused(lambda: hub.config(str(both)), "holds an adapter")


def test_names_of_weights_are_held_against_the_configuration():
    big, small = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3, bias=False)
    checkpoint.check_names(small, torch.nn.Linear(2, 3, bias=False), "it")
    refused(lambda: checkpoint.check_names(big, small, "it"), "one is bias")


def test_a_model_that_lacks_weights_leaves_no_run_folder(llama, tmp_path, capsys):
    path, _ = spoilt(llama, tmp_path, TEXT, lambda name: ".0.mlp." in name, None)
    (tmp_path / "exp.yaml").write_text(
        f"task: {{kind: language, model: {path}, sequence: 16}}\n"
        "population: {preset: homogeneous, clients: 2}\nlocal: {steps: 1}\n"
        "runtime: {executor: inline}\n"
        "protocol: {kind: synchronous, cohort: 2}\nbudget: {commits: 1}\n"
    )
    code = app.call(["run", str(tmp_path / "exp.yaml"), "--out", str(tmp_path / "out")])

    assert code == 2
    assert "the checkpoint lacks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
