"""A folder that is read without transformers is the model that transformers makes of it, to the bit, or is not read so."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fedsim.builtin import model_folder
from fedsim.config.learning import LoraConfig
from fedsim.errors import DataError
from fedsim.training import hub, lora, paths, text_shape
from fedsim.training.backbone import Stack
from fedsim.training.direct.architecture import Family
from fedsim.training.direct.folder import known
from fedsim.training.direct.targets import known_layout
from fedsim.training.direct.tokenizer import REBUILT, tokenizer_of
from fedsim.training.direct.weights import decoder
from fedsim.training.stacked.swapped import Swapped

ALL = LoraConfig(r=4, alpha=8.0)
SOME = {"llama": LoraConfig(r=2, targets=("q_proj", "down_proj")), "gpt2": LoraConfig(r=2, targets="c_attn")}
TEXTS = ["The ship sails.", "", " \t two  spaces\n", "éÉ 漢😀 </s><s> <|endoftext|>", "brown cows" * 40]


@pytest.fixture(params=["llama", "gpt2", "builtin", "older"])
def name(request, tmp_path):
    """A folder; `older` has its angles where transformers had them before version 5."""
    if request.param == "older":
        older = {"rope_parameters": None, "rope_theta": 5e4, "torch_dtype": "float32", "dtype": None}
        return changed(request.getfixturevalue("llama"), tmp_path / "older", **older)
    return str(model_folder()) if request.param == "builtin" else request.getfixturevalue(request.param)


def changed(source, folder, file="config.json", **changes):
    """A copy of a model's folder with other settings; None takes one away."""
    shutil.copytree(source, folder)
    settings = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return str(folder)


def test_matrices_parameters_and_sizes_are_those_of_the_model(name):
    made, skeleton = known(name), hub.skeleton(name)

    assert made.matrices == lora.matrices(skeleton)
    assert made.parameters == {key: tuple(p.shape) for key, p in skeleton.named_parameters()}
    for how in (ALL, SOME[made.family]):
        layout = known_layout(made, how)
        assert layout == lora.layout(skeleton, how)
        ours, theirs = (
            text_shape.shape_of(made, "m", layout, 16, 2),
            text_shape.shape(skeleton, "m", layout, 16, 2),
        )
        assert asdict(ours) == asdict(theirs)
        assert paths.resolved(skeleton, layout, "auto") == "fused"
    assert text_shape.notices(skeleton, layout) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_and_gradients_have_the_bits_of_the_loaded_model(name, dtype):
    made, layout = known(name), lora.layout(hub.skeleton(name), ALL)
    ours, theirs = decoder(name, made, layout, dtype=dtype), paths.choose(hub.weights(name, dtype), layout)
    rng = np.random.default_rng(0)
    factors = torch.from_numpy(0.1 * rng.standard_normal((3, layout.size))).to(ours.dtype)
    stack = Stack(factors, factors.new_full((3, len(layout.modules)), 2.0))
    tokens = torch.from_numpy(rng.integers(0, made.vocabulary, (3, 2, 17)))

    assert torch.equal(ours.losses(stack, tokens), theirs.losses(stack, tokens))
    weights = factors.new_full((3, 2), 0.5)
    for a, b in zip(
        ours.gradients(stack, tokens, weights), theirs.gradients(stack, tokens, weights), strict=True
    ):
        assert torch.equal(a, b)
    assert not isinstance(theirs, Swapped)


def test_tokens_and_their_places_are_those_of_transformers_own_call(name):
    ours, theirs = tokenizer_of(Path(name)), hub.tokenizer(name)
    plain = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}

    assert (ours.eos_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)
    pairs = zip(ours(TEXTS, **plain).encodings, theirs(TEXTS, **plain).encodings, strict=True)
    assert all((a.ids, a.offsets) == (b.ids, b.offsets) for a, b in pairs)
    assert [ours.convert_ids_to_tokens(i) for i in range(9)] == theirs.convert_ids_to_tokens(list(range(9)))


@pytest.mark.parametrize("family", get_args(Family))
def test_every_family_has_the_tokens_of_transformers_where_a_folder_has_words_of_its_own(
    llama, family, tmp_path
):
    folder = Path(changed(llama, tmp_path / family, model_type=family))
    plain = Tokenizer(models.WordLevel({"</s>": 0, "<s>": 1, "a": 2, "word": 3, "here": 4}, unk_token="a"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    made.save_pretrained(folder)

    ours, theirs = tokenizer_of(folder), hub.tokenizer(str(folder))
    ids = theirs("a word here")["input_ids"]
    if ours is None:
        assert family in REBUILT
        assert ids != [2, 3, 4]
    else:
        assert ours(["a word here"], add_special_tokens=False).encodings[0].ids == ids == [2, 3, 4]


@pytest.mark.parametrize("how", ["all", "some", "uneven"])
def test_the_configuration_of_an_adapter_is_read_by_peft_as_its_own(name, how, tmp_path):
    made = known(name)
    first = made.matrices[0].name
    wanted = {"all": ALL, "some": SOME[made.family], "uneven": LoraConfig(r=2, alpha=3.5, targets=(first,))}[
        how
    ]
    layout = known_layout(made, wanted)
    lora.save(np.zeros(layout.size, np.float32), name, wanted, tmp_path)

    ours, theirs = (
        PeftConfig.from_pretrained(str(tmp_path)),
        lora.peft_config(hub.skeleton(name), layout, wanted, name),
    )
    ours, theirs = ours.to_dict(), theirs.to_dict()
    differing = {key for key in theirs if ours[key] != theirs[key] and key != "peft_version"}
    assert differing - {"target_modules"} == set()
    assert set(ours["target_modules"]) == set(theirs["target_modules"])


UNUSUAL = {
    "llama": (
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        {"rope_theta": 1e4},
        {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"sliding_window": 8},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"num_attention_heads": 3},
        {"num_hidden_layers": 3},
        {"hidden_size": "32"},
        {"model_type": "mistral"},
        {"tie_word_embeddings": False},
        {"rms_norm_eps": "small"},
        {"auto_map": {"AutoModelForCausalLM": "code.Model"}},
    ),
    "gpt2": (
        {"activation_function": "relu"},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
        {"n_inner": 100},
        {"n_head": 5},
        {"vocab_size": 321},
        {"is_decoder": False},
        {"layer_norm_epsilon": -1.0},
    ),
}


@pytest.mark.parametrize("family", UNUSUAL)
def test_whatever_is_unusual_goes_the_way_of_all_models(family, request, tmp_path):
    folder = request.getfixturevalue(family)
    for number, change in enumerate(UNUSUAL[family]):
        assert known(changed(folder, tmp_path / str(number), **change)) is None, change


def test_weights_that_are_not_just_those_of_the_architecture_go_that_way_too(llama, tmp_path):
    def spoilt(name, change):
        path = tmp_path / name
        shutil.copytree(llama, path)
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path

    norm = "model.norm.weight"
    assert known(str(spoilt("whole", dict.copy))) is not None
    assert known(str(spoilt("less", lambda tensors: tensors.pop(norm)))) is None
    assert known(str(spoilt("more", lambda tensors: tensors.update(other=torch.ones(1))))) is None
    assert known(str(spoilt("shape", lambda tensors: tensors.update({norm: torch.ones(5)})))) is None
    assert (
        known(str(spoilt("kind", lambda tensors: tensors.update({norm: torch.ones(32, dtype=torch.int8)}))))
        is None
    )
    beside = spoilt("beside", dict.copy)
    (beside / "adapter_config.json").write_text("{}")
    assert known(str(beside)) is None
    cut = spoilt("cut", dict.copy)
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(DataError, match="cannot load the weights"):
        lora.backbone(str(cut), ALL, "auto")


@pytest.mark.parametrize(
    ("scale", "said"), [(float("nan"), "not finite in"), (3e38, "predictions are not finite")]
)
def test_weights_that_are_no_numbers_are_refused_in_the_same_words(llama, tmp_path, scale, said):
    path = tmp_path / "spoilt"
    shutil.copytree(llama, path)
    tensors = load_file(path / "model.safetensors")
    tensors["model.norm.weight"] *= scale
    tensors["model.embed_tokens.weight"] *= 1e4
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    layout = known_layout(known(str(path)), ALL)
    for load in (lambda: decoder(str(path), known(str(path)), layout), lambda: hub.weights(str(path))):
        with pytest.raises(DataError, match=said):
            load()


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_class": "LlamaTokenizer"},
        {"add_prefix_space": True},
        {"eos_token": "the"},
        {"eos_token": {"content": "</s>", "__type": "AddedToken"}},
        {"clean_up_tokenization_spaces": True},
        {"eos_token": None, "bos_token": None},
    ],
)
def test_a_tokenizer_that_is_more_than_its_file_is_left_to_transformers(llama, tmp_path, change):
    assert tokenizer_of(Path(changed(llama, tmp_path / "m", "tokenizer_config.json", **change))) is None


HEAVY = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "sklearn",
    "scipy",
    "ray",
    "datasets",
    "diffusers",
    "plotly",
)


def imported(code):
    """Which heavy libraries a fresh Python has imported after some code."""
    lines = code + f"\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


RUN = """
import fedsim
blocks = {
    "population": {"preset": "homogeneous", "clients": 12},
    "task": {"kind": "language"},
    "protocol": {"kind": "synchronous", "cohort": 2},
    "local": {"steps": 1, "batch": 2},
    "evaluate": {"windows": 2},
    "budget": {"commits": 1},
}
experiment = fedsim.Experiment.model_validate(blocks)
"""


def test_a_timeline_of_the_built_in_task_needs_no_library_that_trains():
    assert imported(RUN + "fedsim.simulate(experiment, timeline_only=True)") == set()


def test_training_the_built_in_model_here_needs_torch_only(tmp_path):
    folder = str(tmp_path / "run")
    more = f"""
from fedsim.executors.inline import Inline
fedsim.simulate(experiment, Inline(), out={folder!r}, report=False)
"""
    assert imported(RUN + more) == {"torch"}
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
