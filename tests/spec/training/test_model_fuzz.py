"""Damaged model folders: settings, headers of weights and indices changed at random, loaded or refused in a sentence."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from worlds import image_models

from fedsim.config.learning import LoraConfig
from fedsim.errors import FedsimError
from fedsim.training import hub, lora, text_shape
from fedsim.training.diffusion import cost as denoiser_cost
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.diffusion import models as denoisers

VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    7,
    64,
    4096,
    1.5,
    "",
    "x",
    "gelu",
    [],
    [1],
    {},
    {"a": 1},
    [[2]],
    "float16",
)
LONGEST_S = 20.0


def changed(raw, rng):
    """Settings with one to three of them (or one inside them) left out or replaced."""
    raw = json.loads(json.dumps(raw))
    for _ in range(rng.integers(1, 4)):
        at = raw
        while True:
            if not at:
                break
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = keys[rng.integers(len(keys))]
            if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.5:
                at = at[key]
                continue
            if isinstance(at, dict) and rng.random() < 0.2:
                del at[key]
            else:
                at[key] = VALUES[rng.integers(len(VALUES))]
            break
    return raw


def text_of(raw, rng):
    """As JSON; now and then cut or with a byte too many."""
    data = bytearray(json.dumps(raw).encode())
    if rng.random() < 0.1:
        at = int(rng.integers(0, len(data)))
        data[at:] = b"" if rng.random() < 0.5 else b"\xff" + data[at:]
    return bytes(data)


def header_changed(data, rng):
    """The header of a safetensors file (8 bytes of length, JSON) damaged, or the file cut."""
    length = int.from_bytes(data[:8], "little")
    raw = json.loads(data[8 : 8 + length])
    what = rng.integers(0, 4)
    if what == 0:
        return data[: int(rng.integers(0, len(data)))]
    if what == 1:
        return (length + int(rng.integers(-9, 2**40))).to_bytes(8, "little") + data[8:]
    head = text_of(changed(raw, rng), rng) if what == 2 else json.dumps(dict(list(raw.items())[1:])).encode()
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


def load_text(name):
    hub.config(name)
    model = hub.skeleton(name)
    hub.check_weights(name)
    hub.check_sequence(name, 16)
    layout = lora.layout(model, LoraConfig(r=2, alpha=4.0))
    text_shape.shape(model, name, layout, 16, 1)
    hub.weights(name)


def load_images(name):
    denoisers.signature(name)
    denoisers.check_weights(name)
    denoisers.schedule(name, "auto")
    layout = denoiser_lora.layout(denoisers.skeleton(name), LoraConfig(r=2, alpha=4.0))
    denoiser_cost.of_named(name, layout, 1)
    denoisers.weights(name)


def tried(load, name):
    """What went wrong but for a sentence, or None."""
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(name)
    except FedsimError as problem:
        said = problem.message
        if problem.exit_code != 2 or not said.fix or "\n" in said.headline:
            return f"{problem!r}"
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return None if time.perf_counter() - began < LONGEST_S else "it took too long"


def wrong_of(source, load, file, damage, cases, seed, tmp_path):
    """(damage, what went wrong) of the cases that ended otherwise than they should."""
    rng, wrong = np.random.default_rng(seed), []
    original = (Path(source) / file).read_bytes()
    for case in range(cases):
        name = tmp_path / f"{case}"
        shutil.copytree(source, name)
        data = damage(original, rng)
        (name / file).write_bytes(data)
        if (said := tried(load, str(name))) is not None:
            wrong.append((data[:600], said))
        shutil.rmtree(name)
    return wrong


def settings_changed(data, rng):
    return text_of(changed(json.loads(data), rng), rng)


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    return image_models.folder(tmp_path_factory.mktemp("unet"), "condition")


CASES = [
    ("llama", load_text, "config.json", settings_changed),
    ("gpt2", load_text, "config.json", settings_changed),
    ("llama", load_text, "model.safetensors", header_changed),
    ("unet", load_images, "config.json", settings_changed),
    ("unet", load_images, "scheduler_config.json", settings_changed),
    ("unet", load_images, "diffusion_pytorch_model.safetensors", header_changed),
]
NAMES = [f"{model} {file}" for model, _, file, _ in CASES]


@pytest.mark.parametrize(("model", "load", "file", "damage"), CASES, ids=NAMES)
def test_damaged_folders_are_loaded_or_refused(model, load, file, damage, tmp_path, request):
    cases = 2 if model == "unet" else 8
    assert wrong_of(request.getfixturevalue(model), load, file, damage, cases, 1, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("model", "load", "file", "damage"), CASES, ids=NAMES)
def test_very_many_damaged_folders_are_loaded_or_refused(model, load, file, damage, tmp_path, request):
    assert wrong_of(request.getfixturevalue(model), load, file, damage, 1_500, 2, tmp_path) == []
