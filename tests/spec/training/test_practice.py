"""LoRA as it is practised, against stock PEFT: rsLoRA, LoRA+, DoRA, biases, whole modules, patterns, layers; saved and begun."""

from __future__ import annotations

import copy
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds.client_batches import token_windows
from worlds.pictures import ALPHA as PICTURE_ALPHA
from worlds.pictures import CONVOLUTIONS, images, per_client, pictures, random_vector, stack
from worlds.pictures import layout_of as layout_of_pictures
from worlds.practice import ALPHA, PRACTICES, R, a_start, layout_of, loaded, stock, trained_by_peft

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.config.lora.practice import matching
from fedsim.errors import ExperimentError
from fedsim.jobs import Job
from fedsim.training import fused, hub, lora, paths, sequential
from fedsim.training.beside import saved_adapter
from fedsim.training.beside.tensors import plain_name, value_of, with_beside
from fedsim.training.direct.targets import in_layers
from fedsim.training.stacked import batched
from fedsim.training.stacked.layers import lengths
from fedsim.training.stacked.swapped import Swap, Swapped

WINDOWS = 5


@pytest.fixture(params=PRACTICES)
def practice(request):
    return PRACTICES[request.param]


@pytest.fixture
def folder(practice, request):
    return request.getfixturevalue(practice.model)


def local_of(optimizer, steps):
    name = "sgd" if optimizer is torch.optim.SGD else "adamw"
    return LocalConfig(optimizer=name, lr=2.0 if name == "sgd" else 0.01, steps=steps, batch=WINDOWS)


def ours(path, folder, practice, layout, job, windows):
    """Where a visit ends on one of our paths, in float64, beside a second client that starts elsewhere."""
    config = practice.config
    if path == "sequential":
        return sequential.visit(lora.Trainee(loaded(folder), layout, config), windows, job).end
    model = loaded(folder)
    backbone = fused.fused(model, layout) if path == "fused" else Swapped(model, layout)
    other = Job(9, 0, a_start(layout, folder, 9), job.local, 0)
    both = batched.train(
        backbone,
        [windows, token_windows(WINDOWS, seed=9)],
        [job, other],
        tokens_at_once=10**9,
        lr_ratio=config.lr_ratio,
    )
    return both[0].end


@pytest.mark.parametrize(
    "optimizer", [pytest.param(torch.optim.SGD, marks=pytest.mark.slow), torch.optim.AdamW]
)
def test_one_and_several_steps_end_where_stock_peft_ends_in_float64(practice, folder, optimizer):
    layout, windows = layout_of(folder, practice), token_windows(WINDOWS)
    start = a_start(layout, folder)
    for steps in (1, 3):
        local = local_of(optimizer, steps)
        expected = trained_by_peft(folder, practice, layout, start, windows, steps, optimizer, local.lr)
        move = np.abs(expected - start).max()
        assert move > 1e-3
        for path in practice.paths:
            found = ours(path, folder, practice, layout, Job(0, 0, start, local, 0), windows)
            assert np.abs(found - expected).max() < 1e-9 * max(1.0, move), path


def test_a_model_takes_the_fastest_path_that_computes_it_and_no_other(practice, folder):
    layout = layout_of(folder, practice)
    assert paths.resolved(hub.skeleton(folder), layout, "auto") == practice.paths[0]
    for path in {"fused", "swapped"} - set(practice.paths):
        with pytest.raises(ExperimentError, match=r"numerics\.training"):
            paths.choose(loaded(folder, torch.float32), layout, path)


# saved and begun --------------------------------------------------------------------------------


def logits(model):
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def test_stock_peft_loads_what_is_saved_and_computes_the_same(practice, folder, tmp_path):
    from peft import PeftModel

    layout, config = layout_of(folder, practice), practice.config
    vector = a_start(layout, folder)
    assert lora.save(vector, folder, config, tmp_path) == layout.rank

    trainee = lora.Trainee(loaded(folder, torch.float32), layout, config)
    trainee.write(vector)
    plain = logits(loaded(folder, torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a key that is missing or not used
        warnings.filterwarnings("ignore", message=".*tie.*")
        loaded_by_peft = PeftModel.from_pretrained(loaded(folder, torch.float32), str(tmp_path)).eval()
    expected = logits(loaded_by_peft)
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(logits(trainee.model), expected, rtol=0, atol=1e-6)
    assert saved_adapter.read_saved(str(tmp_path), layout).tobytes() == vector.tobytes()


def test_what_stock_peft_saved_is_version_0(practice, folder, tmp_path):
    if practice.ours.get("bias") == "lora_only":
        pytest.skip("PEFT itself leaves such biases out of its file")
    layout, config = layout_of(folder, practice), practice.config
    model = stock(folder, practice, torch.float32)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for p in (p for p in model.parameters() if p.requires_grad):
            p.add_(torch.randn_like(p) * 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    saved_adapter.check_saved(layout, config.model_copy(update={"start_from": str(tmp_path)}))
    trainee = lora.Trainee(loaded(folder, torch.float32), layout, config)
    trainee.write(saved_adapter.read_saved(str(tmp_path), layout))
    torch.testing.assert_close(logits(trainee.model), logits(model), rtol=0, atol=1e-6)


OTHERWISE = {
    "rank": ({"r": 2}, r"has rank 4 at .*\(got .*fix: set lora\.r: 4"),
    "alpha": ({"alpha": 16.0}, r"multiplies B A of .* with 2, and here it is 4"),
    "rslora": ({"rslora": True}, r"with 2, and here it is 4\b.*rslora: false"),
    "dora": ({"dora": True}, r"has use_dora: false.*set lora\.dora: false"),
    "fewer layers": ({"layers_to_transform": (1,)}, r"has 8 arrays that are not trained here"),
    "more than it has": ({"modules_to_save": ("lm_head",)}, r"lacks 1 of the 17 arrays that are trained here, lm_head.weight"),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(gpt2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    config = LoraConfig(r=R, alpha=ALPHA)
    layout = lora.layout(hub.skeleton(gpt2), config)
    lora.save(a_start(layout, gpt2), gpt2, config, folder)
    return folder


@pytest.mark.parametrize("kind", OTHERWISE)
def test_a_saved_adapter_that_is_not_what_trains_is_refused_with_what_differs(kind, gpt2, saved):
    changes, words = OTHERWISE[kind]
    config = LoraConfig(**{"r": R, "alpha": ALPHA, "start_from": str(saved), **changes})
    with pytest.raises(ExperimentError) as refusal:
        saved_adapter.check_saved(lora.layout(hub.skeleton(gpt2), config), config)
    assert re.search(words, str(refusal.value).replace("\n", " "), re.DOTALL), refusal.value


@pytest.mark.parametrize("spoilt", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_saved_adapter_that_cannot_be_read_is_refused(spoilt, gpt2, saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(b"{" if file.name == spoilt else file.read_bytes())
    config = LoraConfig(r=R, alpha=ALPHA, start_from=str(tmp_path))
    with pytest.raises(ExperimentError, match=f"no {spoilt} that can be read"):
        saved_adapter.check_saved(lora.layout(hub.skeleton(gpt2), config), config)


def test_numbers_that_are_not_finite_are_no_version_0(gpt2, tmp_path):
    config = LoraConfig(r=R, alpha=ALPHA)
    layout = lora.layout(hub.skeleton(gpt2), config)
    lora.save(np.full(layout.size, np.inf, np.float32), gpt2, config, tmp_path)
    with pytest.raises(ExperimentError, match="not finite"):
        saved_adapter.read_saved(str(tmp_path), layout)


# layouts ----------------------------------------------------------------------------------------


def test_patterns_give_rank_and_scale_by_module_as_peft_gives_them(llama):
    config = LoraConfig(
        r=4, alpha=8.0, rank_pattern={"q_proj": 2, r".*proj": 3}, alpha_pattern={"mlp.up_proj": 9}
    )
    modules = {m.name.split(".", 3)[-1]: m for m in lora.layout(hub.skeleton(llama), config).modules}
    assert {name: m.rank for name, m in modules.items()} == dict.fromkeys(modules, 3) | {
        "self_attn.q_proj": 2
    }
    assert modules["self_attn.q_proj"].scale == 4.0
    assert modules["mlp.up_proj"].scale == 3.0
    assert modules["mlp.gate_proj"].scale == 8 / 3


def test_a_pattern_matches_as_in_peft():
    from peft.utils.other import get_pattern_key

    patterns = {"proj": 1, r"layers\.\d+\.mlp\.up": 2, "self_attn.q": 3, "v": 4}
    for name in (
        "layers.0.mlp.up",
        "a.layers.10.mlp.up",
        "x.self_attn.q",
        "xself_attn.q",
        "v",
        "conv",
        "h.proj",
    ):
        assert matching(patterns, name, 0) == patterns.get(get_pattern_key(patterns, name), 0), name


def test_dora_has_a_length_for_every_row_and_begins_with_that_of_the_pretrained_weight(gpt2):
    config = LoraConfig(r=2, targets=("c_fc",), dora=True)
    layout = lora.layout(hub.skeleton(gpt2), config)
    assert [(t.name, t.shape) for t in layout.beside] == [
        (f"transformer.h.{i}.mlp.c_fc.lora_magnitude_vector", (128,)) for i in range(2)
    ]
    assert layout.size == 2 * (2 * (32 + 128) + 128)
    weight = hub.weights(gpt2).transformer.h[0].mlp.c_fc.weight.detach().numpy()  # (in, out)
    np.testing.assert_allclose(lora.pretrained(gpt2, layout)[:128], np.linalg.norm(weight, axis=0), rtol=1e-6)


def test_lengths_of_w_plus_s_b_a_are_those_of_the_dense_weight():
    generator = torch.Generator().manual_seed(0)
    weight, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((5, 7), (3, 2, 7), (3, 5, 2))
    )
    scale = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    dense = torch.linalg.norm(weight + scale[:, None, None] * (b @ a), dim=2)
    torch.testing.assert_close(lengths(weight, a, b, scale), dense, rtol=1e-12, atol=0)


def test_a_saved_module_keeps_the_head_apart_from_the_embedding_that_it_was_tied_to(llama):
    config = LoraConfig(r=2, modules_to_save=("lm_head",))
    layout = lora.layout(hub.skeleton(llama), config)
    trainee = lora.Trainee(loaded(llama, torch.float32), layout, config)
    vector = a_start(layout, llama)
    before = trainee.model.get_input_embeddings().weight.clone()
    trainee.write(vector)
    assert torch.equal(trainee.model.get_input_embeddings().weight, before)
    assert trainee.read().tobytes() == vector.tobytes()


def test_layers_are_those_of_the_numbers_in_their_paths(llama):
    whole = lora.chosen(hub.skeleton(llama), "all-linear")
    upper = in_layers(whole, LoraConfig(layers_to_transform=(1,)))
    assert {m.name.split(".")[2] for m in upper} == {"1"}
    assert len(upper) == len(whole) / 2


def test_the_configuration_that_is_written_without_peft_is_the_one_that_peft_writes(gpt2, tmp_path):
    config = PRACTICES["patterns"].config
    layout = lora.layout(hub.skeleton(gpt2), config)
    lora.save(lora.initial(layout, 0), gpt2, config, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    theirs = lora.peft_config(hub.skeleton(gpt2), layout, config, base=gpt2).to_dict()
    for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias"):
        assert written[name] == theirs[name], name
    assert Path(tmp_path / "adapter_model.safetensors").stat().st_size > 4 * layout.size


# any layer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stride", "oblong"])
def test_dora_over_convolutions_has_stock_peft_s_losses_and_gradients(kind):
    model, settings = pictures(**CONVOLUTIONS[kind]), LoraConfig(dora=True)
    layout, batch = with_beside(layout_of_pictures(model, 3), model, settings, []), images(2, 4)
    lengths_there = np.concatenate([value_of(model, t).ravel() for t in layout.beside])
    vectors, expected = [], []
    for client, own in enumerate(batch):
        rng, vector = np.random.default_rng(client), random_vector(layout, client).astype(np.float64)
        vector[-lengths_there.size :] = lengths_there * rng.uniform(0.8, 1.2, lengths_there.size)
        wrapped = dora_of(model, layout)
        named = {plain_name(name): p for name, p in wrapped.named_parameters()}
        parameters = [named[name] for name in layout.slices]
        with torch.no_grad():
            for p, part in zip(parameters, layout.arrays(vector).values(), strict=True):
                p.copy_(torch.from_numpy(part))
        loss = wrapped(own).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        vectors.append(vector)
        expected.append((loss.item(), gradient.numpy()))
    found = Swap(model, layout).gradients(stack(vectors, (3, 3), layout), per_client(batch))
    assert found[0].tolist() == pytest.approx([loss for loss, _ in expected], rel=1e-12)
    for ours_, (_, wanted) in zip(found[1].numpy(), expected, strict=True):
        np.testing.assert_allclose(ours_, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


def dora_of(model, layout):
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    names = [m.name for m in layout.modules]
    settings = PeftLora(
        r=3, lora_alpha=PICTURE_ALPHA, target_modules=names, fan_in_fan_out=True, use_dora=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(copy.deepcopy(model), settings).eval()
    for layer in wrapped.modules():
        if isinstance(getattr(layer, "base_layer", None), torch.nn.Conv2d):
            layer.lora_A["default"].dilation = layer.base_layer.dilation  # PEFT 0.21 leaves it at 1
    return wrapped
