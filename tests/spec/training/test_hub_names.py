"""Names of models: a folder that is mistyped, a name that the hub does not know, a hub that is not there; one question each."""

from __future__ import annotations

import time

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from fedsim.checks.gate import read
from fedsim.errors import DataError, FedsimError
from fedsim.executors.cluster.parcel import parcel_of
from fedsim.training import hub
from fedsim.training.diffusion import models as denoisers


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The names that the hub is asked for; it is online, knows none of them, and nothing is cached."""
    names = []

    def model_info(self, name, timeout):
        names.append(name)
        raise UnknownError

    class UnknownError(RepositoryNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    return names


def refused(load_model, name):
    began = time.perf_counter()
    with pytest.raises(DataError) as error:
        load_model(name)
    assert time.perf_counter() - began < 10  # it took 26 s of retries
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert head.startswith("task.model: ")
    assert "\n" not in head
    assert fix
    return str(error.value)


@pytest.mark.parametrize("load_model", [hub.config, denoisers.config])
def test_a_path_into_a_folder_that_is_there_is_no_hub_name(load_model, tmp_path, monkeypatch, asked):
    (tmp_path / "models" / "tiny-llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said = refused(load_model, "models/tiny-lama")

    assert "there is no such folder" in said
    if load_model is hub.config:
        assert "did you mean 'tiny-llama'?" in said
    assert asked == []


@pytest.mark.parametrize("load_model", [hub.config, denoisers.config])
def test_a_name_that_the_hub_does_not_know_is_asked_for_once(load_model, asked, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)
    said = refused(load_model, "nobody/mistyped-model")

    assert "no such folder here, and no such model on the hub" in said
    assert asked == ["nobody/mistyped-model"]


@pytest.mark.parametrize("load_model", [hub.config, denoisers.config])
def test_a_hub_that_cannot_be_reached_is_said_at_once(load_model, asked, monkeypatch):
    def model_info(self, name, timeout):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)

    assert "the hub cannot be reached (ConnectionError: Name or service not known)" in refused(
        load_model, "someone/some-model"
    )


def test_offline_nothing_is_asked(asked, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.check_reachable("someone/some-model")
    assert asked == []


def test_what_was_downloaded_before_is_not_asked_for(asked, tmp_path):
    (tmp_path / "cache" / "models--someone--some-model").mkdir(parents=True)
    hub.check_reachable("someone/some-model")
    assert asked == []


def test_a_file_in_the_place_of_a_folder_is_called_one(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    for load_model in (hub.config, denoisers.config):
        assert "is a file, not a folder" in refused(load_model, str(tmp_path / "model.safetensors"))


def test_a_mistyped_folder_beside_the_experiment_s_file_is_refused_with_its_whole_path(tmp_path):
    (tmp_path / "models").mkdir()
    path = tmp_path / "exp.yaml"
    path.write_text(
        "task: {kind: language, model: models/tiny}\npopulation: {preset: homogeneous, clients: 2}\n"
        "protocol: {kind: synchronous, cohort: 2}\nbudget: {commits: 1}\n"
    )
    with pytest.raises(FedsimError, match=r"no such file or folder .*models/tiny"):
        read(path)


def test_the_copy_of_a_folder_is_itself(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)

    assert hub.local_copy("./model") == tmp_path / "model"


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_the_copy_of_a_hub_s_model_has_its_weights(weights, tmp_path, monkeypatch):
    """From the cache, as it lies there: links to blobs; nothing is asked for where the hub is offline."""
    home = tmp_path / "models--someone--some-model"
    folder = home / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    (home / "blobs").mkdir()
    for name in ("config.json", weights):
        (home / "blobs" / name).write_bytes(b"{}")
        (folder / name).symlink_to(home / "blobs" / name)
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    copy = hub.local_copy("someone/some-model")

    assert [entry.place for entry in parcel_of("m", copy).entries] == sorted(["config.json", weights])
    assert "*.safetensors" in asked[0]
    assert asked[1:] == ([["*.bin"]] if weights.endswith(".bin") else [])


def test_a_hub_that_has_no_copy_to_give_is_said(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise OSError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataError, match="cannot get the files from the hub"):
        hub.local_copy("someone/some-model")
