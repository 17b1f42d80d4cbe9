"""fedsim: federated LoRA fine-tuning of generative models on unequal devices.

Real adapters are trained on real data; a virtual clock says when each update would have arrived.

    experiment = fedsim.Experiment.model_validate({...})   # or fedsim.read("experiment.yaml")
    run = fedsim.simulate(experiment)
    run = fedsim.load("runs/x")
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.config.experiment import Experiment
    from fedsim.config.loading import load as read
    from fedsim.records.run import Run, load
    from fedsim.runs.simulation import simulate

__version__ = "0.1.0"
__all__ = ["Experiment", "Run", "load", "read", "simulate"]

_HOMES = {
    "Experiment": ("fedsim.config.experiment", "Experiment"),
    "Run": ("fedsim.records.run", "Run"),
    "load": ("fedsim.records.run", "load"),
    "read": ("fedsim.config.loading", "load"),
    "simulate": ("fedsim.runs.simulation", "simulate"),
}

# No telemetry: fedsim has none, and that of Ray and Hugging Face is off unless the user set it.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use: `import fedsim` itself stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
