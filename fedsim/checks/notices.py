"""What a plan has to say before it starts: what is no mistake, and yet may not be what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fedsim.arrays import Ints
from fedsim.checks.idle import idle
from fedsim.clock.plan import Plan
from fedsim.config.thermal import Thermal
from fedsim.devices.groups.shared_links import Groups
from fedsim.devices.presets import preset
from fedsim.devices.stacks.memory_limits import usable_share
from fedsim.devices.stacks.software import Laws
from fedsim.devices.thermal import thermal_of
from fedsim.records.quantities import percent


def notices(plan: Plan) -> Iterator[str]:
    """Yield sentences about rules, stacks and settings, in this order."""
    yield from _silence(plan)
    if plan.population.laws is not None:
        yield from _extrapolated(plan, plan.population.laws)
        yield from _plain_memory(plan.population.laws)
    yield from _for_nobody(plan)
    yield from idle(plan)


def _silence(plan: Plan) -> Iterator[str]:
    """Yield what a missing slot says where clients have fewer of their own."""
    rule, whole = plan.parts.aggregator, plan.task.layout.rank
    clients = range(len(plan.population)) if rule.votes_zero else ()
    smaller = sum(plan.own_rank(client) < whole for client in clients)
    if smaller:
        yield (
            f"{smaller} clients have fewer than {whole} slots and say 0 about the others under {rule.kind} as published: "
            "what few have shrinks even where nobody learns (aggregator.padding: rows, or tail: kept, does not)"
        )


def _extrapolated(plan: Plan, laws: Laws) -> Iterator[str]:
    """Yield whose passes are shorter or longer than what their stacks were fitted to."""
    plans, of = plan.training_plans
    shapes = [trained.memory.shape for trained in plans]
    tokens = np.array([shape.sequence * shape.batch for shape in shapes], dtype=np.int64)[of]
    outside = np.zeros(len(tokens), dtype=np.bool_)
    stacks = []
    for name in sorted(set(laws.stack.tolist())):
        least, most = laws.rows[name].tokens
        beyond = (laws.stack == name) & ((tokens < least) | (tokens > most))
        if np.any(beyond):
            outside |= beyond
            stacks.append(f"{name} {_span(least, most)}")
    if stacks:
        yield (
            f"passes of {_span(*_ends(tokens[outside]))} tokens lie outside what is known of the stacks of "
            f"{percent(float(np.mean(outside)))} of the clients, whose times are extrapolated: {', '.join(stacks)}"
        )


def _ends(values: Ints) -> tuple[int, int]:
    return int(values.min()), int(values.max())


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _plain_memory(laws: Laws) -> Iterator[str]:
    """Yield the stacks of one's own of which no table says what they keep in memory."""
    names = [name for name in sorted(set(laws.stack.tolist())) if not laws.rows[name].memory_said]
    if names:
        yield (
            f"what {', '.join(names)} keeps in memory is taken as `plain`, frozen weights as the experiment has them: "
            "compute.stacks has no column memory"
        )


def _for_nobody(plan: Plan) -> Iterator[str]:
    """Yield the settings that are for clients of which none was drawn, and one that another makes idle."""
    keys = [
        *_classes_of_nobody(plan),
        *_states_of_nobody(plan),
        *_stacks_of_nobody(plan),
        *_links_of_nobody(plan),
    ]
    if keys:
        yield f"no client that was drawn is one that these are for, and they have no effect: {', '.join(keys)}"
    population = plan.experiment.population
    if population.shares == "exact" and population.preset is not None and preset(population.preset).latency:
        yield f"population.shares: exact is of networks alone: the devices of {population.preset} follow from a law of speeds"
    if population.links == "by-place" and population.availability == "eligible":
        yield (
            "population.links: by-place moves no transfer: with availability: eligible devices take part at home alone"
        )


def _classes_of_nobody(plan: Plan) -> Iterator[str]:
    """Yield the keys of settings by class, or by operating system, that no client has."""
    compute, battery = plan.experiment.compute, plan.experiment.energy.battery
    tiers = set(plan.population.columns()["tier"].tolist())
    by_class: list[tuple[str, object]] = [
        ("compute.unit_sigma", compute.unit_sigma),
        ("compute.step_sigma", compute.step_sigma),
    ]
    if isinstance(compute.thermal, Thermal) and "tiers" in compute.thermal.model_fields_set:
        by_class.append(("compute.thermal.tiers", dict.fromkeys(compute.thermal.tiers)))
    if battery is not None:
        by_class += [
            ("energy.battery.capacity_wh", battery.capacity_wh),
            ("energy.battery.charge_w", battery.charge_w),
            ("energy.battery.use_w", battery.use_w),
        ]
    for name, value in by_class:
        if isinstance(value, Mapping):
            yield from (f"{name}.{tier}" for tier in value if tier not in tiers)


def _states_of_nobody(plan: Plan) -> Iterator[str]:
    """Yield batteries and heat, where no device has a battery, or one that heats up."""
    compute, battery = plan.experiment.compute, plan.experiment.energy.battery
    columns = plan.population.columns()
    if battery is not None and battery.capacity_wh is None and not np.any(columns["battery_wh"] > 0):
        yield "energy.battery"
    heats = (thermal_of(compute, tier) is not None for tier in set(columns["tier"].tolist()))
    if compute.thermal != "none" and not any(heats):
        yield "compute.thermal"


def _stacks_of_nobody(plan: Plan) -> Iterator[str]:
    """Yield the settings of stacks that change no client's: keys by which nobody's is chosen, a table that nobody runs, and so on."""
    laws, owned, compute = plan.population.laws, plan.population.hardware, plan.experiment.compute
    if laws is None or owned is None:
        return
    systems = owned.table.os[owned.row]
    if isinstance(compute.stack, dict):
        pairs = set(zip(plan.population.tier.tolist(), systems.tolist(), strict=True))
        chosen = {tier if tier in compute.stack else system for tier, system in pairs}
        yield from (f"compute.stack.{key}" for key in compute.stack if key not in chosen)
    rows = [laws.rows[name] for name in set(laws.stack.tolist())]
    if compute.stacks is not None and not any(stack.own for stack in rows):
        yield "compute.stacks"
    if compute.uncertainty != "none" and not any(
        stack.share_sigma_ln or stack.launch_sigma_ln for stack in rows
    ):
        yield "compute.uncertainty"
    shares = ((usable_share(system, "foreground"), usable_share(system)) for system in set(systems.tolist()))
    if compute.app == "foreground" and all(foreground == background for foreground, background in shares):
        yield "compute.app"


def _links_of_nobody(plan: Plan) -> Iterator[str]:
    """Yield the settings of links that no client is on."""
    config, columns = plan.experiment.population, plan.population.columns()
    networks, tiers = (set(columns[name].tolist()) for name in ("network", "tier"))
    if isinstance(config.rates, dict):
        known = networks | tiers | {"wifi", "wired", "cellular"}
        yield from (f"population.rates.{key}" for key in config.rates if key not in known)
    yield from (f"population.rates_for.{name}" for name in config.rates_for or () if name not in networks)
    if plan.experiment.energy.tail and not np.any(columns["tail_s"] * columns["tail_w"] > 0):
        yield "energy.tail"
    shared, groups = config.shared_links, plan.population.groups
    if shared is not None and isinstance(groups, Groups):
        names = {layer.kind: len(layer.names) for layer in groups.layers}
        asked = (("home", shared.homes is not None), ("cell", shared.cells is not None))
        yield from (
            f"population.shared_links.{kind}s" for kind, is_asked in asked if is_asked and not names.get(kind)
        )
