"""The second implementation of what the fused path computes: stock Hugging Face model, stock PEFT, autograd."""

from __future__ import annotations

import copy

import torch

from fedsim.adapters.adapter import Layout, Module
from fedsim.training import lora
from fedsim.training.backbone import Stack
from fedsim.training.fused import fused

VOCAB = 53


def perturbed(model, dtype=torch.float64, seed=0):
    """Give every parameter, norms and biases too, its own value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.05)
    return model.to(dtype).eval()


class Case:
    """A model, adapters on it, and k clients' factors, tokens and weights."""

    def __init__(self, model, config, k=3, rows=2, length=7, seed=1):
        self.model, self.config, self.k, self.rows, self.length = model, config, k, rows, length
        self.layout = lora.layout(model, config)
        self.dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
        g = torch.Generator().manual_seed(seed)
        self.factors = torch.randn(k, self.layout.size, generator=g, dtype=self.dtype) * 0.1
        self.scales = torch.rand(k, len(self.layout.modules), generator=g, dtype=self.dtype) + 0.5
        self.tokens = torch.randint(0, VOCAB, (k, rows, length + 1), generator=g)
        self.weights = torch.rand(k, rows, generator=g, dtype=self.dtype)

    def stack(self, **changes):
        return Stack(self.factors, self.scales, **changes)

    def decoder(self):
        return fused(self.model, self.layout)

    def stock(self, noise=None):
        """Losses (k,), gradients (k, size) and token losses (k, rows, T), client by client."""
        trainee = lora.Trainee(copy.deepcopy(self.model), self.layout, self.config)
        losses, grads, tokens = zip(*(self._client(trainee, i, noise) for i in range(self.k)), strict=True)
        return torch.stack(losses), torch.stack(grads), torch.stack(tokens)

    def _client(self, trainee, i, noise):
        for p, value in zip(trainee.parameters, trainee.split(self.factors[i]), strict=True):
            p.data, p.grad = value.clone(), None
        for index, module in enumerate(self.layout.modules):
            layer = trainee.model.base_model.model.get_submodule(module.name)
            layer.scaling["default"] = float(self.scales[i, index])
            if noise is not None:
                mask = noise(index, (self.k, self.rows, self.length, module.a_shape[1]))[i]
                layer.lora_dropout["default"] = _Mask(mask)
        ids = self.tokens[i]
        logits = trainee.model(input_ids=ids[:, :-1], use_cache=False).logits.to(self.dtype)
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        nll = nll.view(self.rows, self.length)
        loss = (nll.mean(-1) * self.weights[i]).sum()
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in trainee.parameters]), nll.detach()


class _Mask(torch.nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask


def masks(p=0.4, dtype=torch.float64):
    """LoRA dropout that is a function of module and shape."""

    def noise(module, shape):
        keep = torch.rand(shape, generator=torch.Generator().manual_seed(module), dtype=dtype) >= p
        return keep / (1 - p)

    return noise


def gap(ours, theirs):
    """Largest difference over the largest number."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def rows_alike(backbone, rows, clients_):
    """Whether each product of a pass gives a client's rows the bits that they have when it is alone."""
    matrices = [m.weight for block in backbone._blocks for m in block.matrices] + [backbone._frozen.head.t()]
    generator = torch.Generator().manual_seed(0)
    for weight in [way for w in matrices for way in (w, w.t())]:
        x = torch.randn(clients_ * rows, len(weight), generator=generator)
        if not torch.equal(x @ weight, torch.cat([own @ weight for own in x.split(rows)])):
            return False
    return True


def agree_in_company(c, clients=None, every=1):
    """Every so many clients have alone, on one thread, the losses and gradients that they have in company.

    To the bit where matrix products treat rows alike. Else within 1e-6 and 5e-6 of the largest gradient:
    1.3e-6 was measured at width 256, 3.1e-6 at width 512.
    """
    backbone, k = c.decoder(), clients or c.k
    losses, grads = backbone.gradients(Stack(c.factors[:k], c.scales[:k]), c.tokens[:k], c.weights[:k])
    exact = rows_alike(backbone, c.rows * c.length, k)
    for i in range(0, k, every):
        at = slice(i, i + 1)
        alone = backbone.gradients(Stack(c.factors[at], c.scales[at]), c.tokens[at], c.weights[at])
        if exact:
            assert torch.equal(alone[0], losses[at])
            assert torch.equal(alone[1], grads[at])
        else:
            assert gap(alone[0], losses[at]) < 1e-6
            assert gap(alone[1], grads[at]) < 5e-6


def part_of(layout, keep):
    """The layout of the modules whose names end in one of `keep`."""
    return Layout(tuple(m for m in layout.modules if m.name.endswith(tuple(keep))))


def on(name, inputs, outputs, rank=2):
    """A layout of a single module."""
    return Layout((Module(name, rank, (rank, inputs), (outputs, rank), 1.0),))
