"""Any Hugging Face model as a backbone of many clients: its target layers add each client's own adapter.

The clients' examples lie behind one another in the batch, (k * rows, ...). A frozen weight is applied
to all of them at once; the adapters by one batched product a factor. The model given is not touched:
the layers are replaced in a copy that shares every weight.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedsim.adapters.adapter import Layout, Vector
from fedsim.errors import ExperimentError, message
from fedsim.training.backbone import Backbone, Stack
from fedsim.training.chats.batch import Batch
from fedsim.training.rebase import Bases, Layers

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from fedsim.training.stacked.layers import BiasSite, Site


def refusal(model: Any, layout: Layout) -> str | None:
    """Return why a model's layers cannot be swapped, or None; weights are not needed."""
    for module in layout.modules:
        if ".experts." in module.name:
            return f"{module.name} is an expert, which sees the tokens of some clients only"
        reason = _refusal(model.get_submodule(module.name))
        if reason:
            return f"{module.name} is {reason}"
    for tensor in layout.beside:
        if tensor.kind == "saved":
            return f"{tensor.name} is trained whole, one client at a time"
        if tensor.kind == "bias" and not adds_its_bias(model.get_submodule(tensor.name.rpartition(".")[0])):
            return f"{tensor.name} is no bias that its layer adds at the end"
    return None


def _refusal(layer: Any) -> str | None:
    import torch
    from transformers.pytorch_utils import Conv1D

    plain = (torch.nn.Linear, torch.nn.Conv2d, Conv1D)
    if not any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in plain):
        return f"a {type(layer).__name__}, not a plain Linear, Conv1D or Conv2d"
    if isinstance(layer, torch.nn.Conv2d) and layer.groups != 1:
        return f"a Conv2d of {layer.groups} groups"
    if isinstance(layer, torch.nn.Conv2d) and layer.padding_mode != "zeros":
        return f"a Conv2d padded by {layer.padding_mode!r}"
    return None


def adds_its_bias(layer: torch.nn.Module) -> bool:
    """Tell whether a layer of torch or transformers adds its bias to the end of what it computes."""
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.LayerNorm, torch.nn.GroupNorm, Conv1D)
    return any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in kinds)


class Swap:
    """A frozen model whose target layers add scale * B_k A_k x for client k; for any loss.

    Attributes:
        model: the copy with replaced layers, in evaluation mode; callable while a `stack` is `set`.
        layout: which layers.
    """

    def __init__(self, model: Any, layout: Layout) -> None:
        """Copy the model without its weights and replace the layers that `layout` names.

        Raises:
            ExperimentError: a layer is of a kind that cannot be swapped.
        """
        reason = refusal(model, layout)
        if reason is not None:
            fix = "leave it out of lora.targets, or set numerics.training: sequential"
            raise ExperimentError(message("numerics.training", reason, fix=fix))
        from fedsim.training.stacked.layers import Site

        self.model = sharing(model).eval()
        named = [(m.name, self.model.get_submodule(m.name)) for m in layout.modules]
        self.carry(layout, [Site(name, layer, i) for i, (name, layer) in enumerate(named)])
        self._bases = Bases(layout, Layers([layer for _, layer in named]).write)
        self.device, self._narrow = named[0][1].weight.device, named[0][1].weight.dtype

    def carry(self, layout: Layout, sites: list[Site]) -> None:
        """Have adapters of a layout, one on each site."""
        self.layout, self._sites = layout, sites
        self._shapes = [shape for _, shape in layout.slices.values()]
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self._beside = self._sites_beside()

    def at_depth(self, depth: int) -> Swap:
        """Return the same model with the adapters of its last `depth` layers only: one of the two is used at a time."""
        upper, part = copy.copy(self), self.layout.last(depth)
        names = {m.name for m in part.modules}
        upper.carry(part, [site for site in self._sites if site.name in names])
        return upper

    def _sites_beside(self) -> list[Site | BiasSite]:
        """Return where each of the tensors that are trained beside the factors is added, in the layout's order."""
        from fedsim.training.stacked.layers import BiasSite

        adapted: dict[str, Site | BiasSite] = {site.name: site for site in self._sites}
        owners = [tensor.name.rpartition(".")[0] for tensor in self.layout.beside]
        return [
            adapted[owner] if owner in adapted else BiasSite(owner, self.model.get_submodule(owner))
            for owner in owners
        ]

    def rebase(self, base: Vector | None) -> None:
        """Make the target layers' frozen weights W0 + change (`Base.vector`), or W0 again (None)."""
        self._bases.to(base)

    @contextmanager
    def set(self, stack: Stack) -> Iterator[list[Tensor]]:
        """Give every layer its clients' factors; yield those as leaves that take a gradient."""
        k = stack.factors.shape[0]
        parts = stack.factors.detach().to(self._narrow).split(self._sizes, dim=1)
        leaves = [part.view(k, *shape) for part, shape in zip(parts, self._shapes, strict=True)]
        first = 2 * len(self._sites)
        for at, leaf in enumerate(leaves):
            leaf.requires_grad_(at >= first or "AB"[at % 2] in stack.trains)
        scales = stack.scales.to(self._narrow)
        for at, site in enumerate(self._sites):
            site.index = at
            site.adapter = (leaves[2 * at], leaves[2 * at + 1], scales[:, at])
            site.noise = stack.noise
        for holder, tensor, leaf in zip(self._beside, self.layout.beside, leaves[first:], strict=True):
            if tensor.kind == "magnitude":
                holder.magnitude = leaf.flatten(1)
            else:
                holder.bias = leaf
        try:
            yield leaves
        finally:
            for holder in (*self._sites, *self._beside):
                holder.clear()

    def gradients(self, stack: Stack, losses: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
        """Return every client's loss (k,) and its gradient (k, layout.size).

        Args:
            stack: the clients' adapters.
            losses: given the model, runs it on a batch (k * rows, ...), client after client, and
                returns losses (k,) of which each depends on its own client's examples only.
        """
        import torch

        with self.set(stack) as leaves, torch.enable_grad():
            loss = losses(self.model)
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            gradients = iter(torch.autograd.grad(loss.sum(), wanted, allow_unused=True))
        k = stack.factors.shape[0]
        parts = []
        for leaf, size in zip(leaves, self._sizes, strict=True):
            gradient = next(gradients) if leaf.requires_grad else None
            parts.append(leaf.new_zeros(k, size) if gradient is None else gradient.reshape(k, size))
        return loss.detach(), torch.cat(parts, dim=1).to(stack.factors.dtype)


class Swapped(Backbone):
    """A causal language model by module swap."""

    def __init__(self, model: Any, layout: Layout) -> None:
        """Share the weights of a Hugging Face causal language model.

        Raises:
            ExperimentError: a layer is of a kind that cannot be swapped.
        """
        import torch

        self.swap = Swap(model, layout)
        self.layout, self.device = layout, self.swap.device
        weight = next(iter(self.swap.model.parameters()))
        self.dtype = torch.promote_types(weight.dtype, torch.float32)

    def gradients(
        self, stack: Stack, tokens: Tensor | Batch, weights: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return losses (k,) and gradients (k, size); see `Backbone.gradients`."""
        assert hidden is None, "a swapped model has no prefix"
        if isinstance(tokens, Batch):
            return self.swap.gradients(stack, lambda model: _answer_losses(model, tokens, weights))
        return self.swap.gradients(
            stack, lambda model: (_token_losses(model, tokens).mean(-1) * weights).sum(-1)
        )

    def rebase(self, base: Vector | None) -> None:
        """Change the frozen weights; see `Backbone.rebase`."""
        self.swap.rebase(base)

    def at_depth(self, depth: int) -> Swapped:
        """Return the model with the adapters of its last `depth` layers only."""
        upper = copy.copy(self)
        upper.swap = self.swap.at_depth(depth)
        upper.layout = upper.swap.layout
        return upper

    def losses(self, stack: Stack, tokens: Tensor) -> Tensor:
        """Return the negative log likelihood [nats] of each predicted token, (k, rows, T)."""
        import torch

        with torch.no_grad(), self.swap.set(stack):
            return _token_losses(self.swap.model, tokens)

    def graded(self, stack: Stack, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return each predicted token's negative log likelihood [nats], and whether it is the likeliest, (k, rows, T)."""
        import torch

        from fedsim.training.chats.stock import graded

        with torch.no_grad(), self.swap.set(stack):
            losses, hits = graded(self.swap.model, *batch.flat)
        return losses.view(batch.learned.shape), hits.view(batch.learned.shape)


def sharing(model: Any) -> Any:
    """Return a copy of a model whose modules are new and whose weights are the same memory, frozen."""
    import torch

    def frozen(parameter: Any) -> Any:
        return torch.nn.Parameter(parameter.detach(), requires_grad=False)

    shared: dict[int, Any] = {id(p): frozen(p) for p in model.parameters()}
    shared |= {id(b): b for b in model.buffers()}
    return copy.deepcopy(model, shared)


def _answer_losses(model: PreTrainedModel, batch: Batch, weights: Tensor) -> Tensor:
    from fedsim.training.chats.stock import token_losses

    losses = token_losses(model, *batch.flat).view(batch.learned.shape)
    return (losses * batch.learned * weights[:, :, None]).sum((-2, -1))


def _token_losses(model: Any, tokens: Tensor) -> Tensor:
    import torch

    logits = model(input_ids=tokens[..., :-1].flatten(0, 1), use_cache=False).logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    nll = torch.nn.functional.cross_entropy(wide, tokens[..., 1:].flatten(), reduction="none")
    return nll.view(*tokens.shape[:2], -1)
