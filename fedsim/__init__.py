"""fedsim: federated LoRA fine-tuning of generative models on unequal devices.

Real adapters are trained on real data; a virtual clock says when each update would have arrived.

    experiment = fedsim.read("experiment.yaml")            # or fedsim.Experiment.model_validate({...})
    run = fedsim.simulate(experiment)
    run = fedsim.load("runs/x")
    run = fedsim.resume("runs/x")                          # after any end
    fedsim.views.curve(run, "perplexity")

Public names are those of `__all__`, imported when they are first used. The rooms of the house, top floor first; a
room uses those below it and none above (DESIGN.md has the table, a test holds it):

    cli          What somebody types, and what is printed
    testing      Contract suites for components of one's own
    runs         One run from its first event to its last table, and several: sweeps, replays, estimates
    report       Tables of runs as one HTML page that needs no network
    checks       What goes together, said before anything starts
    server       Dispatch, rounds, commits and versions: where both times meet
    protocols    When to ask, wait and commit: SimPy generators over the server's verbs
    clock        The plan of an experiment, a visit on the virtual clock, who is online
    executors    Real processes and the way to them, Ray or this one
    tasks        What is learned: data, splits, models and scores
    training     Local training with torch, of one client or of many together
    personal     What of the model is a client's own, and what it trains beside and after
    samplers     Whom to ask, of the clients that are idle and online
    optimizers   How far the model goes along the move that a rule has made
    aggregators  Rules: pure functions of (state, model, contributions)
    importers    Data of others as tables of ours: devices, networks, availability, rates
    devices      Who the clients are: tables, speed, heat, batteries, availability
    trackers     Runs shown in TensorBoard, Weights & Biases and MLflow, live or afterwards
    callbacks    What is told of a run while it goes: typed events, and who listens to them
    records      The tables of a run: written, read, viewed, audited
    network      From bytes to seconds, and the bytes themselves
    cost         Operations, memory, traffic and joules of a model
    config       The experiment as typed settings: YAML, overrides, problems in words
    builtin      What fedsim runs on when it is given neither a model nor data
    files        Files of any kind: written whole, read with line numbers, mapped as vectors
    adapters     What is learned, as one flat vector, and its algebra
    metrics      Distances between two sets of feature vectors, and what the pieces of a score add up to
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsim import plots, views
    from fedsim.adapters.payload import NOTHING, WHOLE, Payload
    from fedsim.aggregators import Aggregator, Contribution, Invitation, Offer, ServerModel, Traits
    from fedsim.callbacks import Callback
    from fedsim.checks.gate import read
    from fedsim.component import Component
    from fedsim.config.experiment import Experiment
    from fedsim.errors import FedsimError
    from fedsim.executors import Executor
    from fedsim.jobs import Job, Task, TaskContext, Update
    from fedsim.optimizers import ServerOptimizer
    from fedsim.personal import Personal
    from fedsim.protocols import ServerProtocol, Steps, Verbs
    from fedsim.records.run import Run, load
    from fedsim.runs.resuming.resume import resume
    from fedsim.runs.simulation import simulate
    from fedsim.samplers import PollingSampler, Sampler, Seen
    from fedsim.tasks import Pool, TaskComponent, TorchTask

__version__ = "0.8.4"
__all__ = [
    "NOTHING",
    "WHOLE",
    "Aggregator",
    "Callback",
    "Component",
    "Contribution",
    "Executor",
    "Experiment",
    "FedsimError",
    "Invitation",
    "Job",
    "Offer",
    "Payload",
    "Personal",
    "PollingSampler",
    "Pool",
    "Run",
    "Sampler",
    "Seen",
    "ServerModel",
    "ServerOptimizer",
    "ServerProtocol",
    "Steps",
    "Task",
    "TaskComponent",
    "TaskContext",
    "TorchTask",
    "Traits",
    "Update",
    "Verbs",
    "load",
    "plots",
    "read",
    "resume",
    "simulate",
    "views",
]

_HOMES = {
    "fedsim.adapters.payload": ("NOTHING", "WHOLE", "Payload"),
    "fedsim.aggregators": ("Aggregator", "Contribution", "Invitation", "Offer", "ServerModel", "Traits"),
    "fedsim.callbacks": ("Callback",),
    "fedsim.checks.gate": ("read",),
    "fedsim.component": ("Component",),
    "fedsim.config.experiment": ("Experiment",),
    "fedsim.errors": ("FedsimError",),
    "fedsim.executors": ("Executor",),
    "fedsim.jobs": ("Job", "Task", "TaskContext", "Update"),
    "fedsim.optimizers": ("ServerOptimizer",),
    "fedsim.personal": ("Personal",),
    "fedsim.protocols": ("ServerProtocol", "Steps", "Verbs"),
    "fedsim.records.run": ("Run", "load"),
    "fedsim.runs.resuming.resume": ("resume",),
    "fedsim.runs.simulation": ("simulate",),
    "fedsim.samplers": ("PollingSampler", "Sampler", "Seen"),
    "fedsim.tasks": ("Pool", "TaskComponent", "TorchTask"),
}
"""Where each public name lives."""

_MODULES = {name: module for module, names in _HOMES.items() for name in names}

# No telemetry: fedsim has none, and that of Ray and Hugging Face is off unless the user set it.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> object:
    """Import what is asked for on first use: `import fedsim` itself stays quick."""
    if name in ("plots", "views"):
        return importlib.import_module(f"fedsim.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names: what this file imports for itself is nobody else's."""
    return sorted([*__all__, "__doc__", "__version__"])
