"""A user's model tried before anything starts: built twice, one step made, and what that tells written down.

What is wrong with the class is said here, in one sentence, before a run folder is made. What is found: the layout of an
update, what a step costs, and whether clients can train together.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsim.adapters.adapter import Layout
from fedsim.config.learning import LoraConfig
from fedsim.cost.operations import Operations
from fedsim.errors import ExperimentError, message
from fedsim.rng import seed_of
from fedsim.training.backbone import Path
from fedsim.training.beside.tensors import plain_name
from fedsim.training.local import one_thread
from fedsim.training.lora import Trainee
from fedsim.training.own import company, layers, work
from fedsim.training.own.bench import Bench
from fedsim.training.own.chance import drawing
from fedsim.training.own.examples import Examples
from fedsim.training.own.losses import bare, loss_of, metrics_of
from fedsim.training.own.model import Recipe, Trained
from fedsim.training.own.source import WHERE, Sketch, Source, asking, difference, sketches


@dataclass(frozen=True)
class Trial:
    """What is known of a user's model, without it.

    Attributes:
        recipe: how every process loads it.
        operations: what a step costs, an example.
        still: numbers of the model that do not train, buffers among them.
        multiplying: weights of the layers that multiply, how many layers these are, and how wide the widest is.
        why: why clients train one after the other; None: they do not, or it was asked for.
    """

    recipe: Recipe
    operations: Operations
    still: int
    multiplying: tuple[int, int, int]
    why: str | None


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is tried: whose model, what of it trains, by which path, with the examples of one step."""

    source: Source
    lora: LoraConfig
    path: Path
    examples: Examples


@dataclass(frozen=True, eq=False)
class _Built:
    """The model, built twice, what it is like, the names of its metrics, and checksums of its weights before it was run."""

    model: nn.Module
    second: nn.Module
    sketches: tuple[Sketch, ...]
    metrics: tuple[str, ...]
    marks: dict[str, int]


def trial(source: Source, lora: LoraConfig, path: Path, examples: Examples) -> Trial:
    """Build the model, make a step of it, and return what that tells.

    Args:
        source: the user's class.
        lora: what is trained.
        path: `numerics.training`.
        examples: of one step of one client.

    Raises:
        ExperimentError: whatever is wrong with the model, the loss or the metrics.
    """
    asked = _Asked(source, lora, path, examples)
    with one_thread():
        built = _built(asked)
        return _whole(asked, built) if lora.full else _adapted(asked, built)


def _built(asked: _Asked) -> _Built:
    """Build the model twice.

    Raises:
        ExperimentError: that gives two different ones, or the same object.
    """
    source, model = asked.source, asked.source.model()
    first, second = sketches(model), source.model()
    fix = "let model() build a module at each call, from the settings and torch's generator alone"
    if {id(t) for t in model.parameters()} & {id(t) for t in second.parameters()}:
        what = (
            f"`{source.name}.model` returns the same weights at each call, so that clients would share them"
        )
        raise ExperimentError(message(WHERE, what, fix=fix))
    other = difference(sketches(second), first)
    if other is not None:
        what = f"`{source.name}.model` builds another model when it is called again: {other}"
        raise ExperimentError(message(WHERE, what, fix=fix))
    marks = _marks(model)
    with torch.no_grad(), drawing(seed_of(source.seed, "trial")):
        with asking(source.task, "loss"):
            loss_of(source, model, asked.examples)
        with asking(source.task, "metrics"):
            names = tuple(metrics_of(source, model, asked.examples))[1:]
    return _Built(model, second, first, names, marks)


def _whole(asked: _Asked, built: _Built) -> Trial:
    if asked.path not in ("auto", "sequential"):
        what, fix = "a whole model trains one client at a time", "set numerics.training: sequential"
        raise ExperimentError(message("numerics.training", what, got=asked.path, fix=fix))
    model = built.model
    layers.whole(model)
    before = _buffers(model)
    model.train()
    costs = Bench(asked.source, model, asked.examples).step()
    _unmoved_weights(asked, built, {name for name, p in model.named_parameters() if p.requires_grad})
    moved = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    floats = [name for name in moved if before[name].is_floating_point()]
    counters = tuple(name for name in moved if name not in floats)
    layout = layers.whole(model, floats)
    recipe = Recipe(asked.source, layout, asked.lora, "sequential", counters, built.sketches, built.metrics)
    still = _numbers(model) - layout.size
    return Trial(recipe, costs, still, layers.multiplying(model), None)


def _adapted(asked: _Asked, built: _Built) -> Trial:
    source, lora, model = asked.source, asked.lora, built.model
    layout, still, multiplying = layers.adapted(model, lora), _numbers(model), layers.multiplying(model)
    swap, why = company.together(source, model, layout, asked.path)
    trainee = Trainee(model, layout, lora)
    bench = Bench(source, bare(trainee), asked.examples)
    trainee.write(company.drawn(layout, 0))
    before = _buffers(bench.model)
    costs = bench.step()
    _through_all(trainee)
    _unmoved(bench.model, before)
    _unmoved_weights(asked, built, set(layout.slices))
    if swap is not None:
        why = company.apart(swap, trainee, bench)
    if asked.path == "swapped" and why is not None:
        fix = "set numerics.training: auto or sequential"
        raise ExperimentError(message("numerics.training", f"clients cannot train together: {why}", fix=fix))
    together = swap is not None and why is None
    path: Trained = "swapped" if together else "sequential"
    recipe = Recipe(source, layout, lora, path, (), built.sketches, built.metrics)
    costs = work.with_slot(costs, _wider(asked, built.second, layout), layout.rank)
    return Trial(recipe, costs, still, multiplying, why)


def _wider(asked: _Asked, model: nn.Module, layout: Layout) -> Operations:
    """Return what a step costs with adapters of one slot more."""
    wider = Layout(tuple(m.at_rank(m.rank + 1, m.scale) for m in layout.modules), layout.tensors)
    ranks = {key: r + 1 for key, r in (asked.lora.rank_pattern or {}).items()} or None
    more = {"r": asked.lora.r + 1, "rank_by": "fixed", "ranks": None, "rank_pattern": ranks}
    lora = asked.lora.model_copy(update=more)
    return Bench(asked.source, bare(Trainee(model, wider, lora)), asked.examples).step()


def _through_all(trainee: Trainee) -> None:
    """Hold that the loss goes through every adapter."""
    modules = trainee.layout.modules
    pairs = list(zip(modules, trainee.parameters[1 : 2 * len(modules) : 2], strict=True))
    missed = [module.name for module, b in pairs if b.grad is None]
    if missed:
        what = f"the loss does not go through {', '.join(missed[:3])}"
        rest = [module.name for module, b in pairs if b.grad is not None]
        fix = f"leave it out, as in lora.targets: [{', '.join(rest[:4])}]" if rest else "name other layers"
        raise ExperimentError(message("lora.targets", what, fix=fix))


def _unmoved(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Hold that a frozen model stays what it is."""
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, before[name]):
            what = f"the frozen model changes its buffer {name} as it computes, which would go from client to client"
            fix = "let it change in training mode only (self.training), or set lora.full: true"
            raise ExperimentError(message(WHERE, what, fix=fix))


def _unmoved_weights(asked: _Asked, built: _Built, trained: set[str]) -> None:
    """Hold that a frozen weight is what it was before the model was scored and has made a step."""
    after = _marks(built.model)
    for name, mark in built.marks.items():
        if name not in trained and after.get(name, mark) != mark:
            what = (
                f"`{asked.source.name}` changes the frozen weight {name} as its loss or its metrics are computed, "
                "which would go from client to client"
            )
            fix = "leave frozen weights alone; with lora.full: true, make it a buffer that moves in training mode"
            raise ExperimentError(message(WHERE, what, fix=fix))


def _marks(model: nn.Module) -> dict[str, int]:
    """Return a checksum of every parameter, by its name in the user's model."""
    named = {plain_name(name): p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    return {name: zlib.crc32(p.view(-1).view(torch.uint8).numpy()) for name, p in named.items()}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _numbers(model: nn.Module) -> int:
    return sum(t.numel() for t in [*model.parameters(), *model.buffers()])
