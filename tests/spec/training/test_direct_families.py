"""Folders of Llama's kind that are read without transformers: the model that transformers makes of them, to the bit; broken ones are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from worlds.decoders import GEMMA, LLAMA3, small_llama

from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.errors import FedsimError
from fedsim.jobs import Job, TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.tasks.language import Language
from fedsim.training import hub, lora, paths, text_shape
from fedsim.training.backbone import Stack
from fedsim.training.direct.folder import known
from fedsim.training.direct.targets import known_layout
from fedsim.training.direct.weights import decoder
from fedsim.training.stacked.swapped import Swapped

ALL = LoraConfig(r=2, alpha=4.0)
LOCAL = LocalConfig(lr=1e-2, steps=1, batch=2)
WORDS = {"vocab_size": 320, "eos_token_id": 1}
FAMILIES = {
    "llama3": {
        "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 8},
        "tie_word_embeddings": True,
    },
    "mistral": {"kind": "Mistral", "sliding_window": 3},
    "qwen2": {"kind": "Qwen2", "tie_word_embeddings": True},
    "qwen2_windows": {
        "kind": "Qwen2",
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
    },
    "qwen3": {"kind": "Qwen3", "head_dim": 8, "tie_word_embeddings": True},
    "smollm3": {"kind": "SmolLM3", "num_hidden_layers": 4, "pad_token_id": 0},
    "gemma3": GEMMA,
}
RARE = ("rope_parameters", "layer_types", "no_rope_layers", "sliding_window")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """A folder of each family."""
    place = tmp_path_factory.mktemp("families")
    for name, settings in FAMILIES.items():
        small_llama(**{**settings, **WORDS}).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


def changed(source, folder, **changes):
    """A copy of a model's folder with other settings; None takes one away."""
    shutil.copytree(source, folder)
    settings = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    return str(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_parameters_and_sizes_are_those_of_the_model(family, folders):
    name = str(folders / family)
    made, skeleton = known(name), hub.skeleton(name)

    assert made.matrices == lora.matrices(skeleton)
    assert made.parameters == {key: tuple(p.shape) for key, p in skeleton.named_parameters()}
    layout = known_layout(made, ALL)
    assert layout == lora.layout(skeleton, ALL)
    ours, theirs = (
        text_shape.shape_of(made, "m", layout, 16, 2),
        text_shape.shape(skeleton, "m", layout, 16, 2),
    )
    assert asdict(ours) == asdict(theirs)
    assert made.family == skeleton.config.model_type
    assert paths.resolved(skeleton, layout, "auto") == "fused"


@pytest.mark.parametrize(
    ("family", "dtype"), [*((name, "float32") for name in FAMILIES), ("gemma3", "bfloat16")]
)
def test_losses_and_gradients_have_the_bits_of_the_loaded_model(family, dtype, folders):
    name = str(folders / family)
    made, layout = known(name), lora.layout(hub.skeleton(name), ALL)
    ours, theirs = decoder(name, made, layout, dtype=dtype), paths.choose(hub.weights(name, dtype), layout)
    rng = np.random.default_rng(0)
    factors = torch.from_numpy(0.1 * rng.standard_normal((2, layout.size))).to(ours.dtype)
    stack = Stack(factors, factors.new_full((2, len(layout.modules)), 2.0))
    tokens = torch.from_numpy(rng.integers(0, made.vocabulary, (2, 2, 10)))

    assert torch.equal(ours.losses(stack, tokens), theirs.losses(stack, tokens))
    weights = factors.new_full((2, 2), 0.5)
    for a, b in zip(
        ours.gradients(stack, tokens, weights), theirs.gradients(stack, tokens, weights), strict=True
    ):
        assert torch.equal(a, b)
    assert not isinstance(theirs, Swapped)


OLDER = {
    "llama3": {
        "rope_parameters": None, "rope_theta": 100.0, "is_llama_config": True, "rope_interleaved": False,
        "rope_scaling": {key: value for key, value in FAMILIES["llama3"]["rope_parameters"].items() if key != "rope_theta"},
    },
    "mistral": {"rope_parameters": None, "rope_theta": 10000.0},
    "qwen2": {"rope_parameters": None, "rope_theta": 10000.0, "layer_types": None, "use_mrope": False, "sliding_window": 32768},
    "qwen2_windows": {"rope_parameters": None, "rope_theta": 10000.0, "layer_types": None},
    "qwen3": {"rope_parameters": None, "rope_theta": 10000, "layer_types": None},
    "smollm3": {"rope_parameters": None, "rope_theta": 2000000.0, "no_rope_layers": None, "layer_types": None},
    "gemma3": {
        "rope_parameters": None, "rope_theta": 1e4, "rope_local_base_freq": 100.0, "_sliding_window_pattern": 6,
    },
}  # fmt: skip
"""As the same settings stood in files before version 5 of transformers."""


@pytest.mark.parametrize("family", OLDER)
def test_older_files_say_the_same(family, folders, tmp_path):
    older = changed(folders / family, tmp_path / "older", dtype=None, torch_dtype="float32", **OLDER[family])

    assert known(older) == known(str(folders / family)) is not None
    theirs = hub.config(older)
    for key in RARE:
        assert getattr(theirs, key, None) == getattr(hub.config(str(folders / family)), key, None)


def test_patterns_of_layers_that_are_not_written_down_are_those_of_transformers(folders, tmp_path):
    for number, changes in enumerate(
        (
            {"layer_types": None, "_sliding_window_pattern": None, "sliding_window_pattern": 2},
            {"layer_types": None, "_sliding_window_pattern": None},
        )
    ):
        name = changed(folders / "gemma3", tmp_path / str(number), **changes)
        kinds = [reach.rotation for reach in known(name).reaches]
        assert kinds == hub.config(name).layer_types
    every = changed(folders / "smollm3", tmp_path / "every", no_rope_layers=None, no_rope_layer_interval=2)
    assert [int(reach.rotation is not None) for reach in known(every).reaches] == hub.config(
        every
    ).no_rope_layers


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_was_trained_on_a_folder_has_the_same_loss_in_stock_peft(
    folders, tmp_path, text_folder
):
    name = str(folders / "gemma3")
    context = TaskContext(2, 0, ALL, LOCAL, NumericsConfig(client_batch=2))
    task = Language(model=name, data=str(text_folder / "tiny.train.txt"), sequence=16).build(context)
    updates = task.train([Job(client, 0, task.initial(), LOCAL, 0) for client in range(2)])
    sums = add_sums([task.score(updates[0].end, probe) for probe in task.probes("test", 4)])
    task.save_adapter(updates[0].end, tmp_path)

    model = PeftModel.from_pretrained(hub.weights(name), tmp_path).eval()
    rows = task.rows("test", None)[:4]
    tokens = torch.from_numpy(task.test.tokens[rows].astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    counts = torch.from_numpy(task.test.counts[rows].astype(np.int64))
    real = torch.arange(nll.shape[1])[None] < counts[:, None]
    assert task.metrics(sums)["loss"] == pytest.approx(float(nll[real].mean()), rel=1e-4)


UNUSUAL = {
    "llama3": (
        {"rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}},
        {"rope_parameters": {**LLAMA3, "factor": 0.0}},
        {"rope_parameters": {**LLAMA3, "attention_factor": 2.0}},
        {"layer_types": ["sliding_attention"] * 3},
    ),
    "mistral": ({"sliding_window": 0}, {"sliding_window": "3"}, {"layer_types": ["full_attention"] * 3}),
    "qwen2": ({"use_mrope": True}, {"use_sliding_window": "yes"}, {"layer_types": ["full_attention"] * 2}),
    "qwen2_windows": ({"layer_types": None, "max_window_layers": 1.5}, {"sliding_window": 0}),
    "qwen3": ({"attention_bias": True}, {"head_dim": 7}, {"head_dim": 6}, {"hidden_act": "gelu"}),
    "smollm3": ({"no_rope_layers": [1, 1]}, {"no_rope_layers": "1110"}, {"mlp_bias": True}),
    "gemma3": (
        {"final_logit_softcapping": 30.0},
        {"attn_logit_softcapping": 50.0},
        {"use_bidirectional_attention": True},
        {"hidden_activation": "gelu"},
        {"layer_types": ["full_attention", "full_attention", "chunked_attention"]},
        {"layer_types": None, "_sliding_window_pattern": 3},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
        {"rope_parameters": None, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"query_pre_attn_scalar": 0},
    ),
}


@pytest.mark.parametrize("family", UNUSUAL)
def test_whatever_is_unusual_goes_the_way_of_all_models(family, folders, tmp_path):
    for number, change in enumerate(UNUSUAL[family]):
        assert known(changed(folders / family, tmp_path / str(number), **change)) is None, change


# broken folders ---------------------------------------------------------------------------------


def refusal(name, text_folder, training="auto"):
    """The message with which a task of this model is refused before or while its weights are loaded."""
    context = TaskContext(2, 0, ALL, LOCAL, NumericsConfig(client_batch=2, training=training))
    with pytest.raises(FedsimError) as refused:
        task = Language(model=name, data=str(text_folder / "tiny.train.txt"), sequence=16).build(context)
        task.warm()
    assert refused.value.exit_code == 2
    assert refused.value.message.fix
    assert "\n" not in refused.value.message.headline
    return str(refused.value)


BROKEN = {
    "a window of no token": (
        "mistral",
        {"sliding_window": 0},
        "its window of 0 tokens shows a token not even itself",
    ),
    "a window of less than no token": ("gemma3", {"sliding_window": -4}, "its window of -4 tokens"),
    "layers that are not told": ("gemma3", {"layer_types": ["full_attention"]}, "layer"),
    "a layer of an unknown kind": (
        "qwen3",
        {"layer_types": ["full_attention"] * 2 + ["odd"]},
        "configuration",
    ),
    "positions of too few layers": ("smollm3", {"no_rope_layers": [1]}, "architecture"),
    "an odd number of numbers in a head": ("qwen3", {"head_dim": 7}, ""),
    "heads that share no keys": ("qwen2", {"num_key_value_heads": 3}, ""),
    "one kind of angles of two": (
        "gemma3",
        {"rope_parameters": {"full_attention": "default"}},
        "configuration",
    ),
    "angles without a factor": (
        "llama3",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
        "",
    ),
    "angles of an unknown kind": (
        "qwen3",
        {"rope_parameters": {"rope_type": "odd", "rope_theta": 1e4}},
        "odd",
    ),
    "attention in both directions": ("gemma3", {"use_bidirectional_attention": True}, "looks ahead"),
    "a scale of nothing": ("gemma3", {"query_pre_attn_scalar": 0}, ""),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_configuration_is_refused_in_a_sentence(fault, folders, tmp_path, text_folder):
    family, change, said = BROKEN[fault]

    assert said in refusal(changed(folders / family, tmp_path / "broken", **change), text_folder)


@pytest.mark.parametrize(
    ("family", "key", "said"),
    [
        ("qwen3", "model.layers.1.self_attn.q_norm.weight", "the checkpoint lacks model.layers.1.self_attn.q_norm.weight"),
        ("gemma3", "model.layers.0.pre_feedforward_layernorm.weight", "lacks model.layers.0.pre_feedforward_layernorm"),
        ("qwen2", "model.layers.2.self_attn.k_proj.bias", "lacks model.layers.2.self_attn.k_proj.bias"),
    ],
)  # fmt: skip
def test_a_norm_or_bias_that_is_missing_is_named(family, key, said, folders, tmp_path, text_folder):
    shutil.copytree(folders / family, tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    del tensors[key]
    save_file(tensors, file, metadata={"format": "pt"})

    assert said in refusal(str(tmp_path / "broken"), text_folder)


def test_weights_of_another_shape_are_named(folders, tmp_path, text_folder):
    name = changed(folders / "gemma3", tmp_path / "broken", head_dim=6)

    assert "weights of other shapes" in refusal(name, text_folder)


def test_a_written_out_path_that_there_is_none_of_says_why(folders, tmp_path, text_folder):
    name = changed(folders / "gemma3", tmp_path / "capped", final_logit_softcapping=30.0)

    said = "numerics.training: there is no fused decoder for gemma3_text with these targets: its logits are capped"
    assert said in refusal(name, text_folder, training="fused")


def test_the_fixture_is_read_from_its_folder(folders):
    assert {path.name for path in Path(folders).iterdir()} == set(FAMILIES)
