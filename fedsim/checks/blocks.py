"""Do the blocks of an experiment fit together? Said before anything starts, without data or torch."""

from __future__ import annotations

import re
from pathlib import Path

from fedsim.checks import combinations, devices, personal
from fedsim.checks.practice import practice
from fedsim.clock.components import Parts, parts_of
from fedsim.config.classes import CLASSES
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LoraConfig
from fedsim.config.network import NetworkConfig
from fedsim.config.problem import Problem
from fedsim.config.words import no_such_file
from fedsim.errors import ExperimentError, nearest, several
from fedsim.files.disk import no_file
from fedsim.server import returned

_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def misfits(experiment: Experiment) -> list[Problem]:
    """Return everything that cannot work together, or a named file that is not there."""
    components = parts_of(experiment)
    return [
        *_population(experiment, components),
        *_network(experiment),
        *returned.problems(components.protocol, experiment.population.clients),
        *_training(experiment),
        *devices.problems(experiment),
        *_ranks(experiment, components),
        *practice(experiment, components),
        *_sources(components),
        *combinations.misfits(experiment),
        *personal.problems(experiment),
    ]


def _population(experiment: Experiment, parts: Parts) -> list[Problem]:
    from fedsim.devices.presets import preset_names

    population = experiment.population
    problems: list[Problem] = []
    if population.preset is not None and population.preset not in preset_names():
        fix = f"{nearest(population.preset, preset_names())} (`fedsim profiles list` shows them)"
        problems.append(Problem(("population", "preset"), "no such preset", fix, population.preset))
    for name in ("devices", "networks", "regions"):
        table = getattr(population, name)
        if table is not None and not table.is_file():
            fix = "give a CSV or Parquet file; `fedsim profiles check FILE` checks one"
            problems.append(Problem(("population", name), no_file(table), fix, str(table)))
    absent = [
        no_such_file("population.availability", population.availability),
        *(no_such_file("population.rates", source) for source in population.rate_sources),
    ]
    problems += [problem for problem in absent if problem is not None]
    if population.on_close == "partial" and parts.personal.alongside(experiment.local) is not None:
        what = f"cannot cut the two trainings of a visit that {parts.personal.kind} makes"
        fix = "set population.on_close: lost or pause, or personal.kind: fine-tune"
        problems.append(Problem(("population", "on_close"), what, fix, population.on_close))
    battery = experiment.energy.battery
    unplugged = None if battery is None else no_such_file("energy.battery.plugged", battery.plugged)
    return problems if unplugged is None else [*problems, unplugged]


def _losses(network: NetworkConfig) -> list[Problem]:
    """Return what is wrong with losses, steady or in bursts."""
    problems, bursts = list[Problem](), network.loss_bursts
    lost = {"loss": network.loss, "loss_bursts": None if bursts is None else bursts.loss}
    for name, loss in lost.items():
        if loss and network.congestion == "bbr":
            what, fix = "has no effect with bbr", "remove it, or set network.congestion: loss-based"
            problems.append(Problem(("network", name), what, fix, loss))
    if bursts is not None and bursts.loss <= network.loss:
        what = f"is no more than network.loss, which is lost between spells ({network.loss:g})"
        problems.append(Problem(("network", "loss_bursts", "loss"), what, "make it larger", bursts.loss))
    return problems


def _shared_links(experiment: Experiment) -> list[Problem]:
    """Return what has no meaning beside links that clients share, and a CDN that has nothing to send."""
    network, shared = experiment.network, experiment.population.shared_links
    problems = list[Problem]()
    if network.backbone_from == "cdn" and network.backbone == "preinstalled":
        what, fix = (
            "has nothing to send: the frozen model is on the device",
            "set network.backbone: first_visit, or remove it",
        )
        problems.append(Problem(("network", "backbone_from"), what, fix, "cdn"))
    if shared is None:
        return problems
    if network.sharing != "max-min":
        what = "has no meaning with network.sharing: private, where nobody slows anybody down"
        fix = "set network.sharing: max-min, or remove it"
        problems.append(Problem(("population", "shared_links"), what, fix, list(shared.model_fields_set)))
    population = experiment.population
    if population.links == "by-place":
        what = "cannot go with population.links: by-place, whose clients leave the links that they share"
        fix = "set population.links: one, or remove shared_links"
        problems.append(Problem(("population", "shared_links"), what, fix, list(shared.model_fields_set)))
    on_wifi = population.availability == "charging" if population.wifi_only is None else population.wifi_only
    if shared.cells is not None and (on_wifi or population.availability == "eligible"):
        what = "has no effect: no client is on a cellular network (population.wifi_only)"
        fix = "remove it, or set population.wifi_only: false"
        if not on_wifi:
            what = "has no effect: with availability: eligible devices take part on Wi-Fi alone"
            fix = "remove it, or set population.availability: always"
        problems.append(
            Problem(("population", "shared_links", "cells"), what, fix, shared.cells.model_dump())
        )
    return problems


def _network(experiment: Experiment) -> list[Problem]:
    network, problems = experiment.network, [*_losses(experiment.network), *_shared_links(experiment)]
    if network.model == "size-over-rate":
        what = "has no meaning with network.model: size-over-rate"
        if network.sharing != "private":
            fix = "set network.sharing: private, or network.model: tcp"
            problems.append(Problem(("network", "sharing"), what, fix, network.sharing))
        for name, default in (("congestion", "bbr"), ("connection", "new"), ("tls", None)):
            value = getattr(network, name)
            if value != default:
                fix = "remove it, or set network.model: tcp"
                problems.append(Problem(("network", name), what, fix, value))
        for name, default in (("rates", "constant"), ("links", "one")):
            value = getattr(experiment.population, name)
            if value != default:
                fix = f"set population.{name}: {default}, or network.model: tcp"
                problems.append(Problem(("population", name), what, fix, value))
    return problems


def _training(experiment: Experiment) -> list[Problem]:
    problems: list[Problem] = []
    lora, local = experiment.lora, experiment.local
    if lora.full:
        names = ("r", "alpha", "targets", "dropout", "rank_by", "depth", "depth_by", "scale")
        for name in (*names, *lora.practised):
            value = getattr(lora, name)
            if value != LoraConfig.model_fields[name].default:
                fix = f"remove lora.{name}, or full: true"
                problems.append(Problem(("lora", name), "has no meaning with full: true", fix, value))
    if local.optimizer != "sgd" and local.momentum:
        what, fix = f"has no effect with {local.optimizer}", "remove it, or set local.optimizer: sgd"
        problems.append(Problem(("local", "momentum"), what, fix, local.momentum))
    return problems


def _ranks(experiment: Experiment, parts: Parts) -> list[Problem]:
    """Ranks and depths by device: known tiers, a deadline where one is needed, a rule that a smaller adapter goes with."""
    lora, problems = experiment.lora, list[Problem]()
    rule = parts.aggregator
    asked = (
        ("ranks", lora.ranks, "rank_by", lora.rank_by),
        ("depths", lora.depths, "depth_by", lora.depth_by),
    )
    for name, by_tier, key, by in asked:
        for tier in set(by_tier) - set(CLASSES) if isinstance(by_tier, dict) else ():
            problems.append(Problem(("lora", name), "no such class of devices", nearest(tier, CLASSES), tier))
        if by == "deadline" and parts.protocol.round_deadline_s is None:
            fix = f"give protocol.deadline_s, or set lora.{key}: memory"
            problems.append(Problem(("lora", key), "needs a deadline of the protocol", fix, by))
    measures = list(experiment.memory.measures)
    cut = lora.rank_by != "fixed" or "rank" in measures or parts.protocol.cuts_ranks
    if cut and lora.start_from is not None and rule.traits.refactors:
        what = f"has slots in no order, and {rule.kind} gives smaller clients the first ones as the best approximation"
        fix = "give all clients one rank, or set aggregator.kind: fedit"
        problems.append(Problem(("lora", "start_from"), what, fix, str(lora.start_from)))
    if rule.drops_updates and parts.protocol.stale and experiment.wire.error_feedback:
        what = f"keeps what a message left out for the next, and {rule.kind} drops messages after they were made up"
        fix = "set aggregator.other_phase: apply, or remove wire.error_feedback"
        problems.append(Problem(("wire", "error_feedback"), what, fix, True))
    if "rank" in measures and lora.full:
        what, fix = "rank has no meaning with lora.full: a whole model has no adapters", "remove rank"
        problems.append(Problem(("memory", "when_short"), what, fix, measures))
    elif "rank" in measures and not rule.traits.unequal_ranks:
        what = f"rank needs a rule for unequal ranks, and {rule.kind} needs equal ones"
        fix = "remove rank (micro-batch and checkpoint need no other rank), or set aggregator.kind: flexlora"
        problems.append(Problem(("memory", "when_short"), what, fix, measures))
    return problems


def _sources(parts: Parts) -> list[Problem]:
    """Model and data by path must be there; by hub id they must at least look like one."""
    problems: list[Problem] = []
    for name, source in parts.task.sources().items():
        at = ("task", name)
        path = Path(source)
        if path.exists():
            inside = ("config.json", "model_index.json", "unet/config.json", "transformer/config.json")
            if name == "model" and not any((path / name).is_file() for name in inside):
                fix = "give a folder saved by save_pretrained: config.json, model.safetensors and a tokenizer"
                problems.append(Problem(at, "is no model folder: it holds no config.json", fix, source))
        elif path.is_absolute():
            fix = f"check the path; paths start at the YAML file; or use {name}: builtin"
            problems.append(Problem(at, "no such file or folder", fix, source))
        elif not _HUB_ID.match(source):
            fix = f"give builtin, an existing path, or a hub id as in {'openai-community/gpt2' if name == 'model' else 'ptb-text-only/ptb_text_only'}"
            problems.append(Problem(at, "is neither an existing path nor a hub id", fix, source))
    return problems


def check(experiment: Experiment, where: str = "experiment") -> None:
    """Hold the blocks against each other; needs no data, no torch, and starts nothing.

    Raises:
        ExperimentError: everything that does not fit together, all at once.
    """
    problems = misfits(experiment)
    if problems:
        raise ExperimentError(several([problem.located(where) for problem in problems]))
