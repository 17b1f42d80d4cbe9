"""A quantised frozen base on every path: stock PEFT on weights that were quantised by hand; unpacked once or on the way."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from oracles.quantised import by_hand
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from worlds import image_models
from worlds.client_batches import random_start, token_windows

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.cost.quantised import Quantise
from fedsim.errors import DataError, ExperimentError
from fedsim.jobs import Job
from fedsim.training import hub, lora, sequential
from fedsim.training.backbone import Stack
from fedsim.training.diffusion import cost as denoiser_cost
from fedsim.training.diffusion import lora as denoiser_lora
from fedsim.training.direct.targets import known_to_train
from fedsim.training.fused.decoder import Decoder
from fedsim.training.paths import choose
from fedsim.training.quantised.chosen import FrozenLayer, chosen, held, of_matrices
from fedsim.training.quantised.codes import coded
from fedsim.training.quantised.saved import save_base
from fedsim.training.sequential import token_losses
from fedsim.training.stacked import batched
from fedsim.training.stacked.swapped import Swapped

R4 = LoraConfig(r=4, alpha=8.0)
HOW = {
    "nf4": Quantise(kind="nf4"),
    "int8": Quantise(kind="int8", block=32),
    "nf4-doubled": Quantise(kind="nf4", block=16, double=True),
}
NF4 = HOW["nf4"]


def linear_layers(model):
    """Linear layers and Conv1Ds but the head, found without fedsim."""
    head = model.get_output_embeddings()
    return {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear | Conv1D) and m is not head
    }


def quantised_by_hand(name, how):
    """The model as transformers loads it, its linear layers quantised by the plain arithmetic of the oracle, in float64."""
    model = AutoModelForCausalLM.from_pretrained(name).eval()
    for layer in linear_layers(model).values():
        turned = isinstance(layer, Conv1D)
        weight = layer.weight.detach().numpy()
        values = by_hand(weight.T if turned else weight, how)[0]
        layer.weight.data = torch.from_numpy(values.T if turned else values).float().contiguous()
    return model.double()


def stock(model, layout, vector):
    """Stock PEFT with a vector's factors on a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig as PeftLora
        from peft import get_peft_model

        names = [m.name for m in layout.modules]
        conv1d = isinstance(model.get_submodule(names[0]), Conv1D)
        how = PeftLora(r=4, lora_alpha=8, target_modules=names, fan_in_fan_out=conv1d)
        wrapped = get_peft_model(copy.deepcopy(model), how).eval()
    named, parameters = dict(wrapped.named_parameters()), []
    with torch.no_grad():
        for key, value in layout.arrays(vector).items():
            module, factor = key.rsplit(".", 1)
            parameter = named[f"base_model.model.{module}.{factor}.default.weight"]
            parameter.copy_(torch.from_numpy(np.array(value)))
            parameters.append(parameter)
    return wrapped, parameters


def of_peft(wrapped, parameters, windows):
    """Mean loss and flat gradient."""
    ids = torch.from_numpy(windows.astype(np.int64))
    logits = wrapped(input_ids=ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    return loss.item(), gradient.numpy()


def of_backbone(backbone, vector, windows):
    """The same of a backbone, for one client."""
    factors = torch.from_numpy(vector)[None].to(backbone.dtype)
    scales = factors.new_full((1, len(backbone.layout.modules)), 2.0)
    tokens = torch.from_numpy(windows.astype(np.int64))[None]
    weights = factors.new_full((1, len(windows)), 1 / len(windows))
    loss, gradient = backbone.gradients(Stack(factors, scales), tokens, weights)
    return float(loss[0]), gradient[0].clone().numpy()


def in_float64(name, path, how):
    """A quantised model as a backbone: the values are those of float32, the arithmetic around them is finer."""
    return choose(lora.frozen(name, "float32", how).double(), lora.layout(hub.skeleton(name), R4), path)


@pytest.mark.parametrize("path", ["fused", "swapped"])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_losses_and_gradients_are_stock_peft_s_on_weights_quantised_by_hand(model, path, kind):
    layout, windows = lora.layout(hub.skeleton(model), R4), token_windows(3)
    vector = random_start(layout)
    expected = of_peft(*stock(quantised_by_hand(model, HOW[kind]), layout, vector), windows)
    backbone = in_float64(model, path, HOW[kind])
    found = of_backbone(backbone, vector, windows)

    assert isinstance(backbone, Decoder if path == "fused" else Swapped)
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert np.abs(found[1] - expected[1]).max() <= 1e-6
    plain = of_backbone(in_float64(model, path, None), vector, windows)
    assert np.abs(found[1] - plain[1]).max() > 1e-5  # the effect on what is learned is real


def test_a_visit_ends_where_it_does_on_the_other_paths(model):
    how, windows = HOW["nf4-doubled"], token_windows(6)
    layout = lora.layout(hub.skeleton(model), R4)
    job = Job(0, 0, random_start(layout), LocalConfig(optimizer="sgd", lr=0.3, steps=3, batch=2), seed=0)
    (alone,) = sequential.train(lora.trainee(model, R4, quantise=how), [windows], [job])
    for path in ("fused", "swapped"):
        backbone = lora.backbone(model, R4, path, quantise=how)
        (together,) = batched.train(backbone, [windows], [job], tokens_at_once=1000)
        assert np.abs(together.end - alone.end).max() <= 2e-6
        assert together.loss == pytest.approx(alone.loss, abs=1e-6)
    (plain,) = sequential.train(lora.trainee(model, R4), [windows], [job])
    assert np.abs(plain.end - alone.end).max() > 1e-4


class Unpacking(torch.nn.Module):
    """Gives a layer the values of its codes, anew whenever its weight is used."""

    def __init__(self, codes, *, turned):
        super().__init__()
        self.codes, self.turned, self.times = codes, turned, 0

    def forward(self, _):
        self.times += 1
        values = self.codes.values().double()
        return values.t() if self.turned else values


@pytest.mark.parametrize("kind", ["int8", "nf4-doubled"])
def test_unpacking_on_the_way_and_once_are_the_same(model, kind, one_thread):
    """A device keeps codes and unpacks where it multiplies; here that was done when the model was loaded."""
    how, windows = HOW[kind], token_windows(4)
    layout = lora.layout(hub.skeleton(model), R4)
    keeps_codes, unpackings = hub.weights(model), []
    for layer in linear_layers(keeps_codes).values():
        turned = isinstance(layer, Conv1D)
        weight = layer.weight.detach()
        unpackings.append(Unpacking(coded(weight.t() if turned else weight, how), turned=turned))
        layer.double()
        parametrize.register_parametrization(layer, "weight", unpackings[-1])
    keeps_codes.double()
    vector = random_start(layout)
    once = lora.Trainee(lora.frozen(model, "float32", how).double(), layout, R4)
    wrapped, parameters = stock(keeps_codes, layout, vector)
    once.write(vector)
    on_the_way = of_peft(wrapped, parameters, windows)
    loss = token_losses(once, windows).mean()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, once.parameters)]).numpy()

    assert on_the_way[0] == pytest.approx(loss.item(), abs=1e-13)
    assert np.abs(on_the_way[1] - gradient).max() <= 1e-13
    used = [m for m in wrapped.modules() if isinstance(m, Unpacking)]
    assert len(used) == len(unpackings)
    assert min(m.times for m in used) >= 1
    assert sum(m.codes.n_bytes for m in used) == held(of_matrices(lora.matrices(keeps_codes)), how, layout)[1]


def test_a_folder_read_straight_has_the_bits_of_the_loaded_model(model):
    layout, windows = lora.layout(hub.skeleton(model), R4), token_windows(3)
    assert known_to_train(model, R4, "fused") is not None
    straight = lora.backbone(model, R4, "fused", dtype="bfloat16", quantise=NF4)
    loaded = choose(lora.frozen(model, "bfloat16", NF4), layout, "fused")
    a, b = (of_backbone(each, random_start(layout), windows) for each in (straight, loaded))

    assert a[0] == b[0]
    assert np.array_equal(a[1], b[1])


def test_tables_norms_biases_and_the_head_stay_as_they_are(model):
    before, after = dict(hub.weights(model).named_parameters()), lora.frozen(model, "float32", NF4)
    changed = {name for name, p in after.named_parameters() if not torch.equal(p, before[name])}

    assert changed == {f"{name}.weight" for name in linear_layers(after)}


def test_named_modules_alone_are_quantised(llama):
    before, how = (
        dict(hub.weights(llama).named_parameters()),
        Quantise(kind="nf4", modules=("q_proj", "mlp.up_proj")),
    )
    after = lora.frozen(llama, "float32", how)
    changed = {name for name, p in after.named_parameters() if not torch.equal(p, before[name])}

    assert changed == {
        f"model.layers.{i}.{leaf}.weight" for i in (0, 1) for leaf in ("self_attn.q_proj", "mlp.up_proj")
    }


def test_a_merged_adapter_is_the_quantised_weight_and_the_product(model):
    layout = lora.layout(hub.skeleton(model), R4)
    base, vector = quantised_by_hand(model, NF4), random_start(layout)
    wrapped, _ = stock(base, layout, vector)
    windows = token_windows(3)
    ids = torch.from_numpy(windows.astype(np.int64))
    logits = wrapped.merge_and_unload()(input_ids=ids[:, :-1]).logits
    merged = float(torch.nn.functional.cross_entropy(logits.detach().flatten(0, 1), ids[:, 1:].flatten()))

    for path in ("fused", "swapped"):
        backbone = in_float64(model, path, NF4)
        assert of_backbone(backbone, vector, windows)[0] == pytest.approx(merged, abs=1e-6)


def test_lengths_that_are_trained_begin_as_those_of_the_quantised_weights(llama):
    """DoRA on a quantised base: version 0 is that base."""
    dora = LoraConfig(r=4, alpha=8.0, dora=True)
    layout, base = lora.layout(hub.skeleton(llama), dora), quantised_by_hand(llama, NF4)
    lengths = np.concatenate(
        [base.get_submodule(m.name).weight.detach().norm(dim=1).numpy() for m in layout.modules]
    )

    assert lora.pretrained(llama, layout, NF4) == pytest.approx(lengths, abs=1e-6)
    assert np.abs(lora.pretrained(llama, layout) - lengths).max() > 1e-3


def test_what_is_trained_whole_is_not_quantised(llama):
    layers = of_matrices(lora.matrices(hub.skeleton(llama)))
    asked = LoraConfig(r=2, targets="q_proj", modules_to_save=("down_proj",))
    layout = lora.layout(hub.skeleton(llama), asked)

    with pytest.raises(
        ExperimentError, match=r"lora\.modules_to_save: model\.layers\.0\.mlp\.down_proj is trained whole"
    ):
        held(layers, NF4, layout)
    some = Quantise(kind="nf4", modules=("up_proj", "q_proj"))
    assert held(layers, some, layout)[0] == 2 * (32 * 48 + 32 * 32)


def test_a_saved_base_is_loaded_by_transformers_and_is_what_was_trained_on(model, tmp_path):
    save_base(model, "nf4", tmp_path)
    saved, ours = AutoModelForCausalLM.from_pretrained(tmp_path), lora.frozen(model, "float32", NF4)

    for name, p in saved.named_parameters():
        assert torch.equal(p, dict(ours.named_parameters())[name])
    again = lora.frozen(str(tmp_path), "float32", NF4)  # what has been quantised stays as it is
    for name, p in again.named_parameters():
        assert torch.equal(p, dict(ours.named_parameters())[name])
    assert hub.tokenizer(str(tmp_path)).get_vocab() == hub.tokenizer(model).get_vocab()


def test_a_model_is_loaded_once_for_each_way_to_hold_it(llama):
    first, other = (lora.backbone(llama, R4, "fused", quantise=how) for how in (NF4, None))

    assert lora.backbone(llama, R4, "fused", quantise=Quantise(kind="nf4")) is first
    assert lora.backbone(llama, R4, "fused", quantise=Quantise(kind="nf4", block=32)) not in (first, other)


# which layers -----------------------------------------------------------------------------------


def test_names_that_match_nothing_are_refused_with_what_there_is(llama):
    layers = of_matrices(lora.matrices(hub.skeleton(llama)))

    with pytest.raises(
        ExperimentError, match=r"task\.quantise\.modules: no layer has this name \(got 'c_attn'\)"
    ) as refused:
        chosen(layers, Quantise(kind="nf4", modules=("q_proj", "c_attn")))
    assert "down_proj" in refused.value.message.fix
    with pytest.raises(ExperimentError, match="no layer has this name"):
        chosen(layers, Quantise(kind="nf4", modules="lm_head"))


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(DataError, match=r"task\.quantise: the model has no linear layer"):
        chosen([FrozenLayer("conv", 9, linear=False)], NF4)


# images -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    return image_models.folder(tmp_path_factory.mktemp("unet"), "unet")


def test_a_denoiser_s_linear_layers_and_the_convolutions_that_are_named(denoiser):
    for how, ends in ((NF4, None), (Quantise(kind="int8", modules=("conv1", "to_q")), ("conv1", "to_q"))):
        lora_config = LoraConfig(r=2, targets="attention")
        source = denoiser_lora.Source(denoiser, "auto", lora_config, told=False, quantise=how)
        plain, found = image_models.made("unet"), denoiser_lora.frozen(source, "float32")
        for name, module in plain.named_modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                wanted = name.endswith(ends) if ends else isinstance(module, torch.nn.Linear)
                weight = module.weight.detach().numpy()
                values = by_hand(weight, how)[0] if wanted else weight
                now = found.get_submodule(name).weight.detach().numpy()
                assert now == pytest.approx(values, abs=1e-6)
                assert np.array_equal(now, weight) != wanted


def test_a_denoiser_is_charged_for_the_codes_of_its_linear_layers(denoiser):
    layout = denoiser_lora.layout(image_models.made("unet"), LoraConfig(r=2, targets="attention"))
    sizes = [m.weight.numel() for m in image_models.made("unet").modules() if isinstance(m, torch.nn.Linear)]
    shape = denoiser_cost.of_named(denoiser, layout, 2, NF4)

    assert (shape.quantised_params, shape.quantised_bytes) == (sum(sizes), sum(map(NF4.bytes_of, sizes)))
    assert denoiser_cost.of_named(denoiser, layout, 2).quantised_params == 0
