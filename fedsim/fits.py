"""Do the blocks of an experiment fit together? Said before anything starts, without data or torch."""

from __future__ import annotations

import re
from pathlib import Path

from fedsim.errors import nearest
from fedsim.experiment import Experiment, LoraConfig
from fedsim.explain import Problem

GENERATORS = ("always", "charging")
"""Values of `population.availability` that are not files."""

_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def misfits(experiment: Experiment) -> list[Problem]:
    """Return everything that cannot work together, or a named file that is not there."""
    return [*_population(experiment), *_protocol(experiment), *_training(experiment), *_sources(experiment)]


def _population(experiment: Experiment) -> list[Problem]:
    from fedsim.profiles import preset_names

    population = experiment.population
    found: list[Problem] = []
    if population.preset is not None and population.preset not in preset_names():
        fix = f"{nearest(population.preset, preset_names())} (`fedsim profiles list` shows them)"
        found.append(Problem(("population", "preset"), "no such preset", fix, population.preset))
    for name in ("devices", "networks"):
        table = getattr(population, name)
        if table is not None and not table.is_file():
            fix = "give a CSV or Parquet file; `fedsim profiles check FILE` checks one"
            found.append(Problem(("population", name), "no such file", fix, str(table)))
    windows = population.availability
    if windows not in GENERATORS and not Path(windows).is_file():
        fix = "write always, charging, or the file of a table with client, start_s, stop_s"
        close = nearest(Path(windows).name, GENERATORS)
        fix = close if close.startswith("did you mean") else fix
        found.append(Problem(("population", "availability"), "no such file", fix, windows))
    return found


def _protocol(experiment: Experiment) -> list[Problem]:
    """A protocol may have `cohort` and `over_select`, or `concurrency`; others answer for themselves."""
    clients, protocol = experiment.population.clients, experiment.protocol
    found: list[Problem] = []
    cohort = getattr(protocol, "cohort", None)
    asked = getattr(protocol, "asked", cohort)
    fix = f"ask fewer, or set population.clients to at least {asked}"
    if cohort is not None and cohort > clients:
        what = f"asks more clients than there are ({clients})"
        found.append(Problem(("protocol", "cohort"), what, fix, cohort))
    elif cohort is not None and asked is not None and asked > clients:
        what = f"asks {asked} clients for a cohort of {cohort}, and there are {clients}"
        found.append(Problem(("protocol", "over_select"), what, fix, getattr(protocol, "over_select", asked)))
    reports = getattr(protocol, "min_reports", None)
    if cohort is not None and reports is not None and reports > cohort:
        what = f"can never be met by a cohort of {cohort}"
        fix = f"set it to at most {cohort}"
        found.append(Problem(("protocol", "min_reports"), what, fix, reports))
    concurrency = getattr(protocol, "concurrency", None)
    if concurrency is not None and concurrency > clients:
        what = f"keeps more clients at work than there are ({clients})"
        fix = f"set it to at most {clients}, or raise population.clients"
        found.append(Problem(("protocol", "concurrency"), what, fix, concurrency))
    buffer = getattr(protocol, "buffer", None)
    if getattr(protocol, "once_per_buffer", False) and buffer is not None and buffer > clients:
        what = f"can never be filled by {clients} different clients (`once_per_buffer`)"
        fix = f"set it to at most {clients}, or raise population.clients"
        found.append(Problem(("protocol", "buffer"), what, fix, buffer))
    return found


def _training(experiment: Experiment) -> list[Problem]:
    found: list[Problem] = []
    lora, local, personal = experiment.lora, experiment.local, experiment.personal
    if lora.full:
        for name in ("r", "alpha", "targets", "rank_by"):
            value = getattr(lora, name)
            if value != LoraConfig.model_fields[name].default:
                fix = f"remove lora.{name}, or full: true"
                found.append(Problem(("lora", name), "has no meaning with full: true", fix, value))
    if local.optimizer != "sgd" and local.momentum:
        what, fix = f"has no effect with {local.optimizer}", "remove it, or set local.optimizer: sgd"
        found.append(Problem(("local", "momentum"), what, fix, local.momentum))
    clients = experiment.population.clients
    if personal.clients is not None and personal.clients > clients:
        what = f"is more than there are ({clients})"
        found.append(Problem(("personal", "clients"), what, f"set it to at most {clients}", personal.clients))
    return found


def _sources(experiment: Experiment) -> list[Problem]:
    """Model and data by path must be there; by hub id they must at least look like one."""
    found: list[Problem] = []
    for name in ("model", "data"):
        source = getattr(experiment.task, name, None)
        if not isinstance(source, str):
            continue
        at = ("task", name)
        path = Path(source)
        if path.exists():
            if name == "model" and not (path / "config.json").is_file():
                fix = "give a folder saved by save_pretrained: config.json, model.safetensors and a tokenizer"
                found.append(Problem(at, "is no model folder: it holds no config.json", fix, source))
        elif path.is_absolute():
            fix = f"check the path; paths start at the YAML file; or use {name}: builtin"
            found.append(Problem(at, "no such file or folder", fix, source))
        elif not _HUB_ID.match(source):
            fix = f"give builtin, an existing path, or a hub id as in {'openai-community/gpt2' if name == 'model' else 'ptb-text-only/ptb_text_only'}"
            found.append(Problem(at, "is neither an existing path nor a hub id", fix, source))
    return found
