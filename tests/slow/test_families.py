"""Tiny random models of many families: the path that trains each has the losses and gradients of stock PEFT; the page of families says which it is."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from oracles.fused_oracle import Case, gap, perturbed
from worlds import causal_models, families

from fedsim.config.learning import LoraConfig
from fedsim.cost.layers import token_flops
from fedsim.training import lora, paths, text_shape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def loaded(kind):
    from transformers import AutoModelForCausalLM

    with families.quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(causal_models.configuration(kind)).eval()


class Swapped(Case):
    """A case whose clients go through the path that `auto` takes."""

    def decoder(self):
        return paths.choose(copy.deepcopy(self.model), self.layout)


@pytest.mark.parametrize("kind", list(dict.fromkeys(families.FAMILIES)))
def test_client_batches_of_a_family_are_stock_peft(kind):
    """In float64, which some families leave for float32 in places, and experts and `xglm` do not have; those differ by that rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        way = families.trained(kind).path
        if way in ("sequential", "refused"):
            pytest.skip("it is trained by stock PEFT, or not at all")
        wide = families.OWN_WAYS.get(kind) != "experts" and kind != "xglm"
        dtype, near = (torch.float64, 1e-5) if wide else (torch.float32, 1e-4)
        c = Swapped(perturbed(loaded(kind), dtype), LoraConfig(r=2, alpha=4.0))
        losses, grads = c.decoder().gradients(c.stack(), c.tokens, c.weights)
        stock_losses, stock_grads, stock_tokens = c.stock()

        assert gap(losses, stock_losses) < near
        assert gap(grads, stock_grads) < 10 * near
        assert gap(c.decoder().losses(c.stack(), c.tokens), stock_tokens) < near


@pytest.mark.parametrize("kind", list(dict.fromkeys(families.FAMILIES)))
def test_torch_counts_the_flops_of_the_layers_of_a_family(kind):
    """To 2 %, where the layers are known by the names of their maps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = loaded(kind)
        layout = lora.layout(model, LoraConfig(r=4))
        shape = text_shape.shape(model, kind, layout, 16, 2)
        if not shape.blocks:
            pytest.skip("its layers are charged by the number of their weights")
        each = token_flops(shape.blocks, shape.head_params, 16, kappa=1.0, full=False, checkpoint=False)
        assert families.counted_flops(model, "all-linear", 16) == pytest.approx(each, rel=0.02)


def test_the_page_of_families_says_how_each_is_trained():
    """If not: python tests/worlds/families.py."""
    text = families.PAGE.read_text(encoding="utf-8")

    assert families.rewritten(text) == text
