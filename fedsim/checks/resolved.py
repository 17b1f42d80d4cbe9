"""What a plan has come to: the population that was drawn, and every setting that was left open and follows from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fedsim.checks.notices import notices
from fedsim.clock.plan import Plan
from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.devices.groups.shared_links import Groups
from fedsim.devices.population import Population
from fedsim.records.resolved import Drawn, Followed, Resolved


def resolved(plan: Plan) -> Resolved:
    """Return what a reader of the configuration cannot see; nothing is drawn anew."""
    said = (*map(str, plan.task.describe().get("notices", ())), *notices(plan))
    return replace(of_population(plan.population), followed=tuple(followed(plan)), notices=said)


def of_population(population: Population) -> Resolved:
    """Return who was drawn and who is online, without the settings that follow from others."""
    return Resolved(
        drawn=tuple(_drawn(population)),
        online_at_start=float(np.mean(population.availability.online(0.0))),
        online_mean=float(np.mean(population.availability.share())),
    )


def _drawn(population: Population) -> Iterator[Drawn]:
    columns = population.columns()
    counts = Counter(zip(columns["tier"].tolist(), columns["network"].tolist(), strict=True))
    order = {name: at for at, name in enumerate(CLASSES)}
    found = [Drawn(str(tier), str(network), n) for (tier, network), n in counts.items()]
    yield from sorted(found, key=lambda g: (order.get(g.tier, len(order)), g.tier, g.network))


def followed(plan: Plan) -> Iterator[Followed]:
    """Yield the settings that follow from others, in the order of the blocks."""
    experiment = plan.experiment
    yield from _of_seeds(experiment)
    yield from _of_population(plan)
    yield from _of_adapters(plan)
    yield from _of_personal(experiment)
    yield from _of_auto(plan)


def _of_auto(plan: Plan) -> Iterator[Followed]:
    plain = plan.experiment.plain()
    for key in plan.filled:
        block, field = key.split(".")
        if field not in plain[block]:
            continue  # a plan whose experiment has another component since
        yield Followed(key, str(plain[block][field]), f"auto: {_AUTO[key]}" if key in _AUTO else "auto")


_AUTO = {
    "aggregator.weight": "uniform where the sampler chooses by size or nothing looks at it, else examples",
    "aggregator.normalize": "K over the protocol buffered unless weight asks for examples, else weights",
    "evaluate.windows": "more would take longer to score than the training between two evaluations; `all` scores a split whole",
    "numerics.client_batch": "by the task and the updates of a commit",
    "numerics.training": "the fastest path that computes this model",
}
"""Key -> what its `auto` goes by."""


def _of_seeds(experiment: Experiment) -> Iterator[Followed]:
    asked = dict(experiment.seeds)
    came_to = {
        "population": experiment.population_seed,
        "data": experiment.data_seed,
        "training": experiment.training_seed,
    }
    if any(value is not None for value in asked.values()):
        for name in (name for name, value in asked.items() if value is None):
            yield Followed(f"seeds.{name}", str(came_to[name]), "as seed")


def _of_population(plan: Plan) -> Iterator[Followed]:
    population, battery = plan.experiment.population, plan.experiment.energy.battery
    if population.wifi_only is None and "wifi_only" in plan.population.sources:
        why = f"because population.availability is {population.availability}"
        yield Followed("population.wifi_only", plan.population.sources["wifi_only"], why)
    if isinstance(plan.population.groups, Groups):
        yield Followed("population.shared_links", plan.population.groups.counts(), "as drawn")
    if battery is not None and battery.capacity_wh is None:
        yield Followed("energy.battery.capacity_wh", "battery_wh of each device's row", "none is given")


def _of_adapters(plan: Plan) -> Iterator[Followed]:
    lora, layout = plan.experiment.lora, plan.task.layout
    if layout.modules and isinstance(lora.targets, str):
        yield Followed("lora.targets", f"{len(layout.modules)} layers", f"{lora.targets} of this model")
    if lora.rank_by in ("memory", "deadline") and lora.ranks is None:
        choices = ", ".join(map(str, lora.choices))
        yield Followed("lora.ranks", f"[{choices}]", f"rank_by: {lora.rank_by} halves r = {lora.r}")
    if lora.depth_by in ("memory", "deadline") and lora.depths is None:
        most = lora.depth_choices(len(layout.blocks))[-1]
        yield Followed(
            "lora.depths", f"1 to {most}", f"depth_by: {lora.depth_by}, of {len(layout.blocks)} layers"
        )


def _of_personal(experiment: Experiment) -> Iterator[Followed]:
    """Yield what a kind of personalisation takes from the visits' training where it says nothing itself."""
    personal, local = experiment.personal, experiment.local
    length = f"steps: {local.steps}" if local.steps is not None else f"epochs: {local.epochs}"
    taken = {"lr": f"{local.lr:g}", "epochs": f"as in local ({length})"}
    for name, value in personal:
        if value is None and name in taken:
            yield Followed(f"personal.{name}", taken[name], f"local.{name} of the visits")
