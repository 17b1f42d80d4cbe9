"""A model of others brings no code: no modules, no pickles, no kernels, no files elsewhere, no layers without end."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from worlds import image_models

from fedsim.errors import DataError
from fedsim.training import hub
from fedsim.training.diffusion import classifier, inception
from fedsim.training.diffusion import models as denoisers
from fedsim.training.loading import safety


@pytest.fixture
def model(llama, tmp_path):
    """A copy of a tiny model, to be changed."""
    return shutil.copytree(llama, tmp_path / "model")


@pytest.fixture
def unet(tmp_path):
    """A tiny denoiser's folder."""
    image_models.made("unet").save_pretrained(tmp_path / "unet")
    return tmp_path / "unet"


def changed(folder, **settings):
    """The folder, whose configuration has these settings, as a name that no cache has seen."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


def refused(call, *said):
    with pytest.raises(DataError) as error:
        call()
    text = str(error.value)
    for words in said:
        assert words in text
    assert len(text.splitlines()) == 2
    return text


CODE = "import pathlib\npathlib.Path({trace!r}).write_text('ran')\nclass Evil:\n    pass\n"


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_model_s_folder_is_not_run_and_nobody_is_asked(model, tmp_path, known, monkeypatch):
    trace = tmp_path / "trace"
    (model / "modeling_evil.py").write_text(CODE.format(trace=str(trace)))
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    code = dict.fromkeys(classes, "modeling_evil.Evil")
    name = changed(model, auto_map=code, **({} if known else {"model_type": "evil"}))
    tokens = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(
        json.dumps(tokens | {"auto_map": {"AutoTokenizer": ["modeling_evil.Evil", None]}})
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked whether to run it"))

    if known:
        assert hub.weights(name).config.model_type == "llama"
        assert hub.tokenizer(name) is not None
    else:
        refused(lambda: hub.config(name), "cannot load the configuration")
    assert not trace.exists()


def pickled(folder):
    """The weights of a folder as a pickle."""
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def test_weights_are_read_from_a_pickle_only_where_somebody_asks_for_it(model, monkeypatch):
    pickled(model)
    for check in (hub.check_weights, hub.weights):
        refused(
            lambda check=check: check(str(model)),
            "FEDSIM_ALLOW_PICKLE" if check is hub.check_weights else "weights",
        )
    monkeypatch.setenv(safety.ALLOW_PICKLE, "1")
    hub.check_weights(str(model))
    assert hub.weights(str(model)).config.model_type == "llama"


def test_a_pickle_that_is_asked_for_runs_nothing(model, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    pickled(model)
    torch.save({"a": Evil()}, model / "pytorch_model.bin")
    monkeypatch.setenv(safety.ALLOW_PICKLE, "1")

    refused(lambda: hub.weights(str(model)), "cannot load the weights")
    assert not (tmp_path / "executed").exists()


def test_safetensors_are_taken_where_a_pickle_lies_beside_them(model, tmp_path):
    torch.save({}, model / "pytorch_model.bin")
    hub.check_weights(str(model))
    assert hub.weights(str(model)).config.model_type == "llama"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"transformers_weights": "adapter_model.bin"}, "transformers_weights"),
        ({"attn_implementation": "evil/kernel"}, "is a kernel"),
        ({"_attn_implementation": "evil/kernel@main:f"}, "is a kernel"),
        ({"text_config": {"attn_implementation": "evil/kernel"}}, "is a kernel"),
        ({"num_hidden_layers": 10**9}, "is more than 10,000"),
        ({"num_hidden_layers": -(10**9)}, "is more than 10,000"),
        ({"text_config": {"n_layer": [3, 10**12]}}, "is more than 10,000"),
    ],
)
def test_settings_that_ask_for_code_files_or_endless_layers_are_refused_by_name(model, settings, said):
    name = changed(model, **settings)

    refused(lambda: hub.config(name), "config.json", said)


def test_a_denoiser_s_settings_are_looked_at_likewise(unet):
    folder = unet

    refused(lambda: denoisers.config(changed(folder, layers_per_block=10**9)), "layers_per_block", "10,000")


def test_a_denoiser_s_pickle_is_not_read(unet):
    folder = unet
    weights = next(folder.glob("*.safetensors"))
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    weights.unlink()

    refused(lambda: denoisers.check_weights(str(folder)), "are a pickle", safety.ALLOW_PICKLE)
    with pytest.raises(DataError):
        denoisers.weights(str(folder))


@pytest.mark.parametrize("part", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_a_list_of_weights_names_files_beside_it_only(model, part):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))

    refused(lambda: hub.check_weights(str(model)), "is no list of files")


def test_long_texts_and_pipes_in_a_model_s_folder_are_refused(model):
    with (model / "vocab.json").open("wb") as file:
        file.truncate(10 * 2**30)
    refused(lambda: hub.config(str(model)), "vocab.json has 10.0 GiB")
    (model / "vocab.json").unlink()
    os.mkfifo(model / "merges.txt")
    refused(lambda: hub.config(str(model)), "merges.txt is no file but a pipe")
    (model / "merges.txt").unlink()
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    refused(lambda: hub.check_weights(str(model)), "model.safetensors is no file but a pipe")


def test_files_of_extractors_are_bounded(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    for described in (
        {"channels": 10**9, "size": 8, "classes": 2},
        {"channels": "1"},
        {"channels": True, "size": 8, "classes": 1},
    ):
        save_file({"a": torch.zeros(1)}, path, metadata={"classifier": json.dumps(described)})
        refused(lambda: classifier.load(path), "holds no classifier")
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    for load in (classifier.load, inception.load, inception.is_original):
        refused(lambda load=load: load(path if load is classifier.load else str(path)), "10.0 GiB")
    path.unlink()
    os.mkfifo(path)
    refused(lambda: classifier.load(path), "is no file but a pipe")
